# SPDX-License-Identifier: BSD-2-Clause
"""systemd-nspawn, by the machined of the machine itself: where there is one, there is one only."""

import subprocess
from pathlib import Path

from tests.engines.makers import Host, Maker
from tests.kernel.events import PATIENCE_SECONDS, wait_gone
from tests.kernel.jails.base import NoSuchKind, must
from tests.kernel.jails.linux import INIT, rootfs


class NspawnMaker(Maker):
    """Containers of systemd-nspawn, outside of the other engines' namespace."""

    engine = "nspawn"
    programs = ("systemd-nspawn", "machinectl")

    def __init__(self, host: Host) -> None:
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        super().__init__(host)

    @property
    def prefix(self) -> tuple[str, ...]:
        """The machine itself."""
        return ()

    @classmethod
    def excuse(cls) -> str | None:
        """Ask sd_booted(3)."""
        booted = Path("/run/systemd/system").is_dir()
        return None if booted else "machined needs systemd as the machine's first process"

    def prepare(self) -> None:
        """Make what nspawn wants to see in a tree."""
        for name in ("usr", "var"):
            (rootfs(self.place) / name).mkdir(exist_ok=True)
        must(["machinectl", "list"])

    def run(self, name: str) -> None:
        """Run it, until machined knows it."""
        options = [
            "--quiet",
            "--register=yes",
            "--read-only",
            "--console=pipe",
            "--private-network",
        ]
        argv = ["systemd-nspawn", *options, f"--directory={rootfs(self.place)}"]
        with (self.host.directory / "nspawn.log").open("ab") as log:
            nspawn = subprocess.Popen(
                [*argv, f"--machine={name}", *INIT],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._running[name] = nspawn
        self.place.note_process(nspawn.pid)
        script = "until machinectl show $1 >/dev/null 2>&1; do [ -d /proc/$2 ] || exit 1; done"
        must(["sh", "-c", script, "sh", name, str(nspawn.pid)])

    def _shown(self, name: str, field: str) -> str:
        return must(["machinectl", "show", name, f"--property={field}", "--value"]).stdout.strip()

    def pid(self, name: str) -> int:
        """Ask machined."""
        return int(self._shown(name, "Leader"))

    def remove(self, name: str) -> None:
        """Terminate it, until its name is free."""
        nspawn = self._running.pop(name, None)
        if nspawn is None:
            raise NoSuchKind(f"{name} does not run")
        must(["machinectl", "terminate", name])
        nspawn.wait(timeout=PATIENCE_SECONDS)
        must(["sh", "-c", "while machinectl show $1 >/dev/null 2>&1; do :; done", "sh", name])

    def again(self, name: str) -> None:
        """Let it reboot itself: nspawn begins it anew, under the same name."""
        init = self.pid(name)
        inside = ["nsenter", f"--target={init}", "--mount", "--pid", "/bin/busybox"]
        subprocess.run([*inside, "reboot", "-f"], check=False, capture_output=True)
        wait_gone(init)
        script = "until p=$(machinectl show $1 -p Leader --value 2>&1) && [ $p != $2 ]; do :; done"
        must(["sh", "-c", script, "sh", name, str(init)])

    def pause(self, name: str) -> None:
        """Freeze it, by systemd."""
        must(["systemctl", "freeze", self._shown(name, "Unit")])

    def unpause(self, name: str) -> None:
        """Thaw it."""
        must(["systemctl", "thaw", self._shown(name, "Unit")])
