# SPDX-License-Identifier: BSD-2-Clause
"""The Linux event loop: epoll(7), and a pidfd for every child."""

import contextlib
import errno
import os
import select
import sys
from collections.abc import Callable

from jaildaemon.backends.base import Death, Watcher

assert sys.platform == "linux"

from jaildaemon.backends.linux_jail import readable

RETRY_SECONDS = 0.01
RETRY_LONGEST = 1.0


class LinuxWatcher(Watcher):
    """Waits with one epoll instance; a child's pidfd says when to reap it.

    There is no waitpid(-1): it would look at every child each time.
    """

    def __init__(self) -> None:
        super().__init__()
        self._epoll = select.epoll()
        self._calls: dict[int, Callable[[], None]] = {}
        self._children: dict[int, int | None] = {}

    def watch_fd(self, fd: int, ready: Callable[[], None], *, write: bool = False) -> None:
        """Call `ready` whenever `fd` can be read (or, with `write`, written)."""
        mask = select.EPOLLOUT if write else select.EPOLLIN
        if fd in self._calls:
            self._epoll.modify(fd, mask)
        else:
            self._epoll.register(fd, mask)
        self._calls[fd] = ready

    def unwatch_fd(self, fd: int) -> None:
        """Stop.  To be called before `fd` is closed."""
        if self._calls.pop(fd, None) is not None:
            with contextlib.suppress(OSError):  # the close that follows does it too
                self._epoll.unregister(fd)

    def children(self) -> list[int]:
        """Return the pids of the children that are watched and not reaped yet."""
        return list(self._children)

    def watches(self, pid: int) -> bool:
        """Say whether child `pid` is watched."""
        return pid in self._children

    def watch_process(self, pid: int, ended: Callable[[Death], None]) -> None:
        """Reap our child `pid` when it has ended, then call `ended`."""
        # A child that has ended already is a zombie until we reap it: pidfd_open
        # finds it, and the pidfd is readable at once.
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                raise
            # No descriptor is left.  The child must not be lost for that: ask now and then.
            self._children[pid] = None
            self.call_in(RETRY_SECONDS, lambda: self._reap(pid, ended, 2 * RETRY_SECONDS))
            return
        self._children[pid] = pidfd
        self._calls[pidfd] = lambda: self._reap(pid, ended, RETRY_SECONDS)
        try:
            self._epoll.register(pidfd, select.EPOLLIN)
        except OSError:  # ENOMEM, or ENOSPC: fs.epoll.max_user_watches
            del self._calls[pidfd]
            os.close(pidfd)
            self._children[pid] = None
            self.call_in(RETRY_SECONDS, lambda: self._reap(pid, ended, 2 * RETRY_SECONDS))

    def watch_other(self, pid: int, ended: Callable[[Death], None]) -> None:
        """Call `ended` when `pid`, which is not our child, has ended; how is not known."""
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            self.call_in(0, lambda: ended(Death(None, None)))
            return

        def gone() -> None:
            if readable(pidfd):
                self.unwatch_fd(pidfd)
                os.close(pidfd)
                ended(Death(None, None))

        self.watch_fd(pidfd, gone)

    def signal_process(self, pid: int, signum: int) -> None:
        """Signal a watched process.  One that has ended already is left alone."""
        # Not reaped yet, so the number is still its own, and a zombie takes any signal.
        os.kill(pid, signum)

    def _reap(self, pid: int, ended: Callable[[Death], None], retry_seconds: float) -> None:
        result = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
        pidfd = self._children[pid]
        if result is None:
            if pidfd is not None and pidfd in self._calls and not readable(pidfd):
                return  # the event was of an earlier descriptor with this number
            # Readable and yet not ours to reap: a tracer in the jail holds the
            # zombie.  Ask again ever more rarely, without the spinning pidfd.
            if pidfd is not None:
                self.unwatch_fd(pidfd)
            longer = min(2 * retry_seconds, RETRY_LONGEST)
            self.call_in(retry_seconds, lambda: self._reap(pid, ended, longer))
            return
        del self._children[pid]
        if pidfd is not None:
            self.unwatch_fd(pidfd)
            os.close(pidfd)
        if result.si_code == os.CLD_EXITED:
            ended(Death(None, result.si_status))
        else:
            ended(Death(result.si_status, None))

    def _wait(self, seconds: float | None) -> None:
        for fd, _ in self._epoll.poll(-1 if seconds is None else seconds):
            # A call before this one may have unwatched it.
            call = self._calls.get(fd)
            if call is not None:
                call()

    def close(self) -> None:
        """Close the epoll instance and every pidfd."""
        for pidfd in self._children.values():
            if pidfd is not None:
                os.close(pidfd)
        self._epoll.close()
