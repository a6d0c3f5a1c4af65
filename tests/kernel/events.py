# SPDX-License-Identifier: BSD-2-Clause
"""Waiting for what happens: a line in a FIFO, the end of a process.  Nothing here sleeps."""

import contextlib
import os
import select
import shlex
import sys
import time
from pathlib import Path

PATIENCE_SECONDS = float(os.environ.get("JAILDAEMON_TEST_PATIENCE", "60"))
"""How long something that must happen may take.  A working machine needs
milliseconds, a starved one seconds; an emulated one sets the variable."""


class TooLate(AssertionError):
    """What must happen did not."""


class Fifo:
    """A named pipe on the host, held open at both ends so that nobody ever waits to open it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path, 0o600)
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._buffer = b""

    def close(self) -> None:
        """Close it; who still waits for a line reads the end of the file."""
        os.close(self._fd)

    def _read(self, seconds: float) -> bool:
        ready, _, _ = select.select([self._fd], [], [], seconds)
        if ready:
            with contextlib.suppress(BlockingIOError):
                self._buffer += os.read(self._fd, 65536)
        return bool(ready)

    def lines(self) -> list[str]:
        """Return the lines that are there now, without waiting."""
        while self._read(0):
            pass
        *whole, self._buffer = self._buffer.split(b"\n")
        return [line.decode() for line in whole]

    def wait(self) -> str:
        """Wait for one line."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while b"\n" not in self._buffer:
            if not self._read(max(0.0, deadline - time.monotonic())):
                msg = f"nothing was written to {self.path.name} in {PATIENCE_SECONDS:.0f} s"
                raise TooLate(msg)
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()

    def write(self, text: str) -> None:
        """Write one line for whoever reads."""
        os.write(self._fd, text.encode() + b"\n")


class Bell(Fifo):
    """What a rule's command writes to, so that the test sees that it ran."""

    def command(self, words: str = "rang") -> str:
        """Return a command that writes `words`, which sh(1) expands, as one line."""
        return f'echo "{words}" > {shlex.quote(str(self.path))}'


class Gate(Fifo):
    """What a rule's command waits at until the test opens it."""

    @property
    def command(self) -> str:
        """Return a command that waits until the gate is opened."""
        return f"read -r go < {shlex.quote(str(self.path))}"

    def open(self) -> None:
        """Let one command pass."""
        self.write("go")


def wait_gone(pid: int) -> None:
    """Wait for the end of a process that may be anybody's child."""
    if sys.platform == "linux":
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            gone = bool(poll.poll(PATIENCE_SECONDS * 1000))
        finally:
            os.close(fd)
    else:
        with contextlib.closing(select.kqueue()) as queue:
            wish = select.kevent(pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD, select.KQ_NOTE_EXIT)
            try:
                gone = bool(queue.control([wish], 1, PATIENCE_SECONDS))
            except ProcessLookupError:
                return
    if not gone:
        msg = f"process {pid} did not end in {PATIENCE_SECONDS:.0f} s"
        raise TooLate(msg)
