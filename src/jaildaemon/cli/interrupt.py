# SPDX-License-Identifier: BSD-2-Clause
"""Ctrl-C where something was made that must be removed; elsewhere it just ends us."""

import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def interruptible(*others: signal.Signals) -> Iterator[None]:
    """Within it SIGINT, and `others`, are KeyboardInterrupt: what was made is removed."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *others)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
