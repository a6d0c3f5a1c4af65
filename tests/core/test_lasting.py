# SPDX-License-Identifier: BSD-2-Clause
"""Rules in files in the fleet: they wait for their jail, follow it, and back off."""

from collections.abc import Iterator

import pytest

from jaildaemon.core.fleet import CALM_SECONDS, Act, Fleet, Member, Shown
from jaildaemon.core.lifecycle import Action, Event, Life, Phase, sort_trigger, step
from jaildaemon.core.limits import Limit
from jaildaemon.core.rules import Policy, Respawn, Rule
from jaildaemon.errors import Ambiguous
from tests.core.made import AFTER, NOW, ONE_SHOT, acts, at, ring

FILE = "/etc/jaildaemon.toml"


def waiting(fleet: Fleet, policy: Policy = AFTER, name: str = "bell") -> Member:
    """Add a rule of a file."""
    rule = Rule(name, "web", "BELL", "true", policy, FILE)
    return fleet.restore(rule, "", phase=Phase.WAITING)


def armed(fleet: Fleet, policy: Policy = AFTER, name: str = "bell") -> Member:
    """Add one, and arm it in jail @web at time 100."""
    member = waiting(fleet, policy, name)
    assert acts(fleet.appear(member, "@web", at(100.0))) == [Act.ARM]
    fleet.apply(member, Event.ARMED, at(100.0))
    return member


def leave(fleet: Fleet, member: Member, when: float) -> None:
    """Let its jail end, and the probe in it die of that."""
    fleet.apply(member, Event.LEFT, at(when))
    if member.life.phase is Phase.LEAVING:
        fleet.apply(member, Event.FELL, at(when))
    fleet.move(member, "")


# --- with a jail, without one ----------------------------------------------------------


def test_it_waits_until_such_a_jail_runs() -> None:
    fleet = Fleet("x")
    member = waiting(fleet)
    assert (member.shown(at(1.0)), member.jail_key) == (Shown.WAITING, "")
    assert acts(fleet.appear(member, "@web", at(2.0))) == [Act.ARM]
    assert fleet.of_jail("@web") == [member]


def test_the_jails_end_sends_it_back_to_waiting_and_the_next_one_arms_it() -> None:
    fleet = Fleet("x")
    member = armed(fleet)
    assert acts(fleet.apply(member, Event.LEFT, at(101.0))) == [Act.KILL]
    assert fleet.uses("@web")
    assert fleet.apply(member, Event.FELL, at(101.0)) == []
    fleet.move(member, "")
    assert (member.shown(at(101.0)), fleet.uses("@web")) == (Shown.WAITING, False)
    assert acts(fleet.appear(member, "@web2", at(102.0))) == [Act.ARM]


def test_what_was_rung_just_before_the_jails_end_counts() -> None:
    fleet = Fleet("x")
    member = armed(fleet)
    fleet.apply(member, Event.LEFT, at(101.0))
    assert acts(fleet.trigger(member, at(101.0))) == [Act.START]
    assert (member.life.phase, member.triggers, fleet.triggers) == (Phase.WAITING, 1, 1)


def test_a_run_keeps_the_jail_that_began_it_and_goes_on_beside_the_next() -> None:
    fleet = Fleet("x")
    member = armed(fleet)
    run = ring(fleet, member, at(101.0))
    leave(fleet, member, 102.0)
    assert (member.shown(at(102.0)), fleet.uses("@web")) == (Shown.RUNNING, True)
    assert fleet.of_jail("@web") == []
    assert fleet.appear(member, "@web2", at(103.0)) == []
    assert (member.life.phase, run.jail_key) == (Phase.RUNNING, "@web")
    assert acts(fleet.run_ended(run, at(104.0))) == [Act.ARM]
    assert (fleet.uses("@web"), fleet.of_jail("@web2")) == (False, [member])


def test_limit_and_cooldown_outlive_the_jail() -> None:
    fleet = Fleet("x")
    member = armed(fleet, Policy(Respawn.NOW, limit=Limit(1, 10.0), concurrency=8))
    fleet.run_ended(ring(fleet, member, at(101.0)), at(101.5))
    leave(fleet, member, 102.0)
    assert acts(fleet.appear(member, "@web2", at(103.0))) == [Act.REST]
    assert member.shown(at(103.0)) is Shown.LIMITED


def test_several_runs_of_two_jails_are_told_apart() -> None:
    fleet = Fleet("x")
    member = armed(fleet, NOW)
    first = ring(fleet, member, at(101.0))
    fleet.apply(member, Event.ARMED, at(101.0))
    second = ring(fleet, member, at(102.0))
    leave(fleet, member, 103.0)
    fleet.run_ended(first, at(104.0))
    assert fleet.uses("@web")
    fleet.run_ended(second, at(105.0))
    assert not fleet.uses("@web")


def test_the_one_shot_is_fired_once_in_each_jail() -> None:
    fleet = Fleet("x")
    member = armed(fleet, ONE_SHOT)
    run = ring(fleet, member, at(101.0))
    assert (member.life.phase, member.jail_key) == (Phase.WAITING, "@web")
    assert fleet.run_ended(run, at(102.0)) == []
    assert fleet.members == {"bell": member}
    fleet.move(member, "")
    assert acts(fleet.appear(member, "@web2", at(103.0))) == [Act.ARM]


def test_a_held_rule_only_takes_note_of_its_jail() -> None:
    fleet = Fleet("x")
    member = waiting(fleet)
    fleet.apply(member, Event.HOLD, at(1.0))
    assert fleet.appear(member, "@web", at(2.0)) == []
    assert (member.shown(at(2.0)), member.jail_key) == (Shown.HELD, "@web")
    assert acts(fleet.release(member, at(3.0))) == [Act.ARM]


def test_a_rule_released_without_its_jail_waits_for_it() -> None:
    fleet = Fleet("x")
    member = waiting(fleet)
    fleet.apply(member, Event.HOLD, at(1.0))
    assert fleet.release(member, at(2.0)) == []
    assert member.shown(at(2.0)) is Shown.WAITING


def test_a_rule_may_become_another_with_the_same_id() -> None:
    fleet = Fleet("x")
    member = armed(fleet, Policy(Respawn.AFTER, limit=Limit(1, 60.0)))
    fleet.run_ended(ring(fleet, member, at(101.0)), at(102.0))
    old = member.rule
    fleet.change(member, Rule("bell", "web", "GONG", "true", old.policy, FILE))
    assert (member.rule.title, member.wait(at(102.0))) == ("GONG", 59.0)
    fleet.change(member, Rule("bell", "web", "GONG", "true", AFTER, FILE))
    assert member.wait(at(102.0)) == 0


def test_the_rules_of_a_pattern_are_found_by_its_name_where_there_is_one() -> None:
    fleet = Fleet("x")
    one = waiting(fleet, name="bell@web-1")
    assert fleet.find("bell", "hold") is one
    other = waiting(fleet, name="bell@web-2")
    other.rule = Rule("bell@web-2", "web-2", "GONG", "true", AFTER, FILE)
    with pytest.raises(Ambiguous) as caught:
        fleet.find("bell", "hold")
    assert caught.value.candidates == ["bell@web-1", "bell@web-2"]


# --- failures ----------------------------------------------------------------------------


def test_a_probe_that_dies_of_something_else_is_armed_again_ever_later() -> None:
    fleet = Fleet("x")
    member = armed(fleet)
    for failures in (1, 2, 3):
        assert acts(fleet.apply(member, Event.FELL, at(101.0))) == [Act.BACKOFF]
        assert (member.shown(at(101.0)), member.life.failures) == (Shown.FAILING, failures)
        fleet.apply(member, Event.RETRY, at(101.0))
        fleet.apply(member, Event.ARMED, at(101.0))
        assert member.life.failures == failures


@pytest.mark.parametrize(("stood", "failures"), [(CALM_SECONDS, 1), (CALM_SECONDS - 0.5, 2)])
def test_a_probe_that_stood_for_a_minute_ends_the_row(stood: float, failures: int) -> None:
    fleet = Fleet("x")
    member = armed(fleet)
    fleet.apply(member, Event.FELL, at(101.0))
    fleet.apply(member, Event.RETRY, at(102.0))
    fleet.apply(member, Event.ARMED, at(103.0))
    fleet.apply(member, Event.FELL, at(103.0 + stood))
    assert member.life.failures == failures


# --- every life that there can be --------------------------------------------------------

World = tuple[Life, str, str, str]
"""The life; the probe, the wait under way (as in test_lives.py); the jail: "here", "spent",
"ended" while the probe in it is still to be reported, or ""."""


def possible(world: World, policy: Policy) -> Iterator[tuple[Event, World]]:
    """Give every event that the effects may report, and the world before the actions."""
    life, probe, due, jail = world
    over = "" if jail == "ended" else jail
    if probe == "arming":
        yield Event.ARMED, (life, "armed", due, jail)
    if probe.startswith("arming"):
        yield Event.FAILED, (life, "none", due, over)
        yield Event.MISSED, (life, "none", due, "")
    if probe.startswith("armed"):
        for wait in (0.0, 1.0):
            event = sort_trigger(policy, life.runs, wait, lasting=True)
            counts = event is Event.TRIGGER_SPENT and probe == "armed"
            yield event, (life, "none", due, "spent" if counts else over)
        yield Event.FELL, (life, "none", due, over)
        yield Event.MISSED, (life, "none", due, "")
    if life.runs:
        yield Event.RUN_ENDED, world
        yield Event.RUN_ENDED_REST, world
    if due:
        yield Event.RETRY if due == "retry" else Event.RESTED, (life, probe, "", jail)
    if life.phase is Phase.WAITING and jail == "":
        full = life.runs >= policy.at_once
        for event in [Event.JAIL_WAIT] if full else [Event.JAIL, Event.JAIL_REST]:
            yield event, (life, probe, due, "here")
    if jail == "here" and life.phase not in (Phase.WAITING, Phase.GONE):
        yield Event.LEFT, (life, probe, "", "" if probe == "none" else "ended")
    if life.phase not in (Phase.WITHDRAWING, Phase.GONE):
        yield Event.HOLD, (life, probe, "", jail)
    if life.phase is Phase.HELD:
        full = life.runs >= policy.at_once
        events = [Event.RELEASE_WAIT] if full else [Event.RELEASE, Event.RELEASE_REST]
        for event in events if jail else [Event.RELEASE_ABSENT]:
            yield event, (life, probe, due, "here" if jail else "")
    yield Event.DETACH, (life, probe, "", jail)


def carried_out(world: World, event: Event) -> World:
    """Do what the product says must be done."""
    life, probe, due, jail = world
    life, actions = step(Life(life.phase, life.runs), event)
    for action in actions:
        if action is Action.ARM:
            assert (probe, jail) == ("none", "here"), "two probes, or one for no jail"
            probe = "arming"
        elif action is Action.KILL:
            assert probe in ("arming", "armed"), "nothing to kill"
            probe += "-killed"
        elif action in (Action.BACKOFF, Action.REST):
            assert (probe, due) == ("none", ""), "a wait beside a probe or another wait"
            due = "retry" if action is Action.BACKOFF else "rest"
    return Life(life.phase, life.runs), probe, due, jail


def walk(policy: Policy) -> dict[World, dict[Event, World]]:
    """Return every world that can be reached, with its ways out."""
    found: dict[World, dict[Event, World]] = {}
    ahead: list[World] = [(Life(Phase.WAITING), "none", "", "")]
    while ahead:
        world = ahead.pop()
        if world not in found:
            events = possible(world, policy)
            found[world] = {event: carried_out(before, event) for event, before in events}
            ahead += found[world].values()
    return found


POLICIES = {
    "no": ONE_SHOT,
    "after": AFTER,
    "now": NOW,
    "now, two": Policy(Respawn.NOW, concurrency=2),
}


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_no_lasting_life_ends_in_a_corner(policy: Policy) -> None:
    found = walk(policy)
    seen = set()
    for (life, probe, due, jail), ways in found.items():
        seen.add(life.phase)
        administrators = {Event.DETACH, Event.HOLD}
        if life.phase is not Phase.GONE and (life.phase, jail) != (Phase.WAITING, "spent"):
            assert set(ways) - administrators, f"stuck in {life.phase.name}"
        assert life.runs <= policy.at_once
        assert (probe == "armed") == (life.phase is Phase.ARMED)
        assert (due == "retry") == (life.phase is Phase.FAILING)
        assert (due == "rest") == (life.phase is Phase.RESTING)
        if life.phase is Phase.LEAVING:
            assert jail == "ended"
            assert probe.endswith("-killed")
        if probe in ("arming", "armed"):
            assert jail == "here"
    assert seen == set(Phase) - {Phase.NEW}
