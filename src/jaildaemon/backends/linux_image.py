# SPDX-License-Identifier: BSD-2-Clause
"""The helper's image on Linux: read once from a file that only root can change, and sealed."""

import errno
import fcntl
import os
import sys
from pathlib import Path

from jaildaemon.backends import trust
from jaildaemon.errors import Refused

assert sys.platform == "linux"

MFD_EXEC = 0x10  # linux/memfd.h, 6.3 and later
F_ADD_SEALS = 1033  # linux/fcntl.h
ALL_SEALS = 0x2F  # SEAL, SHRINK, GROW, WRITE, EXEC (EXEC: 6.3)
OLD_SEALS = 0x0F


def sealed_image(path: Path) -> int:
    """Return a memfd with the helper in it, which nobody can change or read (memfd_create(2)).

    CVE-2019-5736: a jail's root can open the file behind /proc/PID/exe.  Mode
    0111 also makes what runs from it non-dumpable (fs/exec.c, would_dump).
    """
    image, why = trust.read_program(path)
    if why:
        raise Refused(
            "start", str(path), f"the helper {why}", f"chown root {path}; chmod go-w {path}"
        )
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        fd = os.memfd_create("jailprobe", flags | MFD_EXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        fd = os.memfd_create("jailprobe", flags)
    os.write(fd, image)
    os.fchmod(fd, 0o111)
    try:
        fcntl.fcntl(fd, F_ADD_SEALS, ALL_SEALS)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        fcntl.fcntl(fd, F_ADD_SEALS, OLD_SEALS)
    return fd
