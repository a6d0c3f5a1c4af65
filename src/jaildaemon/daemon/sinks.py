# SPDX-License-Identifier: BSD-2-Clause
"""Where the log goes: journald, syslogd or standard error, and never does the daemon wait for it.

A PID namespace ends only when its probe is reaped.  A daemon that waited for a
log's reader would keep every container with a probe from stopping.
"""

import contextlib
import errno
import os
import select
import socket
import stat
import time
from collections import deque
from typing import Protocol

from jaildaemon.backends.base import Watcher
from jaildaemon.core.text import shown
from jaildaemon.daemon.logs import Logger, Record, Severity

STDERR = 2
JOURNAL = "/run/systemd/journal/socket"
SYSLOG = ("/dev/log", "/var/run/logpriv", "/var/run/log")
"""Linux's, then FreeBSD's: what is root's first, so that others cannot fill it."""
DAEMON = 3
"""syslog(3)'s facility."""
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
"""Not by strftime(3): it may read the time zone's file again."""
MAX_LINES, MAX_BYTES = 10_000, 1 << 20
"""That wait: a line for each of ten thousand rules that are armed at once."""
FIRST_RETRY, LAST_RETRY = 0.05, 200.0
"""Seconds between two tries where the kernel does not say when there is room.  They double;
after the last of them only another line is reason to try."""
UNREAD = "nobody reads it"
CLOSE_SECONDS = 1.0
"""How long the end of the daemon waits for the readers of its last lines."""


class Destination(Protocol):
    """One way to write the log."""

    def data(self, record: Record) -> bytes:
        """Return what is written for a record."""

    def send(self, data: bytes) -> int:
        """Write; return how much of it was taken.  BlockingIOError: there is no room; OSError."""

    def fileno(self) -> int:
        """Return the descriptor that becomes writable when there is room."""

    def close(self) -> None:
        """Give back what is open."""


class _Datagrams:
    """A receiver of datagrams, found again when it has been restarted."""

    def __init__(self, paths: tuple[str, ...]) -> None:
        self._paths = paths
        self._socket: socket.socket | None = None

    def connect(self) -> None:
        """Find the receiver; OSError."""
        self._socket = None
        # Ours alone: nobody else sees that it does not block.
        fresh = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        fresh.setblocking(False)
        failed = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        for path in self._paths:
            try:
                fresh.connect(path)
            except OSError as error:
                failed = error if isinstance(error, FileNotFoundError) else failed
            else:
                self._socket = fresh
                return
        fresh.close()
        raise failed

    def send(self, data: bytes) -> int:
        """Send it, once more if its receiver is another by now."""
        if self._socket is not None:
            try:
                return self._socket.send(data)
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.ENOBUFS, errno.EMSGSIZE):
                    raise
                self.close()
        self.connect()
        assert self._socket is not None
        return self._socket.send(data)

    def fileno(self) -> int:
        """Return the socket's descriptor.  Connected, it is writable when the receiver has room."""
        return -1 if self._socket is None else self._socket.fileno()

    def close(self) -> None:
        """Close the socket; a line that comes yet opens it again."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class Syslog(_Datagrams):
    """syslogd, by a datagram as syslog(3) sends it: which would wait for room."""

    def __init__(self) -> None:
        super().__init__(SYSLOG)

    def data(self, record: Record) -> bytes:
        """Return the datagram (RFC 3164)."""
        now = time.localtime()
        clock = f"{now.tm_hour:02}:{now.tm_min:02}:{now.tm_sec:02}"
        stamp = f"{MONTHS[now.tm_mon - 1]} {now.tm_mday:2} {clock}"
        head = f"<{DAEMON * 8 + record.severity}>{stamp} jaildaemon[{os.getpid()}]: "
        return (head + record.line).encode(errors="replace")


class Journald(_Datagrams):
    """journald, by its own protocol: with a field for each thing that a line is about."""

    def __init__(self) -> None:
        super().__init__((JOURNAL,))

    def data(self, record: Record) -> bytes:
        """Return the datagram (systemd's "Native Journal Protocol")."""
        rule = record.about.get("rule")
        fields = {
            "MESSAGE": record.line,
            "PRIORITY": int(record.severity),
            "SYSLOG_FACILITY": DAEMON,
            "SYSLOG_IDENTIFIER": "jaildaemon",
            "SYSLOG_PID": os.getpid(),
            "JAILDAEMON_RULE": rule and rule.id,
            "JAILDAEMON_JAIL": rule and rule.jail,
            "JAILDAEMON_TITLE": rule and rule.title,
            "JAILDAEMON_RUN": record.about.get("run"),
            "JAILDAEMON_EXIT_STATUS": record.about.get("exit_status"),
        }
        return b"".join(field(name, str(v)) for name, v in fields.items() if v is not None)


def field(name: str, value: str) -> bytes:
    """Return one field of a datagram to journald: its length, where a line's end would not do."""
    data = value.encode(errors="replace")
    if b"\n" not in data:
        return name.encode() + b"=" + data + b"\n"
    return name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"


class StandardError:
    """Standard error: a supervisor's pipe, journald's stream, a terminal, a file."""

    def __init__(self, fd: int = STDERR) -> None:
        self._given = self._fd = fd
        self._socket: socket.socket | None = None
        self._polled = self._is_journal = self.is_stream_of_journald = False
        try:
            found = os.fstat(fd)
        except OSError:
            return  # closed: each write will say so
        stream = os.environ.get("JOURNAL_STREAM")
        self._is_journal = stream == f"{found.st_dev}:{found.st_ino}"
        self.is_stream_of_journald = self._is_journal and stat.S_ISSOCK(found.st_mode)
        if stat.S_ISSOCK(found.st_mode):
            self._socket = socket.socket(fileno=os.dup(fd))
        elif not stat.S_ISREG(found.st_mode):
            self._open_anew(fd, found)

    def _open_anew(self, fd: int, found: os.stat_result) -> None:
        """Open it for us alone: others that have it must not see that it does not block."""
        with contextlib.suppress(OSError):
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            fresh = os.open(f"/proc/self/fd/{fd}", flags)
            if os.path.samestat(os.fstat(fresh), found):
                self._fd = fresh
                return
            os.close(fresh)
        # FreeBSD, no /proc, a terminal of another user: asked each time whether there is room.
        self._fd, self._polled = os.dup(fd), True

    def data(self, record: Record) -> bytes:
        """Return the line; for journald with its severity (sd-daemon(3)), and without our name."""
        head = f"<{int(record.severity)}>" if self._is_journal else "jaildaemon: "
        return f"{head}{record.line}\n".encode(errors="replace")

    def send(self, data: bytes) -> int:
        """Write; OSError."""
        if self._socket is not None:
            return self._socket.send(data, socket.MSG_DONTWAIT)
        if self._polled:
            # What is ready takes PIPE_BUF bytes without a wait (poll(2), pipe(7)).
            poll = select.poll()
            poll.register(self._fd, select.POLLOUT)
            if not poll.poll(0):
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            data = data[: select.PIPE_BUF]
        return os.write(self._fd, data)

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._fd if self._socket is None else self._socket.fileno()

    def close(self) -> None:
        """Close what we have opened."""
        if self._socket is not None:
            self._socket.close()
        elif self._fd != self._given:
            os.close(self._fd)


def choose(*, foreground: bool) -> Destination:
    """Return where the log of this daemon goes, for as long as it lives."""
    stderr = StandardError() if foreground else None
    if stderr is not None and not stderr.is_stream_of_journald:
        return stderr
    journal = Journald()
    try:
        journal.connect()
    except OSError:
        return stderr or Syslog()
    if stderr is not None:
        stderr.close()
    return journal


class Sink:
    """The lines that wait for room at their destination."""

    def __init__(self, *, foreground: bool) -> None:
        self.foreground = foreground
        self.log = Logger(self.take, lambda: self.trouble)
        self._destination = choose(foreground=foreground)
        self._queue: deque[bytes] = deque()
        self._bytes = self._lost = 0
        self._why = ""
        """Of the latest failure."""
        self._watcher: Watcher | None = None
        self._watched: int | None = None
        self._timer: int | None = None
        self._seconds = FIRST_RETRY

    @property
    def trouble(self) -> str | None:
        """Say why lines wait; None if none does."""
        if not self._queue:
            return None
        lost = f", {self._lost} are lost" if self._lost else ""
        return f"the log cannot be written: {self._why}; {len(self._queue)} lines wait{lost}"

    def take(self, record: Record) -> None:
        """Write a record, or keep it until there is room."""
        data = self._destination.data(record)
        full = len(self._queue) >= MAX_LINES or self._bytes + len(data) > MAX_BYTES
        if self._lost or full:
            # All that follow, until the queue is empty: then it is said in its place how many.
            self._lost += 1
        else:
            self._append(data)
        if self._watched is None and self._timer is None:
            self._send()

    def attach(self, watcher: Watcher) -> None:
        """Let `watcher` say when there is room."""
        self._watcher = watcher
        self._send()

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Write what waits, for so long: the end of the daemon, which has no probe by now."""
        end = time.monotonic() + seconds
        self._send()
        self._stop_waiting()
        self._watcher = None
        while self._queue and self._why == UNREAD and (left := end - time.monotonic()) > 0:
            poll = select.poll()
            poll.register(self._destination.fileno(), select.POLLOUT)
            poll.poll(left * 1000)
            self._send()
        self._destination.close()

    def _append(self, data: bytes) -> None:
        self._queue.append(data)
        self._bytes += len(data)

    def _send(self) -> None:
        """Write as much as there is room for."""
        self._stop_waiting()
        while self._queue or self._lost:
            if not self._queue:
                text = f"{self._lost} lines were lost, nobody read them"
                self._append(self._destination.data(Record(Severity.WARNING, text, {})))
                self._lost = 0
            data = self._queue[0]
            try:
                sent = self._destination.send(data)
            except BlockingIOError:
                self._why = UNREAD
                self._wait_for_room()
                return
            except OSError as error:
                if error.errno != errno.EMSGSIZE:
                    self._why = shown(error.strerror or str(error))
                    self._wait_some_time()
                    return
                sent = len(data)  # it never will be taken
                self._lost += 1
            self._seconds = FIRST_RETRY
            self._bytes -= sent
            self._queue.popleft()
            if sent < len(data):
                self._queue.appendleft(data[sent:])

    def _wait_for_room(self) -> None:
        if self._watcher is None:
            return
        fd = self._destination.fileno()
        try:
            self._watcher.watch_fd(fd, self._send, write=True)
        except OSError:  # it is of a kind that is never watched, or there is no memory
            self._wait_some_time()
        else:
            self._watched = fd

    def _wait_some_time(self) -> None:
        """Try again later, and less and less often; an idle daemon is not woken for ever."""
        if self._watcher is None:
            return
        if self._seconds > LAST_RETRY:
            self._seconds = FIRST_RETRY  # the next line is tried again
            return
        self._timer = self._watcher.call_in(self._seconds, self._send)
        self._seconds *= 2

    def _stop_waiting(self) -> None:
        if self._watcher is None:
            return
        if self._watched is not None:
            self._watcher.unwatch_fd(self._watched)
        if self._timer is not None:
            self._watcher.cancel(self._timer)
        self._watched = self._timer = None
