# SPDX-License-Identifier: BSD-2-Clause
"""The journal of rules in files: they change, have one jail after another, and stay held."""

from jaildaemon.core import breaker
from jaildaemon.core.journal import OpenRun, Record
from tests.core.past import replayed
from tests.core.test_history import BOOT, RULE, of

FILE_RULE: Record = {**RULE, "rule": "bell", "source": "/etc/jaildaemon.toml"}
FILE_BOOT: Record = {**BOOT, "boot": "one"}


def of_bell(kind: str, s: float = 2.0, **values: object) -> Record:
    return {**of(kind, s, **values), "rule": "bell"}


def test_a_rule_in_a_file_is_known_by_its_source() -> None:
    history = replayed([FILE_BOOT, RULE, FILE_RULE])
    assert {name: known.lasting for name, known in history.rules.items()} == {
        "t1": False,
        "bell": True,
    }


def test_its_next_jail_is_only_another_identity() -> None:
    history = replayed(
        [FILE_BOOT, FILE_RULE, of_bell("trigger"), of_bell("jail", identity={"x": 1})]
    )
    known = history.rules["bell"]
    assert (known.record["identity"], known.record["command"]) == ({"x": 1}, "true")
    assert (known.triggers, list(known.runs)) == (1, ["r1"])
    assert replayed([FILE_BOOT, of_bell("jail", identity={})]).rules == {}


def test_a_new_shape_of_a_rule_that_is_there_goes_on() -> None:
    before = [
        FILE_BOOT,
        FILE_RULE,
        of_bell("trigger"),
        of_bell("start"),
        of_bell("hold", reason="x"),
    ]
    shape = {**FILE_RULE, "command": "false", "policy": {"limit": "1/1m"}}
    known = replayed([*before, shape]).rules["bell"]
    assert known.record["command"] == "false"
    assert (known.held, known.triggers, list(known.times)) == ("x", 1, [2.0])
    assert known.runs == {"r1": OpenRun("r1", 1002.0, 2.0, started=True)}


def test_the_one_shot_is_spent_until_the_next_jail_and_in_a_new_journal() -> None:
    shot = {**FILE_RULE, "policy": {"respawn": "no", "limit": "2/1m"}}
    history = replayed([FILE_BOOT, shot, of_bell("trigger"), of_bell("start"), of_bell("end")])
    assert history.rules["bell"].spent
    assert replayed(history.snapshot()).rules["bell"].spent
    history.read(of_bell("jail", identity={"pid": 2}))
    assert not history.rules["bell"].spent
    assert not replayed([FILE_BOOT, FILE_RULE, of_bell("trigger")]).rules["bell"].spent


def test_after_a_reboot_only_rules_in_files_are_there_without_their_jail_and_runs() -> None:
    held = of_bell("hold", reason="a loop?")
    other: Record = {**FILE_BOOT, "boot": "two"}
    history = replayed([FILE_BOOT, RULE, of("hold"), FILE_RULE, of_bell("trigger"), held, other])
    assert list(history.rules) == ["bell"]
    known = history.rules["bell"]
    assert (known.held, known.runs, known.record["identity"]) == ("a loop?", {}, {})
    again = replayed(history.snapshot()).rules["bell"]
    assert (again.held, again.lasting) == ("a loop?", True)
    released = replayed([FILE_BOOT, FILE_RULE, held, of_bell("release"), other])
    assert released.rules["bell"].held is None


def test_a_rule_that_was_removed_while_held_is_not_there_after_a_reboot() -> None:
    records = [FILE_BOOT, FILE_RULE, of_bell("trigger"), of_bell("hold"), of_bell("unrule")]
    assert replayed(records).rules["bell"].gone
    assert replayed([*records, {**FILE_BOOT, "boot": "two"}]).rules == {}


def test_a_release_lets_the_breaker_count_anew() -> None:
    key = breaker.key("BELL", "true")
    stop: Record = {"kind": "break", "t": 1.0, "s": 1.0, "rule": key, "began": 1.0}
    before = [FILE_BOOT, stop, FILE_RULE, of_bell("hold", reason="a loop?")]
    assert replayed(before).breaks == {key: [1.0]}
    assert replayed([*before, of_bell("release")]).breaks == {}
