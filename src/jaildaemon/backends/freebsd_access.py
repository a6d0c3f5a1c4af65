# SPDX-License-Identifier: BSD-2-Clause
"""Who else can change a file on FreeBSD: what its mode does not show."""

import ctypes
import errno
import os
import sys

assert sys.platform.startswith("freebsd")

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""For a directory on the way.  Not O_PATH: an ACL is asked of the descriptor."""
ACL_TYPE_ACCESS, ACL_TYPE_NFS4 = 2, 4  # sys/acl.h
STATFS_SIZE = 2344  # struct statfs of sys/mount.h, STATFS_VERSION 0x20140518
STATFS_VERSION = 0x20140518
F_OWNER = 188  # where its f_owner begins, in 13.2 as in 15

_libc = ctypes.CDLL(None, use_errno=True)
_libc.acl_get_fd_np.argtypes = (ctypes.c_int, ctypes.c_int)
_libc.acl_get_fd_np.restype = ctypes.c_void_p
_libc.acl_is_trivial_np.argtypes = (ctypes.c_void_p, ctypes.POINTER(ctypes.c_int))
_libc.acl_is_trivial_np.restype = ctypes.c_int
_libc.acl_free.argtypes = (ctypes.c_void_p,)
_libc.acl_free.restype = ctypes.c_int
_libc.fstatfs.argtypes = (ctypes.c_int, ctypes.c_void_p)
_libc.fstatfs.restype = ctypes.c_int


def _oserror(what: str) -> OSError:
    error = ctypes.get_errno()
    return OSError(error, os.strerror(error), what)


def acl_problem(fd: int) -> tuple[str, str | None] | None:
    """Return why an ACL may let others write, and the command that removes it (acl(3)).

    An NFSv4 one, as on ZFS, leaves the mode as it was.
    """
    for kind in (ACL_TYPE_NFS4, ACL_TYPE_ACCESS):
        acl = _libc.acl_get_fd_np(fd, kind)
        if not acl:
            if ctypes.get_errno() in (errno.EOPNOTSUPP, errno.EINVAL):
                continue  # none of this kind on this file system
            raise _oserror("acl_get_fd_np")
        try:
            trivial = ctypes.c_int()
            if _libc.acl_is_trivial_np(acl, ctypes.byref(trivial)) < 0:
                raise _oserror("acl_is_trivial_np")
        finally:
            _libc.acl_free(acl)
        if not trivial.value:
            return "has an access control list, which can let others write", "setfacl -b"
    return None


def mounted_by(fd: int) -> int | None:
    """Return which user has mounted the file system of `fd` (vfs.usermount, mount(2))."""
    buffer = ctypes.create_string_buffer(2 * STATFS_SIZE)
    if _libc.fstatfs(fd, buffer) < 0:
        raise _oserror("fstatfs")
    version = int.from_bytes(buffer.raw[:4], sys.byteorder)
    if version != STATFS_VERSION:
        raise OSError(f"struct statfs has version {version:#x}, not {STATFS_VERSION:#x}")
    return int.from_bytes(buffer.raw[F_OWNER : F_OWNER + 4], sys.byteorder)
