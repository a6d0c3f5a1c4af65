# SPDX-License-Identifier: BSD-2-Clause
"""What the journal's records become in the log."""

import pytest

from jaildaemon.core import entries
from jaildaemon.core.entries import Entries, stamp
from jaildaemon.core.journal import Record

RULE: Record = {"kind": "rule", "t": 1.5, "rule": "t1", "jail": "web", "title": "A"}
TIME = "1970-01-01T00:00:01.500Z"


def test_a_time_is_rfc_3339_in_utc_with_milliseconds() -> None:
    assert stamp(0.0) == "1970-01-01T00:00:00.000Z"
    assert stamp(1795640599.0674) == "2026-11-25T21:03:19.067Z"
    assert stamp(None) is None


def test_an_entry_names_the_jail_and_the_title_that_an_earlier_record_said() -> None:
    read = Entries().read
    said = {"rule": "t1", "jail": "web", "title": "A"}
    assert read({**RULE, "reason": "asked for"}) == {
        "time": TIME,
        "kind": "rule",
        **said,
        "reason": "asked for",
    }
    end = {"kind": "end", "t": 1.5, "rule": "t1", "run": "x.1", "duration_seconds": 2}
    assert read({**end, "exit_status": 3}) == {
        "time": TIME,
        "kind": "end",
        **said,
        "run": "x.1",
        "exit_status": 3,
        "duration_seconds": 2.0,
    }
    assert read({**end, "signal": 15})["signal"] == 15  # type: ignore[index]
    output = {"kind": "output", "t": 1.5, "rule": "t1", "run": "x.1", "output_tail": "hello"}
    assert read(output)["output_tail"] == "hello"  # type: ignore[index]


def test_without_a_title_there_is_none_and_of_an_unknown_rule_only_the_id() -> None:
    read = Entries().read
    assert "title" not in (read({"kind": "rule", "t": 0, "rule": "t1", "jail": "web"}) or {})
    assert read({"kind": "armed", "t": 1.5, "rule": "t9"}) == {
        "time": TIME,
        "kind": "armed",
        "rule": "t9",
    }


def test_what_is_for_the_daemon_alone_is_not_shown() -> None:
    read = Entries().read
    assert read({"kind": "pid", "t": 0, "rule": "t1", "run": "x.1", "pid": 7}) is None
    assert read({"kind": "break", "t": 0, "rule": "key"}) is None
    assert read({"kind": "boot", "t": 1.5, "boot": "b"}) == {"time": TIME, "kind": "boot"}


def test_what_a_new_journal_begins_with_was_told_before_and_still_names_its_rules() -> None:
    read = Entries().read
    assert read({"kind": "boot", "t": 0, "boot": "b", "last_id": 7, "breaks": {}}) is None
    assert read({**RULE, "state": {}}) is None
    assert read({"kind": "armed", "t": 1.5, "rule": "t1"}) == {
        "time": TIME,
        "kind": "armed",
        "rule": "t1",
        "jail": "web",
        "title": "A",
    }


@pytest.mark.parametrize(
    ("name", "shown"),
    [("t1", True), ("A", True), ("web/A", True), ("t2", False), ("B", False), ("web", False)],
)
def test_the_entries_of_one_rule_are_found_by_each_of_its_names(name: str, shown: bool) -> None:
    read = Entries(name).read
    found = [read(RULE), read({"kind": "armed", "t": 0, "rule": "t1"})]
    assert [entry is not None for entry in found] == [shown, shown]
    assert read({"kind": "boot", "t": 0, "boot": "b"}) is None


def test_what_has_a_wrong_type_is_left_out() -> None:
    read = Entries().read
    odd = {"kind": "end", "t": "x", "rule": "t1", "run": 7, "exit_status": True, "signal": "9"}
    assert read(odd) == {"time": "1970-01-01T00:00:00.000Z", "kind": "end", "rule": "t1"}


def test_of_so_many_rules_the_oldest_names_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "MAX_NAMES", 2)
    read = Entries().read
    for rule in ("t1", "t2", "t1", "t3"):
        read({**RULE, "rule": rule})
    known = ["jail" in (read({"kind": "armed", "t": 0, "rule": f"t{n}"}) or {}) for n in (1, 2, 3)]
    assert known == [True, False, True]
