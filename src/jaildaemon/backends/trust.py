# SPDX-License-Identifier: BSD-2-Clause
"""Files and directories that nobody but root can change, for the daemon and for doctor.

CVE-2022-0492: what names or becomes a program of the host must be writable by
root alone, in itself and in each directory on the way to it.  Each component
is opened in the one before, so that what was examined is what is used.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from jaildaemon.backends import access
from jaildaemon.errors import Refused

MAX_LINKS = 40
"""On the way to one file, as the kernel counts them (path_resolution(7))."""
_LINK = (errno.ELOOP, errno.EMLINK, errno.ENOTDIR)
"""What opening a link by O_NOFOLLOW fails with, on Linux, on FreeBSD, with O_DIRECTORY."""


class Fault(NamedTuple):
    """Why others can change something, and the command that mends it."""

    why: str
    remedy: str | None = None


class Untrusted(Exception):
    """Others than root can change `path`, by `place`: itself or a directory on the way."""

    def __init__(self, path: str, place: str, fault: Fault) -> None:
        self.path, self.place, self.fault = path, place, fault.why
        self.why = fault.why if place == path else f"its directory {place} {fault.why}"
        self.hint = None if fault.remedy is None else f"{fault.remedy} {place}"
        super().__init__(f"{path}: {self.why}")

    def refused(self, what: str, name: str | None = None) -> Refused:
        """Return it as the refusal of `what`; `name` says which file of ours it is."""
        why = f"the {name} {self.why}" if name and self.place == self.path else self.why
        return Refused(what, self.path, why, self.hint)


def _owners() -> set[int]:
    # Whoever owns the root directory could replace all: in a user namespace it
    # is real root, who has no number of his own there.
    return {0, os.geteuid(), os.stat("/").st_uid}


def _fault(fd: int, found: os.stat_result, above: os.stat_result | None) -> Fault | None:
    """Say how others can change what is open; `above` is the directory it was opened in."""
    if found.st_uid not in _owners():
        return Fault(f"belongs to uid {found.st_uid}, not to root", "chown root")
    # Group 0 is no exception: on Linux it is no wheel, and with an ACL these bits are its mask.
    shared = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    # In a sticky directory others can make names, and not touch ours.
    if shared and not (stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX):
        remedy = "chmod go-w" if shared & stat.S_IWOTH else "chmod g-w"
        return Fault("can be written by others than root", remedy)
    acl = access.acl_problem(fd)
    if acl is not None:
        return Fault(*acl)
    if above is not None and found.st_dev != above.st_dev:
        uid = access.mounted_by(fd)
        if uid not in (None, *_owners()):  # whose file system may say of itself what it likes
            return Fault(f"is on a file system that uid {uid} has mounted", "umount")
    return None


class _Way:
    """The way down to `path`: the directory we are in is held, and was examined."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._links = 0
        self.fd, self.where = -1, "/"
        self._enter(os.open("/", access.DIRECTORY), "/")

    def _enter(self, fd: int, where: str) -> None:
        """Go on in `fd`, if only root can change it."""
        above = None if self.fd < 0 or where == "/" else os.fstat(self.fd)
        self.close()
        self.fd, self.where = fd, where
        found = os.fstat(fd)
        fault = _fault(fd, found, above)
        if fault is not None:
            raise Untrusted(self.path, where, fault)
        self.sticky = bool(found.st_mode & stat.S_ISVTX)

    def close(self) -> None:
        """Let go of the directory."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def at(self, name: str) -> str:
        """Return the path of `name` here."""
        return os.path.normpath(os.path.join(self.where, name))

    def go(self, names: list[str]) -> None:
        """Go down; a link on the way is followed, for only root can have made it."""
        for name in names:
            if name in ("", "."):
                continue
            try:
                fd = os.open(name, access.DIRECTORY, dir_fd=self.fd)
            except OSError as error:
                if error.errno not in _LINK:
                    raise
                self.go([*self.follow(name)])
            else:
                self._enter(fd, self.at(name))

    def follow(self, name: str) -> list[str]:
        """Return the components of the link `name`, having gone to / where it begins there."""
        found = os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        if not stat.S_ISLNK(found.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), self.at(name))
        if self.sticky and (found.st_uid not in _owners() or found.st_nlink > 1):
            raise Untrusted(self.path, self.at(name), Fault("is a link that others could make"))
        self._links += 1
        if self._links > MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), self.at(name))
        target = os.readlink(name, dir_fd=self.fd)
        if target.startswith("/"):
            self._enter(os.open("/", access.DIRECTORY), "/")
        return target.split("/")

    def open_file(self, name: str, flags: int, mode: int) -> int:
        """Open a file here, and see that only root can change it."""
        # O_NONBLOCK: a FIFO in its place must not keep us.
        flags |= os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
        fd = os.open(name, flags, mode, dir_fd=self.fd)
        try:
            found = os.fstat(fd)
            if stat.S_ISDIR(found.st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), self.at(name))
            fault = _fault(fd, found, os.fstat(self.fd))
            if not stat.S_ISREG(found.st_mode):
                fault = Fault("is not a regular file")
            elif self.sticky and found.st_nlink > 1:
                fault = Fault("has another name (a hard link)")
            if fault is not None:
                raise Untrusted(self.path, self.path, fault)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def open_program(self, name: str) -> bool:
        """Open and examine a file here; False for a link."""
        try:
            os.close(self.open_file(name, os.O_RDONLY, 0))
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EMLINK):
                return False
            raise
        return True


@contextmanager
def _above(path: str | Path) -> Iterator[tuple[_Way, str]]:
    """Give the way to the directory of `path`, and its last component."""
    directory, name = os.path.split(os.path.join(os.getcwd(), path))
    way = _Way(str(path))
    try:
        way.go(directory.split("/"))
        yield way, name
    finally:
        way.close()


def check_place(path: str | Path) -> None:
    """See that nobody but root can put something in the place of `path`; Untrusted, OSError."""
    with _above(path):
        pass


def open_directory(path: str | Path) -> int:
    """Open a directory that only root can change; Untrusted, OSError (a link: ENOTDIR)."""
    with _above(path) as (way, name):
        flags = access.DIRECTORY
        fd = os.open(name or ".", flags, dir_fd=way.fd)
        try:
            fault = _fault(fd, os.fstat(fd), os.fstat(way.fd))
            if fault is not None:
                raise Untrusted(str(path), str(path), fault)
            return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
        finally:
            os.close(fd)


def open_trusted(path: str | Path, flags: int = os.O_RDONLY, mode: int = 0o600) -> int:
    """Open a regular file that only root can change; Untrusted, OSError."""
    with _above(path) as (way, name):
        try:
            return way.open_file(name, flags, mode)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.EMLINK):
                raise
            raise Untrusted(str(path), str(path), Fault("is a symbolic link")) from error


def read_trusted(path: str | Path, most: int = -1) -> bytes:
    """Return at most `most` bytes of a file that only root can change; Untrusted, OSError."""
    with open(open_trusted(path), "rb") as file:
        return file.read(most)


def check_program(path: str | Path) -> None:
    """See that only root can change the program behind `path` and its links; Untrusted, OSError."""
    with _above(path) as (way, first):
        name, found = first, way.open_program(first)
        while not found:
            *directories, name = way.follow(name)
            way.go(directories)
            found = way.open_program(name)
