# SPDX-License-Identifier: BSD-2-Clause
"""What becomes of triggers: runs, the queue, limits, and what holding does to them."""

import pytest

from jaildaemon.core.fleet import MAX_RUNS, Act, Do, Fleet, Member, Now, Run, Stage
from jaildaemon.core.lifecycle import Event, IllegalEvent, Phase
from jaildaemon.core.limits import Limit
from jaildaemon.core.rules import Policy, Respawn
from jaildaemon.errors import Refused
from tests.core.made import AFTER, NOW, ONE_SHOT, acts, add, armed, at, ring


def full(fleet: Fleet) -> list[Run]:
    """Let as many commands run as may."""
    return [ring(fleet, armed(fleet, f"R{n}"), at(100.0 + n)) for n in range(MAX_RUNS)]


# --- triggers and runs ------------------------------------------------------------------


def test_a_runs_id_names_the_daemons_life_and_is_counted() -> None:
    fleet = Fleet("19f3-77")
    one, other = armed(fleet, "A", policy=NOW), armed(fleet, "B")
    ids = [ring(fleet, one, at(101.0)).id, ring(fleet, other, at(102.0)).id]
    fleet.apply(one, Event.ARMED, at(103.0))
    assert [*ids, ring(fleet, one, at(104.0)).id] == ["19f3-77.1", "19f3-77.2", "19f3-77.3"]


def test_a_trigger_starts_its_run_and_knows_when_it_came() -> None:
    fleet = Fleet("x")
    member = armed(fleet, "A")
    (do,) = fleet.trigger(member, at(101.0))
    assert do.run is not None
    assert (do.act, do.member, do.run.member) == (Act.START, member, member)
    assert (do.run.stage, do.run.triggered) == (Stage.RUNNING, Now(5101.0, 101.0))
    assert member.runs == [do.run]


def test_a_trigger_is_counted_for_the_rule_and_for_all() -> None:
    fleet = Fleet("x")
    one, other = armed(fleet, "A", policy=NOW), armed(fleet, "B", policy=NOW)
    assert acts(fleet.trigger(one, at(101.0))) == [Act.START, Act.ARM]
    fleet.apply(one, Event.ARMED, at(102.0))
    assert acts(fleet.trigger(one, at(103.0))) == [Act.START, Act.ARM]
    assert acts(fleet.trigger(other, at(104.0))) == [Act.START, Act.ARM]
    assert (one.triggers, one.last_trigger) == (2, 5103.0)
    assert (other.triggers, other.last_trigger) == (1, 5104.0)
    assert (fleet.triggers, fleet.refused, fleet.running) == (3, 0, 3)


def test_a_trigger_that_came_too_late_is_counted_as_refused() -> None:
    fleet = Fleet("x")
    member = armed(fleet, "A")
    assert acts(fleet.apply(member, Event.DETACH, at(101.0))) == [Act.KILL]
    assert acts(fleet.trigger(member, at(102.0))) == [Act.IGNORE]
    assert (member.triggers, member.refused, member.last_trigger) == (0, 1, None)
    assert (fleet.triggers, fleet.refused, fleet.running) == (0, 1, 0)


def test_the_counts_of_all_outlive_the_rule() -> None:
    fleet = Fleet("x")
    run = ring(fleet, armed(fleet, "A"), at(101.0))
    assert fleet.run_ended(run, at(102.0)) == []
    assert (fleet.members, fleet.triggers, fleet.running) == ({}, 1, 0)


def test_phases_are_counted() -> None:
    fleet = Fleet("x")
    add(fleet, "A")
    armed(fleet, "B")
    armed(fleet, "C")
    counts = {phase: fleet.count(phase) for phase in Phase}
    assert counts == {**dict.fromkeys(Phase, 0), Phase.NEW: 1, Phase.ARMED: 2}


# --- settle, queue and the cap -----------------------------------------------------------


def test_a_run_settles_first_and_does_not_count_as_running() -> None:
    fleet = Fleet("x")
    member = armed(fleet, "A", policy=Policy(settle=2.0))
    (do,) = fleet.trigger(member, at(101.0))
    assert do.run is not None
    assert (do.act, do.run.stage, fleet.running) == (Act.SETTLE, Stage.SETTLING, 0)
    assert fleet.settled(do.run) == [Do(Act.START, member, do.run)]
    assert (do.run.stage, fleet.running) == (Stage.RUNNING, 1)


def test_behind_the_cap_triggers_wait_and_who_came_first_starts_first() -> None:
    assert MAX_RUNS == 32
    fleet = Fleet("x")
    running = full(fleet)
    late = [ring(fleet, armed(fleet, f"L{n}"), at(200.0 + n)) for n in range(3)]
    assert [run.stage for run in late] == [Stage.QUEUED] * 3
    assert (fleet.running, fleet.queued) == (MAX_RUNS, 3)
    for n, run in enumerate(late):
        assert fleet.run_ended(running[n], at(300.0 + n)) == [Do(Act.START, run.member, run)]
        assert (run.stage, fleet.running, fleet.queued) == (Stage.RUNNING, MAX_RUNS, 2 - n)
    assert fleet.run_ended(running[3], at(310.0)) == []
    assert fleet.running == MAX_RUNS - 1


def test_the_end_of_a_run_arms_its_own_rule_before_it_starts_the_next() -> None:
    fleet = Fleet("x")
    own = ring(fleet, armed(fleet, "own", policy=AFTER), at(99.0))
    full(fleet)
    waiting = fleet.members["t33"].runs[0]
    assert fleet.run_ended(own, at(300.0)) == [
        Do(Act.ARM, own.member),
        Do(Act.START, waiting.member, waiting),
    ]


def test_a_run_that_waited_and_is_refused_makes_no_room_and_never_starts() -> None:
    fleet = Fleet("x")
    running = full(fleet)
    first, second = (ring(fleet, armed(fleet, f"L{n}"), at(200.0)) for n in range(2))
    assert fleet.run_ended(first, at(201.0)) == []
    assert (fleet.running, fleet.queued) == (MAX_RUNS, 1)
    assert fleet.run_ended(running[0], at(202.0)) == [Do(Act.START, second.member, second)]


def test_a_run_that_settled_queues_like_any_other() -> None:
    fleet = Fleet("x")
    settling = ring(fleet, armed(fleet, "S", policy=Policy(settle=2.0)), at(100.0))
    running = full(fleet)
    (do,) = fleet.settled(settling)
    assert (do.act, settling.stage) == (Act.QUEUE, Stage.QUEUED)
    assert fleet.run_ended(running[0], at(300.0)) == [Do(Act.START, settling.member, settling)]


def test_a_run_that_never_started_has_no_cooldown_behind_it() -> None:
    fleet = Fleet("x")
    member = armed(fleet, "A", policy=Policy(Respawn.AFTER, settle=2.0, cooldown=60.0))
    run = ring(fleet, member, at(101.0))
    assert acts(fleet.run_ended(run, at(103.0))) == [Act.ARM]
    assert member.last_end is None


# --- the limit and the cooldown --------------------------------------------------------


def test_over_the_limit_no_probe_follows_until_the_window_allows() -> None:
    fleet = Fleet("x")
    policy = Policy(Respawn.NOW, concurrency=8, limit=Limit(2, 10.0))
    member = armed(fleet, "A", policy=policy)
    assert acts(fleet.trigger(member, at(101.0))) == [Act.START, Act.ARM]
    fleet.apply(member, Event.ARMED, at(102.0))
    assert acts(fleet.trigger(member, at(104.0))) == [Act.START, Act.REST]
    assert (member.wait(at(104.0)), member.next_arming) == (7.0, 5111.0)
    assert acts(fleet.apply(member, Event.RESTED, at(111.0))) == [Act.ARM]
    assert (member.wait(at(111.0)), member.next_arming) == (0.0, None)


def test_after_a_run_the_longer_of_limit_and_cooldown_counts() -> None:
    fleet = Fleet("x")
    policy = Policy(Respawn.AFTER, limit=Limit(1, 10.0), cooldown=3.0)
    member = armed(fleet, "A", policy=policy)
    run = ring(fleet, member, at(101.0))
    assert acts(fleet.run_ended(run, at(102.0))) == [Act.REST]
    assert member.wait(at(102.0)) == 9.0  # the window's; the cooldown ends at 105
    fleet.apply(member, Event.RESTED, at(111.0))
    fleet.apply(member, Event.ARMED, at(111.0))
    run = ring(fleet, member, at(112.0))
    assert acts(fleet.run_ended(run, at(130.0))) == [Act.REST]
    assert member.wait(at(130.0)) == 3.0  # the cooldown's; the window allows since 122


def test_without_a_wait_the_probe_follows_at_once() -> None:
    fleet = Fleet("x")
    run = ring(fleet, armed(fleet, "A", policy=AFTER), at(101.0))
    assert acts(fleet.run_ended(run, at(102.0))) == [Act.ARM]


def test_the_next_try_is_known_until_it_comes_whatever_ends_meanwhile() -> None:
    fleet = Fleet("x")
    member = armed(fleet, "A", policy=NOW)
    run = ring(fleet, member, at(101.0))
    assert acts(fleet.apply(member, Event.FAILED, at(102.0))) == [Act.BACKOFF]
    member.next_arming = 5103.0  # as the keeper does, which knows the chance in it
    assert fleet.run_ended(run, at(102.5)) == []
    assert member.next_arming == 5103.0
    fleet.apply(member, Event.RETRY, at(103.0))
    assert member.next_arming is None


def test_the_end_of_a_rest_is_known_until_it_comes_or_is_not_wanted() -> None:
    fleet = Fleet("x")
    policy = Policy(Respawn.NOW, concurrency=8, limit=Limit(1, 10.0))
    member = armed(fleet, "A", policy=policy)
    run = ring(fleet, member, at(101.0))
    fleet.run_ended(run, at(102.0))
    assert member.next_arming == 5111.0
    fleet.apply(member, Event.HOLD, at(103.0))
    assert member.next_arming is None


# --- hold and release ---------------------------------------------------------------------


def held(fleet: Fleet, policy: Policy, *, runs: int = 0) -> Member:
    """Return a rule that is held at 110, with so many runs that began at 101."""
    member = armed(fleet, "A", policy=policy)
    for _ in range(runs):
        fleet.trigger(member, at(101.0))
        if member.life.phase is Phase.ARMING:
            fleet.apply(member, Event.ARMED, at(101.0))
    if member.life.phase is Phase.ARMED:
        assert acts(fleet.apply(member, Event.HOLD, at(110.0))) == [Act.KILL]
        fleet.apply(member, Event.DIED, at(110.0))
    else:
        fleet.apply(member, Event.HOLD, at(110.0))
    assert member.life.phase is Phase.HELD
    return member


TWO_A_MINUTE = Limit(2, 60.0)


@pytest.mark.parametrize(
    ("policy", "runs", "phase", "act"),
    [
        (ONE_SHOT, 0, Phase.ARMING, [Act.ARM]),
        (AFTER, 0, Phase.ARMING, [Act.ARM]),
        (AFTER, 1, Phase.RUNNING, []),
        (NOW, 7, Phase.ARMING, [Act.ARM]),
        (NOW, 8, Phase.RUNNING, []),
        (Policy(Respawn.NOW, concurrency=8, cooldown=1.0), 1, Phase.RUNNING, []),
        (Policy(Respawn.NOW, concurrency=8, limit=TWO_A_MINUTE), 1, Phase.ARMING, [Act.ARM]),
        (Policy(Respawn.NOW, concurrency=8, limit=TWO_A_MINUTE), 2, Phase.RESTING, [Act.REST]),
        (Policy(Respawn.NOW, concurrency=2, limit=TWO_A_MINUTE), 2, Phase.RUNNING, []),
    ],
)
def test_a_released_rule_is_armed_when_nothing_is_in_the_way(
    policy: Policy, runs: int, phase: Phase, act: list[Act]
) -> None:
    fleet = Fleet("x")
    member = held(fleet, policy, runs=runs)
    assert acts(fleet.release(member, at(111.0))) == act
    assert member.life.phase is phase


def test_a_release_within_the_cooldown_waits_for_its_end() -> None:
    fleet = Fleet("x")
    member = held(fleet, Policy(Respawn.AFTER, cooldown=60.0), runs=1)
    assert fleet.run_ended(member.runs[0], at(120.0)) == []
    assert acts(fleet.release(member, at(130.0))) == [Act.REST]
    assert member.next_arming == 5180.0


@pytest.mark.parametrize("event", [None, Event.ARMED, Event.HOLD, Event.DETACH])
def test_only_a_held_rule_can_be_released(event: Event | None) -> None:
    fleet = Fleet("x")
    member = armed(fleet, "A") if event in (Event.HOLD, Event.DETACH) else add(fleet, "A")
    if event:
        fleet.apply(member, event, at(101.0))
    before = repr(member)
    with pytest.raises(Refused) as caught:
        fleet.release(member, at(102.0))
    assert str(caught.value) == "release: t1: is not held"
    assert repr(member) == before


# --- what cannot be ----------------------------------------------------------------------


def test_a_refused_event_changes_nothing_at_all() -> None:
    fleet = Fleet("x")
    member = armed(fleet, "A", policy=NOW)
    fleet.trigger(member, at(101.0))
    before = (repr(member), fleet.triggers, fleet.refused, list(fleet.members))
    for event in (Event.TRIGGER_LAST, Event.TRIGGER_WAIT, Event.RESTED, Event.DIED):
        with pytest.raises(IllegalEvent):
            fleet.apply(member, event, at(102.0))
    with pytest.raises(IllegalEvent):
        fleet.trigger(member, at(102.0))
    assert (repr(member), fleet.triggers, fleet.refused, list(fleet.members)) == before
    assert member.window.wait(at(102.0).steady) == 0
