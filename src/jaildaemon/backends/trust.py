# SPDX-License-Identifier: BSD-2-Clause
"""Which files and directories nobody but root can change; asked of what is open, not of a path.

CVE-2022-0492: what names or becomes a program of the host's must never be
writable by anybody else, in itself or by one of its directories.
"""

import os
import stat
from pathlib import Path


def _owners() -> set[int]:
    # Whoever owns the root directory could replace all: in a user namespace it
    # is real root, who has no number of his own there.
    return {0, os.geteuid(), os.stat("/").st_uid}


def problem(found: os.stat_result) -> str | None:
    """Say why others than root can change a file or directory; None if they cannot."""
    if found.st_uid not in _owners():
        return f"belongs to uid {found.st_uid}, not to root"
    # Gid 0 is wheel on FreeBSD: who is in it may become root anyway.
    if found.st_mode & (stat.S_IWOTH | (stat.S_IWGRP if found.st_gid else 0)):
        return "can be written by others than root"
    return None


def file_problem(found: os.stat_result) -> str | None:
    """Say why what is open is no file that only root can change."""
    return problem(found) if stat.S_ISREG(found.st_mode) else "is not a regular file"


def directory_problem(path: str) -> tuple[str, str] | None:
    """Return which directory above `path` others than root can change, and how; OSError."""
    place = Path(os.path.realpath(os.path.dirname(path)))
    for directory in (place, *place.parents):
        found = os.stat(directory)
        # In a sticky one others can make names, and not touch ours.
        sticky = found.st_mode & stat.S_ISVTX and found.st_uid in _owners()
        why = None if sticky else problem(found)
        if why:
            return str(directory), why
    return None


def read_program(path: Path) -> tuple[bytes, str | None]:
    """Return a program's bytes, and why they are not to be trusted; OSError, links too."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(fd, "rb") as file:
        found = os.fstat(fd)
        regular = stat.S_ISREG(found.st_mode)
        return file.read() if regular else b"", file_problem(found)
