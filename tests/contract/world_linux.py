# SPDX-License-Identifier: BSD-2-Clause
"""The contract's world on Linux."""

import os
from pathlib import Path

import pytest

from tests.contract.linux_jail import LAST_PID, NamespaceJail
from tests.contract.worlds import RealWorld

TRIES = 200


class LinuxWorld(RealWorld):
    """Namespaces of linux_jail.py, and /proc."""

    def __init__(self) -> None:
        super().__init__()
        self._jails: dict[str, NamespaceJail] = {}

    def jail(self) -> str:
        """Make namespaces."""
        jail = NamespaceJail()
        self._jails[str(jail.init)] = jail
        return str(jail.init)

    def inhabited_jail(self) -> str:
        """Make namespaces: they live by their init."""
        return self.jail()

    def successor(self, jail: str) -> str:
        """Make namespaces until their init has that pid."""
        if not os.access(LAST_PID, os.W_OK):
            pytest.skip(f"cannot: without {LAST_PID} nobody can choose a pid")
        for _ in range(TRIES):
            made = NamespaceJail(wanted_pid=int(jail))
            if str(made.init) == jail:
                self._jails[jail] = made
                return jail
            made.close()
        pytest.fail("the pid was always another's")

    def forger(self, jail: str, run: str) -> int:
        """Let nsenter(1), which is no leader itself, start a shell that is one."""
        return self._start(["nsenter", "-t", jail, "-p", "setsid"], run, leader=False)

    def end_jail(self, jail: str) -> None:
        """End their init."""
        self._jails[jail].end()

    def wait_jail_ended(self, jail: str) -> None:
        """Wait for their init."""
        self._jails.pop(jail).close()

    def ids(self, pid: int) -> tuple[int, int]:
        """Read real, effective, saved and file-system ids, which are all the same."""
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
        fields = dict(line.split(":\t", 1) for line in status if ":\t" in line)
        (uid,), (gid,) = set(fields["Uid"].split()), set(fields["Gid"].split())
        return int(uid), int(gid)

    def title(self, pid: int) -> str:
        """Read the arguments."""
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").removesuffix("\0")

    def children(self) -> set[int]:
        """Ask the kernel."""
        path = Path(f"/proc/self/task/{os.getpid()}/children")
        return {int(pid) for pid in path.read_text(encoding="ascii").split()}

    def close(self) -> None:
        """End what is left."""
        super().close()
        for jail in list(self._jails):
            self.wait_jail_ended(jail)
