# SPDX-License-Identifier: BSD-2-Clause
"""Where the daemon's log lines go: syslog(3), or standard error for a supervisor.

A lost or lazy reader of them must neither end the daemon nor hold it up.
"""

import contextlib
import os
import select
import syslog

from jaildaemon.core.text import shown

STDERR = 2


class StandardError:
    """Writes for journald, daemon(8), a terminal; what would have to wait is lost, and counted."""

    def __init__(self, fd: int = STDERR) -> None:
        self._fd = fd
        self._lost = 0

    def __call__(self, line: str) -> None:
        """Log one line."""
        text = f"jaildaemon: {shown(line)}\n"
        if self._lost:
            # A newline first: the last line may have been cut short.
            text = f"\njaildaemon: {self._lost} lines were lost, nobody read them\n{text}"
        if self._write(text.encode(errors="replace")):
            self._lost = 0
        else:
            self._lost += 1

    def _write(self, data: bytes) -> bool:
        poll = select.poll()
        with contextlib.suppress(OSError):  # closed, or full for good: lost as well
            poll.register(self._fd, select.POLLOUT)
            while data:
                # What is ready takes PIPE_BUF bytes without a wait (poll(2), pipe(7)).
                if not poll.poll(0):
                    return False
                data = data[os.write(self._fd, data[: select.PIPE_BUF]) :]
        return not data


log_to_stderr = StandardError()


def log_to_syslog(line: str) -> None:
    """Log one line to syslog(3)."""
    syslog.syslog(syslog.LOG_NOTICE, shown(line))
