# SPDX-License-Identifier: BSD-2-Clause
"""How rules are found, what overlaps, and what is counted and shown of each."""

import pytest

from jaildaemon.core.fleet import Fleet, Member, Shown
from jaildaemon.core.lifecycle import Action, Event, IllegalEvent, Phase
from jaildaemon.core.rules import Policy, Respawn
from jaildaemon.errors import Ambiguous, NoSuchRule, Refused

ONE_SHOT = Policy()
AFTER = Policy(Respawn.AFTER)
NOW = Policy(Respawn.NOW)


def add(
    fleet: Fleet, title: str | None = None, jail: str = "web", policy: Policy = ONE_SHOT
) -> Member:
    """Add a rule; a jail's key is its name with an @ before it."""
    return fleet.add(jail, f"@{jail}", title, "true", policy)


def armed(
    fleet: Fleet, title: str | None = None, jail: str = "web", policy: Policy = ONE_SHOT
) -> Member:
    """Add a rule and arm it, at time 100."""
    member = add(fleet, title, jail, policy)
    fleet.apply(member, Event.ARMED, 100.0)
    return member


# --- finding -----------------------------------------------------------------------


def test_a_rule_is_found_by_its_id_by_jail_and_title_and_by_its_title() -> None:
    fleet = Fleet("x")
    member, _ = add(fleet, "BELL"), add(fleet, "GONG")
    assert fleet.find("t1", "detach") is member
    assert fleet.find("web/BELL", "detach") is member
    assert fleet.find("BELL", "detach") is member


def test_a_rule_without_a_title_is_found_by_its_id_alone() -> None:
    fleet = Fleet("x")
    member = add(fleet, None)
    assert fleet.find("t1", "detach") is member
    for name in ("web", "web/", "web/None", "None", ""):
        with pytest.raises(NoSuchRule):
            fleet.find(name, "detach")


@pytest.mark.parametrize("name", ["t2", "T1", "bell", "BEL", "web/GONG", "db/BELL", "@web/BELL"])
def test_what_is_no_rules_name_is_not_found(name: str) -> None:
    fleet = Fleet("x")
    add(fleet, "BELL")
    with pytest.raises(NoSuchRule) as caught:
        fleet.find(name, "detach")
    assert str(caught.value) == f"detach: {name}: no such rule (see jaildaemon list)"


def test_a_title_in_two_jails_is_ambiguous_and_the_candidates_are_named() -> None:
    fleet = Fleet("x")
    add(fleet, "BELL", "web")
    add(fleet, "GONG", "web")
    in_db = add(fleet, "BELL", "db")
    with pytest.raises(Ambiguous) as caught:
        fleet.find("BELL", "detach")
    assert caught.value.candidates == ["t1", "t3"]
    assert fleet.find("db/BELL", "detach") is in_db


def test_two_rules_of_one_jail_and_title_are_told_apart_by_id_only() -> None:
    fleet = Fleet("x")
    add(fleet, "BELL")
    second = add(fleet, "BELL")
    with pytest.raises(Ambiguous):
        fleet.find("web/BELL", "detach")
    assert fleet.find("t2", "detach") is second


def test_an_id_is_stronger_than_a_title_that_looks_like_one() -> None:
    fleet = Fleet("x")
    first, second = add(fleet, "t2"), add(fleet, "t1")
    assert fleet.find("t1", "detach") is first
    assert fleet.find("t2", "detach") is second


def test_a_title_that_is_anothers_jail_and_title_is_ambiguous() -> None:
    fleet = Fleet("x")
    add(fleet, "BELL", "web")
    add(fleet, "web/BELL", "db")
    with pytest.raises(Ambiguous):
        fleet.find("web/BELL", "detach")


def test_a_title_is_unique_again_when_the_other_rule_is_gone() -> None:
    fleet = Fleet("x")
    first, second = armed(fleet, "BELL", "web"), armed(fleet, "BELL", "db")
    fleet.apply(first, Event.DIED, 101.0)
    assert fleet.find("BELL", "detach") is second


def test_the_rules_of_a_jail_are_those_with_its_key_in_the_order_they_came() -> None:
    fleet = Fleet("x")
    first, _, third = add(fleet, "A"), add(fleet, "A", "db"), add(fleet, "B")
    by_another_name = fleet.add("4711", "@web", "A", "true", ONE_SHOT)
    assert fleet.of_jail("@web") == [first, third, by_another_name]
    assert fleet.of_jail("@web", "A") == [first, by_another_name]
    assert fleet.of_jail("@none") == []


def test_a_jail_whose_rules_are_gone_has_none() -> None:
    fleet = Fleet("x")
    first, second = armed(fleet, "A"), armed(fleet, "B")
    fleet.apply(first, Event.DIED, 101.0)
    assert fleet.of_jail("@web") == [second]
    fleet.apply(second, Event.DIED, 102.0)
    assert fleet.of_jail("@web") == []
    assert fleet.of_jail("@web", "B") == []
    third = add(fleet, "C")
    assert fleet.of_jail("@web") == [third]


# --- overlapping titles ---------------------------------------------------------------

OVERLAPS = [
    ("the same", "BELL", "BELL", True),
    ("one in the other", "BELL", "DOORBELL", True),
    ("different", "BELL", "GONG", False),
    ("only a part in common", "BELL A", "BELL B", False),
    ("another case", "BELL", "bell", False),
    ("no title beside any", None, "BELL", True),
    ("no titles", None, None, True),
    # ps shows "jaildaemon: GONG", and pkill -f looks at all of it.
    ("a part of our own name", "daemon", "GONG", True),
    ("the separator", ": ", "GONG", True),
    ("the end of our name and the beginning", ": GO", "GONG", True),
    ("the end of our name and another beginning", ": BE", "GONG", False),
]


@pytest.mark.parametrize(
    ("one", "other", "overlaps"), [o[1:] for o in OVERLAPS], ids=[o[0] for o in OVERLAPS]
)
def test_titles_overlap_when_looking_for_one_finds_the_other(
    one: str | None, other: str | None, overlaps: bool
) -> None:
    fleet = Fleet("x")
    first, second = add(fleet, one), add(fleet, other)
    assert fleet.overlapping(first) == ([second] if overlaps else [])
    assert fleet.overlapping(second) == ([first] if overlaps else [])


def test_titles_of_different_jails_do_not_overlap() -> None:
    fleet = Fleet("x")
    member, _ = add(fleet, "BELL", "web"), add(fleet, "BELL", "db")
    assert fleet.overlapping(member) == []


# --- ids ------------------------------------------------------------------------------


def test_ids_are_counted_and_never_used_again() -> None:
    fleet = Fleet("x")
    first = armed(fleet, "A")
    fleet.apply(first, Event.DIED, 101.0)
    assert [add(fleet, "A").rule.id, add(fleet, "A").rule.id] == ["t2", "t3"]


def test_a_refused_rule_uses_up_no_id_and_leaves_nothing() -> None:
    fleet = Fleet("x")
    with pytest.raises(Refused):
        add(fleet, "A\nB")
    assert (fleet.members, fleet.of_jail("@web")) == ({}, [])
    assert add(fleet, "A").rule.id == "t1"


def test_a_runs_id_names_the_daemons_life() -> None:
    fleet = Fleet("19f3-77")
    assert [fleet.next_run(), fleet.next_run()] == ["19f3-77.1", "19f3-77.2"]


# --- what is counted --------------------------------------------------------------------


def test_a_trigger_is_counted_for_the_rule_and_for_all() -> None:
    fleet = Fleet("x")
    one, other = armed(fleet, "A", policy=NOW), armed(fleet, "B", policy=NOW)
    assert fleet.trigger(one, 101.0) == (Action.START, Action.ARM)
    fleet.apply(one, Event.ARMED, 102.0)
    assert fleet.trigger(one, 103.0) == (Action.START, Action.ARM)
    assert fleet.trigger(other, 104.0) == (Action.START, Action.ARM)
    assert (one.triggers, one.last_trigger) == (2, 103.0)
    assert (other.triggers, other.last_trigger) == (1, 104.0)
    assert (fleet.triggers, fleet.refused, fleet.runs) == (3, 0, 3)


def test_a_trigger_that_came_too_late_is_counted_as_refused() -> None:
    fleet = Fleet("x")
    member = armed(fleet, "A")
    assert fleet.apply(member, Event.DETACH, 101.0) == (Action.KILL,)
    assert fleet.trigger(member, 102.0) == (Action.IGNORE,)
    assert (member.triggers, member.refused, member.last_trigger) == (0, 1, None)
    assert (fleet.triggers, fleet.refused, fleet.runs) == (0, 1, 0)


def test_the_counts_of_all_outlive_the_rule() -> None:
    fleet = Fleet("x")
    member = armed(fleet, "A")
    fleet.trigger(member, 101.0)
    fleet.apply(member, Event.RUN_ENDED, 102.0)
    assert (fleet.members, fleet.triggers, fleet.runs) == ({}, 1, 0)


def test_phases_are_counted() -> None:
    fleet = Fleet("x")
    add(fleet, "A")
    armed(fleet, "B")
    armed(fleet, "C")
    counts = {phase: fleet.count(phase) for phase in Phase}
    assert counts == {**dict.fromkeys(Phase, 0), Phase.NEW: 1, Phase.ARMED: 2}


# --- when things were, and what is shown -----------------------------------------------


def test_armed_at_is_known_only_while_armed() -> None:
    fleet = Fleet("x")
    member = add(fleet, "A", policy=AFTER)
    seen = [member.armed_at]
    fleet.apply(member, Event.ARMED, 101.0)
    seen.append(member.armed_at)
    fleet.trigger(member, 102.0)
    seen.append(member.armed_at)
    assert seen == [None, 101.0, None]


def test_arming_clears_the_reason_and_the_time_of_the_next_try() -> None:
    fleet = Fleet("x")
    member = armed(fleet, "A", policy=AFTER)
    fleet.trigger(member, 101.0)
    fleet.apply(member, Event.RUN_ENDED, 102.0)
    assert fleet.apply(member, Event.FAILED, 103.0) == (Action.BACKOFF,)
    member.reason, member.retry_at = "no memory", 104.0
    assert fleet.apply(member, Event.RETRY, 104.0) == (Action.ARM,)
    seen: list[tuple[str | None, float | None]] = [(member.reason, member.retry_at)]
    fleet.apply(member, Event.ARMED, 105.0)
    seen.append((member.reason, member.retry_at))
    assert seen == [("no memory", None), (None, None)]


def test_the_state_shown_follows_the_phase() -> None:
    fleet = Fleet("x")
    member = add(fleet, "A", policy=AFTER)
    seen = [member.shown]
    for event in (
        Event.ARMED,
        Event.TRIGGER_WAIT,
        Event.RUN_ENDED,
        Event.FAILED,
        Event.RETRY,
        Event.DETACH,
        Event.FAILED,
    ):
        fleet.apply(member, event, 101.0)
        seen.append(member.shown)
    assert seen == [
        Shown.WAITING,
        Shown.ARMED,
        Shown.RUNNING,
        Shown.WAITING,
        Shown.FAILING,
        Shown.WAITING,
        Shown.GONE,
        Shown.GONE,
    ]


def test_a_one_shot_rule_is_shown_as_running_until_its_last_run_ends() -> None:
    fleet = Fleet("x")
    member = armed(fleet, "A")
    assert fleet.trigger(member, 101.0) == (Action.START,)
    assert (member.life.phase, member.shown) == (Phase.GONE, Shown.RUNNING)
    assert fleet.find("A", "list") is member
    fleet.apply(member, Event.RUN_ENDED, 102.0)
    assert member.shown is Shown.GONE
    assert fleet.members == {}


def test_the_states_are_called_as_in_the_man_page() -> None:
    words = {shown.value for shown in Shown}
    every = "armed running cooling limited settling queued held waiting failing gone"
    assert words <= set(every.split())


# --- what cannot be ----------------------------------------------------------------------


def test_a_refused_event_changes_nothing_at_all() -> None:
    fleet = Fleet("x")
    member = armed(fleet, "A", policy=NOW)
    fleet.trigger(member, 101.0)
    before = (repr(member), fleet.triggers, fleet.refused, list(fleet.members))
    for event in (Event.TRIGGER_LAST, Event.TRIGGER_WAIT, Event.TRIGGER_NEXT, Event.DIED):
        with pytest.raises(IllegalEvent):
            fleet.apply(member, event, 102.0)
    assert (repr(member), fleet.triggers, fleet.refused, list(fleet.members)) == before


def test_detaching_what_is_forgotten_is_harmless() -> None:
    fleet = Fleet("x")
    member, other = armed(fleet, "A"), armed(fleet, "B")
    fleet.apply(member, Event.DIED, 101.0)
    assert fleet.apply(member, Event.DETACH, 102.0) == ()
    assert list(fleet.members.values()) == [other]
