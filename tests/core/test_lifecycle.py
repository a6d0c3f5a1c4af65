# SPDX-License-Identifier: BSD-2-Clause
"""The life of a rule, cell by cell, against a matrix that was written by hand.

The matrix is to be read beside the theory in core/lifecycle.py, and is never
made by the product: whoever changes a cell changes it twice, on purpose.
"""

from collections.abc import Iterator

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
from jaildaemon.core.rules import CONCURRENCY_NOW, Policy, Respawn

# The phase that follows, then what must be done, in that order:
#   s start, a arm, k kill, b backoff, i ignore;  "-" cannot happen.
MATRIX = """
              NEW            ARMING         ARMED          RUNNING   FAILING   WITHDRAWING  GONE
armed         ARMED          ARMED          -              -         -         -            -
failed        GONE           FAILING b      -              -         -         GONE         -
lost          GONE           GONE           -              -         -         GONE         -
trigger_last  -              -              GONE s         -         -         GONE i       -
trigger_wait  -              -              RUNNING s      -         -         GONE i       -
trigger_next  -              -              ARMING sa      -         -         GONE i       -
died          -              -              GONE           -         -         GONE         -
run_ended     -              ARMING         ARMED          ARMING a  FAILING   WITHDRAWING  GONE
retry         -              -              -              -         ARMING a  -            -
detach        WITHDRAWING k  WITHDRAWING k  WITHDRAWING k  GONE      GONE      WITHDRAWING  GONE
"""
LETTERS = {
    "s": Action.START,
    "a": Action.ARM,
    "k": Action.KILL,
    "b": Action.BACKOFF,
    "i": Action.IGNORE,
}

Coordinate = tuple[Phase, Event]


def read_cell(text: str) -> Cell:
    """Turn "GONE s" into (Phase.GONE, (Action.START,)), and "-" into None."""
    if text == "-":
        return None
    phase, _, letters = text.partition(" ")
    return Phase[phase], tuple(LETTERS[letter] for letter in letters)


def read_matrix() -> dict[Coordinate, Cell]:
    """Read MATRIX: a cell begins where its column's heading does."""
    heading, *lines = MATRIX.strip("\n").splitlines()
    starts = [heading.index(name) for name in heading.split()]
    ends = [*starts[1:], None]
    found = {}
    for line in lines:
        event = Event(line[: starts[0]].strip())
        for name, start, end in zip(heading.split(), starts, ends, strict=True):
            found[Phase[name], event] = read_cell(line[start:end].strip())
    return found


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


MUTANTS: list[tuple[str, Phase, Event, Cell]] = [
    ("a signal before the probe counts", Phase.ARMING, Event.TRIGGER_LAST, (Phase.GONE, ())),
    ("a refused arming stays", Phase.NEW, Event.FAILED, (Phase.FAILING, (Action.BACKOFF,))),
    ("a failure is given up", Phase.ARMING, Event.FAILED, (Phase.GONE, ())),
    ("a trigger starts nothing", Phase.ARMED, Event.TRIGGER_LAST, (Phase.GONE, ())),
    (
        "the probe is armed before the command is started",
        Phase.ARMED,
        Event.TRIGGER_NEXT,
        (Phase.ARMING, (Action.ARM, Action.START)),
    ),
    (
        "a command is started twice",
        Phase.ARMED,
        Event.TRIGGER_WAIT,
        (Phase.RUNNING, (Action.START, Action.START)),
    ),
    ("any death is a trigger", Phase.ARMED, Event.DIED, (Phase.GONE, (Action.START,))),
    ("respawn forgets to arm", Phase.RUNNING, Event.RUN_ENDED, (Phase.ARMING, ())),
    ("a late trigger counts", Phase.WITHDRAWING, Event.TRIGGER_LAST, (Phase.GONE, (Action.START,))),
    ("what is gone comes back", Phase.GONE, Event.RUN_ENDED, (Phase.ARMING, (Action.ARM,))),
    ("an impossible event is taken", Phase.RUNNING, Event.RETRY, (Phase.RUNNING, ())),
    ("a possible event is refused", Phase.GONE, Event.DETACH, None),
]


@pytest.mark.parametrize(
    ("phase", "event", "cell"), [m[1:] for m in MUTANTS], ids=[m[0] for m in MUTANTS]
)
def test_the_comparison_sees_a_wrong_cell(phase: Phase, event: Event, cell: Cell) -> None:
    mutant = {**TABLE, phase: {**TABLE[phase], event: cell}}
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
def test_no_run_can_end_where_none_is_in_progress(phase: Phase) -> None:
    with pytest.raises(IllegalEvent):
        step(Life(phase, runs=0), Event.RUN_ENDED)


@pytest.mark.parametrize(
    ("event", "runs_after"),
    [
        (Event.TRIGGER_LAST, 3),
        (Event.TRIGGER_WAIT, 3),
        (Event.TRIGGER_NEXT, 3),
        (Event.RUN_ENDED, 1),
        (Event.DIED, 2),
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


@pytest.mark.parametrize("phase", Phase, ids=lambda phase: str(phase.name))
@pytest.mark.parametrize("runs", [0, 1])
def test_a_life_is_over_when_it_is_gone_and_nothing_runs(phase: Phase, runs: int) -> None:
    assert Life(phase, runs).over == (phase is Phase.GONE and runs == 0)


# --- what a trigger is -----------------------------------------------------

SORTED = [(Respawn.NO, runs, Event.TRIGGER_LAST) for runs in range(12)]
SORTED += [(Respawn.AFTER, runs, Event.TRIGGER_WAIT) for runs in range(12)]
SORTED += [(Respawn.NOW, runs, Event.TRIGGER_NEXT) for runs in range(7)]
SORTED += [(Respawn.NOW, runs, Event.TRIGGER_WAIT) for runs in range(7, 12)]


@pytest.mark.parametrize(("respawn", "runs", "event"), SORTED)
def test_a_trigger_is_sorted_by_policy_and_runs(respawn: Respawn, runs: int, event: Event) -> None:
    assert CONCURRENCY_NOW == 8  # the numbers above are written out for it
    assert sort_trigger(Policy(respawn), runs) is event


# --- the wait after a failure ------------------------------------------------


def test_the_wait_doubles_from_one_second_to_a_minute() -> None:
    waits = [backoff_seconds(failures) for failures in range(1, 10)]
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]


def test_the_wait_stays_at_a_minute_however_often_it_fails() -> None:
    assert backoff_seconds(10**9) == 60.0


# --- every life there can be ---------------------------------------------------
#
# A rule's whole world is small: its life, what became of its probe, and whether
# a retry is due.  So all of it can be walked, for each policy.

World = tuple[Life, str, bool]
"""The life; the probe ("none", "arming", "armed", and "-killed" behind them); a retry is due."""


def possible(world: World, policy: Policy) -> Iterator[tuple[Event, World]]:
    """Give every event that the effects may report, and the world before the actions."""
    life, probe, due = world
    trigger = sort_trigger(policy, life.runs)
    if probe == "arming":
        yield Event.ARMED, (life, "armed", due)
    if probe.startswith("arming"):
        yield Event.FAILED, (life, "none", due)
        yield Event.LOST, (life, "none", due)
    if probe.startswith("armed"):
        yield trigger, (life, "none", due)
        yield Event.DIED, (life, "none", due)
    if life.runs:
        yield Event.RUN_ENDED, world
    if due:
        yield Event.RETRY, (life, probe, False)
    yield Event.DETACH, world


def carried_out(world: World, event: Event) -> World:
    """Do what the product says must be done; a second probe is an error."""
    life, probe, due = world
    life, actions = step(Life(life.phase, life.runs), event)
    for action in actions:
        if action is Action.ARM:
            assert probe == "none", "two probes of one rule"
            probe = "arming"
        elif action is Action.KILL:
            assert probe in ("arming", "armed"), "nothing to kill"
            probe += "-killed"
        elif action is Action.BACKOFF:
            due = True
    # Failures do not steer anything: without them the world is finite.
    return Life(life.phase, life.runs), probe, due and life.phase is Phase.FAILING


def walk(policy: Policy) -> dict[World, dict[Event, World]]:
    """Return every world that can be reached, with its ways out."""
    first: World = (Life(), "arming", False)
    found: dict[World, dict[Event, World]] = {}
    ahead = [first]
    while ahead:
        world = ahead.pop()
        if world not in found:
            events = possible(world, policy)
            found[world] = {event: carried_out(before, event) for event, before in events}
            ahead += found[world].values()
    return found


@pytest.mark.parametrize("respawn", Respawn, ids=lambda respawn: str(respawn.value))
def test_no_life_ends_in_a_corner(respawn: Respawn) -> None:
    for (life, probe, due), ways in walk(Policy(respawn)).items():
        if life.phase is not Phase.GONE:
            # Something besides the administrator moves it on.
            assert set(ways) - {Event.DETACH}, f"stuck in {life.phase.name}"
        assert life.runs <= Policy(respawn).concurrency
        assert (probe == "armed") == (life.phase is Phase.ARMED)
        assert due == (life.phase is Phase.FAILING)
        if life.over:
            assert (probe, due) == ("none", False)


@pytest.mark.parametrize(
    ("respawn", "phases"),
    [
        (Respawn.NO, {Phase.NEW, Phase.ARMED, Phase.WITHDRAWING, Phase.GONE}),
        (Respawn.AFTER, set(Phase)),
        (Respawn.NOW, set(Phase)),
    ],
    ids=["no", "after", "now"],
)
def test_the_walk_comes_through_these_phases(respawn: Respawn, phases: set[Phase]) -> None:
    assert {life.phase for life, _, _ in walk(Policy(respawn))} == phases
