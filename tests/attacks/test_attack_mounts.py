# SPDX-License-Identifier: BSD-2-Clause
"""Attack 27: a file system on the way to our files that says of itself what it likes."""

import contextlib
import ctypes
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from jaildaemon.backends import trust

if sys.platform != "linux":
    pytest.skip("cannot: FUSE by hand", allow_module_level=True)
assert sys.platform == "linux"

from tests.attacks.fuse_root import FuseServer
from tests.attacks.tally import Tally

STRANGER = 65534
GETXATTR = 22  # linux/fuse.h


class Listed(FuseServer):
    """Has an access control list of NFS on everything."""

    @staticmethod
    def _answer(call: int) -> tuple[int, bytes]:
        return (0, b"acl") if call == GETXATTR else FuseServer._answer(call)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory to mount on."""
    if os.geteuid() != 0:
        pytest.skip("root only")
    with tempfile.TemporaryDirectory(prefix="jd.") as name:
        yield Path(name).resolve()


@contextlib.contextmanager
def mounted(place: Path, server: type[FuseServer], uid: int) -> Iterator[None]:
    """Have `uid` mount a file system, whose root says that it is root's."""
    try:
        serving = server()
    except OSError as error:
        pytest.skip(f"cannot: /dev/fuse: {error.strerror}")
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={serving.fd},rootmode=40000,user_id={uid},group_id=0,allow_other".encode()
    zero = ctypes.c_ulong(0)
    assert libc.mount(b"fuse", str(place).encode(), b"fuse", zero, options) == 0
    serving.start()
    try:
        yield
    finally:
        detach = 2  # MNT_DETACH
        assert libc.umount2(str(place).encode(), detach) == 0


def refused(place: Path) -> str:
    """Return why nothing is taken from there, or ""."""
    try:
        trust.check_place(place / "file")
    except trust.Untrusted as error:
        return error.why
    return ""


def test_a_file_system_that_a_user_has_mounted_is_refused(place: Path, tally: Tally) -> None:
    with mounted(place, FuseServer, STRANGER):
        found = place.stat()
        # All that a look at owner and mode sees.
        tally.control("a user's mount", (found.st_uid, found.st_mode) == (0, 0o40755))
        why = refused(place)
        tally.attack("a user's mount", 1, f"that uid {STRANGER} has mounted" not in why, why)


def test_a_file_system_that_root_has_mounted_is_taken(place: Path) -> None:
    with mounted(place, FuseServer, 0):
        assert refused(place) == ""


def test_an_access_control_list_of_nfs_is_refused(place: Path, tally: Tally) -> None:
    with mounted(place, Listed, 0):
        found = place.stat()
        tally.control("a list of NFS", (found.st_uid, found.st_mode) == (0, 0o40755))
        why = refused(place)
        tally.attack("a list of NFS", 1, "NFSv4 access control list" not in why, why)
