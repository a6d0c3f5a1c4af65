# SPDX-License-Identifier: BSD-2-Clause
"""What an engine is asked, and how: its own command line, bounded in time, bytes and environment.

Nothing waits: a command's output is read when it is there.  What it says is
hostile until checked: only a name, an id and a pid are taken of it.
"""

import abc
import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

from jaildaemon.engines.endpoint import Endpoint, EngineError
from jaildaemon.engines.identity import Init

HERE = Endpoint()
"""An engine where it is by default."""

SECONDS = 5.0
"""How long a command may take: an engine that is slower is better asked again."""
MAX_BYTES = 1 << 20
"""Of a command's output: some thousands of containers."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")
READ_BYTES = 65536
WORDS = 500
"""Bytes of what a command complained of: its last line is told on."""
LEASH = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""
"""Becomes a command that the kernel ends with the daemon, even where that is killed.

Not setpriv(1), which busybox has without this, and which does not ask whether the
daemon died before.
"""


class Ended(Protocol):
    """How a process ended."""

    @property
    def signal(self) -> int | None:
        """The signal, if one."""

    @property
    def status(self) -> int | None:
        """The exit status, if one."""


class Loop(Protocol):
    """What an engine needs of the event loop (Watcher of backends/base.py)."""

    def watch_fd(self, fd: int, ready: Callable[[], None], *, write: bool = False) -> None:
        """Call `ready` whenever `fd` can be read."""

    def unwatch_fd(self, fd: int) -> None:
        """Stop.  To be called before `fd` is closed."""

    def watch_process(self, pid: int, ended: Callable[[Ended], None]) -> None:
        """Reap our child `pid` when it has ended, then call `ended`."""

    def signal_process(self, pid: int, signum: int) -> None:
        """Signal a watched process."""

    def call_in(self, seconds: float, call: Callable[[], None]) -> int:
        """Call after `seconds`; returns a handle to cancel."""

    def cancel(self, handle: int) -> None:
        """Forget a deadline."""


@dataclass(frozen=True, slots=True)
class Found:
    """A running container: its name, its engine's id of it, and the host's pid of its init."""

    name: str
    id: str
    pid: int
    unit: str = ""
    """The systemd unit that it is in, where its engine says so."""


def found(untrusted_name: str, untrusted_id: str, untrusted_pid: object) -> Found | None:
    """Return a container that an engine speaks of; None where it is none that could be meant."""
    pid = 0
    if isinstance(untrusted_pid, int):
        pid = untrusted_pid
    elif isinstance(untrusted_pid, str) and re.fullmatch(r"[0-9]{1,10}", untrusted_pid):
        pid = int(untrusted_pid)
    plain = NAME.fullmatch(untrusted_name) and NAME.fullmatch(untrusted_id)
    return Found(untrusted_name, untrusted_id, pid) if plain and pid > 0 else None


def as_json(answer: str, name: str) -> object:
    """Return what a command wrote, or an EngineError."""
    try:
        parsed: object = json.loads(answer)
    except (ValueError, RecursionError):
        return EngineError(f"{name} answered what is not JSON")
    return parsed


class Child:
    """A started command, its output read as it comes; `ended` is called once, when all is over."""

    def __init__(
        self,
        loop: Loop,
        argv: list[str],
        read: Callable[[bytes], None],
        ended: Callable[[str | None], None],
        *,
        leashed: bool = False,
        endpoint: Endpoint = HERE,
    ) -> None:
        """Start it; `ended` is told why it failed, or None.  EngineError: it cannot be started.

        With `leashed` it does not outlive us, however we end.
        """
        self._loop, self._read, self._ended = loop, read, ended
        self._name = argv[0]
        self._death: Ended | None = None
        try:
            self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - closed when it is reaped
        except OSError as error:
            raise EngineError(f"{argv[0]} cannot be started: {error.strerror}") from error
        try:
            read_fd, write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            self._complaints.close()
            raise EngineError(f"{argv[0]} cannot be started: {error.strerror}") from error
        os.set_blocking(write_fd, True)
        try:
            path = endpoint.path(argv[0])
            if leashed:
                leash = [sys.executable, "-I", "-S", "-c", LEASH, str(os.getpid())]
                path, argv = leash[0], [*leash, path, *argv[1:]]
            self._pid = os.posix_spawn(
                path,
                argv,
                endpoint.environment,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, write_fd, 1),
                    (os.POSIX_SPAWN_DUP2, self._complaints.fileno(), 2),
                ],
                setsigmask=(),
                setsid=True,
            )
        except (OSError, EngineError) as error:
            os.close(read_fd)
            self._complaints.close()
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise EngineError(f"{argv[0]} cannot be started: {why}") from error
        finally:
            os.close(write_fd)
        self._fd = read_fd
        loop.watch_process(self._pid, self._reaped)
        try:
            loop.watch_fd(read_fd, self._readable)
        except OSError as error:  # ENOSPC, ENOMEM
            self._ended = lambda _: None
            self.kill()
            raise EngineError(f"{argv[0]} cannot be listened to: {error.strerror}") from error

    def kill(self) -> None:
        """End it, and whatever it started; `ended` is called when it is reaped."""
        if self._death is None:
            try:
                os.killpg(self._pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                self._loop.signal_process(self._pid, signal.SIGKILL)
        self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            self._loop.unwatch_fd(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _readable(self) -> None:
        try:
            untrusted = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return
        if untrusted:
            self._read(untrusted)
            return
        self._close()
        self._settle()

    def _reaped(self, death: Ended) -> None:
        self._death = death
        # Whom it left behind may hold the pipe for good: what is there is all there is.
        while self._fd >= 0:
            try:
                untrusted = os.read(self._fd, READ_BYTES)
            except BlockingIOError:
                break
            if not untrusted:
                break
            self._read(untrusted)
        self._close()
        self._settle()

    def _settle(self) -> None:
        if self._death is None or self._fd >= 0:
            return
        ended, self._ended = self._ended, lambda _: None
        if self._death.status == 0:
            self._complaints.close()
            ended(None)
            return
        ended(f"{self._name} failed: {self._last_words() or self._death}")

    def _last_words(self) -> str:
        with self._complaints as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - WORDS))
            lines = file.read(WORDS).decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""


class Question:
    """A command that is asked once: all of its output, or why there is none."""

    def __init__(
        self,
        loop: Loop,
        argv: list[str],
        done: Callable[[str | EngineError], None],
        endpoint: Endpoint = HERE,
    ) -> None:
        """`done` is called later, never within this call."""
        self._loop, self._done = loop, done
        self._data = bytearray()
        self._why: str | None = None
        self._child: Child | None = None
        self._deadline = loop.call_in(SECONDS, self._too_late)
        try:
            self._child = Child(loop, argv, self._read, self._ended, endpoint=endpoint)
        except EngineError as error:
            self._why = str(error)
            loop.cancel(self._deadline)
            self._deadline = loop.call_in(0, lambda: self._ended(None))

    def _fail(self, why: str) -> None:
        self._why = self._why or why
        if self._child is not None:
            self._child.kill()

    def _too_late(self) -> None:
        self._fail(f"no answer in {SECONDS:.0f} s")

    def _read(self, untrusted: bytes) -> None:
        self._data += untrusted
        if len(self._data) > MAX_BYTES:
            self._fail(f"its answer is longer than {MAX_BYTES} bytes")

    def _ended(self, why: str | None) -> None:
        self._loop.cancel(self._deadline)
        failed = self._why or why
        output = self._data.decode(errors="replace")
        self._done(EngineError(failed, output) if failed else output)


Scanned = Callable[[list[Found] | EngineError], None]
LookedUp = Callable[[Found | EngineError | None], None]


class Stream(abc.ABC):
    """What tells that something may have changed, until `stop`."""

    @abc.abstractmethod
    def stop(self) -> None:
        """Stop; nothing is told any more."""


class EventStream(Stream):
    """A command that writes something whenever something happens."""

    def __init__(
        self,
        loop: Loop,
        argv: list[str],
        poke: Callable[[], None],
        ended: Callable[[str], None],
        endpoint: Endpoint = HERE,
    ) -> None:
        self._stopped = False

        def over(why: str | None) -> None:
            if not self._stopped:
                ended(why or f"{argv[0]} ended")

        def read(_: bytes) -> None:
            if not self._stopped:
                poke()

        self._child = Child(loop, argv, read, over, leashed=True, endpoint=endpoint)

    def stop(self) -> None:
        """End the command."""
        self._stopped = True
        self._child.kill()


class Engine(abc.ABC):
    """One engine of the host's root."""

    name: ClassVar[str]
    settings: ClassVar[tuple[str, ...]] = ()
    """What of its endpoint can be said in a file."""

    def __init__(self, loop: Loop, endpoint: Endpoint = HERE) -> None:
        self._loop, self.endpoint = loop, endpoint

    def ask(self, argv: list[str], done: Callable[[str | EngineError], None]) -> None:
        """Ask by a command."""
        Question(self._loop, argv, done, self.endpoint)

    @abc.abstractmethod
    def doubt(self, found: Found, init: Init) -> str | None:
        """Say why this process is not shown to be the container's first one; OSError.

        Nothing that the engine says is asked for here.
        """

    @abc.abstractmethod
    def scan(self, wants: Callable[[str], bool], done: Scanned) -> None:
        """Say which containers of a wanted name run, paused ones too."""

    @abc.abstractmethod
    def lookup(self, name: str, done: LookedUp) -> None:
        """Say which running container has this name: None where there is none."""

    def look_up_all(self, names: list[str], done: Scanned) -> None:
        """Look each name up, one after the other; those that run are what a scan found."""
        containers: list[Found] = []

        def ask_next(left: list[str]) -> None:
            if not left:
                done(containers)
                return

            def answered(answer: Found | EngineError | None) -> None:
                if isinstance(answer, EngineError):
                    done(answer)
                    return
                if answer is not None:
                    containers.append(answer)
                ask_next(left[1:])

            self.lookup(left[0], answered)

        ask_next(names)

    @abc.abstractmethod
    def watch(self, poke: Callable[[], None], ended: Callable[[str], None]) -> Stream:
        """Call `poke` when one may have started, ended or changed its name; EngineError.

        `ended` says why nothing is told any more.
        """
