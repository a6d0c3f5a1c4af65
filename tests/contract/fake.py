# SPDX-License-Identifier: BSD-2-Clause
"""A backend without a kernel: jails, processes and time are plain Python.

It keeps the contract of backends/base.py, and test_contract.py holds it to that
by the same tests as the real ones.  Only the pipes are real.  Nothing happens by
itself: processes move, and time passes, within `FakeWatcher.wait`.
"""

import errno
import heapq
import itertools
import os
import select
import signal
from collections.abc import Callable
from dataclasses import dataclass, field

from jaildaemon.backends.base import (
    RECORD,
    RECORD_ERROR,
    RECORD_PID,
    RECORD_READY,
    STEPS,
    ArmingError,
    Backend,
    Death,
    Jail,
    JailLost,
    Peer,
    Spawned,
    Watcher,
)
from jaildaemon.errors import JaildaemonError, NoSuchJail

NUMBER_OF_STEP = {name: number for number, name in STEPS.items()}


def record(kind: int, step: int = 0, value: int = 0) -> bytes:
    """Return one status record, as the helper writes it."""
    return RECORD.pack(kind, step, 0, value)


@dataclass
class FakeProcess:
    """A child of ours.  `jail` is where it is, None for the host."""

    pid: int
    title: str = ""
    uid: int = 0
    gid: int = 0
    jail: str | None = None
    asleep: bool = False
    """Whether a signal acts now; before "go" all but SIGKILL pend."""
    pending: list[int] = field(default_factory=list)
    death: Death | None = None


@dataclass
class FakeHelper:
    """A started helper: its ends of the pipes, and the probe that came of it."""

    process: FakeProcess
    jail: str
    title: str
    ids: tuple[int, int]
    status_fd: int
    go_fd: int
    probe: FakeProcess | None = None
    reported: bool = False

    def tell(self, untrusted: bytes) -> None:
        """Write to the status pipe."""
        os.write(self.status_fd, untrusted)

    def close_status(self) -> None:
        """Close the last write end of the status pipe."""
        if self.status_fd >= 0:
            os.close(self.status_fd)
            self.status_fd = -1

    def close(self) -> None:
        """Close what is left."""
        self.close_status()
        if self.go_fd >= 0:
            os.close(self.go_fd)
            self.go_fd = -1


class FakeJail(Jail):
    """A handle of a jail of the fake's world."""

    def __init__(self, backend: "FakeBackend", name: str) -> None:
        self._backend = backend
        self.key, self.name, self.number = f"fake/{name}", name, int(name.removeprefix("jail"))
        backend.open_handles += 1

    def alive(self) -> bool:
        """Say whether it still runs."""
        return self.name in self._backend.jails

    def close(self) -> None:
        """Give the handle back."""
        self._backend.open_handles -= 1


class FakeWatcher(Watcher):
    """Descriptors by poll(2), everything else by hand; `now` is the only clock."""

    def __init__(self, backend: "FakeBackend") -> None:
        super().__init__()
        self._backend = backend
        self.now = 1000.0
        self._calls: dict[int, tuple[int, Callable[[], None]]] = {}
        self.children: dict[int, Callable[[Death], None]] = {}

    def watch_fd(self, fd: int, ready: Callable[[], None], *, write: bool = False) -> None:
        """Call `ready` whenever `fd` can be read (or, with `write`, written)."""
        os.fstat(fd)  # EBADF, as from a kernel
        self._calls[fd] = (select.POLLOUT if write else select.POLLIN, ready)

    def unwatch_fd(self, fd: int) -> None:
        """Stop."""
        self._calls.pop(fd, None)

    def watches(self, pid: int) -> bool:
        """Say whether child `pid` is watched."""
        return pid in self.children

    def watch_process(self, pid: int, ended: Callable[[Death], None]) -> None:
        """Reap our child `pid` when it has ended, then call `ended`."""
        if pid not in self._backend.processes:
            raise ChildProcessError(errno.ECHILD, os.strerror(errno.ECHILD))
        self.children[pid] = ended

    def signal_process(self, pid: int, signum: int) -> None:
        """Signal a watched process.  One that has ended already is left alone."""
        self._backend.kill(pid, signum)

    def call_in(self, seconds: float, call: Callable[[], None]) -> int:
        """Call after `seconds` of the fake's time."""
        handle = next(self._ids)
        heapq.heappush(self._deadlines, (self.now + seconds, handle, call))
        return handle

    def wait(self) -> None:
        """Make the calls that are due; time passes only where nothing else can happen."""
        due = self._next_deadline()
        self._wait(None if due is None else due - self.now)
        while self._deadlines and self._deadlines[0][0] <= self.now:
            _, handle, call = heapq.heappop(self._deadlines)
            if handle in self._cancelled:
                self._cancelled.discard(handle)
            else:
                call()

    def _next_deadline(self) -> float | None:
        while self._deadlines and self._deadlines[0][1] in self._cancelled:
            self._cancelled.discard(heapq.heappop(self._deadlines)[1])
        return self._deadlines[0][0] if self._deadlines else None

    def _deadline_by(self, when: float) -> bool:
        due = self._next_deadline()
        return due is not None and due <= when

    def _due(self) -> tuple[list[int], list[int]]:
        """Return the descriptors that are ready and the children that are dead."""
        self._backend.step()
        poll = select.poll()
        for fd, (mask, _) in self._calls.items():
            poll.register(fd, mask)
        ready = [fd for fd, _ in poll.poll(0)]
        return ready, [pid for pid in self.children if self._backend.processes[pid].death]

    def settle(self) -> None:
        """Serve until nothing but time could bring anything more."""
        while any(self._due()) or self._deadline_by(self.now):
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
        ready, dead = self._due()
        if not ready and not dead:
            assert seconds is not None, "nothing can ever happen: the real one would wait for good"
            self.now += max(0.0, seconds)
        for fd in ready:
            if fd in self._calls:
                self._calls[fd][1]()
        for pid in dead:
            death = self._backend.processes.pop(pid).death
            assert death is not None
            self.children.pop(pid)(death)

    @property
    def idle(self) -> bool:
        """Whether no descriptor is watched and no deadline is left."""
        return not self._calls and self._next_deadline() is None

    def close(self) -> None:
        """Nothing is held."""


class FakeBackend(Backend):
    """A world with as many jails as are added.  The attributes say how helpers behave."""

    def __init__(self, *, one_process: bool = False) -> None:
        self.watcher: FakeWatcher = FakeWatcher(self)
        self.jails: set[str] = set()
        self.open_handles = 0
        self.processes: dict[int, FakeProcess] = {}
        self.helpers: list[FakeHelper] = []
        self.one_process = one_process
        """Whether the helper becomes the probe, as on FreeBSD."""
        self.passive = False
        """Whether helpers do nothing by themselves: the test plays them."""
        self.failing: tuple[str, int] | None = None
        """The step and errno that every helper reports."""
        self.silent = False
        """Whether a helper ends without a word, after the probe's birth."""
        self.spawn_error: OSError | None = None
        self.the_peer = Peer(os.geteuid(), os.getpid(), None)
        self._pids = itertools.count(100)
        self._numbers = itertools.count(1)

    # --- the world, for tests --------------------------------------------------

    def add_jail(self) -> str:
        """Make a jail; returns what `resolve` takes."""
        name = f"jail{next(self._numbers)}"
        self.jails.add(name)
        return name

    def end_jail(self, name: str) -> None:
        """End a jail: every process in it is killed."""
        self.jails.discard(name)
        for process in list(self.processes.values()):
            if process.jail == name:
                self.kill(process.pid, signal.SIGKILL)

    def add_process(self, **fields: object) -> FakeProcess:
        """Make a child of ours."""
        process = FakeProcess(next(self._pids), **fields)  # type: ignore[arg-type]
        self.processes[process.pid] = process
        return process

    def kill(self, pid: int, signum: int) -> None:
        """Send a signal, as kill(2) does: a zombie takes any."""
        if pid not in self.processes:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        process = self.processes[pid]
        if signum == signal.SIGKILL or process.asleep:
            self.end(process, Death(signum, None))
        else:
            process.pending.append(signum)

    def end(self, process: FakeProcess, death: Death) -> None:
        """End a process; it stays a zombie until it is reaped."""
        process.death = process.death or death
        process.asleep = False
        for helper in list(self.helpers):
            inside = helper.process.death is not None
            if inside and (helper.probe is None or helper.probe.death is not None):
                helper.close()
                self.helpers.remove(helper)

    def step(self) -> None:
        """Let every helper and every probe do what it can do now."""
        for helper in list(self.helpers):
            if not self.passive and not helper.reported and helper.process.death is None:
                helper.reported = True
                self._report(helper)
            probe = helper.probe
            if probe is not None and probe.death is None and not probe.asleep:
                self._wait_for_go(helper, probe)

    def _report(self, helper: FakeHelper) -> None:
        failing = ("enter", errno.ESRCH) if helper.jail not in self.jails else self.failing
        if failing is not None:
            step, error = failing
            helper.tell(record(RECORD_ERROR, NUMBER_OF_STEP[step], error))
            self.end(helper.process, Death(None, 1))
            return
        self.birth(helper)
        if not self.silent:
            helper.tell(record(RECORD_READY))
            if not self.one_process:
                assert helper.probe is not None
                helper.tell(record(RECORD_PID, 0, helper.probe.pid))
        helper.close_status()
        if not self.one_process:
            self.end(helper.process, Death(None, 0))
        elif self.silent:
            self.end(helper.process, Death(signal.SIGSEGV, None))

    def birth(self, helper: FakeHelper) -> FakeProcess:
        """Let the probe be born, in the jail."""
        process = helper.process if self.one_process else self.add_process()
        process.title, process.jail = helper.title, helper.jail
        process.uid, process.gid = helper.ids
        helper.probe = process
        return process

    def _wait_for_go(self, helper: FakeHelper, probe: FakeProcess) -> None:
        try:
            go = os.read(helper.go_fd, 1)
        except BlockingIOError:
            return
        if go != b"G":
            self.end(probe, Death(None, 1))
            return
        probe.asleep = True
        for signum in sorted(probe.pending)[:1]:
            self.end(probe, Death(signum, None))

    # --- the contract ------------------------------------------------------------

    def resolve(self, text: str) -> FakeJail:
        """Find a jail by its name."""
        if text not in self.jails:
            raise NoSuchJail("attach", text, "no such jail", "the fake's are jail1, jail2, ...")
        return FakeJail(self, text)

    def spawn(self, jail: Jail, title: str, uid: int, gid: int) -> Spawned:
        """Start a helper, which moves at the next `step`."""
        if self.spawn_error is not None:
            raise self.spawn_error
        status_fd, their_status = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        their_go, go_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        process = self.add_process()
        self.helpers.append(
            FakeHelper(process, jail.name, title, (uid, gid), their_status, their_go)
        )
        return Spawned(process.pid, process.pid if self.one_process else None, status_fd, go_fd)

    def probe_reported(self, jail: Jail, untrusted_pid: int) -> int:
        """Accept a pid only if it is a child of ours that nobody watches yet."""
        if untrusted_pid not in self.processes or self.watcher.watches(untrusted_pid):
            raise ArmingError("attach", jail.name, "the helper reported a pid that is not its own")
        return untrusted_pid

    def verify(self, jail: Jail, pid: int) -> None:
        """Check that the probe is in the jail, and the jail is alive."""
        if not jail.alive():
            raise JailLost("attach", jail.name, "the jail has ended")
        process = self.processes.get(pid)
        if process is None or process.jail != jail.name:
            raise ArmingError("attach", jail.name, "the probe is not in the jail")

    def explain(self, jail: Jail, step: str, error: int) -> JaildaemonError:
        """Say what a failed step means."""
        if (step, error) == ("enter", errno.ESRCH):
            return JailLost("attach", jail.name, "the jail has ended")
        why = f"step {step} of the helper failed: {os.strerror(error)}"
        return ArmingError("attach", jail.name, why)

    def strays(self, jail: Jail) -> list[int]:
        """Return children in the jail that nobody watches."""
        return [
            pid
            for pid, process in self.processes.items()
            if process.jail == jail.name and not self.watcher.watches(pid)
        ]

    def restore_limits(self, pid: int) -> None:
        """The fake has no limits."""

    def peer(self, fd: int) -> Peer:
        """Say what the test wants."""
        os.fstat(fd)
        return self.the_peer
