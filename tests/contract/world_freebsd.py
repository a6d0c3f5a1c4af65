# SPDX-License-Identifier: BSD-2-Clause
"""The contract's world on FreeBSD."""

import os
import subprocess
import time
import uuid

import pytest

from tests.contract.worlds import LONGEST_SECONDS, RealWorld


def _ps(pid: int, *names: str) -> list[str]:
    done = subprocess.run(
        # One -o each: after "=" the rest of the argument is the header, commas and all.
        ["ps", "-ww", *(f"-o{name}=" for name in names), "-p", str(pid)],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split(maxsplit=len(names) - 1)


class FreeBSDWorld(RealWorld):
    """Jails of jail(8), and ps(1)."""

    def __init__(self) -> None:
        super().__init__()
        self._jails: set[str] = set()
        self._jids: dict[str, int] = {}
        """Of those that have ended."""

    def jail(self) -> str:
        """Make one on /, which needs no process."""
        name = f"jaildaemon_test_{uuid.uuid4().hex[:8]}"
        self._make(name)
        return name

    def _make(self, name: str, *parameters: str) -> None:
        make = ["jail", "-q", "-c", f"name={name}", "path=/", "persist", *parameters]
        subprocess.run(make, check=True)
        self._jails.add(name)

    def inhabited_jail(self) -> str:
        """Make one with a process that was left to init; jail -r ends it."""
        jail = self.jail()
        self._inhabit(jail)
        return jail

    def _inhabit(self, jail: str) -> None:
        # daemon(8) leaves when the other has been started, so wait for it to stand in the jail.
        subprocess.run(["daemon", "-f", "jexec", jail, "sleep", "1000"], check=True)
        for _ in range(int(LONGEST_SECONDS / 0.01)):
            if subprocess.run(["pgrep", "-q", "-j", jail, "sleep"], check=False).returncode == 0:
                return
            time.sleep(0.01)
        pytest.fail("nobody moved in")

    def successor(self, jail: str) -> str:
        """Make one with the name, the path and the very jid of an ended one."""
        self._make(jail, f"jid={self._jids[jail]}")
        self._inhabit(jail)
        return jail

    def forger(self, jail: str, run: str) -> int:
        """Let jexec(8) become the shell."""
        return self._start(["jexec", jail], run, leader=True)

    def end_jail(self, jail: str) -> None:
        """Remove it."""
        jls = ["jls", "-j", jail, "jid"]
        jid = subprocess.run(jls, capture_output=True, text=True, check=True).stdout
        self._jids[jail] = int(jid)
        subprocess.run(["jail", "-q", "-r", jail], check=True)
        self._jails.remove(jail)

    def wait_jail_ended(self, jail: str) -> None:
        """It has: jail(8) waits."""

    def ids(self, pid: int) -> tuple[int, int]:
        """Read real, effective and saved ids, which are all the same."""
        found = [int(word) for word in _ps(pid, "uid", "ruid", "svuid", "gid", "rgid", "svgid")]
        (uid,), (gid,) = set(found[:3]), set(found[3:])
        return uid, gid

    def title(self, pid: int) -> str:
        """Read the arguments; ps adds the program's own name."""
        return " ".join(_ps(pid, "args")).strip().removesuffix(" (jailprobe)")

    def children(self) -> set[int]:
        """Ask ps(1), which is one too."""
        ps = subprocess.Popen(["ps", "-ax", "-opid=", "-oppid="], stdout=subprocess.PIPE, text=True)
        lines, _ = ps.communicate()
        pairs = [line.split() for line in lines.splitlines()]
        ours = {int(pid) for pid, parent in pairs if int(parent) == os.getpid()}
        return ours - {ps.pid}

    def close(self) -> None:
        """Remove what is left."""
        super().close()
        for jail in list(self._jails):
            self.end_jail(jail)
