# SPDX-License-Identifier: BSD-2-Clause
"""Why a rule has no probe, in words; and what is told of overlapping titles."""

import pytest

from jaildaemon.core import reasons
from jaildaemon.core.fleet import Fleet, Run, Stage
from jaildaemon.core.lifecycle import Event, Phase
from jaildaemon.core.limits import Limit
from jaildaemon.core.reasons import ringing_others, why_not_armed
from jaildaemon.core.rules import Policy, Respawn, Rule
from tests.core.made import AFTER, NOW, add, armed, at, ring

WORDS = {
    Phase.NEW: "a probe is on its way",
    Phase.ARMING: "a probe is on its way",
    Phase.ARMED: None,
    Phase.RESTING: "the cooldown of 0s is not over",
    Phase.FAILING: "arming failed",
    Phase.HOLDING: "it is held",
    Phase.HELD: "it is held",
    Phase.WITHDRAWING: "it is being withdrawn",
    Phase.GONE: "it is being withdrawn",
}


@pytest.mark.parametrize(("phase", "words"), WORDS.items(), ids=lambda x: getattr(x, "name", ""))
def test_each_phase_without_a_probe_has_its_words(phase: Phase, words: str | None) -> None:
    fleet = Fleet("x")
    member = add(fleet, "A", policy=AFTER)
    fleet.set_phase(member, phase, at(101.0))
    assert why_not_armed(member, at(101.0)) == words


def test_what_is_known_better_is_said_instead() -> None:
    fleet = Fleet("x")
    member = add(fleet, "A", policy=AFTER)
    fleet.set_phase(member, Phase.FAILING, at(101.0))
    member.reason = "no memory"
    assert why_not_armed(member, at(101.0)) == "no memory"


def test_a_limit_and_a_cooldown_are_named_with_their_figures() -> None:
    fleet = Fleet("x")
    policy = Policy(Respawn.AFTER, limit=Limit(1, 10.0), cooldown=30.0)
    member = armed(fleet, "A", policy=policy)
    fleet.run_ended(ring(fleet, member, at(101.0)), at(102.0))
    assert why_not_armed(member, at(105.0)) == "the limit of 1/10s is reached"
    assert why_not_armed(member, at(115.0)) == "the cooldown of 30s is not over"


def test_of_runs_it_is_said_how_far_they_are() -> None:
    fleet = Fleet("x")
    member = armed(fleet, "A", policy=Policy(Respawn.AFTER, settle=5.0))
    run = ring(fleet, member, at(101.0))
    seen = []
    for stage in Stage:
        run.stage = stage
        seen.append(why_not_armed(member, at(102.0)))
    member.runs.append(Run("x.2", member, Stage.RUNNING, at(101.0), member.jail_key))
    seen.append(why_not_armed(member, at(102.0)))
    assert seen == [
        "its run starts if its jail still lives after 5s",
        "its run waits: 32 commands run already",
        "its command runs",
        "2 runs of it are under way",
    ]


def test_a_trigger_leaves_the_id_of_its_run_and_a_release_no_reason() -> None:
    fleet = Fleet("x")
    member = armed(fleet, "A", policy=NOW)
    assert member.last_run is None
    run = ring(fleet, member, at(101.0))
    assert member.last_run == "x.1"
    assert run.by is None
    fleet.apply(member, Event.HOLD, at(102.0))
    fleet.apply(member, Event.FAILED, at(103.0))
    member.reason = "held by uid 0"
    fleet.release(member, at(104.0))
    assert member.reason is None


def test_every_overlap_of_a_jail_is_found_and_none_across_jails() -> None:
    fleet = Fleet("x")
    for title, jail in [
        ("A", "web"),
        ("B", "web"),
        ("BELL", "web"),
        ("BELL", "db"),
        ("a", "alone"),
        ("DOORBELL", "db"),
        (None, "two"),
        ("X", "two"),
    ]:
        add(fleet, title, jail)
    found = [f"{m.rule.jail}/{m.rule.title}" for m in ringing_others(fleet.members.values())]
    assert found == ["web/B", "db/BELL", "two/None"]


def test_of_a_jail_with_very_many_rules_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reasons, "MANY", 2)
    fleet = Fleet("x")
    two = [add(fleet, "A", "web"), add(fleet, "A", "web")]
    assert ringing_others(fleet.members.values()) == two
    add(fleet, "A", "web")
    assert ringing_others(fleet.members.values()) == []


def test_rules_that_wait_for_their_jails_ring_nobody() -> None:
    fleet = Fleet("x")
    for name in ("one", "two"):
        rule = Rule(name, name, "BELL", "true", Policy(Respawn.AFTER), "rules.toml")
        fleet.restore(rule, "", phase=Phase.WAITING)
    assert ringing_others(fleet.members.values()) == []
