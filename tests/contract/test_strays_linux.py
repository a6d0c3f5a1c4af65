# SPDX-License-Identifier: BSD-2-Clause
"""Whose a child is: what nobody watches in a jail is ended, and nothing else."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator

import pytest

if sys.platform != "linux":
    pytest.skip("cannot: Linux namespaces", allow_module_level=True)
assert sys.platform == "linux"

from jaildaemon.backends import linux_strays
from jaildaemon.backends.linux_strays import Strays
from jaildaemon.backends.linux_watcher import LinuxWatcher
from tests.helper.parent import children, wait_child

NEWPID = 0x20000000
Fork = Callable[..., int]


@pytest.fixture
def told() -> list[str]:
    """Give what was told."""
    return []


@pytest.fixture
def strays(told: list[str]) -> Iterator[Strays]:
    """Give what looks for them."""
    if os.geteuid() != 0:
        pytest.skip("cannot: only root may make namespaces")
    watcher = LinuxWatcher()
    yield Strays(watcher, told.append)
    watcher.close()


@pytest.fixture
def fork(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fork]:
    """Give what makes children that sleep; here, or in a PID namespace, each in its session."""
    made: list[int] = []
    # These run Python: the image is a probe's here.
    monkeypatch.setattr(linux_strays, "OUR_IMAGE", os.path.realpath(sys.executable))
    libc = ctypes.CDLL(None, use_errno=True)

    def make(*, deeper: bool, ended: bool = False) -> int:
        ready_read, ready = os.pipe()
        if deeper:
            # Only our next child is in the new one, and then no other: a thread's affair.
            own = os.open("/proc/self/ns/pid_for_children", os.O_RDONLY)
            assert libc.unshare(NEWPID) == 0
        pid = os.fork()
        if pid == 0:
            os.setsid()
            os.write(ready, b"r")
            if ended:
                os._exit(0)
            while True:
                signal.pause()
        if deeper:
            assert libc.setns(own, NEWPID) == 0
            os.close(own)
        os.close(ready)
        assert os.read(ready_read, 1) == b"r"
        os.close(ready_read)
        if ended:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        made.append(pid)
        return pid

    yield make
    for pid in made:
        if pid in children():
            os.kill(pid, signal.SIGKILL)
            wait_child(pid)


def _swept(strays: Strays, told: list[str]) -> None:
    """End an arming that there was none of, and serve until it was looked."""
    strays.over(0)
    while strays._due is not None:
        strays._watcher.wait()
    assert len(told) <= 1


def test_who_is_in_a_jail_and_watched_by_nobody_is_ended_and_told(
    strays: Strays, fork: Fork, told: list[str]
) -> None:
    living, zombie = fork(deeper=True), fork(deeper=True, ended=True)
    _swept(strays, told)
    assert not {living, zombie} & children()
    (line,) = told
    assert line.startswith("ended 2 processes that somebody in a jail had made of a probe: ")
    _swept(strays, [])
    assert len(told) == 1


def test_a_command_of_ours_is_left_alone_ended_or_not(
    strays: Strays, fork: Fork, told: list[str]
) -> None:
    ours = {fork(deeper=False), fork(deeper=False, ended=True)}
    _swept(strays, told)
    assert ours <= children()
    assert told == []


def test_another_program_in_a_jail_is_left_alone(
    strays: Strays, fork: Fork, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = fork(deeper=True)
    monkeypatch.setattr(linux_strays, "OUR_IMAGE", "/memfd:jailprobe (deleted)")
    _swept(strays, told)
    assert other in children()
    assert told == []


def test_what_is_being_armed_or_watched_is_left_alone(
    strays: Strays, fork: Fork, told: list[str]
) -> None:
    arming, watched = fork(deeper=True), fork(deeper=True)
    strays.begin(arming)
    ends: list[object] = []
    strays._watcher.watch_process(watched, ends.append)
    _swept(strays, told)
    strays.reap_orphans()
    assert {arming, watched} <= children()
    # With the end of the arming it is nobody's.
    strays.over(arming)
    while strays._due is not None:
        strays._watcher.wait()
    assert arming not in children()
    os.kill(watched, signal.SIGKILL)
    while not ends:
        strays._watcher.wait()


def test_orphans_are_reaped_but_not_those_of_an_arming(strays: Strays, fork: Fork) -> None:
    arming, orphan, living = (
        fork(deeper=True, ended=True),
        fork(deeper=False, ended=True),
        fork(deeper=False),
    )
    strays.begin(arming)
    strays.reap_orphans()
    assert orphan not in children()
    assert {arming, living} <= children()


def test_a_helpers_own_are_ended_and_no_others(strays: Strays, fork: Fork) -> None:
    helper, other = fork(deeper=True), fork(deeper=True)
    assert strays.of(helper) == [helper]
    assert wait_child(helper) == ("signal", signal.SIGKILL)
    assert other in children()
    assert strays.of(helper) == []
