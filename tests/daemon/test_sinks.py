# SPDX-License-Identifier: BSD-2-Clause
"""Where the log goes: what its readers get, and that none of them is ever waited for."""

import contextlib
import fcntl
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jaildaemon.core.rules import Policy, Rule
from jaildaemon.daemon import sinks
from jaildaemon.daemon.logs import Known, Record, Severity
from jaildaemon.daemon.sinks import Sink, StandardError, field

if sys.platform == "linux":
    from jaildaemon.backends.linux_watcher import LinuxWatcher as SystemWatcher
else:
    from jaildaemon.backends.freebsd_watcher import FreeBSDWatcher as SystemWatcher

RULE = Rule("t7", "docker:web", "HELLO", "true", Policy())


class Receiver:
    """A syslogd or a journald that reads when it is told to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = self._bound()

    def _bound(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        made.bind(str(self.path))
        made.setblocking(False)
        return made

    def fill(self) -> int:
        """Fill its queue; return with how many lines."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler:
            filler.setblocking(False)
            filler.connect(str(self.path))
            count = 0
            with contextlib.suppress(OSError):
                while True:
                    filler.send(b"filler" * 100)
                    count += 1
        return count

    def lines(self) -> list[str]:
        """Read what is there."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(self.socket.recv(65536).decode())
        return [line for line in found if not line.startswith("filler")]

    def restart(self) -> None:
        """Be another receiver at the same place."""
        self.close()
        self.path.unlink()
        self.socket = self._bound()

    def close(self) -> None:
        """Read no more."""
        self.socket.close()


@pytest.fixture
def places(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put syslogd's and journald's sockets into a directory, where there are none yet."""
    monkeypatch.setattr(sinks, "SYSLOG", (str(directory / "log"),))
    monkeypatch.setattr(sinks, "JOURNAL", str(directory / "journal"))
    return directory


@pytest.fixture
def syslogd(places: Path) -> Iterator[Receiver]:
    """Give a syslogd, on a host without journald."""
    receiver = Receiver(places / "log")
    yield receiver
    receiver.close()


Make = Callable[[], tuple[Sink, SystemWatcher]]


@pytest.fixture
def background() -> Iterator[Make]:
    """Give what makes the sink of a daemon in the background, at work, and its loop."""
    with contextlib.ExitStack() as stack:

        def make() -> tuple[Sink, SystemWatcher]:
            sink, watcher = Sink(foreground=False), SystemWatcher()
            stack.callback(watcher.close)
            stack.callback(lambda: sink.close(0.0))
            sink.attach(watcher)
            return sink, watcher

        yield make


# --- the line ---------------------------------------------------------------------------


def test_a_line_names_rule_jail_and_title() -> None:
    about = {"rule": RULE, "run": "5"}
    assert Record(Severity.INFO, "armed", about).line == "t7: armed [docker:web/HELLO]"  # type: ignore[arg-type]


def test_what_the_rule_is_called_after_is_not_said_twice() -> None:
    rule = Known("docker:web/HELLO", "docker:web", "HELLO")
    assert Record(Severity.INFO, "armed", {"rule": rule}).line == "docker:web/HELLO: armed"


def test_a_line_is_one_line_and_not_endless() -> None:
    line = Record(Severity.INFO, "a\nb\x1b[m" + "é" * 9000, {"rule": RULE}).line
    assert line.startswith(r"t7: a\nb\x1b[mé")
    assert line.endswith("é... [docker:web/HELLO]")
    assert len(line.encode()) < 8192 + 40


# --- syslogd ----------------------------------------------------------------------------


def test_syslogd_is_told_facility_severity_and_pid(background: Make, syslogd: Receiver) -> None:
    sink, _ = background()
    sink.log.error("e", rule=RULE)
    sink.log.warning("w")
    sink.log.notice("n")
    sink.log("i")
    lines = syslogd.lines()
    stamp = r"[A-Z][a-z]{2} [ 0-9][0-9] [0-9]{2}:[0-9]{2}:[0-9]{2}"
    head = rf"<(27|28|29|30)>{stamp} jaildaemon\[{os.getpid()}\]: "
    assert [re.sub(head, r"\1 ", line) for line in lines] == [
        "27 t7: e [docker:web/HELLO]",
        "28 w",
        "29 n",
        "30 i",
    ]


def test_a_syslogd_that_does_not_read_is_not_waited_for(
    background: Make, syslogd: Receiver
) -> None:
    sink, watcher = background()
    assert syslogd.fill() > 0
    for number in range(50):
        sink.log.info(f"line {number}")  # syslog(3) would wait in the first of them
    assert sink.trouble == f"the log cannot be written: {sinks.UNREAD}; 50 lines wait"
    found: list[str] = []
    while len(found) < 50:
        found += syslogd.lines()
        if len(found) < 50:
            watcher.wait()
    assert [line.rpartition(" ")[2] for line in found] == [str(n) for n in range(50)]
    assert sink.trouble is None


def test_lines_for_which_there_is_no_room_are_counted(
    background: Make, syslogd: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks, "MAX_LINES", 3)
    sink, watcher = background()
    syslogd.fill()
    for number in range(10):
        sink.log.info(f"line {number}")
    assert str(sink.trouble).endswith("; 3 lines wait, 7 are lost")
    found: list[str] = []
    while sink.trouble or not found:
        found += syslogd.lines()
        if sink.trouble:
            watcher.wait()
    found += syslogd.lines()
    texts = [line.partition("]: ")[2] for line in found]
    assert texts == ["line 0", "line 1", "line 2", "7 lines were lost, nobody read them"]
    assert found[-1].startswith("<28>")
    sink.log.info("after")
    assert [line.partition("]: ")[2] for line in syslogd.lines()] == ["after"]


def test_what_waits_is_bounded_in_bytes(
    background: Make, syslogd: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks, "MAX_BYTES", 1000)
    sink, _ = background()
    syslogd.fill()
    for _ in range(5):
        sink.log.info("x" * 300)
    assert str(sink.trouble).endswith("; 2 lines wait, 3 are lost")


def test_a_syslogd_that_was_restarted_is_found_again(background: Make, syslogd: Receiver) -> None:
    sink, _ = background()
    sink.log.info("one")
    assert len(syslogd.lines()) == 1
    syslogd.restart()
    sink.log.info("two")
    sink.log.info("three")
    assert [line.partition("]: ")[2] for line in syslogd.lines()] == ["two", "three"]


def test_a_syslogd_that_hung_and_is_replaced_gets_what_waits(
    background: Make, syslogd: Receiver
) -> None:
    sink, watcher = background()
    syslogd.fill()
    sink.log.info("waits")
    syslogd.restart()
    found = syslogd.lines()
    while not found:
        watcher.wait()
        found = syslogd.lines()
    assert found[0].endswith("waits")


def test_without_a_syslogd_the_idle_daemon_is_not_woken_for_ever(
    background: Make, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink, watcher = background()
    waits: list[float] = []
    later: list[Callable[[], None]] = []

    def call_in(seconds: float, call: Callable[[], None]) -> int:
        waits.append(seconds)
        later.append(call)
        return 0

    monkeypatch.setattr(watcher, "call_in", call_in)
    sink.log.info("waits")
    assert "No such file" in str(sink.trouble)
    while later:
        later.pop()()
    assert waits == [0.05 * 2**n for n in range(12)]
    receiver = Receiver(places / "log")
    sink.log.info("more")  # is reason to try again
    assert [line.partition("]: ")[2] for line in receiver.lines()] == ["waits", "more"]
    receiver.close()


# --- journald -----------------------------------------------------------------------------


def test_journald_is_told_by_fields(background: Make, places: Path, syslogd: Receiver) -> None:
    journald = Receiver(places / "journal")
    sink, _ = background()
    sink.log.warning("ended", rule=RULE, run="ab.5", exit_status=127)
    (datagram,) = journald.lines()
    assert dict(line.split("=", 1) for line in datagram.splitlines()) == {
        "MESSAGE": "t7: ended [docker:web/HELLO]",
        "PRIORITY": "4",
        "SYSLOG_FACILITY": "3",
        "SYSLOG_IDENTIFIER": "jaildaemon",
        "SYSLOG_PID": str(os.getpid()),
        "JAILDAEMON_RULE": "t7",
        "JAILDAEMON_JAIL": "docker:web",
        "JAILDAEMON_TITLE": "HELLO",
        "JAILDAEMON_RUN": "ab.5",
        "JAILDAEMON_EXIT_STATUS": "127",
    }
    sink.log.info("no rule's")
    assert "JAILDAEMON_" not in journald.lines()[0]
    assert syslogd.lines() == [], "said twice"
    journald.close()


def test_a_value_with_a_line_end_is_no_second_field() -> None:
    assert field("A", "x") == b"A=x\n"
    assert field("A", "x\nB=y") == b"A\n" + (5).to_bytes(8, "little") + b"x\nB=y\n"


def test_a_journald_that_does_not_live_is_not_chosen(
    background: Make, places: Path, syslogd: Receiver
) -> None:
    Receiver(places / "journal").close()
    sink, _ = background()
    sink.log.info("hello")
    assert syslogd.lines()[0].endswith("hello")


# --- standard error -----------------------------------------------------------------------


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Give a pipe that nobody reads as yet."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


@pytest.mark.parametrize("polled", [False, True])
def test_a_full_pipe_is_not_waited_for_and_stays_as_it_was_for_others(
    background: Make, pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch, polled: bool
) -> None:
    read_fd, write_fd = pipe
    if polled:  # as where /proc does not help

        def no_open(*_: object) -> int:
            raise FileNotFoundError

        monkeypatch.setattr(os, "open", no_open)
    monkeypatch.setattr(sinks, "choose", lambda **_: StandardError(write_fd))
    sink, watcher = background()
    monkeypatch.undo()
    for number in range(1000):
        sink.log.info(f"{number} {'x' * 200}")  # some 200 KiB
    assert sink.trouble is not None
    assert not fcntl.fcntl(write_fd, fcntl.F_GETFL) & os.O_NONBLOCK
    os.set_blocking(read_fd, False)
    data = b""
    while data.count(b"\n") < 1000:
        with contextlib.suppress(BlockingIOError):
            while got := os.read(read_fd, 65536):
                data += got
        if sink.trouble:
            watcher.wait()
    lines = data.decode().splitlines()
    assert [line.split()[1] for line in lines] == [str(n) for n in range(1000)], "cut or lost"
    assert sink.trouble is None


def test_a_full_stream_socket_is_not_waited_for() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        destination = StandardError(ours.fileno())
        with contextlib.suppress(BlockingIOError):
            while destination.send(b"x" * 10000):
                pass
        with pytest.raises(BlockingIOError):
            destination.send(b"x")
        assert not fcntl.fcntl(ours.fileno(), fcntl.F_GETFL) & os.O_NONBLOCK
        destination.close()


def test_only_journalds_stream_gets_the_severity(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    read_fd, write_fd = pipe
    found = os.fstat(write_fd)
    record = Record(Severity.WARNING, "hello", {"rule": RULE})
    for stream, head in (
        (f"{found.st_dev}:{found.st_ino}", "<4>"),
        (f"{found.st_dev}:{found.st_ino + 1}", "jaildaemon: "),
    ):
        monkeypatch.setenv("JOURNAL_STREAM", stream)
        destination = StandardError(write_fd)
        destination.send(destination.data(record))
        assert os.read(read_fd, 100).decode() == f"{head}t7: hello [docker:web/HELLO]\n"
        destination.close()


def test_journald_behind_standard_error_gets_the_fields(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = socket.socketpair()
    stream = os.fstat(ours.fileno())
    monkeypatch.setattr(StandardError.__init__, "__defaults__", (ours.fileno(),))
    with ours, theirs:
        theirs.setblocking(False)
        for device, is_journal in ((stream.st_dev, True), (stream.st_dev + 1, False)):
            monkeypatch.setenv("JOURNAL_STREAM", f"{device}:{stream.st_ino}")
            before = Sink(foreground=True)
            before.log.warning("to the stream")
            assert (
                theirs.recv(99) == (b"<4>" if is_journal else b"jaildaemon: ") + b"to the stream\n"
            )
            before.close(0.0)
            journald = Receiver(places / "journal")
            sink = Sink(foreground=True)
            sink.log.warning("hello", rule=RULE)
            assert bool(journald.lines()) is is_journal
            sink.close(0.0)
            journald.close()
            journald.path.unlink()
            if not is_journal:
                assert theirs.recv(99).endswith(b"hello [docker:web/HELLO]\n")


def test_the_last_lines_are_written_before_the_end(background: Make, syslogd: Receiver) -> None:
    sink, _ = background()
    count = syslogd.fill()
    sink.log.info("ended")
    for _ in range(count):
        syslogd.socket.recv(65536)
    sink.close()
    assert syslogd.lines()[0].endswith("ended")


def test_the_end_does_not_wait_for_a_reader_that_hangs(background: Make, syslogd: Receiver) -> None:
    sink, _ = background()
    syslogd.fill()
    sink.log.info("ended")
    sink.close(0.01)
    assert sink.trouble is not None
