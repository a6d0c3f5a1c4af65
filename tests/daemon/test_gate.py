# SPDX-License-Identifier: BSD-2-Clause
"""How many probes are made and ended at a time, on the fake's clock."""

import pytest

from jaildaemon.daemon.gate import (
    KILL_SECONDS,
    MAX_ARMING,
    MAX_KILLED,
    PLACE_SECONDS,
    Gate,
    Pace,
)
from tests.contract.fake import FakeBackend
from tests.daemon.server import Server, call


class Clock:
    """A watcher whose time is moved by hand."""

    def __init__(self) -> None:
        self.watcher = FakeBackend().watcher

    def pass_time(self, seconds: float) -> None:
        """Make what is due by then."""
        done: list[None] = []
        self.watcher.call_in(seconds, lambda: done.append(None))
        while not done:
            self.watcher.wait()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def entered(gate: Gate, count: int) -> list[int]:
    begun: list[int] = []
    for number in range(count):
        gate.enter(number, lambda number=number: begun.append(number))  # type: ignore[misc]
    return begun


def test_so_many_begin_at_once_and_the_others_in_their_order(clock: Clock) -> None:
    gate = Gate(clock.watcher)
    begun = entered(gate, MAX_ARMING + 3)
    assert begun == list(range(MAX_ARMING))
    gate.leave(5)
    assert begun == list(range(MAX_ARMING + 1))
    gate.leave(0)
    gate.leave(1)
    assert begun == list(range(MAX_ARMING + 3))


def test_who_leaves_before_its_turn_never_begins(clock: Clock) -> None:
    gate = Gate(clock.watcher)
    begun = entered(gate, MAX_ARMING + 2)
    gate.leave(MAX_ARMING)
    gate.leave(0)
    assert begun == [*range(MAX_ARMING), MAX_ARMING + 1]


def test_who_takes_long_holds_nobody_up(clock: Clock) -> None:
    gate = Gate(clock.watcher)
    begun = entered(gate, 2 * MAX_ARMING + 1)
    clock.pass_time(PLACE_SECONDS + 0.01)
    assert begun == list(range(2 * MAX_ARMING))
    gate.leave(0)  # it has no place any more: none becomes free
    assert len(begun) == 2 * MAX_ARMING
    gate.leave(MAX_ARMING)
    assert len(begun) == 2 * MAX_ARMING + 1


def test_who_ends_within_its_beginning_keeps_no_place(clock: Clock) -> None:
    gate = Gate(clock.watcher)
    begun: list[int] = []

    def begin(number: int) -> None:
        begun.append(number)
        gate.leave(number)

    for number in range(3 * MAX_ARMING):
        gate.enter(number, lambda number=number: begin(number))  # type: ignore[misc]
    assert begun == list(range(3 * MAX_ARMING))


def test_only_so_many_calls_are_made_in_a_stretch_of_time(clock: Clock) -> None:
    pace, made = Pace(clock.watcher), []
    for number in range(2 * MAX_KILLED + 1):
        pace.call(lambda number=number: made.append(number))  # type: ignore[misc]
    assert made == list(range(MAX_KILLED))
    clock.pass_time(KILL_SECONDS + 0.001)
    assert made == list(range(2 * MAX_KILLED))
    clock.pass_time(KILL_SECONDS + 0.001)
    assert made == list(range(2 * MAX_KILLED + 1))


def test_a_pace_that_has_rested_makes_calls_at_once_and_asks_for_no_more_time(
    clock: Clock,
) -> None:
    pace, made = Pace(clock.watcher), []
    pace.call(lambda: made.append(1))
    assert made == [1]
    clock.pass_time(2 * KILL_SECONDS)
    pace.call(lambda: made.append(2))
    assert made == [1, 2]
    clock.pass_time(2 * KILL_SECONDS)
    assert clock.watcher._next_deadline() is None


def test_probes_of_rules_are_killed_at_that_pace(server: Server) -> None:
    client = server.connect()
    for _ in range(MAX_KILLED + 2):
        client.ask("Attach", command="true", jail=server.jail)
    client.say(call("Hold", all=True))
    server.settle()
    assert len(server.backend.processes) == 2
    server.pass_time(KILL_SECONDS)
    assert server.backend.processes == {}
