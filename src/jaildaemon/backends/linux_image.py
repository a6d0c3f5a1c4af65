# SPDX-License-Identifier: BSD-2-Clause
"""Programs of ours on Linux: each read once from a file that only root can change, and sealed.

Stage 1 of the helper runs from an image that no jail ever sees, and each jail's probes from
one of the jail's own: whoever may trace there reaches the inode, and no other jail shares it.
"""

import errno
import fcntl
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jaildaemon.backends import trust
from jaildaemon.core.text import utf8
from jaildaemon.errors import Refused

assert sys.platform == "linux"

MFD_EXEC = 0x10  # linux/memfd.h, 6.3 and later
F_ADD_SEALS = 1033  # linux/fcntl.h
ALL_SEALS = 0x2F  # SEAL, SHRINK, GROW, WRITE, EXEC (EXEC: 6.3)
OLD_SEALS = 0x0F
NOBODYS = 2**32 - 2
"""The last id there is; who owns an inode may take a lease on it (fcntl(2), F_SETLEASE)."""


def unnamed_file(directory: Path) -> int:
    """Return an empty file without a name, in memory: no disk need have room; OSError."""
    del directory
    return os.memfd_create("jaildaemon", os.MFD_CLOEXEC)


def sealed(name: str, image: bytes, mode: int, owner: int | None = None) -> int:
    """Return a memfd with `image` in it, which nobody can change (memfd_create(2)); OSError."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        fd = os.memfd_create(name, flags | MFD_EXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        fd = os.memfd_create(name, flags)
    try:
        os.write(fd, image)
        if owner is not None:
            _give(fd, owner)
        os.fchmod(fd, mode)
        _add_seals(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _give(fd: int, owner: int) -> None:
    try:
        os.fchown(fd, owner, owner)
    except OSError as error:
        # EINVAL: our own user namespace has no such id, so nobody in it is that one.
        # EPERM, not as root: then no jail can be entered, which is said where it matters.
        if error.errno != errno.EINVAL and (error.errno != errno.EPERM or os.geteuid() == 0):
            raise


def _add_seals(fd: int) -> None:
    try:
        fcntl.fcntl(fd, F_ADD_SEALS, ALL_SEALS)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        fcntl.fcntl(fd, F_ADD_SEALS, OLD_SEALS)


def read_image(path: Path) -> bytes:
    """Read the helper; Refused where anybody but root could change it."""
    return _read("helper", path)


def seal(image: bytes) -> int:
    """Return a memfd with the helper in it, which nobody can change or read.

    CVE-2019-5736: a jail's root can open the file behind /proc/PID/exe.  Mode
    0111 also makes what runs from it non-dumpable (fs/exec.c, would_dump).
    """
    return sealed("jailprobe", image, 0o111, NOBODYS)


def sealed_image(path: Path) -> int:
    """Return a memfd with the helper of `path` in it."""
    return seal(read_image(path))


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
            [utf8(word) for word in argv],
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


class JailImage:
    """What the probes of one jail run from; shared by all handles of that jail."""

    def __init__(self, image: bytes) -> None:
        self._image, self._fd, self._handles = image, -1, 0
        self.at_once = False
        """Whether its user namespace must be joined before the exec: a security module says so."""

    def hold(self) -> "JailImage":
        """Count one more handle."""
        self._handles += 1
        return self

    def release(self) -> None:
        """Count one handle less; without any there is nothing to keep."""
        self._handles -= 1
        if self._handles == 0:
            self.renew()

    def fd(self) -> int:
        """Return its descriptor, made when first asked for."""
        if self._fd < 0:
            self._fd = seal(self._image)
        return self._fd

    def renew(self) -> None:
        """Take a fresh one for the next probe: somebody in the jail has reached the inode.

        They opened it to write, took a lease on it, changed its mode.  The probes that
        stand keep theirs.
        """
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
