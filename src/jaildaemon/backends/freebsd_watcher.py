# SPDX-License-Identifier: BSD-2-Clause
"""The FreeBSD event loop: kqueue(2), with EVFILT_PROC for every child."""

import contextlib
import errno
import os
import select
import sys
from collections.abc import Callable

from jaildaemon.backends.base import Death, Watcher

assert sys.platform.startswith("freebsd")

RETRY_SECONDS = 0.001
"""The first wait for what is about to be a zombie.  Until it is reaped it holds its jail's jid."""
RETRY_LONGEST = 1.0
MAX_EVENTS = 256
"""Taken at a time.  What is left waits in the kernel; 64 bytes each."""


# sys/event.h, 15 and later; ident 0 is our own jail, another its jid.
EVFILT_JAIL = -14
NOTE_JAIL_CHILD, NOTE_JAIL_REMOVE = 0x80000000, 0x10000000


def death_of(status: int) -> Death:
    """Return how a process with this wait(2) status ended."""
    # The macros take these two for a stop and for exit 0, but kill(2) knows 128 signals.
    if status in (127, 128):
        return Death(status, None)
    if os.WIFSIGNALED(status):
        return Death(os.WTERMSIG(status), None)
    return Death(None, os.WEXITSTATUS(status))


class FreeBSDWatcher(Watcher):
    """Waits with one kqueue; NOTE_EXIT says how a child ended and when to reap it.

    There is no waitpid(-1): it would look at every child each time.
    """

    def __init__(self) -> None:
        super().__init__()
        self._kqueue = select.kqueue()
        self._fds: dict[int, tuple[int, Callable[[], None]]] = {}
        self._children: dict[int, Callable[[Death], None]] = {}
        self._strangers: dict[int, dict[object, Callable[[Death], None]]] = {}
        self._jails: dict[int, dict[object, Callable[[], None]]] = {}
        self.before_reap: Callable[[int], None] = lambda _: None
        """Told of a child's death while it is not yet reaped, so that it still
        holds its pid and its jail."""

    def _change(self, ident: int, kind: int, flags: int, fflags: int = 0) -> None:
        # With no room for events an error is raised, not returned as one.
        self._kqueue.control([select.kevent(ident, kind, flags, fflags)], 0)

    # --- descriptors ---------------------------------------------------------

    def watch_fd(self, fd: int, ready: Callable[[], None], *, write: bool = False) -> None:
        """Call `ready` whenever `fd` can be read (or, with `write`, written)."""
        kind = select.KQ_FILTER_WRITE if write else select.KQ_FILTER_READ
        old, _ = self._fds.get(fd, (None, None))
        if old != kind:
            self.unwatch_fd(fd)
            self._change(fd, kind, select.KQ_EV_ADD)
        self._fds[fd] = (kind, ready)

    def unwatch_fd(self, fd: int) -> None:
        """Stop.  To be called before `fd` is closed."""
        kind, _ = self._fds.pop(fd, (None, None))
        if kind is not None:
            self._change(fd, kind, select.KQ_EV_DELETE)

    # --- processes -----------------------------------------------------------

    def children(self) -> list[int]:
        """Return the pids of the children that are watched and not reaped yet."""
        return list(self._children)

    def watches(self, pid: int) -> bool:
        """Say whether child `pid` is watched: not reaped, so its pid is its own."""
        return pid in self._children

    def watch_process(self, pid: int, ended: Callable[[Death], None]) -> None:
        """Reap our child `pid` when it has ended, then call `ended`."""
        self._children[pid] = ended
        try:
            self._watch_exit(pid)
        except OSError as error:
            if error.errno != errno.ENOMEM:
                del self._children[pid]
                raise
            # The child must not be lost for that: ask now and then.
            self.call_in(RETRY_SECONDS, lambda: self._reap(pid, None, 2 * RETRY_SECONDS))

    def _watch_exit(self, pid: int) -> None:
        # A child that has ended already is a zombie until we reap it: the filter
        # finds it and fires at once (kern_event.c, filt_procattach).
        flags = select.KQ_EV_ADD | select.KQ_EV_ONESHOT
        self._change(pid, select.KQ_FILTER_PROC, flags, select.KQ_NOTE_EXIT)

    def watch_other(self, pid: int, ended: Callable[[Death], None]) -> None:
        """Call `ended` when `pid`, which is not our child, has ended; NOTE_EXIT says how."""
        try:
            self.watch_stranger(pid, object(), ended)
        except ProcessLookupError:
            self.call_in(0, lambda: ended(Death(None, None)))

    def watch_stranger(self, pid: int, who: object, ended: Callable[[Death], None]) -> None:
        """Call `ended`, once, when a process that is not our child ends; ESRCH if it has.

        `who` asks, and may take it back.
        """
        if pid not in self._strangers:
            self._watch_exit(pid)
        self._strangers.setdefault(pid, {})[who] = ended

    def unwatch_stranger(self, pid: int, who: object) -> None:
        """Stop; what has ended, or was never asked for, is no error."""
        calls = self._strangers.get(pid, {})
        if calls.pop(who, None) is not None and not calls:
            del self._strangers[pid]
            # ENOENT: it has ended, and the event is in the batch that is being served.
            with contextlib.suppress(FileNotFoundError):
                self._change(pid, select.KQ_FILTER_PROC, select.KQ_EV_DELETE)

    # --- jails ---------------------------------------------------------------

    def watch_jail(self, jid: int, who: object, call: Callable[[], None]) -> bool:
        """Call when jail `jid` is removed, or (0) when our own one has a new child.

        False where the kernel does not tell: before 15 it knows no such filter
        (EINVAL), which is found out by trying.  ENOENT: there is no such jail.
        """
        note = NOTE_JAIL_REMOVE if jid else NOTE_JAIL_CHILD
        if jid not in self._jails:
            try:
                self._change(jid, EVFILT_JAIL, select.KQ_EV_ADD | select.KQ_EV_CLEAR, note)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                return False
        self._jails.setdefault(jid, {})[who] = call
        return True

    def unwatch_jail(self, jid: int, who: object) -> None:
        """Stop; what was told already is no error."""
        calls = self._jails.get(jid, {})
        if calls.pop(who, None) is not None and not calls:
            del self._jails[jid]
            # ENOENT: it was removed, and its filter with it.
            with contextlib.suppress(FileNotFoundError):
                self._change(jid, EVFILT_JAIL, select.KQ_EV_DELETE)

    def _jail_changed(self, jid: int) -> None:
        calls = self._jails.get(jid, {}) if jid == 0 else self._jails.pop(jid, {})
        if jid:
            with contextlib.suppress(FileNotFoundError):
                self._change(jid, EVFILT_JAIL, select.KQ_EV_DELETE)
        for call in list(calls.values()):
            call()

    def signal_process(self, pid: int, signum: int) -> None:
        """Signal a watched process.  One that has ended already is left alone."""
        # Not reaped yet, so the number is still its own, and a zombie takes any signal.
        if pid in self._children:
            os.kill(pid, signum)

    def _exited(self, pid: int, status: int) -> None:
        for call in self._strangers.pop(pid, {}).values():
            call(death_of(status))
        if pid in self._children:
            self.before_reap(pid)
            self._reap(pid, status, RETRY_SECONDS)

    def _reap(self, pid: int, status: int | None, retry_seconds: float) -> None:
        reaped, found = os.waitpid(pid, os.WNOHANG)
        if reaped == 0:
            # NOTE_EXIT comes before the process is a zombie (kern_exit.c, exit1),
            # and a tracer on the host may hold that zombie.
            longer = min(2 * retry_seconds, RETRY_LONGEST)
            self.call_in(retry_seconds, lambda: self._reap(pid, status, longer))
            return
        ended = self._children.pop(pid)
        # The two are the same; the event's is the one that came first.
        ended(death_of(found if status is None else status))

    # --- waiting -------------------------------------------------------------

    def _wait(self, seconds: float | None) -> None:
        for event in self._kqueue.control(None, MAX_EVENTS, seconds):
            if event.filter == select.KQ_FILTER_PROC:
                self._exited(event.ident, event.data)
                continue
            if event.filter == EVFILT_JAIL:
                self._jail_changed(event.ident)
                continue
            # A call before this one may have unwatched it, or watch another
            # descriptor of that number by now; that one's call must bear it.
            kind, call = self._fds.get(event.ident, (None, None))
            if call is not None and kind == event.filter:
                call()

    def close(self) -> None:
        """Close the kqueue."""
        self._kqueue.close()
