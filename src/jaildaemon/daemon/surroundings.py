# SPDX-License-Identifier: BSD-2-Clause
"""What who started us has left us: a directory, open descriptors."""

import contextlib
import os
from pathlib import Path

from jaildaemon.errors import Refused


def absolute(path: str, what: str = "start") -> str:
    """Keep what was given relative to here: the daemon works in /."""
    try:
        return str(Path(path).absolute())
    except FileNotFoundError as error:
        why = "is relative, and the current directory was removed"
        raise Refused(what, path, why) from error


def close_the_rest() -> None:
    """Close what our parent left open: it is none of ours, and would stay open for years."""
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    # Above a limit that was lowered later.  FreeBSD's closerange has closed these already.
    try:
        names = os.listdir("/dev/fd")
    except FileNotFoundError:  # a /dev without it, or no /proc
        return
    for name in names:
        if int(name) > 2:  # noqa: PLR2004 - standard error
            with contextlib.suppress(OSError):  # EBADF: what listed them
                os.close(int(name))
