# SPDX-License-Identifier: BSD-2-Clause
"""A rule or a policy that cannot be is refused where it is made."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaildaemon.core.limits import Limit
from jaildaemon.core.rules import DEFAULT_LIMIT, Policy, Respawn, Rule, make_policy
from jaildaemon.errors import Refused

# --- policies -----------------------------------------------------------------------------

DEFAULTS = {
    "respawn": "no",
    "uid": 0,
    "gid": 0,
    "signal": "HUP",
    "limit": "30/1m",
    "cooldown": "0s",
    "timeout": "none",
    "settle": "0s",
    "concurrency": 1,
    "run_as": "root",
}
"""By hand, from the design's table."""


def test_without_a_word_a_policy_is_the_designs() -> None:
    assert make_policy() == Policy()
    assert make_policy().texts() == DEFAULTS
    assert Limit(30, 60.0) == DEFAULT_LIMIT


def test_every_field_of_a_policy_can_be_named_and_none_more() -> None:
    assert set(DEFAULTS) == {field.name for field in dataclasses.fields(Policy)}
    with pytest.raises(TypeError):
        make_policy(colour="red")  # type: ignore[call-arg]  # what is tested


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("respawn", "no", Respawn.NO),
        ("respawn", "after", Respawn.AFTER),
        ("respawn", "now", Respawn.NOW),
        ("uid", 0, 0),
        ("uid", 4294967294, 4294967294),
        ("gid", 1000, 1000),
        ("gid", 4294967294, 4294967294),
        ("signal", "HUP", "HUP"),
        ("signal", "USR1", "USR1"),
        ("limit", "none", None),
        ("limit", "5/10s", Limit(5, 10.0)),
        ("cooldown", "250ms", 0.25),
        ("timeout", "none", None),
        ("timeout", "2h", 7200.0),
        ("settle", "15s", 15.0),
        ("concurrency", 1, 1),
        ("concurrency", 64, 64),
        ("run_as", "backup", "backup"),
        ("run_as", "_svc-1.x", "_svc-1.x"),
        ("run_as", "machine$", "machine$"),
        ("run_as", "a" * 32, "a" * 32),
    ],
)
def test_a_field_is_taken_and_the_others_stay(field: str, text: object, value: object) -> None:
    wish: dict[str, Any] = {field: text}
    policy = make_policy(**wish)
    assert getattr(policy, field) == value
    # With "now" comes the concurrency that the design gives it.
    concurrency = {"concurrency": 8} if text == "now" else {}
    assert policy.texts() == {**DEFAULTS, **concurrency, field: text}


WRONG_ID = "is not a number from 0 to 4294967294"
NO_DURATION = 'is no duration, which is a number and ms, s, m, h or d, such as "10s"'


@pytest.mark.parametrize(
    ("field", "text", "message"),
    [
        ("respawn", "", 'respawn \'\': is none of "no", "after", "now"'),
        ("respawn", "always", 'respawn \'always\': is none of "no", "after", "now"'),
        ("respawn", "NO", 'respawn \'NO\': is none of "no", "after", "now"'),
        ("uid", -1, f"uid -1: {WRONG_ID}"),
        ("uid", 2**32 - 1, f"uid 4294967295: {WRONG_ID}"),
        ("gid", -1, f"gid -1: {WRONG_ID}"),
        ("gid", 2**32 - 1, f"gid 4294967295: {WRONG_ID}"),
        ("signal", "", "signal : is neither HUP nor USR1"),
        ("signal", "TERM", "signal TERM: is neither HUP nor USR1"),
        ("signal", "SIGHUP", "signal SIGHUP: is neither HUP nor USR1"),
        ("signal", "hup\n", "signal hup\\n: is neither HUP nor USR1"),
        ("limit", "", "limit: '' is neither \"none\" nor N/DUR, "),
        ("limit", "30", "limit: '30' is neither \"none\" nor N/DUR, "),
        ("limit", "30/60", f"limit: '60' {NO_DURATION}"),
        ("limit", "30/0s", "limit: '30/0s' is no limit: the time must not be 0"),
        ("cooldown", "", f"cooldown: '' {NO_DURATION}"),
        ("cooldown", "10", f"cooldown: '10' {NO_DURATION}"),
        ("cooldown", "none", f"cooldown: 'none' {NO_DURATION}"),
        ("cooldown", "367d", "cooldown: '367d' is longer than a year"),
        ("timeout", "", f"timeout: '' {NO_DURATION}"),
        ("timeout", "60", f"timeout: '60' {NO_DURATION}"),
        ("timeout", "NONE", f"timeout: 'NONE' {NO_DURATION}"),
        ("settle", "", f"settle: '' {NO_DURATION}"),
        ("settle", "5", f"settle: '5' {NO_DURATION}"),
        ("concurrency", 0, "concurrency 0: is not from 1 to 64"),
        ("concurrency", -1, "concurrency -1: is not from 1 to 64"),
        ("concurrency", 65, "concurrency 65: is not from 1 to 64"),
        # Not root: who gives a variable that is not set must not get what he fears most.
        ("run_as", "", "run_as : is no user name"),
        ("run_as", "0", "run_as 0: is no user name"),
        ("run_as", "-x", "run_as -x: is no user name"),
        ("run_as", "a b", "run_as a b: is no user name"),
        ("run_as", "root\n", "run_as root\\n: is no user name"),
        ("run_as", "é", "run_as é: is no user name"),
        ("run_as", "a" * 33, f"run_as {'a' * 33}: is no user name"),
    ],
)
def test_a_wrong_field_is_refused_by_its_name(field: str, text: object, message: str) -> None:
    wish: dict[str, Any] = {field: text}
    with pytest.raises(Refused) as caught:
        make_policy(**wish)
    assert str(caught.value).startswith(f"attach: {message}")


DURATIONS = st.builds("{}{}".format, st.integers(0, 300), st.sampled_from(["ms", "s", "m", "h"]))
WISHES = st.fixed_dictionaries(
    {},
    optional={
        "respawn": st.sampled_from(["no", "after", "now"]),
        "uid": st.integers(0, 2**32 - 2),
        "gid": st.integers(0, 2**32 - 2),
        "signal": st.sampled_from(["HUP", "USR1"]),
        "limit": st.just("none") | st.builds("{}/{}s".format, st.integers(1, 1000), st.just(7)),
        "cooldown": DURATIONS,
        "timeout": st.just("none") | DURATIONS,
        "settle": DURATIONS,
        "concurrency": st.integers(1, 64),
        "run_as": st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}", fullmatch=True),
    },
)


@given(wish=WISHES)
def test_a_policy_comes_back_from_its_texts(wish: dict[str, Any]) -> None:
    policy = make_policy(**wish)
    again: dict[str, Any] = policy.texts()
    assert make_policy(**again) == policy
    assert make_policy(**again).texts() == again


@given(wish=WISHES)
def test_none_is_the_same_as_nothing(wish: dict[str, Any]) -> None:
    assert make_policy(**{**dict.fromkeys(DEFAULTS), **wish}) == make_policy(**wish)


@pytest.mark.parametrize(
    ("policy", "at_once"),
    [
        (Policy(Respawn.NO, concurrency=8), 1),
        (Policy(Respawn.AFTER, concurrency=8), 1),
        (Policy(Respawn.NOW), 1),
        (Policy(Respawn.NOW, concurrency=8), 8),
        (Policy(Respawn.NOW, concurrency=8, cooldown=0.001), 1),
        (Policy(Respawn.NOW, concurrency=8, limit=None, settle=5.0), 8),
    ],
)
def test_runs_overlap_only_under_now_and_without_a_cooldown(policy: Policy, at_once: int) -> None:
    assert policy.at_once == at_once


# --- rules ----------------------------------------------------------------------------------


def test_a_rule_may_have_no_title() -> None:
    rule = Rule("t1", "web", None, "true", Policy())
    assert (rule.title, rule.source) == (None, "transient")


@pytest.mark.parametrize(
    ("title", "command", "message"),
    [
        ("", "true", "attach: title: is empty"),
        ("a\nb", "true", "attach: title: has a control or other unprintable character"),
        (None, " ", "attach: command: is empty"),
        ("BELL", "true\0", "attach: command: has a NUL character"),
    ],
)
def test_a_bad_title_or_command_is_refused(title: str | None, command: str, message: str) -> None:
    with pytest.raises(Refused) as caught:
        Rule("t1", "web", title, command, Policy())
    assert str(caught.value) == message


def test_a_rule_cannot_be_changed() -> None:
    rule = Rule("t1", "web", "BELL", "true", Policy())
    with pytest.raises(dataclasses.FrozenInstanceError):
        rule.command = "false"  # type: ignore[misc]  # what is tested
    with pytest.raises(dataclasses.FrozenInstanceError):
        rule.policy.uid = 1  # type: ignore[misc]  # what is tested
