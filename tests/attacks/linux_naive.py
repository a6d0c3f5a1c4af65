# SPDX-License-Identifier: BSD-2-Clause
"""naive.py, running: the daemon that each attack must win against first."""

import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

assert sys.platform == "linux"

from tests.attacks.cage import Cage
from tests.attacks.rig import HERE, SECRET
from tests.attacks.talker import NaiveTalker
from tests.daemon.product import wait_until
from tests.helper.parent import status

NAIVE = HERE / "naive.py"
WAIT4 = {"x86_64": "61", "aarch64": "260"}[os.uname().machine]


class Naive(NaiveTalker):
    """The naive daemon of one jail."""

    def __init__(self, cage: Cage, directory: Path, wrap: Iterable[str | Path] = ()) -> None:
        (directory / "host-secret").write_text(SECRET, encoding="ascii")
        self._caps = cage.plan.caps
        super().__init__(
            sys.executable, "-S", NAIVE, str(cage.init), f"{self._caps:x}", directory, wrap=wrap
        )
        assert self.first.startswith("ready "), self.first
        self.own = int(self.first.split()[1])

    def arm(self) -> int:
        """Fork a probe; return its pid."""
        return int(self.asked("arm"))

    def standing(self) -> int:
        """Fork a probe; return its pid when it has given up what it will."""
        pid = self.arm()
        self.wait_ready(pid)
        return pid

    def wait_ready(self, pid: int) -> None:
        """Return when a probe has given up what it will: before, it has its parent's handlers."""
        wait_until(lambda: int(status(pid)["CapEff"], 16) & ~self._caps == 0, "its capabilities")
        wait_state(pid, "S")

    def serve(self, count: int) -> list[int]:
        """Fork probes, and have it ring from now on whenever one of them is gone."""
        self._serves = True
        pids = [int(word) for word in self.asked(f"serve {count}").split()]
        for pid in pids:
            self.wait_ready(pid)
        return pids

    def hangs(self, pid: int) -> bool:
        """Have it wait for a probe; say whether it misses another that is rung meanwhile.

        A wait without an end that the author did not think of.
        """
        other = self.standing()
        self.say(f"reap {pid} block")
        self.wait_hangs()
        os.kill(other, signal.SIGHUP)
        wait_state(other, "Z")  # dead, and nobody looks
        self.wait_hangs()
        return self.silent()

    def wait_hangs(self) -> None:
        """Return when it sleeps in a waitpid(2)."""
        path = Path(f"/proc/{self.own}/syscall")
        wait_until(lambda: path.read_text(encoding="ascii").split()[0] == WAIT4, "it waits")


def wait_state(pid: int, letter: str) -> None:
    """Return when a process sleeps, is stopped, or dead."""
    wait_until(lambda: status(pid)["State"].startswith(letter), f"{pid} is {letter}")
