# SPDX-License-Identifier: BSD-2-Clause
"""How rules are found, which of them overlap, and what they are called."""

import pytest

from jaildaemon.core.fleet import Fleet
from jaildaemon.core.lifecycle import Event, Phase
from jaildaemon.errors import Ambiguous, NoSuchRule, Refused
from tests.core.made import ONE_SHOT, add, armed, at

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
    fleet.apply(first, Event.DIED, at(101.0))
    assert fleet.find("BELL", "detach") is second


def test_the_rules_of_a_jail_are_those_with_its_key_in_the_order_they_came() -> None:
    fleet = Fleet("x")
    first, _, third = add(fleet, "A"), add(fleet, "A", "db"), add(fleet, "B")
    by_another_name = fleet.add("4711", "@web", "A", "true", ONE_SHOT)
    assert fleet.of_jail("@web") == [first, third, by_another_name]
    assert fleet.of_jail("@none") == []


def test_a_jail_whose_rules_are_gone_has_none() -> None:
    fleet = Fleet("x")
    first, second = armed(fleet, "A"), armed(fleet, "B")
    fleet.apply(first, Event.DIED, at(101.0))
    assert fleet.of_jail("@web") == [second]
    fleet.apply(second, Event.DIED, at(102.0))
    assert fleet.of_jail("@web") == []
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
    fleet.apply(first, Event.DIED, at(101.0))
    assert [add(fleet, "A").rule.id, add(fleet, "A").rule.id] == ["t2", "t3"]


def test_a_refused_rule_uses_up_no_id_and_leaves_nothing() -> None:
    fleet = Fleet("x")
    with pytest.raises(Refused):
        add(fleet, "A\nB")
    assert (fleet.members, fleet.of_jail("@web")) == ({}, [])
    assert add(fleet, "A").rule.id == "t1"


def test_an_id_is_counted_on_from_where_an_earlier_daemon_was() -> None:
    fleet = Fleet("x")
    fleet.last_id = 41
    assert add(fleet, "A").rule.id == "t42"


def test_a_restored_rule_is_found_like_any_other() -> None:
    fleet = Fleet("x")
    member = fleet.restore(add(Fleet("old"), "BELL").rule, "@web")
    assert member.life.phase is Phase.NEW
    assert fleet.find("BELL", "detach") is fleet.find("t1", "detach") is member
    assert fleet.of_jail("@web") == [member]


# --- what cannot be ----------------------------------------------------------------------


def test_detaching_what_is_forgotten_is_harmless() -> None:
    fleet = Fleet("x")
    member, other = armed(fleet, "A"), armed(fleet, "B")
    fleet.apply(member, Event.DIED, at(101.0))
    assert fleet.apply(member, Event.DETACH, at(102.0)) == []
    assert list(fleet.members.values()) == [other]
