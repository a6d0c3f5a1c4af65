# SPDX-License-Identifier: BSD-2-Clause
"""A rule or a policy that cannot be is refused where it is made."""

import dataclasses

import pytest

from jaildaemon.core.rules import Policy, Respawn, Rule
from jaildaemon.errors import Refused


def test_without_a_word_a_rule_is_one_shot_and_its_probe_is_roots() -> None:
    policy = Policy()
    assert (policy.respawn, policy.uid, policy.gid) == (Respawn.NO, 0, 0)


@pytest.mark.parametrize(
    ("respawn", "runs"), [(Respawn.NO, 1), (Respawn.AFTER, 1), (Respawn.NOW, 8)]
)
def test_only_respawn_now_has_several_runs_at_once(respawn: Respawn, runs: int) -> None:
    assert Policy(respawn).concurrency == runs


def test_respawn_is_called_as_in_files_and_on_the_wire() -> None:
    assert [respawn.value for respawn in Respawn] == ["no", "after", "now"]


@pytest.mark.parametrize("number", [-1, 2**32 - 1])
@pytest.mark.parametrize("field", ["uid", "gid"])
def test_an_id_out_of_range_is_refused(field: str, number: int) -> None:
    with pytest.raises(Refused) as caught:
        Policy(**{field: number})  # type: ignore[arg-type]  # the field is chosen at run time
    assert str(caught.value) == f"attach: {field} {number}: is not a number from 0 to 4294967294"


def test_the_largest_ids_are_taken() -> None:
    assert Policy(uid=2**32 - 2, gid=2**32 - 2).gid == 4294967294


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
