# SPDX-License-Identifier: BSD-2-Clause
"""What a test of the contract needs besides the backend: jails, signals, and eyes."""

import abc
import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from jaildaemon.backends import this_system
from jaildaemon.backends.base import Backend, Death, ProbeOwner
from jaildaemon.daemon.commands import environment
from jaildaemon.errors import JaildaemonError
from tests.contract.fake import FakeBackend

LONGEST_SECONDS = 60.0
"""A failure's bound, never a wait."""

Uids = tuple[int, int, int]
"""Real, effective and saved."""
OURS: Uids = (os.geteuid(), os.geteuid(), os.geteuid())

SILENT = Path(__file__).parent / "silent_helper.c"


def _owner(uids: Uids) -> int:
    return uids[0] if len({*uids}) == 1 else -1


class Owner(ProbeOwner):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.error: JaildaemonError | None = None
        self.death: Death | None = None

    def armed(self) -> None:
        """Write it down."""
        self.told.append("armed")

    def failed(self, error: JaildaemonError) -> None:
        """Write it down."""
        self.told.append("failed")
        self.error = error

    def ended(self, death: Death) -> None:
        """Write it down."""
        self.told.append("ended")
        self.death = death


class World(abc.ABC):
    """A backend and the machine it works on."""

    backend: Backend

    @abc.abstractmethod
    def jail(self) -> str:
        """Make a jail; return what `resolve` takes."""

    @abc.abstractmethod
    def end_jail(self, jail: str) -> None:
        """Tell it to end.  One with a probe in it ends when the probe is reaped."""

    @abc.abstractmethod
    def wait_jail_ended(self, jail: str) -> None:
        """Return when it has ended."""

    @abc.abstractmethod
    def inhabited_jail(self) -> str:
        """Make a jail in which a process lives that is not ours."""

    @abc.abstractmethod
    def successor(self, jail: str) -> str:
        """Make a jail that has the number, and so the place, of an ended one, inhabited too."""

    @abc.abstractmethod
    def kill(self, pid: int, signum: int) -> None:
        """Signal a process, as anybody but the daemon would."""

    @abc.abstractmethod
    def child(self) -> int:
        """Start a child of ours, which lives until told."""

    @abc.abstractmethod
    def end_child(self, pid: int, death: Death) -> None:
        """Let it end like this, and return when it is a zombie."""

    @abc.abstractmethod
    def stranger(self, run: str | None = None, *, leader: bool = True, uids: Uids = OURS) -> int:
        """Start a process that is not our child, with JAILDAEMON_RUN in its environment."""

    @abc.abstractmethod
    def forger(self, jail: str, run: str) -> int:
        """Start a process in a jail that looks like a run: another stranger."""

    @abc.abstractmethod
    def end_stranger(self, pid: int) -> None:
        """Tell it to end.  `watch_other` says when it has."""

    @abc.abstractmethod
    def ids(self, pid: int) -> tuple[int, int]:
        """Return the uid and gid of a probe."""

    @abc.abstractmethod
    def title(self, pid: int) -> str:
        """Return what ps shows of a probe."""

    @abc.abstractmethod
    def children(self) -> set[int]:
        """Return our children, zombies included."""

    @abc.abstractmethod
    def silent(self) -> contextlib.AbstractContextManager[None]:
        """Make helpers that end after the probe's birth, without a word."""

    @abc.abstractmethod
    def close(self) -> None:
        """End every jail."""

    def run_until(self, done: Callable[[], bool]) -> None:
        """Serve events until `done`."""
        late: list[bool] = []
        handle = self.backend.watcher.call_in(LONGEST_SECONDS, lambda: late.append(True))
        while not done():
            assert not late, "it never happened"
            self.backend.watcher.wait()
        self.backend.watcher.cancel(handle)


class FakeWorld(World):
    """Everything in Python; two processes an arming as on Linux, or one as on FreeBSD."""

    def __init__(self, *, one_process: bool = False) -> None:
        self.backend: FakeBackend = FakeBackend(one_process=one_process)

    def jail(self) -> str:
        """Add a jail."""
        return self.backend.add_jail()

    def end_jail(self, jail: str) -> None:
        """Take it away."""
        self.backend.end_jail(jail)

    def wait_jail_ended(self, jail: str) -> None:
        """It has."""

    def inhabited_jail(self) -> str:
        """Add a jail: who lives in it does not matter here."""
        return self.backend.add_jail()

    def successor(self, jail: str) -> str:
        """Add a jail of the same name."""
        self.backend.begin_jail(jail)
        return jail

    def kill(self, pid: int, signum: int) -> None:
        """Signal a fake process."""
        self.backend.kill(pid, signum)

    def child(self) -> int:
        """Add a process."""
        return self.backend.add_process().pid

    def end_child(self, pid: int, death: Death) -> None:
        """End it."""
        self.backend.end(self.backend.processes[pid], death)

    def stranger(self, run: str | None = None, *, leader: bool = True, uids: Uids = OURS) -> int:
        """Add a process to the others."""
        return self.backend.add_stranger(run=run, leader=leader, owner=_owner(uids)).pid

    def forger(self, jail: str, run: str) -> int:
        """Add a process to the others, in a jail."""
        return self.backend.add_stranger(run=run, leader=True, jail=jail).pid

    def end_stranger(self, pid: int) -> None:
        """Take it away."""
        del self.backend.strangers[pid]

    def ids(self, pid: int) -> tuple[int, int]:
        """Return what it was started with."""
        process = self.backend.processes[pid]
        return process.uid, process.gid

    def title(self, pid: int) -> str:
        """Return what it was started with."""
        return self.backend.processes[pid].title

    def children(self) -> set[int]:
        """Return every process there is."""
        return set(self.backend.processes)

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        """Tell the fake's helpers."""
        self.backend.silent = True
        yield
        self.backend.silent = False

    def close(self) -> None:
        """Nothing outlives the object."""


class RealWorld(World):
    """This machine.  Jails must not be our children: the backend ends strays."""

    def __init__(self) -> None:
        self.backend = this_system()
        self._children: dict[int, int] = {}
        self._strangers: dict[int, int] = {}
        # Until our end: FreeBSD starts the helper by its path.
        directory = tempfile.mkdtemp()
        atexit.register(shutil.rmtree, directory)
        image = Path(directory) / "jailprobe"
        subprocess.run(["cc", "-O1", "-o", image, SILENT], check=True)
        self._silent = this_system(image)

    def kill(self, pid: int, signum: int) -> None:
        """Signal it from the host."""
        os.kill(pid, signum)

    def child(self) -> int:
        """Fork a child that does as it reads."""
        read_fd, write_fd = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(write_fd)
            order = os.read(read_fd, 4).decode()
            signum = int(order[1:]) if order.startswith("s") else 0
            if signum:
                signal.signal(signum, signal.SIG_DFL)
                os.kill(os.getpid(), signum)
            os._exit(int(order[1:]))
        os.close(read_fd)
        self._children[pid] = write_fd
        return pid

    def end_child(self, pid: int, death: Death) -> None:
        """Tell the child, and wait until it is a zombie."""
        order = f"e{death.status}" if death.signal is None else f"s{death.signal}"
        os.write(self._children[pid], order.encode())
        os.close(self._children.pop(pid))
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

    def stranger(self, run: str | None = None, *, leader: bool = True, uids: Uids = OURS) -> int:
        """Start a shell."""
        return self._start([], run, leader=leader, uids=uids)

    def _start(self, way: list[str], run: str | None, *, leader: bool, uids: Uids = OURS) -> int:
        """Fork twice, so that it is init's; it lives until it reads the end of a pipe.

        `way` is the command that brings it elsewhere, and gives its words to the next.
        """
        told_read, told = os.pipe()
        their_end, our_end = os.pipe()
        middle = os.fork()
        if middle == 0:
            if os.fork() == 0:
                if leader:
                    os.setsid()
                os.write(told, f"{os.getpid()}".encode())
                os.dup2(their_end, 0)
                os.dup2(told, 1)
                os.setresuid(*uids)
                values = {} if run is None else {"RUN": run, "JID": "1", "JAIL": "j", "RULE": "t1"}
                # A shell that is to keep two users apart must be told so.
                words = ["-pc"] if len({*uids}) > 1 else ["-c"]
                command = [*way, "sh", *words, "echo; read x"]
                os.execvpe(command[0], command, environment("/root", values))
            os._exit(0)
        os.close(told)
        os.close(their_end)
        os.waitpid(middle, 0)
        with os.fdopen(told_read, "rb") as pipe:
            pid = int(pipe.readline())  # its end is the shell's, which stands then
        self._strangers[pid] = our_end
        return pid

    def end_stranger(self, pid: int) -> None:
        """Let it read the end."""
        os.close(self._strangers.pop(pid))

    def close(self) -> None:
        """End the strangers that a failed test left; a child that was killed needs no orders."""
        while self._children:
            os.close(self._children.popitem()[1])
        for pid in list(self._strangers):
            self.end_stranger(pid)

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        """Put another program in the helper's place."""
        usual, self.backend = self.backend, self._silent
        try:
            yield
        finally:
            self.backend = usual
