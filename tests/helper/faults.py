# SPDX-License-Identifier: BSD-2-Clause
"""Makes one system call of the helper fail (Linux); and Linux' numbers for that.

By a seccomp filter, which the helper inherits, where the call's arguments say
which one is meant; by strace(1), which counts, where only its place does.
"""

import ctypes
import errno
import os
import shutil
import struct
from collections.abc import Callable

import pytest

# asm/unistd.h: x86-64, arm64
NUMBERS = {
    "capset": (126, 91),
    "chdir": (80, 49),
    "clone": (56, 220),
    "close_range": (436, 436),
    "execveat": (322, 281),
    "fstatfs": (138, 44),
    "keyctl": (250, 219),
    "openat": (257, 56),
    "prctl": (157, 167),
    "prlimit64": (302, 261),
    "read": (0, 63),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "setgroups": (116, 159),
    "setns": (308, 268),
    "setresgid": (119, 149),
    "setresuid": (117, 147),
    "setsid": (112, 157),
    "write": (1, 64),
}
MACHINE = int(os.uname().machine == "aarch64")

# linux/sched.h
NAMESPACES = {
    "mnt": 0x00020000,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
    "time": 0x00000080,
}

# linux/filter.h and linux/seccomp.h
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
ERRNO, ALLOW = 0x00050000, 0x7FFF0000
PR_SET_SECCOMP, MODE_FILTER = 22, 2
# struct seccomp_data: nr, arch, instruction pointer, then the arguments, eight bytes each
NR_OFFSET, ARGUMENTS_OFFSET = 0, 16


def failing(name: str, error: str, **arguments: int) -> Callable[[], object]:
    """Return what a child must call so that `name` fails with `error` from then on.

    `a0=1, a2=8` restricts that to calls with these arguments (their lower 32 bits).
    """
    checks = [(NR_OFFSET, NUMBERS[name][MACHINE])]
    for argument, value in arguments.items():
        checks.append((ARGUMENTS_OFFSET + 8 * int(argument.removeprefix("a")), value & 0xFFFFFFFF))
    program = b""
    for left, (offset, value) in zip(range(len(checks) - 1, -1, -1), checks, strict=True):
        program += struct.pack("<HBBI", LOAD, 0, 0, offset)
        program += struct.pack("<HBBI", EQUAL, 0, 2 * left + 1, value)
    program += struct.pack("<HBBI", RETURN, 0, 0, ERRNO | getattr(errno, error))
    program += struct.pack("<HBBI", RETURN, 0, 0, ALLOW)
    filters = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(filters))
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def install() -> None:
        # Root needs no no_new_privs for this, so the helper starts without.
        if prctl(PR_SET_SECCOMP, MODE_FILTER, ctypes.c_char_p(header), 0, 0) != 0:
            os._exit(98)
        assert filters

    return install


def strace(*options: str) -> list[str]:
    """Return the words before a command that is to run under strace, as our own child."""
    program = shutil.which("strace")
    if program is None:
        pytest.skip("strace is missing; install the package strace")
    return [program, "-D", "-f", "-qq", "-s", "200", *options, "--"]
