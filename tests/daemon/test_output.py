# SPDX-License-Identifier: BSD-2-Clause
"""helper/output.c and who hands outputs to it, with this system's real event loop."""

import fcntl
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jaildaemon.backends import OUTPUT_READER, Program
from jaildaemon.daemon import output as outputs
from jaildaemon.daemon.output import (
    FULL,
    MAX_PIPES,
    TAKEN,
    Output,
    Readers,
    take_ring,
)

if sys.platform == "linux":
    from jaildaemon.backends.linux_watcher import LinuxWatcher as SystemWatcher
else:
    from jaildaemon.backends.freebsd_watcher import FreeBSDWatcher as SystemWatcher

LONGEST_SECONDS = 60.0
"""A failure's bound, never a wait."""
O_DIRECT = 0o40000
"""Of Linux, pipe(2)."""


class Place:
    """Readers with a real loop, and the outputs that they were given."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.watcher = SystemWatcher()
        backend: Any = SimpleNamespace(watcher=self.watcher)
        self.backend = backend
        self.program = Program("output reader", OUTPUT_READER)
        self.readers = Readers(backend, self.program)
        self.ends: list[int] = []

    def output(self, name: str) -> tuple[Output, int]:
        """Return an output that is not read yet, and the end that a command writes to."""
        output = Output(self.backend, str(self.directory / name))
        output.pipe_fd, write_fd = os.pipe()
        self.ends.append(write_fd)
        return output, write_fd

    def end(self, write_fd: int) -> None:
        """Close a writing end."""
        self.ends.remove(write_fd)
        os.close(write_fd)

    def until(self, done: Callable[[], bool]) -> None:
        """Serve until then."""
        late: list[bool] = []
        handle = self.watcher.call_in(LONGEST_SECONDS, lambda: late.append(True))
        while not done():
            assert not late, "it never came to that"
            self.watcher.wait()
        self.watcher.cancel(handle)

    def pass_over(self, seconds: float) -> None:
        """Serve until so much time has passed."""
        over: list[bool] = []
        self.watcher.call_in(seconds, lambda: over.append(True))
        self.until(lambda: bool(over))

    def close(self) -> None:
        """End everything; no reader may be left."""
        for write_fd in self.ends:
            os.close(write_fd)
        for pid in self.watcher.children():
            os.kill(pid, signal.SIGCONT)  # that a failed test left stopped
        self.until(lambda: self.watcher.children() == [])
        self.watcher.close()
        self.program.close()


@pytest.fixture
def place(directory: Path) -> Iterator[Place]:
    found = Place(directory)
    yield found
    found.close()


def read_of(place: Place, output: Output) -> bytes:
    """Return what was kept, once all of it is read."""
    kept: list[bytes] = []
    output.when_read(lambda ring: kept.append(take_ring(Path(ring))))
    place.until(lambda: bool(kept))
    return kept[0]


def test_one_reader_keeps_the_end_of_each_output_apart(place: Place) -> None:
    made = [place.output(f"{n}") for n in range(20)]
    for number, (output, write_fd) in enumerate(made):
        place.readers.take(output)
        os.write(write_fd, b"%d," % number * 100)
    place.until(lambda: all(output.has_reader for output, _ in made))
    assert len(place.watcher.children()) == 1
    for number, (output, write_fd) in enumerate(made):
        os.write(write_fd, b"end")
        place.end(write_fd)
        assert read_of(place, output) == b"%d," % number * 100 + b"end"


def test_of_much_output_the_last_64_kib_are_kept(place: Place) -> None:
    output, write_fd = place.output("much")
    place.readers.take(output)
    place.until(lambda: output.has_reader)
    said = b"".join(b"%07d\n" % n for n in range(100_000))
    for at in range(0, len(said), 50_000):
        os.write(write_fd, said[at : at + 50_000])
    place.end(write_fd)
    assert read_of(place, output) == said[-65536:]


def test_a_reader_without_room_is_followed_by_another(place: Place) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    try:
        made = [place.output(f"{n}") for n in range(MAX_PIPES + 10)]
        for output, _ in made:
            place.readers.take(output)
            place.until(lambda output=output: output.has_reader)  # type: ignore[misc]
        assert len(place.watcher.children()) == 2
        for output, write_fd in made:
            os.write(write_fd, b"x")
            place.end(write_fd)
            assert read_of(place, output) == b"x"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_an_output_that_a_reader_had_no_descriptors_for_is_handed_over_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outputs, "RETRY_SECONDS", 0.01)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    first, first_end = place.output("first")
    place.readers.take(first)
    place.until(lambda: first.has_reader)
    (pid,) = place.watcher.children()
    if sys.platform != "linux":
        pytest.skip("cannot: no other process's limits can be set here")
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (6, limits[1]))
    second, second_end = place.output("second")
    place.readers.take(second)
    for _ in range(5):
        place.watcher.wait()
    assert not second.has_reader, "we have it still: nothing that is written is lost"
    os.write(second_end, b"kept")
    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    place.until(lambda: second.has_reader)
    place.end(second_end)
    assert read_of(place, second) == b"kept"
    place.end(first_end)


def test_after_a_reader_was_killed_another_takes_over(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outputs, "RETRY_SECONDS", 0.01)
    lost, _ = place.output("lost")
    place.readers.take(lost)
    place.until(lambda: lost.has_reader)
    pid = stopped_reader(place)
    waiting, write_fd = place.output("waiting")
    place.readers.take(waiting)
    os.write(write_fd, b"all")
    os.kill(pid, signal.SIGKILL)
    place.until(lambda: waiting.has_reader)
    assert place.watcher.children() != [pid]
    place.end(write_fd)
    assert read_of(place, waiting) == b"all"
    assert read_of(place, lost) == b"", "its end is not waited for"


def stopped_reader(place: Place) -> int:
    """Stop the one reader; return its pid."""
    (pid,) = place.watcher.children()
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED)
    return pid


@pytest.mark.parametrize("taken", [True, False], ids=["taken", "handed over"])
def test_what_was_written_in_time_is_kept_however_late_it_is_read(
    place: Place, monkeypatch: pytest.MonkeyPatch, *, taken: bool
) -> None:
    monkeypatch.setattr(outputs, "OUTPUT_SECONDS", 0.01)
    first, _ = place.output("first")
    place.readers.take(first)
    place.until(lambda: first.has_reader)
    late, write_fd = place.output("late")
    if taken:
        place.readers.take(late)
        place.until(lambda: late.has_reader)
    pid = stopped_reader(place)
    if not taken:
        place.readers.take(late)
    os.write(write_fd, b"in time")  # whose end is not closed: a jail's daemon has it
    kept: list[bytes] = []
    late.when_read(lambda ring: kept.append(take_ring(Path(ring))))
    place.pass_over(0.05)  # after the other deadline
    assert kept == []
    os.kill(pid, signal.SIGCONT)
    place.until(lambda: bool(kept))
    assert kept == [b"in time"]


def test_an_output_that_ends_while_its_reader_is_asked_is_given_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outputs, "OUTPUT_SECONDS", 0.01)
    output, write_fd = place.output("silent")
    place.readers.take(output)
    place.until(lambda: output.has_reader)
    pid = stopped_reader(place)
    kept: list[str] = []
    output.when_read(kept.append)
    place.pass_over(0.05)  # after the other deadline
    place.end(write_fd)
    os.kill(pid, signal.SIGCONT)  # it tells the end first, then answers
    place.until(lambda: place.watcher.children() == [])
    assert kept == [output.ring]


def test_an_output_whose_reader_cannot_be_asked_is_taken_as_it_is(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outputs, "OUTPUT_SECONDS", 0.01)
    adopted = Output(place.backend, str(place.directory / "adopted"))
    Path(adopted.ring).write_bytes((3).to_bytes(8, "little") + b"old")
    assert read_of(place, adopted) == b"old"


def lone_reader() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Start a reader without a daemon; return the socket that it listens to."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(LONGEST_SECONDS)
    with theirs:
        return ours, subprocess.Popen([OUTPUT_READER], stdin=theirs.fileno())


def test_without_a_daemon_a_reader_reads_on_until_its_last_output_ends(
    directory: Path,
) -> None:
    ours, reader = lone_reader()
    read_fd, write_fd = os.pipe()
    ring_fd = os.open(directory / "ring", os.O_RDWR | os.O_CREAT)
    socket.send_fds(ours, [b"12345678"], [read_fd, ring_fd])
    os.close(read_fd)
    os.close(ring_fd)
    assert ours.recv(16) == b"12345678" + bytes([TAKEN])
    ours.close()
    for _ in range(100):  # more than a pipe holds: it is read
        os.write(write_fd, b"y" * 65536)
    assert reader.poll() is None
    os.close(write_fd)
    assert reader.wait(LONGEST_SECONDS) == 0
    assert take_ring(directory / "ring") == b"y" * 65536


@pytest.mark.parametrize("message", [b"", b"1", b"1234567", b"123456789", b"x" * 4096])
@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_what_is_no_output_leaves_nothing_behind(message: bytes, count: int) -> None:
    ours, reader = lone_reader()
    read_fd, write_fd = os.pipe()
    if message:  # an empty one is the end to any reader
        socket.send_fds(ours, [message], [write_fd] * count)
    os.close(write_fd)
    assert select.select([read_fd], [], [], LONGEST_SECONDS)[0], "what came with it is open"
    assert os.read(read_fd, 1) == b""
    os.close(read_fd)
    ours.close()
    assert reader.wait(LONGEST_SECONDS) == 0


def test_a_token_without_descriptors_is_answered() -> None:
    ours, reader = lone_reader()
    ours.send(b"12345678")
    assert ours.recv(16) == b"12345678" + bytes([FULL])
    ours.close()
    assert reader.wait(LONGEST_SECONDS) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="cannot: only Linux counts a process's reads")
def test_who_writes_byte_by_byte_for_ever_is_read_at_a_pace(place: Place) -> None:
    """A jail may hold a command's output; each of its bytes was one more read."""
    output, write_fd = place.output("bytes")
    place.readers.take(output)
    place.until(lambda: output.has_reader)
    (pid,) = place.watcher.children()

    def reads() -> int:
        words = Path(f"/proc/{pid}/io").read_text(encoding="ascii").split()
        return int(words[words.index("syscr:") + 1])

    # So each write is a read of its own, which else depends on who is faster.
    fcntl.fcntl(write_fd, fcntl.F_SETFL, O_DIRECT)
    before, began = reads(), time.monotonic()
    for _ in range(2000):
        os.write(write_fd, b"x")
    made, took = reads() - before, time.monotonic() - began
    # 250 at once, one in a millisecond after that; the machine may be as slow as it likes.
    assert made <= 1000 * took + 300
    place.end(write_fd)
    assert read_of(place, output) == b"x" * 2000


def test_no_signal_but_kill_ends_a_reader_which_is_alone_in_its_session(place: Place) -> None:
    output, write_fd = place.output("signals")
    place.readers.take(output)
    place.until(lambda: output.has_reader)
    (pid,) = place.watcher.children()
    assert os.getsid(pid) == os.getpgid(pid) == pid != os.getsid(0)
    for number in set(range(1, 32)) - {signal.SIGKILL, signal.SIGSTOP}:
        os.kill(pid, number)
    os.write(write_fd, b"read")
    place.end(write_fd)
    assert read_of(place, output) == b"read"
    assert place.watcher.children() == [pid]


def test_an_output_that_has_ended_costs_its_reader_no_descriptor() -> None:
    """A leak was noticed by hanging alone: a reader without room answers FULL."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(LONGEST_SECONDS)
    few = ["sh", "-c", f"ulimit -n 16; exec {OUTPUT_READER}"]
    with subprocess.Popen(few, stdin=theirs.fileno()) as reader, open(os.devnull, "r+b") as ring:
        theirs.close()
        for number in range(40):
            token = b"%08d" % number
            read_fd, write_fd = os.pipe()
            socket.send_fds(ours, [token], [read_fd, ring.fileno()])
            os.close(read_fd)
            os.close(write_fd)
            assert ours.recv(16) == token + bytes([TAKEN])
            assert ours.recv(16) == token + b"E"
        ours.close()
        assert reader.wait(LONGEST_SECONDS) == 0


def test_a_reader_has_250_places_and_says_when_there_is_none() -> None:
    ours, reader = lone_reader()
    ends = []
    with open(os.devnull, "r+b") as ring:
        for number in range(MAX_PIPES + 1):
            token = b"%08d" % number
            read_fd, write_fd = os.pipe()
            ends.append(write_fd)
            socket.send_fds(ours, [token], [read_fd, ring.fileno()])
            os.close(read_fd)
            assert ours.recv(16) == token + bytes([TAKEN if number < MAX_PIPES else FULL])
    ours.close()
    for end in ends:
        os.close(end)
    assert reader.wait(LONGEST_SECONDS) == 0
