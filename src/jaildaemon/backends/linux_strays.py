# SPDX-License-Identifier: BSD-2-Clause
"""Whose a child is, and the end of those that are nobody's.

Whoever may trace in a jail can make a probe clone before its first system call: the
children are ours (CLONE_PARENT), run the probe's image, and nobody watches them.  A jail
cannot end before we have reaped them.  Every process of one arming is in the session of
its helper until "go" (helper_linux.c), which the kernel tells and no number can fake.
"""

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

assert sys.platform == "linux"

from jaildaemon.backends.linux_jail import status
from jaildaemon.backends.linux_watcher import LinuxWatcher

SWEEP_SECONDS = 0.5
"""So long after the end of an arming: one look serves all that ended meanwhile."""
AGAIN_SECONDS = 0.02
LONGEST_SECONDS = 1.0
"""Doubled until then: a tracer in the jail may hold what is dead."""
OUR_IMAGE = "/memfd:jailprobe (deleted)"


class Strays:
    """Our children that nobody watches."""

    def __init__(self, watcher: LinuxWatcher, tell: Callable[[str], None]) -> None:
        self._watcher, self._tell = watcher, tell
        self._under_way: set[int] = set()
        """The helpers of the armings that are not over."""
        self._due: int | None = None
        self._wait = AGAIN_SECONDS
        self._found: set[int] = set()

    def begin(self, helper: int) -> None:
        """Take note of an arming: what is in the session of its helper is its own affair."""
        self._under_way.add(helper)

    def over(self, helper: int) -> None:
        """Take note of its end; whatever else came of it is looked for soon."""
        self._under_way.discard(helper)
        self._look_in(SWEEP_SECONDS)

    def belongs(self, pid: int, helper: int) -> bool:
        """Say whether a child of ours came of this helper."""
        try:
            return os.getsid(pid) == helper
        except ProcessLookupError:
            return False

    def of(self, helper: int) -> list[int]:
        """Kill what came of this helper and is watched by nobody; return it, to be reaped.

        All at once where it is one group: one by one, a tracer could clone faster.
        """
        found = [pid for pid in self.unwatched() if self.belongs(pid, helper)]
        if found:
            # A child that is not reaped keeps the number of its session from being reused.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(helper, signal.SIGKILL)
            # One may be the probe itself, whose helper died before it could report it.
            self._found.update(found[1:])
        return found

    def unwatched(self) -> list[int]:
        """Return our children that nobody watches, zombies included."""
        path = f"/proc/self/task/{os.getpid()}/children"
        try:
            words = Path(path).read_text(encoding="ascii").split()
        except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
            return []
        return [pid for pid in map(int, words) if not self._watcher.watches(pid)]

    def reap_orphans(self) -> None:
        """Reap what others left to us as PID 1 of a PID namespace."""
        for pid in self.unwatched():
            if not self._is_arming(pid):
                _reap(pid)

    def _is_arming(self, pid: int) -> bool:
        return any(self.belongs(pid, helper) for helper in self._under_way)

    def _look_in(self, seconds: float) -> None:
        if self._due is None:
            self._due = self._watcher.call_in(seconds, self._sweep)

    def _sweep(self) -> None:
        self._due = None
        try:
            left = sum(self._is_left(pid) for pid in self.unwatched()) > 0
        except OSError as error:
            # We are short of something, descriptors most likely.
            if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                raise
            left = True
        if left:
            self._look_in(self._wait)
            self._wait = min(2 * self._wait, LONGEST_SECONDS)
            return
        if self._found:
            what = "that somebody in a jail had made of a probe: who may trace there (SYS_PTRACE)"
            self._tell(f"ended {len(self._found)} processes {what}")
        self._wait, self._found = AGAIN_SECONDS, set()

    def _is_left(self, pid: int) -> bool:
        """Kill a child, if it is a stray; say whether it is one that is not reaped yet."""
        if self._is_arming(pid) or not _is_probes(pid):
            return False
        self._found.add(pid)
        if _reap(pid):
            return False
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
        return True


def _depth(pid: int | str) -> int:
    """Return in how many PID namespaces, seen from ours, a process is."""
    return len(status(pid, "NSpid")[0].split())


def _is_probes(pid: int) -> bool:
    """Say whether a child of ours is of a probe's kind: in a jail, and if it lives, our image."""
    try:
        if _depth(pid) == _depth("self"):
            return False
        return os.readlink(f"/proc/{pid}/exe") == OUR_IMAGE
    except FileNotFoundError:
        return True  # a zombie: it has no program any more
    except PermissionError:
        return True  # a security module hides it
    except ProcessLookupError:
        return False


def _reap(pid: int) -> bool:
    """Reap a child that has ended; say whether it is gone."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG) is not None
    except ChildProcessError:
        return True
