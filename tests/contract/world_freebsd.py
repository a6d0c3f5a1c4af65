# SPDX-License-Identifier: BSD-2-Clause
"""The contract's world on FreeBSD."""

import os
import subprocess
import uuid

from tests.contract.worlds import RealWorld


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

    def jail(self) -> str:
        """Make one on /, which needs no process."""
        name = f"jaildaemon_test_{uuid.uuid4().hex[:8]}"
        subprocess.run(["jail", "-q", "-c", f"name={name}", "path=/", "persist"], check=True)
        self._jails.add(name)
        return name

    def end_jail(self, jail: str) -> None:
        """Remove it."""
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
        for jail in list(self._jails):
            self.end_jail(jail)
