# SPDX-License-Identifier: BSD-2-Clause
"""The fake backend's event loop, and the processes that it watches."""

import errno
import heapq
import os
import select
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from jaildaemon.backends.base import Death, Watcher


@dataclass
class FakeProcess:
    """A process.  `jail` is where it is, None for the host."""

    pid: int
    title: str = ""
    uid: int = 0
    gid: int = 0
    jail: str | None = None
    asleep: bool = False
    """Whether a signal acts now; before "go" all but SIGKILL pend."""
    pending: list[int] = field(default_factory=list)
    death: Death | None = None
    run: str | None = None
    owner: int | None = None
    """Whose it is; of a stranger, ours if nobody says otherwise."""
    """Its JAILDAEMON_RUN."""
    leader: bool = False
    """Whether it leads a session."""
    helper: int | None = None
    """Which helper it came of, as the kernel knows."""


class Machine(Protocol):
    """What the watcher sees of the fake's world."""

    processes: dict[int, FakeProcess]
    strangers: dict[int, FakeProcess]

    def kill(self, pid: int, signum: int) -> None:
        """Send a signal."""

    def step(self) -> None:
        """Let everybody do what they can do now."""


class FakeWatcher(Watcher):
    """Descriptors by poll(2), everything else by hand; `now` is the only clock."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self._machine = machine
        self.now = 1000.0
        self._calls: dict[int, tuple[int, Callable[[], None]]] = {}
        self._children: dict[int, Callable[[Death], None]] = {}
        self._others: list[tuple[int, Callable[[Death], None]]] = []

    def watch_fd(self, fd: int, ready: Callable[[], None], *, write: bool = False) -> None:
        """Call `ready` whenever `fd` can be read (or, with `write`, written)."""
        os.fstat(fd)  # EBADF, as from a kernel
        self._calls[fd] = (select.POLLOUT if write else select.POLLIN, ready)

    def unwatch_fd(self, fd: int) -> None:
        """Stop."""
        self._calls.pop(fd, None)

    def children(self) -> list[int]:
        """Return the children that are watched and not reaped yet."""
        return list(self._children)

    def watches(self, pid: int) -> bool:
        """Say whether child `pid` is watched."""
        return pid in self._children

    def watch_process(self, pid: int, ended: Callable[[Death], None]) -> None:
        """Reap our child `pid` when it has ended, then call `ended`."""
        if pid not in self._machine.processes:
            raise ChildProcessError(errno.ECHILD, os.strerror(errno.ECHILD))
        self._children[pid] = ended

    def watch_other(self, pid: int, ended: Callable[[Death], None]) -> None:
        """Call `ended` when `pid`, which is not our child, has ended; how is not known."""
        self._others.append((pid, ended))

    def signal_process(self, pid: int, signum: int) -> None:
        """Signal a watched process.  One that has ended already is left alone."""
        self._machine.kill(pid, signum)

    def call_in(self, seconds: float, call: Callable[[], None]) -> int:
        """Call after `seconds` of the fake's time."""
        handle = next(self._ids)
        self._due[handle] = call
        heapq.heappush(self._deadlines, (self.now + seconds, handle))
        return handle

    def wait(self) -> None:
        """Make the calls that are due; time passes only where nothing else can happen."""
        due = self._next_deadline()
        self._wait(None if due is None else due - self.now)
        while self._deadlines and self._deadlines[0][0] <= self.now:
            call = self._due.pop(heapq.heappop(self._deadlines)[1], None)
            if call is not None:
                call()

    def _next_deadline(self) -> float | None:
        while self._deadlines and self._deadlines[0][1] not in self._due:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def _deadline_by(self, when: float) -> bool:
        due = self._next_deadline()
        return due is not None and due <= when

    def _happening(self) -> tuple[list[int], list[int], list[int]]:
        """Return the descriptors that are ready, and who is dead: children, others."""
        self._machine.step()
        poll = select.poll()
        for fd, (mask, _) in self._calls.items():
            poll.register(fd, mask)
        ready = [fd for fd, _ in poll.poll(0)]
        dead = [pid for pid in self._children if self._machine.processes[pid].death]
        return ready, dead, [pid for pid, _ in self._others if pid not in self._machine.strangers]

    def settle(self) -> None:
        """Serve until nothing but time could bring anything more."""
        while any(self._happening()) or self._deadline_by(self.now):
            self.wait()

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and serve what it brings."""
        end = self.now + seconds
        self.settle()
        while self._deadline_by(end):
            self.wait()
            self.settle()
        self.now = end

    def _wait(self, seconds: float | None) -> None:
        ready, dead, gone = self._happening()
        if not ready and not dead and not gone:
            assert seconds is not None, "nothing can ever happen: the real one would wait for good"
            self.now += max(0.0, seconds)
        for fd in ready:
            if fd in self._calls:
                self._calls[fd][1]()
        for pid in dead:
            death = self._machine.processes.pop(pid).death
            assert death is not None
            self._children.pop(pid)(death)
        told = [other for other in self._others if other[0] in gone]
        self._others = [other for other in self._others if other not in told]
        for _, ended in told:
            ended(Death(None, None))

    @property
    def idle(self) -> bool:
        """Whether no descriptor is watched and no deadline is left."""
        return not self._calls and self._next_deadline() is None

    def close(self) -> None:
        """Nothing is held."""
