# SPDX-License-Identifier: BSD-2-Clause
"""The event loop's part of the contract: descriptors, children, deadlines."""

import os
import signal
from collections.abc import Iterator

import pytest

from jaildaemon.backends import base
from jaildaemon.backends.base import Death
from tests.contract.worlds import World


@pytest.fixture
def pipes() -> Iterator[list[tuple[int, int]]]:
    """Give two pipes; what the test leaves open is closed."""
    made = [os.pipe(), os.pipe()]
    yield made
    for ends in made:
        for fd in ends:
            try:
                os.close(fd)
            except OSError:
                continue


def test_deadlines_come_in_their_order_and_equal_ones_in_the_order_of_asking(
    world: World,
) -> None:
    told: list[str] = []
    watcher = world.backend.watcher
    # Asked for first and due last, by more than a pause between two calls can be.
    last = watcher.call_in(3600, lambda: told.append("last"))
    for name, seconds in (("a", 0), ("b", 0), ("c", 0.002), ("d", 0.003)):
        watcher.call_in(seconds, lambda name=name: told.append(name))  # type: ignore[misc]
    world.run_until(lambda: len(told) == 4)
    watcher.cancel(last)
    assert told == ["a", "b", "c", "d"]


def test_a_cancelled_deadline_is_never_called(world: World) -> None:
    told: list[str] = []
    watcher = world.backend.watcher
    first = watcher.call_in(0, lambda: told.append("first"))
    second = watcher.call_in(0, lambda: told.append("second"))
    last = watcher.call_in(0, lambda: told.append("last"))
    watcher.cancel(first)
    watcher.cancel(first)
    world.run_until(lambda: "last" in told)
    assert told == ["second", "last"]
    for handle in (first, second, last, 10**9):
        watcher.cancel(handle)  # past, cancelled, or never given: no error


def test_a_deadline_may_cancel_one_that_is_due_with_it(world: World) -> None:
    told: list[str] = []
    watcher = world.backend.watcher
    watcher.call_in(0, lambda: watcher.cancel(doomed))
    doomed = watcher.call_in(0, lambda: told.append("doomed"))
    watcher.call_in(0, lambda: told.append("last"))
    world.run_until(lambda: "last" in told)
    assert told == ["last"]


def test_a_deadline_may_ask_for_another(world: World) -> None:
    told: list[int] = []
    watcher = world.backend.watcher

    def again() -> None:
        told.append(len(told))
        if len(told) < 5:
            watcher.call_in(0, again)

    watcher.call_in(0, again)
    world.run_until(lambda: len(told) == 5)
    assert told == [0, 1, 2, 3, 4]


def test_a_readable_descriptor_is_told_until_it_is_read(
    world: World, pipes: list[tuple[int, int]]
) -> None:
    (read_fd, write_fd), _ = pipes
    told: list[int] = []
    world.backend.watcher.watch_fd(read_fd, lambda: told.append(read_fd))
    os.write(write_fd, b"x")
    world.run_until(lambda: len(told) == 3)
    world.backend.watcher.unwatch_fd(read_fd)
    world.backend.watcher.unwatch_fd(read_fd)  # no error
    done: list[bool] = []
    world.backend.watcher.call_in(0, lambda: done.append(True))
    world.run_until(lambda: bool(done))
    assert len(told) == 3


def test_the_end_of_a_pipe_is_readable(world: World, pipes: list[tuple[int, int]]) -> None:
    (read_fd, write_fd), _ = pipes
    told: list[bytes] = []
    world.backend.watcher.watch_fd(read_fd, lambda: told.append(os.read(read_fd, 1)))
    os.close(write_fd)
    world.run_until(lambda: bool(told))
    world.backend.watcher.unwatch_fd(read_fd)
    assert told[0] == b""


def test_watching_again_replaces_what_was_watched_for(
    world: World, pipes: list[tuple[int, int]]
) -> None:
    (read_fd, write_fd), _ = pipes
    told: list[str] = []
    watcher = world.backend.watcher
    watcher.watch_fd(write_fd, lambda: told.append("never: nothing can be read from it"))
    watcher.watch_fd(write_fd, lambda: told.append("writable"), write=True)
    world.run_until(lambda: bool(told))
    assert told == ["writable"]
    watcher.unwatch_fd(write_fd)
    watcher.watch_fd(read_fd, lambda: told.append("old"))
    watcher.watch_fd(read_fd, lambda: told.append("new"))
    os.write(write_fd, b"x")
    world.run_until(lambda: len(told) == 2)
    watcher.unwatch_fd(read_fd)
    assert told == ["writable", "new"]


def test_a_descriptor_closed_and_reused_within_one_batch_is_not_told_to_the_old_owner(
    world: World, pipes: list[tuple[int, int]]
) -> None:
    """A spurious call of the new owner is allowed: it reads without blocking."""
    told: list[str] = []
    watcher = world.backend.watcher

    def take_over(other: int) -> None:
        for fd, _ in pipes:
            watcher.unwatch_fd(fd)
        os.close(other)
        new, new_write = os.pipe2(os.O_NONBLOCK)
        pipes.append((new, new_write))
        assert new == other
        watcher.watch_fd(new, lambda: told.append("new"))
        told.append("took over")

    (first, first_write), (second, second_write) = pipes[:2]
    watcher.watch_fd(first, lambda: take_over(second))
    watcher.watch_fd(second, lambda: take_over(first))
    os.write(first_write, b"x")
    os.write(second_write, b"x")
    world.run_until(lambda: bool(told))
    watcher.call_in(0, lambda: told.append("end"))
    world.run_until(lambda: "end" in told)
    watcher.unwatch_fd(pipes[-1][0])
    assert [word for word in told if word != "new"] == ["took over", "end"]


@pytest.mark.parametrize("death", [Death(None, 0), Death(None, 7), Death(signal.SIGHUP, None)])
def test_a_child_is_reaped_and_told_as_it_died(world: World, death: Death) -> None:
    before = world.children()
    told: list[Death] = []
    pid = world.child()
    world.backend.watcher.watch_process(pid, told.append)
    world.end_child(pid, death)
    world.run_until(lambda: bool(told))
    assert told == [death]
    assert world.children() == before


def test_a_child_that_was_dead_before_it_was_watched_is_told_too(world: World) -> None:
    before = world.children()
    told: list[Death] = []
    pid = world.child()
    world.end_child(pid, Death(None, 3))
    world.backend.watcher.watch_process(pid, told.append)
    world.run_until(lambda: bool(told))
    assert told == [Death(None, 3)]
    assert world.children() == before


def test_signalling_a_child_that_has_ended_is_no_error_and_changes_nothing(
    world: World,
) -> None:
    told: list[Death] = []
    pid = world.child()
    world.backend.watcher.watch_process(pid, told.append)
    world.end_child(pid, Death(None, 3))
    world.backend.watcher.signal_process(pid, signal.SIGKILL)
    world.run_until(lambda: bool(told))
    assert told == [Death(None, 3)]


def test_a_death_may_start_and_watch_the_next_child(world: World) -> None:
    told: list[Death] = []
    pids = [world.child(), world.child()]

    def next_one(death: Death) -> None:
        told.append(death)
        world.backend.watcher.watch_process(pids[1], told.append)
        world.end_child(pids[1], Death(None, 2))

    world.backend.watcher.watch_process(pids[0], next_one)
    world.end_child(pids[0], Death(None, 1))
    world.run_until(lambda: len(told) == 2)
    assert told == [Death(None, 1), Death(None, 2)]


def test_the_children_are_those_that_are_watched_and_not_reaped(world: World) -> None:
    watcher = world.backend.watcher
    pids, before = [world.child(), world.child()], watcher.children()
    told: list[Death] = []
    seen = []
    for pid in pids:
        watcher.watch_process(pid, told.append)
    seen.append(set(watcher.children()) - set(before))
    world.end_child(pids[0], Death(None, 0))
    seen.append(set(watcher.children()) - set(before))  # ended, but nobody has looked
    world.run_until(lambda: len(told) == 1)
    seen.append(set(watcher.children()) - set(before))
    world.end_child(pids[1], Death(None, 0))
    world.run_until(lambda: len(told) == 2)
    assert seen == [set(pids), set(pids), {pids[1]}]
    assert watcher.children() == before


def test_a_strangers_end_is_told_once_and_not_before(world: World) -> None:
    watcher = world.backend.watcher
    told: list[Death] = []
    pid = world.stranger()
    watcher.watch_other(pid, told.append)
    assert pid not in watcher.children()
    quiet: list[bool] = []
    watcher.call_in(0.01, lambda: quiet.append(True))
    world.run_until(lambda: bool(quiet))
    assert told == []
    world.end_stranger(pid)
    world.run_until(lambda: bool(told))
    watcher.call_in(0.01, lambda: quiet.append(True))
    world.run_until(lambda: len(quiet) == 2)
    # FreeBSD knows how it ended: a read(1) of sh that finds the end of its input fails.
    assert told in ([Death(None, None)], [Death(None, 0)], [Death(None, 1)])


def test_a_stranger_may_be_watched_twice(world: World) -> None:
    watcher = world.backend.watcher
    told: list[str] = []
    pid = world.stranger()
    watcher.watch_other(pid, lambda _: told.append("one"))
    watcher.watch_other(pid, lambda _: told.append("other"))
    world.end_stranger(pid)
    world.run_until(lambda: len(told) == 2)
    assert sorted(told) == ["one", "other"]


def test_a_stranger_that_has_ended_is_told_too_but_not_within_the_call(world: World) -> None:
    watcher = world.backend.watcher
    told: list[Death] = []
    pid = world.stranger()
    watcher.watch_other(pid, told.append)
    world.end_stranger(pid)
    world.run_until(lambda: bool(told))
    watcher.watch_other(pid, told.append)
    assert len(told) == 1
    world.run_until(lambda: len(told) == 2)


@pytest.mark.parametrize("seconds", [2.0**31 / 1000, 366 * 86400.0, 1e10, 1e300])
def test_an_idle_wait_may_be_of_any_length(
    world: World, pipes: list[tuple[int, int]], seconds: float
) -> None:
    (read_fd, write_fd), _ = pipes
    told: list[int] = []
    watcher = world.backend.watcher
    watcher.watch_fd(read_fd, lambda: told.append(read_fd))
    handle = watcher.call_in(seconds, lambda: told.append(-1))
    os.write(write_fd, b"x")
    watcher.wait()  # no other deadline is near, as run_until's would be
    watcher.unwatch_fd(read_fd)
    watcher.cancel(handle)
    assert set(told) == {read_fd}


def test_a_deadline_behind_the_longest_wait_is_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "LONGEST_WAIT", 0.001)
    told: list[str] = []
    world.backend.watcher.call_in(0.01, lambda: told.append("due"))
    world.run_until(lambda: bool(told))
    assert told == ["due"]
