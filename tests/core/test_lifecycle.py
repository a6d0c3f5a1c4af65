# SPDX-License-Identifier: BSD-2-Clause
"""The life of a rule, cell by cell, against a matrix that was written by hand.

The matrix is to be read beside the theory in core/lifecycle.py, and is never
made by the product: whoever changes a cell changes it twice, on purpose.
"""

import pytest

from jaildaemon.core.lifecycle import (
    TABLE,
    Action,
    Cell,
    Event,
    IllegalEvent,
    Life,
    Phase,
    Table,
    _row,
    backoff_seconds,
    sort_trigger,
    step,
)
from jaildaemon.core.rules import Policy, Respawn

# The phase that follows, then what must be done, in that order:
#   s start, a arm, k kill, b backoff, r rest, i ignore;  "-" cannot happen.
# First the phases with a probe, or one on its way, then those without.
MATRIX = """
                NEW            ARMING         ARMED          HOLDING      WITHDRAWING    LEAVING
armed           ARMED          ARMED          -              -            -              -
failed          GONE           FAILING b      -              HELD         GONE           WAITING
lost            GONE           GONE           -              GONE         GONE           -
trigger_last    -              -              GONE s         HELD i       GONE i         -
trigger_wait    -              -              RUNNING s      HELD i       GONE i         WAITING s
trigger_next    -              -              ARMING sa      HELD i       GONE i         WAITING s
trigger_rest    -              -              RESTING sr     HELD i       GONE i         WAITING s
trigger_spent   -              -              WAITING s      HELD i       GONE i         WAITING s
died            -              -              GONE           HELD         GONE           -
fell            -              -              FAILING b      HELD         GONE           WAITING
jail            -              -              -              -            -              -
jail_wait       -              -              -              -            -              -
jail_rest       -              -              -              -            -              -
left            -              LEAVING k      LEAVING k      HOLDING      WITHDRAWING    LEAVING
missed          -              WAITING        WAITING        HELD         GONE           WAITING
run_ended       -              ARMING         ARMED          HOLDING      WITHDRAWING    LEAVING
run_ended_rest  -              ARMING         ARMED          HOLDING      WITHDRAWING    LEAVING
rested          -              -              -              -            -              -
retry           -              -              -              -            -              -
hold            -              HOLDING k      HOLDING k      HOLDING      -              HOLDING
release         -              -              -              -            -              -
release_wait    -              -              -              -            -              -
release_rest    -              -              -              -            -              -
release_absent  -              -              -              -            -              -
detach          WITHDRAWING k  WITHDRAWING k  WITHDRAWING k  WITHDRAWING  WITHDRAWING    WITHDRAWING

                RUNNING    RESTING    FAILING    HELD       GONE     WAITING
armed           -          -          -          -          -        -
failed          -          -          -          -          -        -
lost            -          -          -          -          -        -
trigger_last    -          -          -          -          -        -
trigger_wait    -          -          -          -          -        -
trigger_next    -          -          -          -          -        -
trigger_rest    -          -          -          -          -        -
trigger_spent   -          -          -          -          -        -
died            -          -          -          -          -        -
fell            -          -          -          -          -        -
jail            -          -          -          -          -        ARMING a
jail_wait       -          -          -          -          -        RUNNING
jail_rest       -          -          -          -          -        RESTING r
left            WAITING    WAITING    WAITING    HELD       -        -
missed          -          -          -          -          -        -
run_ended       ARMING a   RESTING    FAILING    HELD       GONE     WAITING
run_ended_rest  RESTING r  RESTING    FAILING    HELD       GONE     WAITING
rested          -          ARMING a   -          -          -        -
retry           -          -          ARMING a   -          -        -
hold            HELD       HELD       HELD       HELD       -        HELD
release         -          -          -          ARMING a   -        -
release_wait    -          -          -          RUNNING    -        -
release_rest    -          -          -          RESTING r  -        -
release_absent  -          -          -          WAITING    -        -
detach          GONE       GONE       GONE       GONE       GONE     GONE
"""
LETTERS = {
    "s": Action.START,
    "a": Action.ARM,
    "k": Action.KILL,
    "b": Action.BACKOFF,
    "r": Action.REST,
    "i": Action.IGNORE,
}

Coordinate = tuple[Phase, Event]


def read_cell(text: str) -> Cell:
    """Turn "GONE s" into (Phase.GONE, (Action.START,)), and "-" into None."""
    if text == "-":
        return None
    phase, _, letters = text.partition(" ")
    return Phase[phase], tuple(LETTERS[letter] for letter in letters)


def read_block(block: str) -> dict[Coordinate, Cell]:
    """Read a half of MATRIX: a cell begins where its column's heading does."""
    heading, *lines = block.splitlines()
    starts = [heading.index(name) for name in heading.split()]
    ends = [*starts[1:], None]
    found = {}
    for line in lines:
        event = Event(line[: starts[0]].strip())
        for name, start, end in zip(heading.split(), starts, ends, strict=True):
            found[Phase[name], event] = read_cell(line[start:end].strip())
    return found


def read_matrix() -> dict[Coordinate, Cell]:
    """Read all of MATRIX."""
    standing, without = MATRIX.strip("\n").split("\n\n")
    return read_block(standing) | read_block(without)


def answer(table: Table, phase: Phase, event: Event) -> Cell:
    """Ask the product.  One run is in progress, so that it may end."""
    try:
        life, actions = step(Life(phase, runs=1), event, table)
    except IllegalEvent:
        return None
    return life.phase, actions


def differences(table: Table) -> set[Coordinate]:
    """Say where the product, with `table`, does not do what the matrix says."""
    return {
        (phase, event)
        for (phase, event), cell in read_matrix().items()
        if answer(table, phase, event) != cell
    }


def test_the_matrix_has_every_cell() -> None:
    assert set(read_matrix()) == {(phase, event) for phase in Phase for event in Event}


def test_every_cell_is_as_written_by_hand() -> None:
    assert differences(TABLE) == set()


def test_the_table_has_no_row_or_column_more() -> None:
    assert set(TABLE) == set(Phase)
    assert all(set(row) == set(Event) for row in TABLE.values())


MUTANTS = [
    ("a signal before the probe counts", Phase.ARMING, Event.TRIGGER_LAST, "GONE"),
    ("a refused arming stays", Phase.NEW, Event.FAILED, "FAILING b"),
    ("a failure is given up", Phase.ARMING, Event.FAILED, "GONE"),
    ("a trigger starts nothing", Phase.ARMED, Event.TRIGGER_LAST, "GONE"),
    ("the probe comes before the command", Phase.ARMED, Event.TRIGGER_NEXT, "ARMING as"),
    ("a command is started twice", Phase.ARMED, Event.TRIGGER_WAIT, "RUNNING ss"),
    ("any death is a trigger", Phase.ARMED, Event.DIED, "GONE s"),
    ("a trigger over the limit rings again", Phase.ARMED, Event.TRIGGER_REST, "ARMING sa"),
    ("a trigger over the limit starts nothing", Phase.ARMED, Event.TRIGGER_REST, "RESTING r"),
    ("a rest is never over", Phase.ARMED, Event.TRIGGER_REST, "RESTING s"),
    ("respawn forgets to arm", Phase.RUNNING, Event.RUN_ENDED, "ARMING"),
    ("a cooldown is forgotten", Phase.RUNNING, Event.RUN_ENDED_REST, "ARMING a"),
    ("a run's end ends the rest", Phase.RESTING, Event.RUN_ENDED, "ARMING a"),
    ("the rest ends in another", Phase.RESTING, Event.RESTED, "RESTING r"),
    ("a late trigger counts", Phase.WITHDRAWING, Event.TRIGGER_LAST, "GONE s"),
    ("a held rule rings", Phase.HOLDING, Event.TRIGGER_NEXT, "HELD s"),
    ("a held rule is armed again", Phase.HELD, Event.RUN_ENDED, "ARMING a"),
    ("the held probe stays", Phase.ARMED, Event.HOLD, "HELD"),
    ("holding kills twice", Phase.HOLDING, Event.HOLD, "HOLDING k"),
    ("a held probe's death disarms", Phase.HOLDING, Event.DIED, "GONE"),
    ("a release does not wait for the run", Phase.HELD, Event.RELEASE_WAIT, "ARMING a"),
    ("a release does not mind the limit", Phase.HELD, Event.RELEASE_REST, "ARMING a"),
    ("a released rule rests for ever", Phase.HELD, Event.RELEASE_REST, "RESTING"),
    ("what is gone comes back", Phase.GONE, Event.RUN_ENDED, "ARMING a"),
    ("an impossible event is taken", Phase.RUNNING, Event.RETRY, "RUNNING"),
    ("a possible event is refused", Phase.GONE, Event.DETACH, "-"),
]


@pytest.mark.parametrize(
    ("phase", "event", "cell"), [m[1:] for m in MUTANTS], ids=[m[0] for m in MUTANTS]
)
def test_the_comparison_sees_a_wrong_cell(phase: Phase, event: Event, cell: str) -> None:
    mutant = {**TABLE, phase: {**TABLE[phase], event: read_cell(cell)}}
    assert differences(mutant) == {(phase, event)}


@pytest.mark.parametrize("phase", Phase, ids=lambda phase: str(phase.name))
@pytest.mark.parametrize("event", Event, ids=lambda event: str(event.value))
def test_no_cell_can_change_unseen(phase: Phase, event: Event) -> None:
    cell = TABLE[phase][event]
    others: list[Cell] = [(phase, (Action.IGNORE, Action.KILL))] if cell is None else [None]
    if cell is not None:
        after, actions = cell
        others += [(other, actions) for other in Phase if other is not after]
        others += [(after, (*actions, more)) for more in Action]
        others += [(after, actions[:-1])] if actions else []
        others += [(after, actions[::-1])] if len(actions) > 1 else []
    for other in others:
        mutant = {**TABLE, phase: {**TABLE[phase], event: other}}
        assert differences(mutant) == {(phase, event)}


def test_a_row_must_decide_every_event() -> None:
    with pytest.raises(ValueError, match=r"not every event is decided: .*RETRY"):
        _row(**{event.value: None for event in Event if event is not Event.RETRY})


# --- step ------------------------------------------------------------------


ILLEGAL = [coordinate for coordinate, cell in read_matrix().items() if cell is None]


@pytest.mark.parametrize(
    ("phase", "event"), ILLEGAL, ids=[f"{phase.name}-{event.value}" for phase, event in ILLEGAL]
)
def test_an_illegal_event_raises_and_changes_nothing(phase: Phase, event: Event) -> None:
    life = Life(phase, runs=2, failures=3)
    with pytest.raises(IllegalEvent) as caught:
        step(life, event)
    assert life == Life(phase, runs=2, failures=3)
    assert str(caught.value) == f"{event.name} in phase {phase.name} with 2 runs"


@pytest.mark.parametrize("phase", Phase, ids=lambda phase: str(phase.name))
@pytest.mark.parametrize("event", [Event.RUN_ENDED, Event.RUN_ENDED_REST], ids=str)
def test_no_run_can_end_where_none_is_in_progress(phase: Phase, event: Event) -> None:
    life = Life(phase, runs=0)
    with pytest.raises(IllegalEvent):
        step(life, event)
    assert life == Life(phase, runs=0)


@pytest.mark.parametrize(
    ("event", "runs_after"),
    [
        (Event.TRIGGER_LAST, 3),
        (Event.TRIGGER_WAIT, 3),
        (Event.TRIGGER_NEXT, 3),
        (Event.TRIGGER_REST, 3),
        (Event.RUN_ENDED, 1),
        (Event.RUN_ENDED_REST, 1),
        (Event.TRIGGER_SPENT, 3),
        (Event.DIED, 2),
        (Event.FELL, 2),
        (Event.LEFT, 2),
        (Event.MISSED, 2),
        (Event.HOLD, 2),
        (Event.DETACH, 2),
    ],
    ids=str,
)
def test_runs_are_counted_beside_the_phase(event: Event, runs_after: int) -> None:
    life, _ = step(Life(Phase.ARMED, runs=2), event)
    assert life.runs == runs_after


def test_failures_in_a_row_are_counted_until_a_probe_is_armed() -> None:
    life = Life(Phase.ARMING)
    for failures in (1, 2, 3):
        life, _ = step(life, Event.FAILED)
        assert life == Life(Phase.FAILING, failures=failures)
        life, _ = step(life, Event.RETRY)
        assert life == Life(Phase.ARMING, failures=failures)
    life, _ = step(life, Event.ARMED)
    assert life == Life(Phase.ARMED, failures=0)


@pytest.mark.parametrize("phase", [Phase.HOLDING, Phase.WITHDRAWING], ids=lambda p: str(p.name))
def test_an_arming_that_we_ended_ourselves_has_not_failed(phase: Phase) -> None:
    life, _ = step(Life(phase, failures=2), Event.FAILED)
    assert life.failures == 2


@pytest.mark.parametrize("phase", Phase, ids=lambda phase: str(phase.name))
@pytest.mark.parametrize("runs", [0, 1])
def test_a_life_is_over_when_it_is_gone_and_nothing_runs(phase: Phase, runs: int) -> None:
    assert Life(phase, runs).over == (phase is Phase.GONE and runs == 0)


# --- what a trigger is -----------------------------------------------------

LAST, WAIT = Event.TRIGGER_LAST, Event.TRIGGER_WAIT
NEXT, REST = Event.TRIGGER_NEXT, Event.TRIGGER_REST
# What it is with no run in progress before it, with one, two, ... : by hand, for
# a limit that allows another at once, and for one that does not.
SORTED = [
    ("one shot", Policy(Respawn.NO), [LAST] * 4, [LAST] * 4),
    ("one shot, concurrency", Policy(Respawn.NO, concurrency=8), [LAST] * 4, [LAST] * 4),
    ("after", Policy(Respawn.AFTER), [WAIT] * 4, [WAIT] * 4),
    ("after, concurrency", Policy(Respawn.AFTER, concurrency=8), [WAIT] * 4, [WAIT] * 4),
    ("now, one", Policy(Respawn.NOW), [WAIT] * 4, [WAIT] * 4),
    ("now, two", Policy(Respawn.NOW, concurrency=2), [NEXT, WAIT, WAIT], [REST, WAIT, WAIT]),
    (
        "now, four",
        Policy(Respawn.NOW, concurrency=4),
        [NEXT, NEXT, NEXT, WAIT, WAIT],
        [REST, REST, REST, WAIT, WAIT],
    ),
    # A cooldown follows a run: nothing can be armed before one ends.
    ("now, cooldown", Policy(Respawn.NOW, concurrency=8, cooldown=1.0), [WAIT] * 4, [WAIT] * 4),
]


@pytest.mark.parametrize(
    ("policy", "within", "over"), [s[1:] for s in SORTED], ids=[s[0] for s in SORTED]
)
def test_a_trigger_is_sorted_by_policy_runs_and_limit(
    policy: Policy, within: list[Event], over: list[Event]
) -> None:
    assert [sort_trigger(policy, runs, 0.0) for runs in range(len(within))] == within
    for wait in (0.001, 3600.0):
        assert [sort_trigger(policy, runs, wait) for runs in range(len(over))] == over


@pytest.mark.parametrize(("policy", "within"), [s[1:3] for s in SORTED], ids=[s[0] for s in SORTED])
def test_the_one_shot_of_a_rule_in_a_file_is_spent_until_the_next_jail(
    policy: Policy, within: list[Event]
) -> None:
    lasting = [Event.TRIGGER_SPENT if event is LAST else event for event in within]
    found = [sort_trigger(policy, runs, 0.0, lasting=True) for runs in range(len(within))]
    assert found == lasting


# --- the wait after a failure ------------------------------------------------


def test_the_wait_doubles_from_one_second_to_a_minute() -> None:
    waits = [backoff_seconds(failures) for failures in range(1, 10)]
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]


def test_the_wait_stays_at_a_minute_however_often_it_fails() -> None:
    assert backoff_seconds(10**9) == 60.0
