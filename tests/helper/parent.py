# SPDX-License-Identifier: BSD-2-Clause
"""The daemon's side of the helper, played by the test: the real binary, four descriptors."""

import contextlib
import os
import select
import signal
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from jaildaemon.backends import HELPER
from jaildaemon.backends.base import pack_params, reserve_helper_descriptors

LONGEST_SECONDS = 60.0
"""A failure's bound, never a wait."""

Record = tuple[str, int, int]
"""A status record: kind, step, value; the fields of helper.h, read independently."""


def parse(data: bytes) -> list[Record]:
    """Return the records in `data`, which must be whole."""
    assert len(data) % 8 == 0, data
    found = []
    for kind, step, zero, value in struct.iter_unpack("<cBHi", data):
        assert zero == 0
        found.append((kind.decode(), step, value))
    return found


def wait_readable(fd: int) -> None:
    """Return when `fd` can be read, or is at its end."""
    ready, _, _ = select.select([fd], [], [], LONGEST_SECONDS)
    assert ready, "it never happened"


def wait_child(pid: int) -> tuple[str, int]:
    """Reap our child: ("exit", status) or ("signal", number)."""
    end = time.monotonic() + LONGEST_SECONDS
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    try:
        while True:
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                break
            assert time.monotonic() < end, "it never ended"
            _wait_for_news(pid)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if os.WIFSIGNALED(status):
        return "signal", os.WTERMSIG(status)
    return "exit", os.WEXITSTATUS(status)


def _wait_for_news(pid: int) -> None:
    """Return when `pid` may have become ours to reap; or soon, where the system cannot tell."""
    if sys.platform == "linux":
        # Not a pidfd: of one that is traced it tells the death, which the tracer reaps first.
        signal.sigtimedwait([signal.SIGCHLD], LONGEST_SECONDS)
    else:
        queue = select.kqueue()
        event = select.kevent(pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD, select.KQ_NOTE_EXIT)
        queue.control([event], 1, 0.01)  # told before it is a zombie: our caller asks again
        queue.close()


@dataclass(frozen=True)
class Target:
    """A jail as the helper is told of it: the record's target, and what 5 to 7 shall be."""

    number: int
    jail_fd: int | None = None
    image: int | None = None
    init: int = 0
    """Linux: the host pid of the jail's init."""
    user_fd: int | None = None
    """Linux: its user namespace, if it has one of its own."""


class Parent:
    """One start of the helper."""

    def __init__(
        self,
        target: Target,
        *,
        title: str = "jaildaemon: BELL",
        wrap: list[str] | None = None,
        prepare: Callable[[], object] = lambda: None,
        by_descriptor: bool = False,
    ) -> None:
        reserve_helper_descriptors()
        self.status_fd, their_status = os.pipe()
        their_go, self.go_fd = os.pipe()
        self._buffer = b""
        image = target.image
        path = str(HELPER) if image is None else "/proc/self/fd/6"
        arguments = [*wrap, path] if wrap else ["jailprobe", title]
        if wrap:
            arguments.append(title)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                theirs = (their_status, their_go, target.jail_fd, image, target.user_fd)
                for ours, fd in enumerate(theirs, start=3):
                    if fd is not None:
                        os.dup2(fd, ours)
                    else:
                        os.closerange(ours, ours + 1)
                prepare()
                if wrap:
                    os.execvp(arguments[0], arguments)
                os.execve(6 if by_descriptor else path, arguments, {})
            finally:
                os._exit(99)
        os.close(their_status)
        os.close(their_go)

    # --- what the daemon says ---------------------------------------------------

    def send(self, data: bytes) -> None:
        """Write to the go pipe; a helper that has ended by then is known by its report."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self.go_fd, data)

    def close_go(self) -> None:
        """Let the helper or the probe read the end of the go pipe."""
        if self.go_fd >= 0:
            os.close(self.go_fd)
            self.go_fd = -1

    def close_status(self) -> None:
        """Let what the helper writes go nowhere."""
        if self.status_fd >= 0:
            os.close(self.status_fd)
            self.status_fd = -1

    # --- what it hears ----------------------------------------------------------

    def records_to_the_end(self) -> list[Record]:
        """Read the status pipe until every writer is gone."""
        while True:
            wait_readable(self.status_fd)
            data = os.read(self.status_fd, 4096)
            if not data:
                return parse(self._buffer)
            self._buffer += data

    def records(self, count: int) -> list[Record]:
        """Read `count` records."""
        while len(self._buffer) < 8 * count:
            wait_readable(self.status_fd)
            data = os.read(self.status_fd, 4096)
            assert data, f"the end came after {parse(self._buffer)}"
            self._buffer += data
        return parse(self._buffer)

    def ready(self) -> int:
        """Wait for the probe; return its pid, the helper reaped where that is another process."""
        if sys.platform != "linux":
            assert self.records(1) == [("R", 0, 0)]
            return self.pid
        found = sorted(self.records(2))
        assert [record[0] for record in found] == ["P", "R"], found
        assert wait_child(self.pid) == ("exit", 0)
        return found[0][2]

    def armed(self, params: bytes) -> int:
        """Go all the way; return the sleeping probe's pid."""
        self.send(params)
        pid = self.ready()
        self.go(pid)
        return pid

    def go(self, pid: int) -> None:
        """Say "go"; return when the probe has closed its last descriptor and sleeps."""
        self.send(b"G")
        poll = select.poll()
        poll.register(self.go_fd, 0)  # POLLERR: no reader is left
        assert poll.poll(LONGEST_SECONDS * 1000), "it never closed its end"
        wait_asleep(pid)

    def close(self) -> None:
        """Give back the pipes."""
        self.close_go()
        self.close_status()


def wait_asleep(pid: int) -> None:
    """Return when the probe sleeps for good, which only its signal mask tells."""
    if sys.platform != "linux":
        return
    end = time.monotonic() + LONGEST_SECONDS
    while int(status(pid)["SigBlk"], 16) != 0:
        assert time.monotonic() < end, "it does not sleep"


def status(pid: int) -> dict[str, str]:
    """Return /proc/PID/status."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


def children() -> set[int]:
    """Return our children, zombies included (Linux)."""
    if sys.platform != "linux":
        return set()
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        return {int(pid) for pid in file.read().split()}


def params(  # the record's fields, in its order
    target: int,
    uid: int = 0,
    gid: int = 0,
    *,
    flags: int = 0,
    label_kind: int = 0,
    label: bytes = b"",
) -> bytes:
    """Return the parameter record; on Linux the one of each stage."""
    first = pack_params(
        flags=flags, target=target, uid=uid, gid=gid, label_kind=label_kind, label=label
    )
    if sys.platform != "linux":
        return first
    return first + pack_params(flags=flags, target=target, uid=uid, gid=gid)


IGNORED = {signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGUSR1}


def ignore_signals() -> None:
    """Be started as by nohup(1) and worse."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
