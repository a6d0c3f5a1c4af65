# SPDX-License-Identifier: BSD-2-Clause
"""A backend without a kernel: jails, processes and time are plain Python.

It keeps the contract of backends/base.py, and test_contract.py holds it to that
by the same tests as the real ones.  Only the pipes are real.  Nothing happens by
itself: processes move, and time passes, within `FakeWatcher.wait`.
"""

import contextlib
import errno
import functools
import itertools
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from jaildaemon.backends.base import (
    RECORD,
    RECORD_ERROR,
    RECORD_PID,
    RECORD_READY,
    STEPS,
    Again,
    ArmingError,
    Backend,
    Death,
    Jail,
    JailLost,
    Peer,
    Spawned,
)
from jaildaemon.errors import JaildaemonError, NoSuchJail
from tests.contract.fake_watcher import FakeProcess, FakeWatcher

NUMBER_OF_STEP = {name: number for number, name in STEPS.items()}


def record(kind: int, step: int = 0, value: int = 0) -> bytes:
    """Return one status record, as the helper writes it."""
    return RECORD.pack(kind, step, 0, value)


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
        self._backend, self.birth = backend, backend.jails[name]
        self.name, self.number = name, int("".join(c for c in name if c.isdecimal()) or "0")
        self.key = f"fake/{name}/{self.birth}"
        backend.open_handles += 1

    def alive(self) -> bool:
        """Say whether it still runs."""
        return self._backend.jails.get(self.name) == self.birth

    def identity(self) -> dict[str, object]:
        """Return its name and when it was made."""
        return {"name": self.name, "birth": self.birth}

    def unsettled(self) -> str | None:
        """Say that it has ended."""
        return None if self.alive() else "the jail has ended"

    def close(self) -> None:
        """Give the handle back."""
        self._backend.open_handles -= 1


class FakeBackend(Backend):
    """A world with as many jails as are added.  The attributes say how helpers behave."""

    signals: ClassVar[dict[str, int]] = {"HUP": signal.SIGHUP, "USR1": signal.SIGUSR1}
    state_directory = "/var/lib/jaildaemon-fake"
    spawns_sessions = False

    def __init__(self, *, one_process: bool = False) -> None:
        self.watcher: FakeWatcher = FakeWatcher(self)
        self.jails: dict[str, int] = {}
        """When each was made: a name may come back."""
        self.open_handles = 0
        self.processes: dict[int, FakeProcess] = {}
        """Our children, zombies included."""
        self.strangers: dict[int, FakeProcess] = {}
        """Everybody else; somebody else reaps them at once."""
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
        self.other_ways = 0
        """Of how many failed steps another way is known."""
        self.holds = False
        """Whether something in the jails holds helpers up."""
        self.over_helpers: list[int] = []
        """Of which the arming is over."""
        self.tells_of_jails = True
        """Whether it tells that a jail began (not on FreeBSD before 15)."""
        self._begins: list[Callable[[], None]] = []
        self._ends: list[tuple[str, int, Callable[[], None]]] = []
        self.the_peer = Peer(os.geteuid(), os.getpid(), None)
        self.the_boot = "fake-boot"
        self._pids = itertools.count(100)
        self._numbers = itertools.count(1)
        self._births = itertools.count(1000)

    # --- the world, for tests --------------------------------------------------

    def add_jail(self) -> str:
        """Make a jail; returns what `resolve` takes."""
        name = f"jail{next(self._numbers)}"
        self.begin_jail(name)
        return name

    def begin_jail(self, name: str) -> None:
        """Make a jail of this name, which an ended one may have had."""
        self.jails[name] = next(self._births)
        for begun in self._begins:
            self.watcher.call_in(0, begun)

    def end_jail(self, name: str) -> None:
        """End a jail: every process in it is killed."""
        birth = self.jails.pop(name, None)
        for watched in [w for w in self._ends if w[:2] == (name, birth)]:
            self.watcher.call_in(0, functools.partial(self._tell, watched))
        for process in list(self.processes.values()):
            if process.jail == name:
                self.kill(process.pid, signal.SIGKILL)

    def _tell(self, watched: tuple[str, int, Callable[[], None]]) -> None:
        if watched in self._ends:
            self._ends.remove(watched)
            watched[2]()

    def add_process(self, **fields: object) -> FakeProcess:
        """Make a child of ours."""
        process = FakeProcess(next(self._pids), **fields)  # type: ignore[arg-type]
        self.processes[process.pid] = process
        return process

    def add_stranger(self, **fields: object) -> FakeProcess:
        """Make a process that is not our child."""
        process = FakeProcess(next(self._pids), **fields)  # type: ignore[arg-type]
        self.strangers[process.pid] = process
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
        process.helper = helper.process.pid
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

    def boot_id(self) -> str:
        """Return what the test wants."""
        return self.the_boot

    def adopt(self, jail: Jail, pid: int) -> None:
        """Take note of nothing."""

    def recover(self, identity: dict[str, object], probe: int | None = None) -> FakeJail:
        """Find the jail that was made then."""
        del probe
        name = str(identity.get("name"))
        if name not in self.jails or self.jails[name] != identity.get("birth"):
            raise NoSuchJail("attach", name, "the jail has ended")
        return FakeJail(self, name)

    def watch_end(self, jail: Jail, ended: Callable[[], None]) -> Callable[[], None]:
        """Call `ended` when the jail has ended."""
        assert isinstance(jail, FakeJail)
        watched = (jail.name, jail.birth, ended)
        self._ends.append(watched)
        if not jail.alive():
            self.watcher.call_in(0, lambda: self._tell(watched))

        def stop() -> None:
            if watched in self._ends:
                self._ends.remove(watched)

        return stop

    def jail_names(self) -> list[str]:
        """Return the names of all jails."""
        return list(self.jails)

    def watch_jails(self, begun: Callable[[], None]) -> Callable[[], None] | None:
        """Call `begun` when a jail is made."""
        if not self.tells_of_jails:
            return None
        self._begins.append(begun)
        return lambda: self._begins.remove(begun)

    def start_time(self, pid: int) -> int:
        """Return its pid again: none is used twice here."""
        if pid not in {**self.processes, **self.strangers}:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        return pid

    def find_run(
        self, run: str, pid: int | None, *, uid: int | None, start_time: int | None = None
    ) -> int | None:
        """Look for it among all processes of the host."""
        if pid is not None and start_time is not None:
            process = {**self.processes, **self.strangers}.get(pid)
            lives = process is not None and process.death is None
            return pid if lives and pid == start_time else None
        for process in [*self.processes.values(), *self.strangers.values()]:
            on_host = process.jail is None and process.death is None and process.leader
            ours = os.geteuid() if process.owner is None else process.owner
            if ours != uid:
                continue
            if on_host and process.run == run and pid in (None, process.pid):
                return process.pid
        return None

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

    def probe_reported(self, jail: Jail, untrusted_pid: int, helper: int) -> int:
        """Accept a pid only if it came of this helper, and nobody watches it yet."""
        process = self.processes.get(untrusted_pid)
        if process is None or process.helper != helper or self.watcher.watches(untrusted_pid):
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
        if self.other_ways:
            self.other_ways -= 1
            return Again("attach", jail.name, why)
        return ArmingError("attach", jail.name, why)

    def held_up(self, jail: Jail, helper: int) -> ArmingError | None:
        """Say what the test wants, of a helper that is not done."""
        assert helper in self.processes
        return Again("attach", jail.name, "held") if self.holds else None

    def over(self, helper: int) -> None:
        """Write it down."""
        self.over_helpers.append(helper)

    def strays(self, helper: int) -> list[int]:
        """Kill and return what came of this helper and nobody watches."""
        found = [
            process
            for process in list(self.processes.values())
            if process.helper == helper and not self.watcher.watches(process.pid)
        ]
        for process in found:
            self.end(process, Death(signal.SIGKILL, None))
        return [process.pid for process in found]

    def first_limits(self, *, room: bool = False) -> contextlib.AbstractContextManager[None]:  # noqa: ARG002
        """The fake has no limits."""
        return contextlib.nullcontext()

    def peer(self, fd: int) -> Peer:
        """Say what the test wants."""
        os.fstat(fd)
        return self.the_peer
