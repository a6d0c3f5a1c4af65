# SPDX-License-Identifier: BSD-2-Clause
"""What an engine is asked, and how: its own command line, bounded in time, bytes and environment.

Nothing waits: a command's output is read when it is there.  What it says is
hostile until checked: only a name, an id and a pid are taken of it.
"""

import abc
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import ClassVar, Protocol

from jaildaemon.engines.answers import Found, Scan, Stopped
from jaildaemon.engines.endpoint import Endpoint, EngineError
from jaildaemon.engines.identity import Init

HERE = Endpoint()
"""An engine where it is by default."""

SECONDS = 5.0
"""How long a command may take at first: an engine that is slower gets twice as long."""
MOST_SECONDS = 60.0
SILENT = 3
"""Containers in a row of which an engine says nothing, until no more are asked for."""
MAX_BYTES = 1 << 20
"""Of a command's output: some thousands of containers."""
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


class TooLate(EngineError):
    """No answer within the limit."""


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
        seconds: float = SECONDS,
    ) -> None:
        """`done` is called later, never within this call."""
        self._loop, self._done, self._seconds = loop, done, seconds
        self._data = bytearray()
        self._why: str | None = None
        self._is_late = False
        self._child: Child | None = None
        self._deadline = loop.call_in(seconds, self._too_late)
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
        self._is_late = True
        self._fail(f"no answer in {self._seconds:.0f} s")

    def _read(self, untrusted: bytes) -> None:
        self._data += untrusted
        if len(self._data) > MAX_BYTES:
            self._fail(f"its answer is longer than {MAX_BYTES} bytes")

    def _ended(self, why: str | None) -> None:
        self._loop.cancel(self._deadline)
        failed = self._why or why
        output = self._data.decode(errors="replace")
        error = TooLate if self._is_late else EngineError
        self._done(error(failed, output) if failed else output)


Scanned = Callable[[Scan | EngineError], None]
LookedUp = Callable[[Found | Stopped | EngineError | None], None]


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
        self._seconds = SECONDS

    def ask(self, argv: list[str], done: Callable[[str | EngineError], None]) -> None:
        """Ask by a command.  One that is too slow gets twice as long the next time."""
        began = time.monotonic()

        def answered(answer: str | EngineError) -> None:
            took = time.monotonic() - began
            if isinstance(answer, TooLate):
                self._seconds = min(2 * self._seconds, MOST_SECONDS)
            elif isinstance(answer, str):
                # Not at once as short as ever: it may take so long each time.
                self._seconds = min(max(SECONDS, 3 * took), MOST_SECONDS)
            done(answer)

        Question(self._loop, argv, answered, self.endpoint, self._seconds)

    @abc.abstractmethod
    def doubt(self, found: Found, init: Init) -> str | None:
        """Say why this process is not shown to be the container's first one; OSError.

        Nothing that the engine says is asked for here.
        """

    @abc.abstractmethod
    def scan(self, wants: Callable[[str], bool], done: Scanned) -> None:
        """Say which containers of a wanted name run, paused ones too, and which names there are."""

    @abc.abstractmethod
    def lookup(self, name: str, done: LookedUp) -> None:
        """Say which container has this name: None where there is none."""

    def look_up_all(self, names: list[str], listed: Mapping[str, str], done: Scanned) -> None:
        """Look each name up, one after the other; one that is not told of is no other's fault."""
        containers: list[Found] = []
        silent: dict[str, str] = {}
        in_a_row = 0

        def ask_next(left: list[str]) -> None:
            def answered(answer: Found | Stopped | EngineError | None) -> None:
                nonlocal in_a_row
                in_a_row = in_a_row + 1 if isinstance(answer, EngineError) else 0
                if isinstance(answer, EngineError):
                    silent[left[0]] = str(answer)
                    if in_a_row == SILENT:
                        silent.update(dict.fromkeys(left[1:], str(answer)))
                        done(Scan(containers, listed, silent))
                        return
                elif isinstance(answer, Found):
                    containers.append(answer)
                ask_next(left[1:])

            if left:
                self.lookup(left[0], answered)
            else:
                done(Scan(containers, listed, silent))

        ask_next(names)

    @abc.abstractmethod
    def watch(self, poke: Callable[[], None], ended: Callable[[str], None]) -> Stream:
        """Call `poke` when one may have started, ended or changed its name; EngineError.

        `ended` says why nothing is told any more.
        """

    def watch_return(self, back: Callable[[], None]) -> Stream | None:
        """Call `back` when an engine that is not there may be there again, if that is told."""
        del back
        return None
