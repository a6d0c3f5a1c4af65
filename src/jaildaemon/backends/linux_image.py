# SPDX-License-Identifier: BSD-2-Clause
"""Programs of ours on Linux: each read once from a file that only root can change, and sealed."""

import errno
import fcntl
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jaildaemon.backends import trust
from jaildaemon.errors import Refused

assert sys.platform == "linux"

MFD_EXEC = 0x10  # linux/memfd.h, 6.3 and later
F_ADD_SEALS = 1033  # linux/fcntl.h
ALL_SEALS = 0x2F  # SEAL, SHRINK, GROW, WRITE, EXEC (EXEC: 6.3)
OLD_SEALS = 0x0F


def unnamed_file(directory: Path) -> int:
    """Return an empty file without a name, in memory: no disk need have room; OSError."""
    del directory
    return os.memfd_create("jaildaemon", os.MFD_CLOEXEC)


def sealed(name: str, image: bytes, mode: int) -> int:
    """Return a memfd with `image` in it, which nobody can change (memfd_create(2)); OSError."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        fd = os.memfd_create(name, flags | MFD_EXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        fd = os.memfd_create(name, flags)
    os.write(fd, image)
    os.fchmod(fd, mode)
    try:
        fcntl.fcntl(fd, F_ADD_SEALS, ALL_SEALS)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        fcntl.fcntl(fd, F_ADD_SEALS, OLD_SEALS)
    return fd


def sealed_image(path: Path) -> int:
    """Return a memfd with the helper in it, which nobody can change or read.

    CVE-2019-5736: a jail's root can open the file behind /proc/PID/exe.  Mode
    0111 also makes what runs from it non-dumpable (fs/exec.c, would_dump).
    """
    return sealed("jailprobe", _read("helper", path), 0o111)


def _read(name: str, path: Path) -> bytes:
    try:
        return trust.read_trusted(path)
    except trust.Untrusted as error:
        raise error.refused("start", name) from error


class Program:
    """A program that runs on the host; what is started is what was examined, for good."""

    def __init__(self, name: str, path: Path) -> None:
        """Read it; Refused."""
        self.path = path
        try:
            self._fd = sealed(path.name, _read(name, path), 0o500)
        except OSError as error:
            raise unusable(name, path, error) from error

    def start(
        self,
        argv: list[str],
        file_actions: Sequence[tuple[Any, ...]],
        setsigmask: Iterable[int] = (),
    ) -> int:
        """Start it without an environment; return its pid, OSError where it cannot be."""
        return os.posix_spawn(
            f"/proc/self/fd/{self._fd}",
            argv,
            {},
            file_actions=file_actions,
            setsigmask=setsigmask,
        )

    def close(self) -> None:
        """Let it go."""
        os.close(self._fd)


def unusable(name: str, path: Path, error: OSError) -> Refused:
    """Return why a program cannot be read or sealed."""
    why = f"the {name} cannot be used: {error.strerror or error}"
    # No fallback to a file: it could not be sealed (docs/architecture.md).
    noexec = "sysctl vm.memfd_noexec=2 forbids what the helper needs; set it to 1 or 0"
    hint = noexec if error.errno == errno.EACCES else "build it with make, or install it again"
    return Refused("start", str(path), why, hint)
