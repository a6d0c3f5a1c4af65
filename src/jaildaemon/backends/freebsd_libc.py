# SPDX-License-Identifier: BSD-2-Clause
"""FreeBSD's libc, as far as the backend needs it: one function per call, no logic.

Each returns what the kernel says, or raises OSError with its errno.  Numbers
and layouts: sys/jail.h, sys/sysctl.h, sys/user.h, sys/ucred.h; those of 13.2
and 15 are the same where both have them.
"""

import ctypes
import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from jaildaemon.core.text import from_utf8, utf8

assert sys.platform.startswith("freebsd")

JAIL_USE_DESC = 0x10  # sys/jail.h, 15 and later
JAIL_GET_DESC = 0x40  # 15 and later; JAIL_OWN_DESC (0x80) would end the jail with us
ERRMSG_SIZE = 1024  # JAIL_ERRMSGLEN
NAME_SIZE = 256  # MAXHOSTNAMELEN
PATH_SIZE = 1024  # MAXPATHLEN

CTL_KERN = 1
KERN_PROC = 14
KERN_PROC_PID = 1
KERN_PROC_PROC = 8
KERN_PROC_ENV = 35
KERN_BOOTTIME = 21

ENV_SIZE = 4096  # of a command's environment; ours, the interesting ones, are far smaller
BOOT_ID_SIZE = 16

KINFO_SIZE = 1088  # KINFO_PROC_SIZE of a 64-bit kernel, sys/user.h
SZOMB = 5  # ki_stat, sys/proc.h

SOL_LOCAL = 0  # sys/un.h
LOCAL_PEERCRED = 1
XUCRED = struct.Struct("@IIh16I4xi4x")  # version, uid, number of groups, groups, pid
XUCRED_VERSION = 0


class _IOVec(ctypes.Structure):
    _fields_ = (("iov_base", ctypes.c_void_p), ("iov_len", ctypes.c_size_t))


_libc = ctypes.CDLL(None, use_errno=True)
_libc.jail_get.argtypes = (ctypes.POINTER(_IOVec), ctypes.c_uint, ctypes.c_int)
_libc.jail_get.restype = ctypes.c_int
_libc.sysctl.argtypes = (
    ctypes.POINTER(ctypes.c_int),
    ctypes.c_uint,
    ctypes.c_void_p,
    ctypes.POINTER(ctypes.c_size_t),
    ctypes.c_void_p,
    ctypes.c_size_t,
)
_libc.sysctl.restype = ctypes.c_int
_libc.sysctlbyname.argtypes = (
    ctypes.c_char_p,
    ctypes.c_void_p,
    ctypes.POINTER(ctypes.c_size_t),
    ctypes.c_void_p,
    ctypes.c_size_t,
)
_libc.sysctlbyname.restype = ctypes.c_int


def _oserror(what: str) -> OSError:
    error = ctypes.get_errno()
    return OSError(error, os.strerror(error), what)


@dataclass(frozen=True, slots=True)
class JailFacts:
    """What jail_get(2) says of a jail that is not dying.  `desc` is -1 where none was asked for."""

    jid: int
    name: str
    path: str
    persist: bool
    desc: int
    parent: int
    """The jid of the jail that it is a child of; 0 for our own."""


def jail_get(
    *, jid: int = 0, name: str = "", desc: int = -1, flags: int = 0, after: int | None = None
) -> JailFacts:
    """Describe the jail of a jid, a name, or (JAIL_USE_DESC) a descriptor; jail(2).

    With `after`, the next one beyond that jid: 0 for the first.

    ENOENT: there is none, or it is dying.  EINVAL: this kernel does not know
    `flags`.  The error's text is the kernel's own, where it gives one.
    """
    ids = {"jid": ctypes.c_int(jid), "persist": ctypes.c_int(), "parent": ctypes.c_int()}
    if after is not None:
        ids["lastjid"] = ctypes.c_int(after)
    texts = {
        # The key must end in a NUL at the end of its length: the buffer does.
        "name": ctypes.create_string_buffer(utf8(name), NAME_SIZE),
        "path": ctypes.create_string_buffer(PATH_SIZE),
        "errmsg": ctypes.create_string_buffer(ERRMSG_SIZE),
    }
    if flags & (JAIL_USE_DESC | JAIL_GET_DESC):
        ids["desc"] = ctypes.c_int(desc)
    iov = (_IOVec * (2 * len(ids) + 2 * len(texts)))()
    keys = []
    for i, (key, value) in enumerate([*ids.items(), *texts.items()]):
        keys.append(ctypes.create_string_buffer(key.encode()))
        iov[2 * i] = _IOVec(ctypes.addressof(keys[i]), len(keys[i]))
        iov[2 * i + 1] = _IOVec(ctypes.addressof(value), ctypes.sizeof(value))
    if _libc.jail_get(iov, len(iov), flags) < 0:
        error = ctypes.get_errno()
        message = texts["errmsg"].value.decode(errors="replace")
        raise OSError(error, message or os.strerror(error), "jail_get")
    return JailFacts(
        ids["jid"].value,
        from_utf8(texts["name"].value),
        from_utf8(texts["path"].value),
        bool(ids["persist"].value),
        ids["desc"].value if flags & JAIL_GET_DESC else -1,
        ids["parent"].value,
    )


def _sysctl(
    name: tuple[int, ...],
    buffer: "ctypes.Array[ctypes.c_char] | None",
    *,
    partial: bool = False,
) -> int:
    """Read a value into `buffer`; return its size, or an estimate of it without one."""
    mib = (ctypes.c_int * len(name))(*name)
    size = ctypes.c_size_t(0 if buffer is None else len(buffer))
    if _libc.sysctl(mib, len(mib), buffer, ctypes.byref(size), None, 0) < 0:
        error = _oserror(f"sysctl {'.'.join(map(str, name))}")
        if not (partial and error.errno == errno.ENOMEM):
            raise error
    return size.value


class ProcessFacts(NamedTuple):
    """Fields of struct kinfo_proc (sys/user.h).  `jid` is 0 for our own jail, or for the host."""

    pid: int
    ppid: int
    start: tuple[int, int]
    """ki_start: moves when the clock is set."""
    zombie: bool
    jid: int
    uids: tuple[int, int, int]
    """Effective, real and saved."""


KINFO = struct.Struct("=i 68x ii 88x III 156x qq 36x B 203x i 492x")
"""At 0, 72, 168, 336, 388 and 592 the fields that we need.  A jail may have thousands listed."""


def _described(kinfo: "bytes | memoryview") -> Iterator[ProcessFacts]:
    for size, pid, ppid, *uids, seconds, microseconds, state, jid in KINFO.iter_unpack(kinfo):
        if size != KINFO_SIZE:
            # Another layout: nothing of it can be trusted.
            raise OSError(f"struct kinfo_proc has {size} bytes, not {KINFO_SIZE}")
        start, owners = (seconds, microseconds), (uids[0], uids[1], uids[2])
        yield ProcessFacts(pid, ppid, start, state == SZOMB, jid, owners)


def process(pid: int) -> ProcessFacts:
    """Describe process `pid`, a zombie too; sysctl kern.proc.pid, ESRCH where there is none."""
    buffer = ctypes.create_string_buffer(KINFO_SIZE)
    _sysctl((CTL_KERN, KERN_PROC, KERN_PROC_PID, pid), buffer)
    (found,) = _described(buffer.raw)
    return found


def processes() -> Iterator[ProcessFacts]:
    """Describe every process; sysctl kern.proc.proc.  ENOMEM: they have doubled meanwhile."""
    name = (CTL_KERN, KERN_PROC, KERN_PROC_PROC)
    # Room for what is born between the two calls; the first costs next to nothing.
    buffer = ctypes.create_string_buffer(_sysctl(name, None) * 3 // 2)
    size = _sysctl(name, buffer)
    return _described(memoryview(buffer)[: size - size % KINFO_SIZE])


def boot_time() -> tuple[int, int]:
    """Return when the machine was started, by the clock as it is set now; kern.boottime."""
    buffer = ctypes.create_string_buffer(16)
    _sysctl((CTL_KERN, KERN_BOOTTIME), buffer)
    seconds, microseconds = struct.unpack("@qq", buffer.raw)
    return seconds, microseconds


def environment(pid: int) -> list[bytes]:
    """Return the environment of `pid`, or its beginning; kern.proc.env.

    The beginning where it is longer than ENV_SIZE, and for some processes of 15.1: it reads 256
    bytes from where a string begins, and gives up where these end above the stack
    (vmspace_iop, sys/kern/sys_process.c).  ENOMEM comes with what was read by then.
    """
    buffer = ctypes.create_string_buffer(ENV_SIZE)
    size = _sysctl((CTL_KERN, KERN_PROC, KERN_PROC_ENV, pid), buffer, partial=True)
    return buffer.raw[:size].split(b"\0")[:-1]


def sysctl_int(name: str) -> int:
    """Return a value by its name; sysctlbyname(3), ENOENT where this kernel has none."""
    value, size = ctypes.c_int(), ctypes.c_size_t(ctypes.sizeof(ctypes.c_int))
    at = ctypes.cast(ctypes.byref(value), ctypes.c_void_p)
    if _libc.sysctlbyname(name.encode(), at, ctypes.byref(size), None, 0) < 0:
        raise _oserror(f"sysctl {name}")
    return value.value


def boot_id() -> bytes | None:
    """Return the 16 random bytes of this boot; kern.boot_id (14 and later), else None."""
    buffer = ctypes.create_string_buffer(BOOT_ID_SIZE)
    size = ctypes.c_size_t(BOOT_ID_SIZE)
    if _libc.sysctlbyname(b"kern.boot_id", buffer, ctypes.byref(size), None, 0) < 0:
        if ctypes.get_errno() == errno.ENOENT:
            return None
        raise _oserror("sysctl kern.boot_id")
    return buffer.raw


def peer_credentials(fd: int) -> tuple[int, int]:
    """Return uid and pid of who connected (or listened); LOCAL_PEERCRED, unix(4).

    The pid is 0 where the kernel does not know it.
    """
    with socket.socket(fileno=os.dup(fd)) as sock:
        data = sock.getsockopt(SOL_LOCAL, LOCAL_PEERCRED, XUCRED.size)
    version, uid, *_, pid = XUCRED.unpack(data)
    if version != XUCRED_VERSION:
        raise OSError(f"struct xucred has version {version}, not {XUCRED_VERSION}")
    return uid, pid
