# SPDX-License-Identifier: BSD-2-Clause
"""What is measured: a private daemon, throwaway jails, and FIFOs that commands write to.

DANGER: a Linux kernel was seen to lock up for good when thousands of probes, each
with its seccomp filter, died at once.  So probes are always taken down a jail at a
time, and neither the terminal's ^C nor our own end may reach a jail or the daemon.
"""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from jaildaemon.backends import throwaway_jail
from jaildaemon.backends.throwaway import ThrowawayJail
from jaildaemon.core import wire

JAILDAEMON = [os.environ.get("JAILDAEMON") or str(Path(sys.executable).parent / "jaildaemon")]
LIBEXEC = Path(__file__).resolve().parent.parent / "src" / "jaildaemon" / "libexec"
PATIENCE_SECONDS = max(60.0, float(os.environ.get("JAILDAEMON_TEST_PATIENCE", "0")))
"""For one thing to happen; an emulated machine needs more."""
PIPE_BYTES = 1 << 20
"""Of the daemon's log: it is read between measurements only, and must not overflow meanwhile."""
WINDOW = 32
"""Calls in flight on one connection; their bytes stay far under what the daemon buffers."""
POLL_SECONDS = 0.02


class Unmeasured(Exception):
    """A figure cannot be had here, and why."""


FAILURES = (Unmeasured, OSError, RuntimeError, subprocess.CalledProcessError)
"""What may end one part of the benchmark: it is told, and the other parts go on."""


def readable(fds: Sequence[int], what: str, end: float | None = None) -> list[int]:
    """Wait until one of `fds` can be read; return which can."""
    left = PATIENCE_SECONDS if end is None else max(0.0, end - time.monotonic())
    ready = select.select(fds, [], [], left)[0]
    if not ready:
        raise TimeoutError(f"nothing happened: {what}")
    return ready


class Fifo:
    """What commands write to; a line each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path, 0o666)
        self.fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._rest = b""

    def lines(self) -> list[str]:
        """Return the lines that are there."""
        data = self._rest
        with contextlib.suppress(BlockingIOError):
            while True:
                data += os.read(self.fd, 65536)
        *lines, self._rest = data.split(b"\n")
        return [line.decode() for line in lines]

    def close(self) -> None:
        os.close(self.fd)


class Connection:
    """One connection to the daemon, on which calls may be pipelined."""

    def __init__(self, path: str) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.connect(path)
        self._decoder = wire.Decoder(limit=None)

    def _answer(self) -> dict[str, Any]:
        while (answer := self._decoder.next()) is None:
            readable([self._sock.fileno()], "no answer of the daemon")
            data = self._sock.recv(1 << 18)
            if not data:
                raise ConnectionError("the daemon hung up")
            self._decoder.feed(data)
        if "error" in answer:
            raise RuntimeError(f"the daemon says {answer}")
        found = answer["parameters"]
        assert isinstance(found, dict)
        return found

    def calls(
        self, method: str, wishes: Iterable[dict[str, object]], window: int = WINDOW
    ) -> list[dict[str, Any]]:
        """Call a method many times, `window` calls ahead of the answers."""
        answers: list[dict[str, Any]] = []
        sent = 0
        for wish in wishes:
            self._sock.sendall(wire.call(f"{wire.INTERFACE}.{method}", wish))
            sent += 1
            if sent - len(answers) >= window:
                answers.append(self._answer())
        while len(answers) < sent:
            answers.append(self._answer())
        return answers

    def call(self, method: str, **wish: object) -> dict[str, Any]:
        return self.calls(method, [wish])[0]

    def close(self) -> None:
        self._sock.close()


class Daemon:
    """A `jaildaemon -D -F` of our own, in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.directory = directory
        self.socket = str(directory / "pipe")
        self.pid = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._rest, self._log = b"", [""]
        self._connection: Connection | None = None

    def start(self) -> None:
        """Start it, in a session of its own; return when it serves."""
        env = {name: value for name, value in os.environ.items() if name != "JAILDAEMON_CONFIG"}
        words = [*JAILDAEMON, "-D", "-F", "-f", self.socket, "-p", str(self.directory / "pid")]
        self._process = subprocess.Popen(
            [*words, "--state-dir", str(self.directory / "state")],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=env,
        )
        pipe = self._process.stderr
        assert pipe is not None
        os.set_blocking(pipe.fileno(), False)
        if sys.platform == "linux":
            import fcntl

            fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._rest, self._log = b"", []
        self.wait(" serves ")
        self.pid = self._process.pid

    @property
    def connection(self) -> Connection:
        """The connection for everything that is not itself measured."""
        if self._connection is None:
            self._connection = Connection(self.socket)
        return self._connection

    def hang_up(self) -> None:
        """End that connection: the daemon ends, or is asked what it does when nobody calls."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # --- its log: what is not read when it overflows is lost, and it never waits ---------

    def drain(self) -> None:
        """Read the log, and forget it."""
        self._read()
        self._log.clear()

    def log_fd(self) -> int:
        assert self._process is not None
        assert self._process.stderr is not None
        return self._process.stderr.fileno()

    def _read(self) -> bool:
        data = b""
        ended = False
        with contextlib.suppress(BlockingIOError):
            while more := os.read(self.log_fd(), 65536):
                data += more
            ended = True
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._log += [line.decode(errors="replace") for line in lines]
        return ended

    def wait(self, text: str) -> str:
        """Wait for a line of the log with `text`; forget those before it."""
        end = time.monotonic() + PATIENCE_SECONDS
        ended = False
        while True:
            while self._log:
                line = self._log.pop(0)
                if text in line:
                    return line
            if ended:
                raise ConnectionError("the daemon has ended")
            readable([self.log_fd()], f"{text!r} in the daemon's log", end)
            ended = self._read()

    # --- its rules ---------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        return self.connection.call("Status")

    def until(self, end: float, **wanted: int) -> None:
        """Ask for the status until it says so."""
        while True:
            self.drain()
            found = self.status()
            if all(found[name] == value for name, value in wanted.items()):
                return
            if time.monotonic() > end:
                raise TimeoutError(f"not {wanted}: {found}")
            time.sleep(POLL_SECONDS)

    def quiet(self) -> None:
        """Wait until no command runs or waits."""
        self.until(time.monotonic() + PATIENCE_SECONDS, running=0, queued=0)

    def detach(self, jail: str) -> None:
        """Withdraw the rules of a jail; return when their probes are no more."""
        self.drain()
        self.connection.call("Detach", jail=jail)

    def signal(self, number: signal.Signals) -> None:
        """Signal it, and wait for its end."""
        self.hang_up()
        assert self._process is not None
        self._process.send_signal(number)
        assert self._process.stderr is not None
        while True:  # its last words; nobody else should hold the pipe
            readable([self.log_fd()], "the end of the daemon")
            if self._read():
                break
        self._process.stderr.close()
        self._process.wait()
        self._process = None

    def close(self) -> None:
        """End it.  Its probes were withdrawn before."""
        if self._process is not None:
            self.signal(signal.SIGTERM)


def wish(jail: str, command: str, title: str, **policy: object) -> dict[str, object]:
    """Return what Attach takes, without a limit."""
    return {
        "command": command,
        "jail": jail,
        "title": title,
        "policy": {"respawn": "no", "limit": "none", **policy},
    }


class Rig:
    """One measurement's things; they end with it, the probes first and in small steps."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        self.directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench.")))
        # Whatever is under it is told to commands, and to whoever is in a jail.
        self.directory.chmod(0o755)
        self._count = 0

    def _name(self, what: str) -> Path:
        self._count += 1
        return self.directory / f"{what}{self._count}"

    def fifo(self) -> Fifo:
        fifo = Fifo(self._name("fifo"))
        self.stack.callback(fifo.close)
        return fifo

    def daemon(self) -> Daemon:
        daemon = Daemon(self._name("daemon"))
        self.stack.callback(daemon.close)
        daemon.start()
        return daemon

    def jail(self, daemon: Daemon | None = None) -> ThrowawayJail:
        """Make a jail, whose rules with `daemon` are withdrawn before it ends."""
        # ^C in the terminal is for us: a jail that dies of it takes all its probes along.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            jail = throwaway_jail()
        finally:
            signal.signal(signal.SIGINT, before)
        self.stack.callback(jail.close)
        if daemon is not None:

            def withdraw() -> None:
                # A daemon that is no more has no probes; one that never came back neither.
                with contextlib.suppress(OSError):
                    daemon.hang_up()  # there may be answers of calls that were interrupted
                    daemon.detach(jail.jail)

            self.stack.callback(withdraw)
        return jail

    def process(self, words: list[str], **kwargs: Any) -> "subprocess.Popen[bytes]":
        """Run a process until the end of the measurement."""
        process: subprocess.Popen[bytes] = subprocess.Popen(words, start_new_session=True, **kwargs)

        def end() -> None:
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
            process.terminate()
            process.wait()

        self.stack.callback(end)
        return process


@contextlib.contextmanager
def rig() -> Iterator[Rig]:
    """Give a rig; afterwards its daemons, jails and files are no more."""
    with ExitStack() as stack:
        yield Rig(stack)
