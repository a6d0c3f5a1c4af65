# SPDX-License-Identifier: BSD-2-Clause
"""The end of each command's output: who reads it, and the file it is kept in.

helper/output.c reads for all commands.  It outlives the daemon, as a command may
that holds its output for months.
"""

import array
import fcntl
import os
import socket
import termios
from collections.abc import Callable
from pathlib import Path

from jaildaemon.backends import Program
from jaildaemon.backends.base import Backend

RING_BYTES = 65536
HEAD_BYTES = 8
TOKEN_BYTES = 8
MAX_PIPES = 250
"""That one reader has at a time (helper/output.c): some 500 descriptors."""
TAKEN, FULL, ENDED = b"TFE"
HELD_BYTES = 4096
"""That a pipe may hold while it has no reader; it takes at least four times as much."""
MAX_FAILURES = 10
"""To find a reader; then a pipe is emptied whatever it holds."""
RETRY_SECONDS = 1.0
LINGER_SECONDS = 1.0
"""How long a reader that has nothing to read waits for more."""
OUTPUT_SECONDS = 1.0
"""After its command's end an output that somebody still holds is taken as it is."""


def take_ring(path: Path) -> bytes:
    """Return the output that helper/output.c kept in `path`, and remove the file."""
    try:
        data = path.read_bytes()
        path.unlink()
    except FileNotFoundError:
        return b""
    total = int.from_bytes(data[:HEAD_BYTES], "little")
    ring = data[HEAD_BYTES:]
    if total <= len(ring):
        return ring[:total]
    at = total % RING_BYTES
    return ring[at:] + ring[:at]


class Output:
    """The output of one run, kept in the file `ring`."""

    def __init__(self, backend: Backend, ring: str) -> None:
        self._backend, self.ring = backend, ring
        self.pipe_fd = -1
        """Ours until a reader has said that it has it."""
        self._ended = False  # of an adopted command's nobody ever tells us
        self._wanted: Callable[[str], None] | None = None
        self._due = False
        """Whether nothing more is waited for than that the reader comes so far."""
        self._ask: Callable[[], None] | None = None
        """Has its reader say `caught_up`; an adopted command's cannot be asked."""
        self.given = False
        """Whether a reader was sent the pipe, and has not said that it has it."""
        self._failures = 0
        self._draining = False

    @property
    def has_reader(self) -> bool:
        """Whether nothing of the output depends on this process any more."""
        return self.pipe_fd < 0

    def taken(self, ask: Callable[[], None]) -> None:
        """Take note that a reader has the pipe, which `ask` asks how far it is."""
        self._close_pipe()
        self._ask = ask
        if self._due:
            ask()

    def _close_pipe(self) -> None:
        self.stop_draining()
        os.close(self.pipe_fd)
        self.pipe_fd, self.given = -1, False

    def failed(self) -> None:
        """Take note that no reader has it.  A pipe that fills up is emptied: no command may wait.

        What little is in it is kept for the next reader.
        """
        self.given = False
        self._failures += 1
        if self.has_reader or self._draining:
            return
        held = array.array("i", [0])
        fcntl.ioctl(self.pipe_fd, termios.FIONREAD, held)
        if held[0] > HELD_BYTES or self._failures > MAX_FAILURES:
            self._draining = True
            self._backend.watcher.watch_fd(self.pipe_fd, self._drain)

    def _drain(self) -> None:
        try:
            data = os.read(self.pipe_fd, RING_BYTES)
        except BlockingIOError:
            return  # somebody who holds the other end has read it
        if not data:
            self._close_pipe()
            self.ended()

    def stop_draining(self) -> None:
        """Leave the rest to a reader."""
        if self._draining:
            self._draining = False
            self._backend.watcher.unwatch_fd(self.pipe_fd)

    def caught_up(self) -> None:
        """Take note that all is read that was written before its reader was asked."""
        self._give()

    def ended(self) -> None:
        """Take note that nobody can write any more, and all of it is read."""
        self._ended = True
        self._give()

    def when_read(self, take: Callable[[str], None]) -> None:
        """Give the file once, when all of it is read, for `take_ring`.

        The command has ended.  A jail it started may hold its output for months:
        what was written by OUTPUT_SECONDS after its end is what there is.  The reader
        may be behind: on a busy host it has perhaps not run since.
        """
        self._wanted = take
        self._backend.watcher.call_in(0.0 if self._ended else OUTPUT_SECONDS, self._late)

    def _late(self) -> None:
        self._due = True
        if self._ended or (self.has_reader and self._ask is None):
            self._give()
        elif self._ask is not None:
            self._ask()

    def _give(self) -> None:
        take, self._wanted = self._wanted, None
        if take is not None:
            take(self.ring)

    def open_ring(self) -> int:
        """Open the file; where that cannot be, /dev/null: all of it is read, so nobody blocks."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            return os.open(self.ring, flags, 0o600)
        except OSError:
            return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)


class Readers:
    """The readers of a daemon: one, and another for each MAX_PIPES outputs more."""

    def __init__(self, backend: Backend, program: Program) -> None:
        self._backend, self._program = backend, program
        self._newest: _Reader | None = None
        self.trouble: str | None = None
        """Why output is not read now."""

    def take(self, output: Output) -> None:
        """Have the output read.  The command runs: whatever fails must not look as if it did not.

        Until there is room for a reader, or in it, the pipe itself holds 64 KiB.
        """
        if output.has_reader:
            return
        try:
            if self._newest is None or not self._newest.takes_more:
                self._newest = _Reader(self._backend, self, self._program)
            self._newest.take(output)
        except OSError as error:
            self.failed(output, f"cannot be started: {error.strerror}")

    def failed(self, output: Output, why: str) -> None:
        """Take note of what has no reader, and try again soon."""
        self.trouble = f"{self._program.path} {why}"
        output.failed()
        self._backend.watcher.call_in(RETRY_SECONDS, lambda: self.take(output))


class _Reader:
    """One process of helper/output.c; OSError where it cannot be started."""

    def __init__(self, backend: Backend, readers: Readers, program: Program) -> None:
        self._backend, self._readers = backend, readers
        self._outputs: dict[bytes, Output] = {}
        self._last_token = 0
        self._open = True
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._socket.setblocking(False)
            pid = program.start(
                ["jailoutput"],
                [
                    (os.POSIX_SPAWN_DUP2, theirs.fileno(), 0),
                    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_RDWR, 0),
                    (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_RDWR, 0),
                ],
            )
            backend.watcher.watch_process(pid, lambda _: self._close())
            backend.watcher.watch_fd(self._socket.fileno(), self._hear)
        except BaseException:
            self._open = False
            self._socket.close()  # and so it ends, if it has begun
            raise
        finally:
            theirs.close()

    @property
    def takes_more(self) -> bool:
        """Whether it lives, and has room."""
        return self._open and len(self._outputs) < MAX_PIPES

    def take(self, output: Output) -> None:
        """Give it one output to read; OSError."""
        ring_fd = output.open_ring()
        self._last_token += 1
        token = self._last_token.to_bytes(TOKEN_BYTES, "little")
        try:
            socket.send_fds(self._socket, [token], [output.pipe_fd, ring_fd])
        finally:
            os.close(ring_fd)
        self._outputs[token] = output
        output.given = True
        output.stop_draining()

    def _ask(self, token: bytes) -> None:
        """Have it answer FULL to a token alone: after it has read what there was by then."""
        try:
            if token in self._outputs and self._open:
                self._socket.send(token)
        except OSError:  # it has much to do, or it is dead, which we shall hear
            self._backend.watcher.call_in(RETRY_SECONDS, lambda: self._ask(token))

    def _hear(self) -> None:
        try:
            said = self._socket.recv(TOKEN_BYTES + 1)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if not said:
            self._close()
            return
        token, what = said[:TOKEN_BYTES], said[TOKEN_BYTES]
        output = self._outputs.get(token)
        if output is None:
            return  # it ended before the reader was asked how far it is
        if what == TAKEN:
            self._readers.trouble = None
            output.taken(lambda: self._ask(token))
            return
        if what == FULL and output.has_reader:
            output.caught_up()
            return
        del self._outputs[token]
        if what == FULL:
            self._readers.failed(output, "has no room")
        else:
            output.ended()
        if not self._outputs:
            self._backend.watcher.call_in(LINGER_SECONDS, self._rest)

    def _rest(self) -> None:
        if not self._outputs:
            self._close()

    def _close(self) -> None:
        """Let it end, or take note that it has."""
        if not self._open:
            return
        self._open = False
        self._backend.watcher.unwatch_fd(self._socket.fileno())
        self._socket.close()
        for output in self._outputs.values():
            if output.has_reader:
                output.ended()  # somebody killed it: no more will come
            else:
                self._readers.failed(output, "ended as soon as it was started")
