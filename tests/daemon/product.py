# SPDX-License-Identifier: BSD-2-Clause
"""The installed command, a real daemon of it, and a client that says anything."""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

JAILDAEMON = Path(os.environ.get("JAILDAEMON") or Path(sys.executable).parent / "jaildaemon")
LONGEST_SECONDS = max(60.0, float(os.environ.get("JAILDAEMON_TEST_PATIENCE", "0")))
"""A failure's bound, never a wait."""

Message = dict[str, Any]


@contextlib.contextmanager
def short_directory() -> Iterator[Path]:
    """Give a directory whose path leaves room for a socket's: 103 bytes are all there is."""
    with tempfile.TemporaryDirectory(prefix="jd.") as name:
        yield Path(name)


def run(
    *arguments: str | Path, before: tuple[str, ...] = (), **how: Any
) -> subprocess.CompletedProcess[str]:
    """Run jaildaemon to its end; `before` are words before it, as setpriv(1) wants."""
    return subprocess.run(
        [*before, JAILDAEMON, *arguments],
        capture_output=True,
        text=True,
        timeout=LONGEST_SECONDS,
        check=False,
        **how,
    )


class Client:
    """One connection to a control socket; it sends what it is told."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # With a timeout, a full queue of the listener would be an error at once.
        self.socket.connect(str(path))
        self.socket.settimeout(LONGEST_SECONDS)
        self._buffer = b""

    def send(self, *messages: Message) -> None:
        """Send messages in one piece."""
        self.socket.sendall(b"".join(json.dumps(m).encode() + b"\0" for m in messages))

    def receive(self) -> Message | None:
        """Return the next message; None at the end of the connection."""
        while b"\0" not in self._buffer:
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                assert self._buffer == b""
                return None
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        found: Message = json.loads(message)
        return found

    def call(self, method: str, **parameters: Any) -> Message:
        """Call a method of org.jaildaemon; return what is answered."""
        name = method if "." in method else f"org.jaildaemon.{method}"
        self.send({"method": name, "parameters": parameters})
        answer = self.receive()
        assert answer is not None, "the connection was closed"
        return answer

    def close(self) -> None:
        """Hang up."""
        self.socket.close()


class Lines:
    """Lines of a pipe, waited for one by one."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._buffer = b""
        self.seen: list[str] = []

    def next(self) -> str | None:
        """Return the next line; None at the end."""
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self._fd], [], [], LONGEST_SECONDS)
            assert ready, f"no more came after {self.seen}"
            data = os.read(self._fd, 65536)
            if not data:
                return None
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        self.seen.append(line.decode())
        return self.seen[-1]

    def wait_for(self, text: str) -> str:
        """Return the next line that has `text` in it."""
        while (line := self.next()) is not None:
            if text in line:
                return line
        raise AssertionError(f"{text!r} never came: {self.seen}")


class Daemon:
    """A daemon in the foreground, in a directory of its own."""

    def __init__(
        self,
        directory: Path,
        *,
        before: tuple[str, ...] = (),
        state: Path | None = None,
        **how: Any,
    ) -> None:
        self.directory = directory
        self.socket, self.pidfile = directory / "pipe", directory / "pid"
        arguments = [
            str(w) for w in (JAILDAEMON, "-D", "-F", "-f", self.socket, "-p", self.pidfile)
        ]
        arguments += [] if state is None else ["--state-dir", str(state)]
        self.process = subprocess.Popen([*before, *arguments], stderr=subprocess.PIPE, **how)
        assert self.process.stderr is not None
        self.lines = Lines(self.process.stderr.fileno())
        self.pid = int(self.lines.wait_for(" serves ").split()[-1])

    def client(self) -> Client:
        """Connect."""
        return Client(self.socket)

    def call(self, method: str, **parameters: Any) -> Message:
        """Call a method on a connection of its own."""
        client = self.client()
        try:
            return client.call(method, **parameters)
        finally:
            client.close()

    def status(self) -> Message:
        """Return the counts."""
        found: Message = self.call("Status")["parameters"]
        return found

    def descriptors(self) -> dict[str, str]:
        """Return what the daemon holds open (Linux)."""
        directory = Path(f"/proc/{self.pid}/fd")
        found = {}
        for name in os.listdir(directory):
            with contextlib.suppress(FileNotFoundError):
                found[name] = os.readlink(directory / name)
        return found

    def stop(self, signum: int = signal.SIGTERM) -> list[str]:
        """End it; return everything that it has said; a second time changes nothing."""
        assert self.process.stderr is not None
        if self.process.stderr.closed:
            return self.lines.seen
        if self.process.poll() is None:
            os.kill(self.pid, signum)
        while self.lines.next() is not None:
            continue
        self.process.wait(LONGEST_SECONDS)
        self.process.stderr.close()
        return self.lines.seen


def wait_until(happened: Callable[[], bool], what: str) -> None:
    """Return when something is so that no event tells; a look costs a call of the daemon."""
    end = time.monotonic() + LONGEST_SECONDS
    while not happened():
        assert time.monotonic() < end, f"never: {what}"
        os.sched_yield()  # between two looks the others may run


def wait_ended(pid: int) -> Callable[[], None]:
    """Return what waits until process `pid`, ours or not, has ended."""
    if sys.platform == "linux":
        pidfd = os.pidfd_open(pid)

        def wait() -> None:
            ready, _, _ = select.select([pidfd], [], [], LONGEST_SECONDS)
            os.close(pidfd)
            assert ready, f"{pid} never ended"

    else:
        queue = select.kqueue()
        event = select.kevent(pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD, select.KQ_NOTE_EXIT)
        queue.control([event], 0)

        def wait() -> None:
            events = queue.control(None, 1, LONGEST_SECONDS)
            queue.close()
            assert events, f"{pid} never ended"

    return wait
