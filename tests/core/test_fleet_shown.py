# SPDX-License-Identifier: BSD-2-Clause
"""What is shown of a rule, and what is left of it when the daemon begins again."""

import pytest

from jaildaemon.core.fleet import MAX_RUNS, Act, Do, Fleet, Run, Shown, Stage
from jaildaemon.core.lifecycle import Event, Phase
from jaildaemon.core.limits import Limit
from jaildaemon.core.rules import Policy, Respawn
from tests.core.made import AFTER, NOW, ONE_SHOT, acts, add, armed, at, ring

# --- when things were, and what is shown -----------------------------------------------


def test_armed_at_is_known_only_while_armed() -> None:
    fleet = Fleet("x")
    member = add(fleet, "A", policy=AFTER)
    seen = [member.armed_at]
    fleet.apply(member, Event.ARMED, at(101.0))
    seen.append(member.armed_at)
    fleet.trigger(member, at(102.0))
    seen.append(member.armed_at)
    assert seen == [None, 5101.0, None]


def test_arming_clears_the_reason() -> None:
    fleet = Fleet("x")
    member = armed(fleet, "A", policy=AFTER)
    fleet.run_ended(ring(fleet, member, at(101.0)), at(102.0))
    fleet.apply(member, Event.FAILED, at(103.0))
    member.reason = "no memory"
    fleet.apply(member, Event.RETRY, at(104.0))
    seen = [member.reason]
    fleet.apply(member, Event.ARMED, at(105.0))
    assert [*seen, member.reason] == ["no memory", None]


PHASES = {
    Phase.NEW: Shown.WAITING,
    Phase.ARMING: Shown.WAITING,
    Phase.ARMED: Shown.ARMED,
    Phase.RUNNING: Shown.RUNNING,
    Phase.RESTING: Shown.COOLING,
    Phase.FAILING: Shown.FAILING,
    Phase.HOLDING: Shown.HELD,
    Phase.HELD: Shown.HELD,
    Phase.WITHDRAWING: Shown.GONE,
    Phase.GONE: Shown.GONE,
    Phase.WAITING: Shown.WAITING,
    Phase.LEAVING: Shown.WAITING,
}


@pytest.mark.parametrize("phase", Phase, ids=lambda phase: str(phase.name))
def test_every_phase_is_shown_by_a_word(phase: Phase) -> None:
    fleet = Fleet("x")
    member = add(fleet, "A", policy=AFTER)
    fleet.set_phase(member, phase, at(101.0))
    assert member.shown(at(101.0)) is PHASES[phase]


def test_a_rest_is_shown_as_what_it_waits_for() -> None:
    fleet = Fleet("x")
    policy = Policy(Respawn.AFTER, limit=Limit(1, 10.0), cooldown=30.0)
    member = armed(fleet, "A", policy=policy)
    fleet.run_ended(ring(fleet, member, at(101.0)), at(102.0))
    assert member.shown(at(110.9)) is Shown.LIMITED
    assert member.shown(at(111.0)) is Shown.COOLING


@pytest.mark.parametrize("policy", [ONE_SHOT, AFTER], ids=["gone", "running"])
def test_while_a_rule_runs_the_furthest_of_its_runs_is_shown(policy: Policy) -> None:
    fleet = Fleet("x")
    member = armed(fleet, "A", policy=policy)
    run = ring(fleet, member, at(101.0))
    shown = []
    for stage in Stage:
        run.stage = stage
        shown.append(member.shown(at(102.0)))
    second = Run("x.2", member, Stage.SETTLING, at(101.0), member.jail_key)
    member.runs.insert(0, second)
    shown.append(member.shown(at(102.0)))
    assert shown == [Shown.SETTLING, Shown.QUEUED, Shown.RUNNING, Shown.RUNNING]


def test_a_one_shot_rule_is_found_until_its_last_run_ends() -> None:
    fleet = Fleet("x")
    member = armed(fleet, "A")
    run = ring(fleet, member, at(101.0))
    assert (member.life.phase, fleet.find("A", "list")) == (Phase.GONE, member)
    fleet.run_ended(run, at(102.0))
    assert (member.shown(at(102.0)), fleet.members) == (Shown.GONE, {})


def test_the_states_are_called_as_in_the_man_page() -> None:
    every = "armed running cooling limited settling queued held waiting failing gone"
    assert {shown.value for shown in Shown} == set(every.split())


# --- restored after the daemon's end ----------------------------------------------------


def test_a_restored_rule_keeps_its_window_and_its_cooldown() -> None:
    fleet = Fleet("new")
    policy = Policy(Respawn.AFTER, limit=Limit(2, 60.0), cooldown=10.0)
    rule = add(Fleet("old"), "A", policy=policy).rule
    member = fleet.restore(rule, "@web", times=[10.0, 40.0, 50.0], last_end=95.0)
    assert member.wait(at(50.0)) == 55.0  # the cooldown
    assert member.wait(at(96.0)) == 9.0
    assert member.wait(at(99.0)) == 6.0
    assert member.wait(at(105.0)) == 0.0
    fresh = fleet.restore(rule, "@web", times=[10.0, 40.0, 50.0])
    assert fresh.wait(at(96.0)) == 4.0  # of the window, whose older is at 40


def test_restored_runs_count_and_those_that_wait_begin_again() -> None:
    fleet = Fleet("new")
    rule = add(Fleet("old"), "A", policy=Policy(Respawn.NOW, concurrency=3)).rule
    member = fleet.restore(rule, "@web")
    running = fleet.restore_run(member, "old.1", Stage.RUNNING, at(90.0))
    waiting = fleet.restore_run(member, "old.2", Stage.SETTLING, at(91.0))
    assert (member.life.runs, member.full, fleet.running) == (2, False, 1)
    fleet.restore_run(member, "old.3", Stage.RUNNING, at(92.0))
    assert member.full
    fleet.set_phase(member, Phase.RUNNING, at(100.0))
    assert fleet.again(waiting) == Do(Act.START, member, waiting)
    assert (fleet.running, fleet.triggers) == (3, 0)  # counted by who saw it
    assert acts(fleet.run_ended(running, at(101.0))) == [Act.ARM]
    assert fleet.running == 2


def test_a_restored_trigger_settles_once_more_and_queues_where_all_is_full() -> None:
    fleet = Fleet("new")
    settling = fleet.restore(add(Fleet("o"), "S", policy=Policy(settle=2.0)).rule, "@web")
    run = fleet.restore_run(settling, "o.1", Stage.SETTLING, at(1.0))
    assert fleet.again(run) == Do(Act.SETTLE, settling, run)
    many = fleet.restore(add(Fleet("o"), "M", policy=NOW).rule, "@web")
    for n in range(MAX_RUNS):
        fleet.restore_run(many, f"o.{n + 2}", Stage.RUNNING, at(2.0))
    late = fleet.restore_run(many, "o.99", Stage.SETTLING, at(3.0))
    assert fleet.again(late) == Do(Act.QUEUE, many, late)
    assert (fleet.running, fleet.queued) == (MAX_RUNS, 1)


def test_a_probe_that_stood_through_the_exchange_is_armed_from_now_on() -> None:
    fleet = Fleet("new")
    member = fleet.restore(add(Fleet("old"), "A").rule, "@web", phase=Phase.GONE)
    fleet.set_phase(member, Phase.ARMED, at(100.0))
    assert (member.life.phase, member.armed_at) == (Phase.ARMED, 5100.0)
    fleet.set_phase(member, Phase.HELD, at(101.0))
    assert member.life.phase is Phase.HELD
