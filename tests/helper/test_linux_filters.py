# SPDX-License-Identifier: BSD-2-Clause
"""The probe's two filters, read back from the kernel and asked about every call there is."""

import ctypes
import errno
import os
import signal
import struct
import sys

import pytest

from tests.helper.conftest import Starter
from tests.helper.faults import MACHINE
from tests.helper.parent import Target, params, wait_child

if sys.platform != "linux":
    pytest.skip("cannot: the Linux helper", allow_module_level=True)

Filter = list[tuple[int, int, int, int]]

# linux/ptrace.h, linux/filter.h, linux/seccomp.h, linux/audit.h
SEIZE, INTERRUPT, GET_FILTER = 0x4206, 0x4207, 0x420C
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, KILL = 0x7FFF0000, 0x80000000
ARCH = (0xC000003E, 0xC00000B7)[MACHINE]
OTHERS = [0x40000003, 0xC000003E, 0xC00000B7, 0x40000028, 0]
SIGSUSPEND, EXIT_GROUP = (130, 133)[MACHINE], (231, 94)[MACHINE]
READ, WRITE, CLOSE, PRCTL, CLONE = 0, 1, 3, 157, 56
if MACHINE:
    READ, WRITE, CLOSE, PRCTL, CLONE = 63, 64, 57, 167, 220
STATUS, GO = 3, 4
PDEATHSIG, SECCOMP = 1, 22


@pytest.fixture
def filters(start: Starter, target: Target) -> tuple[Filter, Filter]:
    """Give the filters of a sleeping probe: its own, and that of its birth."""
    pid = start().armed(params(target.number))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long] * 4

    def traced(request: int, address: int = 0, data: int = 0) -> int:
        result = int(libc.ptrace(request, pid, address, data))
        if result < 0:
            number = ctypes.get_errno()
            if request == GET_FILTER and number in (errno.EACCES, errno.EIO, errno.EINVAL):
                pytest.skip("cannot: this kernel shows no filter (CONFIG_CHECKPOINT_RESTORE)")
            raise OSError(number, os.strerror(number))
        return result

    def read(index: int) -> Filter:
        buffer = ctypes.create_string_buffer(8 * traced(GET_FILTER, index))
        traced(GET_FILTER, index, ctypes.addressof(buffer))
        return list(struct.iter_unpack("<HBBI", buffer.raw))

    try:
        traced(SEIZE)
        traced(INTERRUPT)
        os.waitpid(pid, 0)
        # The first one installed is number 0 (kernel/seccomp.c, get_nth_filter).
        found = read(1), read(0)
    finally:
        os.kill(pid, signal.SIGKILL)
        assert wait_child(pid) == ("signal", signal.SIGKILL)
    return found


def allows(program: Filter, number: int, *arguments: int, arch: int = ARCH) -> bool:
    """Run a filter; fail where it does anything but allow or kill."""
    words = (*arguments, *(6 - len(arguments)) * [0])
    data = struct.pack("<IIQ6Q", number, arch, 0, *words)
    held = at = 0
    while True:
        code, then, otherwise, value = program[at]
        at += 1
        if code == LOAD:
            (held,) = struct.unpack_from("<I", data, value)
        elif code == EQUAL:
            at += then if held == value else otherwise
        else:
            assert code == RETURN
            assert value in (ALLOW, KILL)
            return value == ALLOW


EVERY = range(2048)


def test_what_is_no_call_of_this_machine_is_never_allowed(filters: tuple[Filter, Filter]) -> None:
    """The same numbers mean other calls to another architecture's entry (int 0x80, x32)."""
    for program in filters:
        for arch in {*OTHERS} - {ARCH}:
            assert not [n for n in EVERY if allows(program, n, STATUS, arch=arch)]
        assert not [n for n in EVERY if allows(program, n | 1 << 30, STATUS)]


def test_a_probe_may_sleep_or_end(filters: tuple[Filter, Filter]) -> None:
    own, _ = filters
    assert {n for n in EVERY if allows(own, n)} == {SIGSUSPEND, EXIT_GROUP}
    assert {n for n in EVERY if allows(own, n, 8)} == {SIGSUSPEND, EXIT_GROUP}


def test_what_it_needs_on_the_way_does_nothing_later(filters: tuple[Filter, Filter]) -> None:
    own, _ = filters
    numbers = {READ, WRITE, CLOSE, PRCTL}
    first = [0, 1, 2, STATUS, GO, 5, 6, 7, 2**31, 2**32 - 1]
    found = {(n, a) for n in numbers for a in first if allows(own, n, a)}
    assert found == {(WRITE, STATUS), (READ, GO), (CLOSE, STATUS), (CLOSE, GO)}
    options = [(o, s) for o in range(80) for s in range(65) if allows(own, PRCTL, o, s)]
    assert options == [(PDEATHSIG, signal.SIGKILL)]


def test_it_can_give_no_birth(filters: tuple[Filter, Filter]) -> None:
    own, birth = filters
    births = {CLONE, 435} | (set() if MACHINE else {57, 58})  # clone3; fork, vfork
    flags = 0x8000 | signal.SIGCHLD  # CLONE_PARENT
    assert [n for n in births if allows(birth, n, flags)] == [CLONE]
    assert [n for n in births if allows(own, n, flags)] == []


def test_its_birth_needs_seven_calls(filters: tuple[Filter, Filter]) -> None:
    _, birth = filters
    common = {SIGSUSPEND, READ, WRITE, CLOSE, CLONE, EXIT_GROUP}
    assert {n for n in EVERY if allows(birth, n)} == common
    options = [o for o in range(80) if allows(birth, PRCTL, o)]
    assert options == [PDEATHSIG, SECCOMP]
