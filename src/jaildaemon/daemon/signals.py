# SPDX-License-Identifier: BSD-2-Clause
"""Signals to the daemon itself: each is told to its loop, and none is lost, by an exec neither."""

import contextlib
import os
import signal
import socket
from collections.abc import Callable

from jaildaemon.backends.base import Backend
from jaildaemon.daemon.barrier import unforeseen
from jaildaemon.daemon.logs import Logger

MANY = 65536
"""More than the kernel keeps of them for us."""


def default_signals() -> None:
    """Undo what we were started with: nohup(1) and careless parents ignore signals."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE}:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


class Signals:
    """SIGTERM and its like, told by a descriptor: none is lost, none interrupts."""

    def __init__(
        self, backend: Backend, calls: dict[signal.Signals, Callable[[], None]], log: Logger
    ) -> None:
        self._calls, self._log = calls, log
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)
        # First: what came between would be handled, and told to nobody.
        signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        for number in calls:
            signal.signal(number, lambda *_: None)
        backend.watcher.watch_fd(self._read.fileno(), self._readable)

    def _readable(self) -> None:
        try:
            numbers = self._read.recv(MANY)
        except BlockingIOError:
            return
        # What came together is one: ten reloads would read the same files.
        for number in dict.fromkeys(numbers):
            call = self._calls.get(signal.Signals(number))
            if call is None:
                continue
            try:
                call()
            except Exception as error:  # noqa: BLE001 - of one signal, whatever it is
                unforeseen(self._log, signal.Signals(number).name, error)

    def keep(self) -> None:
        """Have what came and was not looked at come once more: blocked, it waits for an exec."""
        with contextlib.suppress(BlockingIOError):
            for number in self._read.recv(MANY):
                os.kill(os.getpid(), number)
