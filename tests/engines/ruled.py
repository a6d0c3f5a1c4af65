# SPDX-License-Identifier: BSD-2-Clause
"""A daemon with rules in a file, where an engine is."""

import contextlib
import os
import signal
from pathlib import Path
from typing import Any

from tests.daemon.product import Daemon, run, wait_until
from tests.engines.makers import Host


class Ruled:
    """A daemon with a file of rules, in its engine's mount namespace: `prefix` enters it."""

    def __init__(self, prefix: tuple[str, ...], directory: Path) -> None:
        self.directory, self.file = directory, directory / "rules.toml"
        self.file.touch()
        environment = {**os.environ, "JAILDAEMON_CONFIG": str(self.file)}
        self._before = prefix
        self._how: dict[str, Any] = {"state": directory / "state", "env": environment}
        self.daemon = self._started()

    def _started(self) -> Daemon:
        return Daemon(self.directory, before=self._before, **self._how)

    def write(
        self,
        *jails: str,
        title: str = "BELL",
        more: str = "",
        command: str | None = None,
        before: str = "",
    ) -> None:
        """Write rules, one a jail, and reload."""
        text = before
        for jail in jails:
            said = f"echo $JAILDAEMON_JAIL $JAILDAEMON_RULE >>{self.directory}/rung"
            said = said if command is None else command
            text += f'[[rule]]\njail = "{jail}"\ntitle = "{title}"\ncommand = "{said}"\n{more}\n'
        self.take(text)

    def take(self, text: str) -> None:
        """Write the file, and reload."""
        self.file.write_text(text, encoding="ascii")
        done = run("reload", "-f", self.daemon.socket)
        assert done.returncode == 0, done.stderr

    def armed(self, rule: str) -> int:
        """Wait until a rule is armed; return the pid of its jail's init."""
        line = self.daemon.lines.wait_for(f"{rule}: armed in jail ")
        return int(line.rpartition(" armed in jail ")[2].split()[0])

    def rules(self) -> dict[str, dict[str, Any]]:
        """Return the rules by id."""
        found = self.daemon.call("List")["parameters"]["rules"]
        return {rule["id"]: rule for rule in found}

    def wait(self, rule: str, state: str) -> dict[str, Any]:
        """Wait until a rule is in a state; a look costs a call."""
        seen: dict[str, Any] = {}

        def is_so() -> bool:
            nonlocal seen
            seen = self.rules().get(rule, {"state": "none"})
            return bool(seen["state"] == state)

        wait_until(is_so, f"{rule} is {state}")
        return seen

    def ring(self, rule: str) -> None:
        """Signal a rule's probe, as whoever is root inside does."""
        os.kill(self.rules()[rule]["probe_pid"], signal.SIGHUP)

    def replace(self, **environment: str) -> None:
        """Kill the daemon, and start another one."""
        self.daemon.stop(signal.SIGKILL)
        self._how["env"] |= environment
        self.daemon = self._started()

    def stop(self) -> None:
        """End it; what it said is shown where the test failed."""
        print(*self.daemon.stop(), sep="\n")


def new_name(host: Host) -> str:
    return host.place.name("jail")


def streams_of(pid: int) -> dict[int, str]:
    """Return the commands among the daemon's children that follow an engine's events, by pid."""
    found = {}
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    for child in children:
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
            if b"events" in words or words[0].endswith(b"lxc-monitor"):
                found[int(child)] = b" ".join(words).decode()
    return found
