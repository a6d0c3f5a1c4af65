# SPDX-License-Identifier: BSD-2-Clause
"""systemd-nspawn, by machined: elsewhere.py runs the tests of it beside a systemd of their own."""

import subprocess
from typing import ClassVar

from tests.engines.makers import Maker
from tests.kernel.events import wait_gone
from tests.kernel.jails.base import NoSuchKind, must
from tests.kernel.jails.linux import INIT, rootfs


class NspawnMaker(Maker):
    """Containers of systemd-nspawn, outside of the other engines' namespace."""

    engine = "nspawn"
    programs: ClassVar[dict[str, str]] = dict.fromkeys(
        ("systemd-nspawn", "machinectl"), "systemd-container"
    )

    @property
    def prefix(self) -> tuple[str, ...]:
        """Say that the test is there already."""
        return ()

    def prepare(self) -> None:
        """Make what nspawn wants to see in a tree."""
        for name in ("usr", "var"):
            (rootfs(self.place) / name).mkdir(exist_ok=True)
        must(["machinectl", "list"])

    def run(self, name: str) -> None:
        """Run it, until nspawn says that it is ready: a reboot before that is its end."""
        service = ["systemd-run", "--quiet", "--collect", "--property=Type=notify"]
        options = ["--quiet", "--register=yes", "--read-only", "--console=pipe"]
        options.append("--private-network")
        argv = ["systemd-nspawn", *options, f"--directory={rootfs(self.place)}"]
        must([*service, f"--unit={name}", *argv, f"--machine={name}", *INIT])

    def _shown(self, name: str, field: str) -> str:
        return must(["machinectl", "show", name, f"--property={field}", "--value"]).stdout.strip()

    def pid(self, name: str) -> int:
        """Ask machined."""
        return int(self._shown(name, "Leader"))

    def remove(self, name: str) -> None:
        """Terminate it, until its name is free."""
        nspawn = int(must(["systemctl", "show", name, "-p", "MainPID", "--value"]).stdout)
        if nspawn == 0:
            raise NoSuchKind(f"{name} does not run")
        must(["machinectl", "terminate", name])
        wait_gone(nspawn)
        must(["sh", "-c", "while machinectl show $1 >/dev/null 2>&1; do :; done", "sh", name])
        script = "until [ $(systemctl show $1 -p LoadState --value) = not-found ]; do :; done"
        must(["sh", "-c", script, "sh", f"{name}.service"])

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
