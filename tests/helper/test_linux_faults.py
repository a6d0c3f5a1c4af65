# SPDX-License-Identifier: BSD-2-Clause
"""Every step of the Linux helper, made to fail: reported as step and errno, nothing left."""

import errno
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jaildaemon.backends.base import LABEL_APPARMOR, LABEL_SELINUX
from tests.helper.conftest import Starter
from tests.helper.faults import failing, strace
from tests.helper.parent import Record, Target, params, wait_child

if sys.platform != "linux":
    pytest.skip("cannot: the Linux helper", allow_module_level=True)

EXECUTED = [
    # system call, arguments that say which, the error it gets, the step's number
    ("read", {"a0": 4, "a2": 24}, "EIO", 1),
    ("rt_sigprocmask", {}, "EINVAL", 2),
    ("rt_sigaction", {"a0": 1}, "EINVAL", 2),
    ("rt_sigaction", {"a0": 17}, "EINVAL", 2),
    ("rt_sigaction", {"a0": 64}, "EINVAL", 2),
    ("close_range", {}, "ENOSYS", 3),
    ("chdir", {}, "EACCES", 4),
    ("setsid", {}, "EPERM", 5),
    ("prlimit64", {}, "EPERM", 6),
    ("keyctl", {}, "EDQUOT", 7),
    ("prctl", {"a0": 4}, "EINVAL", 8),
    ("setgroups", {}, "EPERM", 10),
    ("setns", {}, "ESRCH", 11),
    ("setns", {}, "EPERM", 11),
    ("setns", {}, "EINVAL", 11),
    ("prctl", {"a0": 24, "a1": 0}, "EPERM", 12),  # PR_CAPBSET_DROP
    ("prctl", {"a0": 24, "a1": 40}, "EPERM", 12),
    ("prctl", {"a0": 47}, "EPERM", 12),  # PR_CAP_AMBIENT
    ("prctl", {"a0": 28}, "EPERM", 12),  # PR_SET_SECUREBITS
    ("capset", {}, "EPERM", 12),
    ("setresgid", {}, "EINVAL", 13),
    ("setresuid", {}, "EAGAIN", 14),
    ("execveat", {}, "EACCES", 15),
    ("execveat", {}, "ENOMEM", 15),
    ("prctl", {"a0": 15}, "EFAULT", 20),  # PR_SET_NAME
    ("prctl", {"a0": 38}, "EINVAL", 16),  # PR_SET_NO_NEW_PRIVS
    ("prctl", {"a0": 22}, "ENOMEM", 17),  # PR_SET_SECCOMP
    ("clone", {}, "EAGAIN", 18),
    ("clone", {}, "ENOMEM", 18),
]


def end(start: Starter, target: Target, **how: object) -> list[Record]:
    """Run a helper that must fail; return its whole report, with nothing left of it."""
    parent = start(target=target, **how)
    parent.send(params(target.number))
    records = parent.records_to_the_end()
    assert wait_child(parent.pid) == ("exit", 1)
    return records


@pytest.mark.parametrize(
    ("name", "arguments", "error", "step"),
    EXECUTED,
    ids=lambda value: "".join(str(v) for v in value) if isinstance(value, dict) else str(value),
)
def test_a_step_that_fails_is_reported_and_nothing_is_left(
    start: Starter, target: Target, name: str, arguments: dict[str, int], error: str, step: int
) -> None:
    records = end(start, target, prepare=failing(name, error, **arguments))
    assert records == [("E", step, getattr(errno, error))]


# strace counts for each process: the probe's first prctl, whose filter is made zero
# instructions long.  The helper's own first has no such argument.
NO_FILTER = "inject=prctl:poke_enter=@arg3=0000:when=1"


@pytest.mark.parametrize(
    ("how", "error", "step"),
    [("PR_SET_PDEATHSIG", "EPERM", 19), (NO_FILTER, "EINVAL", 21)],
)
def test_a_step_of_the_probe_itself_is_reported_too(
    start: Starter, target: Target, how: str, error: str, step: int
) -> None:
    if how == NO_FILTER:
        parent = start(wrap=strace("-o", os.devnull, "-e", how))
    else:
        parent = start(prepare=failing("prctl", error, a0=1))
    parent.send(params(target.number))
    records = sorted(parent.records_to_the_end())
    assert [record[0] for record in records] == ["E", "P"]
    assert records[0] == ("E", step, getattr(errno, error))
    assert wait_child(parent.pid) == ("exit", 0)
    assert wait_child(records[1][2]) == ("exit", 1)


LAST_CAP = int(Path("/proc/sys/kernel/cap_last_cap").read_text(encoding="ascii"))
# PR_SET_DUMPABLE, one PR_CAPBSET_DROP each, one more that tells that it was the last
AMBIENT = 1 + (LAST_CAP + 1) + 1 + 1
BY_PLACE = [
    (1, "EINVAL", 8),
    (2, "EPERM", 12),
    (2 + LAST_CAP, "EPERM", 12),
    (AMBIENT, "EINVAL", 12),
    (AMBIENT + 1, "EPERM", 12),
    (AMBIENT + 2, "EINVAL", 8),  # again, by the sealed image
    (AMBIENT + 3, "EFAULT", 20),
    (AMBIENT + 4, "EINVAL", 16),
    (AMBIENT + 5, "EINVAL", 17),
]


@pytest.mark.parametrize(("place", "error", "step"), BY_PLACE)
def test_each_use_of_prctl_is_checked(
    start: Starter, target: Target, place: int, error: str, step: int
) -> None:
    wrap = strace("-o", os.devnull, "-e", f"inject=prctl:error={error}:when={place}")
    assert end(start, target, wrap=wrap) == [("E", step, getattr(errno, error))]


@pytest.mark.parametrize("error", ["ENOSYS", "EPERM"])
def test_only_a_kernel_without_keyrings_does_without_one(
    start: Starter, target: Target, error: str
) -> None:
    parent = start(prepare=failing("keyctl", error))
    if error == "ENOSYS":
        pid = parent.armed(params(target.number))
        os.kill(pid, signal.SIGKILL)
        assert wait_child(pid) == ("signal", signal.SIGKILL)
        return
    parent.send(params(target.number))
    assert parent.records_to_the_end() == [("E", 7, errno.EPERM)]
    assert wait_child(parent.pid) == ("exit", 1)


def test_a_report_that_cannot_be_written_ends_helper_and_probe(
    start: Starter, target: Target
) -> None:
    parent = start(prepare=failing("write", "EIO", a0=3))
    parent.send(params(target.number))
    assert parent.records_to_the_end() == []
    assert wait_child(parent.pid) == ("exit", 1)
    start.reap_strays()


# --- what the kernel itself refuses ---------------------------------------------------


@pytest.fixture
def ended_jail(target: Target) -> Iterator[int]:
    """Give the pidfd of a process that is no more."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    pidfd = os.pidfd_open(pid)
    assert wait_child(pid) == ("exit", 0)
    yield pidfd
    os.close(pidfd)


def test_a_jail_that_has_ended_is_reported_as_such(
    start: Starter, target: Target, ended_jail: int
) -> None:
    gone = Target(target.number, ended_jail, target.image)
    assert end(start, gone) == [("E", 11, errno.ESRCH)]


def test_what_is_no_jail_is_reported(start: Starter, target: Target) -> None:
    null_fd = os.open(os.devnull, os.O_RDONLY)
    try:
        assert end(start, Target(target.number, null_fd, target.image)) == [("E", 11, errno.EINVAL)]
    finally:
        os.close(null_fd)
    assert end(start, Target(target.number, None, target.image)) == [("E", 11, errno.EBADF)]


NEWUSER = 0x10000000
LATER = [
    ("setns", {"a1": NEWUSER}, "EPERM", 23),
    ("setns", {"a1": NEWUSER}, "EACCES", 23),
    ("prctl", {"a0": 24, "a1": 0}, "EPERM", 12),
    ("prctl", {"a0": 28}, "EPERM", 12),
    ("setresgid", {}, "EPERM", 13),
    ("setresuid", {}, "EPERM", 14),
    ("capset", {}, "EPERM", 12),
]


@pytest.mark.parametrize(("name", "arguments", "error", "step"), LATER)
def test_a_step_in_the_jails_user_namespace_is_reported_too(
    start: Starter, user_target: Target, name: str, arguments: dict[str, int], error: str, step: int
) -> None:
    records = end(start, user_target, prepare=failing(name, error, **arguments))
    assert records == [("E", step, getattr(errno, error))]


# DUMPABLE in stage 1, again after the exec, one PR_CAPBSET_DROP each and one more,
# AMBIENT, SECUREBITS; and again, for new ids set it to fs.suid_dumpable.
LAST_DUMPABLE = 2 + (LAST_CAP + 1) + 1 + 2 + 1


@pytest.mark.parametrize(("place", "step"), [(2, 8), (LAST_DUMPABLE, 8), (LAST_DUMPABLE + 1, 20)])
def test_each_use_of_prctl_there_is_checked(
    start: Starter, user_target: Target, place: int, step: int
) -> None:
    wrap = strace("-o", os.devnull, "-e", f"inject=prctl:error=EINVAL:when={place}")
    assert end(start, user_target, wrap=wrap) == [("E", step, errno.EINVAL)]


def test_a_jail_whose_user_namespace_is_not_passed_is_reported(
    start: Starter, user_target: Target
) -> None:
    without = Target(user_target.number, user_target.jail_fd, user_target.image)
    assert end(start, without) == [("E", 23, errno.EBADF)]


@pytest.mark.parametrize("flags", [0, 4])
def test_the_two_ways_into_a_user_namespace_end_alike(
    start: Starter, user_target: Target, flags: int
) -> None:
    """FLAG_AT_ONCE: where a security module forbids what comes after the exec."""
    parent = start(target=user_target, prepare=failing("setns", "EPERM", a1=NEWUSER * (flags > 0)))
    pid = parent.armed(params(user_target.number, flags=flags))
    assert os.path.samestat(
        os.stat(f"/proc/{pid}/ns/user"), os.stat(f"/proc/{user_target.init}/ns/user")
    )
    os.kill(pid, signal.SIGKILL)
    assert wait_child(pid) == ("signal", signal.SIGKILL)


def test_ids_that_the_user_namespace_does_not_have_are_reported(
    start: Starter, user_target: Target
) -> None:
    for record, step in (
        (params(user_target.number, gid=70_000), 13),
        (params(user_target.number, uid=70_000), 14),
    ):
        parent = start(target=user_target)
        parent.send(record)
        assert parent.records_to_the_end() == [("E", step, errno.EINVAL)]
        assert wait_child(parent.pid) == ("exit", 1)


# --- the label --------------------------------------------------------------------------

LABEL = b"system_u:system_r:container_t:s0"
AT_FDCWD = -100


@pytest.mark.parametrize(
    ("name", "arguments", "error"),
    [
        ("openat", {"a0": AT_FDCWD}, "EACCES"),
        ("openat", {"a0": AT_FDCWD}, "ENOENT"),
        ("fstatfs", {}, "EIO"),
        ("write", {"a2": len(LABEL)}, "EACCES"),
    ],
)
def test_a_label_that_cannot_be_set_is_reported_and_nothing_is_entered(
    start: Starter, target: Target, name: str, arguments: dict[str, int], error: str
) -> None:
    parent = start(prepare=failing(name, error, **arguments))
    parent.send(params(target.number, label_kind=LABEL_SELINUX, label=LABEL))
    assert parent.records_to_the_end() == [("E", 9, getattr(errno, error))]
    assert wait_child(parent.pid) == ("exit", 1)


@pytest.mark.parametrize(("kind", "text"), [(LABEL_SELINUX, b"made up"), (LABEL_APPARMOR, b"m")])
def test_a_label_that_the_kernel_does_not_know_is_reported(
    start: Starter, target: Target, kind: int, text: bytes
) -> None:
    parent = start()
    parent.send(params(target.number, label_kind=kind, label=text))
    ((letter, step, _),) = parent.records_to_the_end()
    assert (letter, step) == ("E", 9)
    assert wait_child(parent.pid) == ("exit", 1)


def test_a_proc_that_is_not_the_kernels_gets_no_label(start: Starter, target: Target) -> None:
    """CVE-2019-16884: a write to a file that somebody put there changes nothing."""
    parent = start(prepare=fake_proc, by_descriptor=True)
    parent.send(params(target.number, label_kind=LABEL_SELINUX, label=LABEL))
    assert parent.records_to_the_end() == [("E", 9, errno.EINVAL)]
    assert wait_child(parent.pid) == ("exit", 1)


def fake_proc() -> None:
    """Cover /proc by a file system with the same names, in a mount namespace of our own."""
    import ctypes

    libc = ctypes.CDLL(None)
    assert libc.unshare(0x00020000) == 0
    assert libc.mount(b"none", b"/", None, ctypes.c_ulong(0x4000 | 1 << 18), None) == 0
    assert libc.mount(b"fake", b"/proc", b"tmpfs", ctypes.c_ulong(0), None) == 0
    os.makedirs("/proc/thread-self/attr")
    with open("/proc/thread-self/attr/exec", "wb"):
        pass
