# SPDX-License-Identifier: BSD-2-Clause
"""The journal: every kind of record, torn and foreign ones, and what a history says."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaildaemon.core.journal import (
    MAX_POLICIES,
    REPLAY_SECONDS,
    BadRecord,
    History,
    OpenRun,
    Record,
    decode,
    encode,
    may_replay,
)
from jaildaemon.core.limits import MAX_COUNT
from tests.core.past import VALUES, replayed, said

RULE: Record = {
    "kind": "rule",
    "t": 5.0,
    "s": 1.0,
    "rule": "t1",
    "jail": "web",
    "identity": {"pid": 4711, "start": 17},
    "title": "BELL",
    "command": "true",
    "policy": {"limit": "2/1m"},
}
BOOT: Record = {"kind": "boot", "t": 4.0, "s": 0.5, "boot": "one"}


def of(kind: str, s: float = 2.0, **values: object) -> Record:
    """Return a record about t1, and its run r1."""
    return {"kind": kind, "t": 1000.0 + s, "s": s, "rule": "t1", "run": "r1", **values}


TRIGGER, START = of("trigger"), of("start")


# --- lines ----------------------------------------------------------------------------------

EVERY_KIND = [
    BOOT,
    {**BOOT, "last_id": 3, "breaks": {"a\0true": [1.5]}},
    {"kind": "break", "t": 1.0, "s": 1.0, "rule": "a\0true", "began": 1.5},
    RULE,
    of("unrule", reason="detached"),
    of("hold", reason="asked for"),
    of("release"),
    TRIGGER,
    START,
    of("pid", pid=4711),
    of("end", exit_status=0, duration_seconds=0.25),
    of("end", signal=15),
    of("refused", reason="the jail has ended"),
    of("expired", reason="it waited longer than 600 s"),
    of("interrupted", reason="the host has rebooted"),
    of("output", output_tail="bytes of\0a \u2028 command\udcff\n"),
]


@pytest.mark.parametrize("record", EVERY_KIND, ids=lambda record: str(record["kind"]))
def test_a_record_of_every_kind_is_one_line_and_comes_back(record: Record) -> None:
    line = encode([record])
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert line.isascii()
    assert decode(line) == decode(line.rstrip(b"\n")) == record


def test_several_records_are_for_one_write() -> None:
    lines = encode([TRIGGER, START]).splitlines()
    assert [decode(line) for line in lines] == [TRIGGER, START]
    assert encode([]) == b""


RECORDS = st.builds(
    lambda kind, rest: {**rest, "kind": kind},
    st.text(),
    st.dictionaries(st.text().map(lambda name: f"x{name}"), VALUES),
)
"""None of their numbers is one that tests/core/test_ranges.py looks at."""


@given(record=RECORDS)
def test_any_record_comes_back_whatever_its_text(record: Record) -> None:
    assert decode(encode([record])) == record


@given(record=RECORDS, data=st.data())
def test_no_torn_line_is_a_record(record: Record, data: st.DataObject) -> None:
    line = encode([record]).rstrip(b"\n")
    with pytest.raises(BadRecord):
        decode(line[: data.draw(st.integers(0, len(line) - 1))])


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"null",
        b"7",
        b'"kind"',
        b"[]",
        b'[{"kind":"boot"}]',
        b"{}",
        b'{"kind":null}',
        b'{"kind":7}',
        b'{"kind":["boot"]}',
        b'{"kind":"boot"}}',
        b'{"kind":"boot"}{"kind":"boot"}',
        b"{'kind':'boot'}",
        b'{"kind":"boot","t":NaN}',
        b'{"kind":"boot","t":-Infinity}',
        b'{"kind":"boot","t":' + b"9" * 5000 + b"}",
        b"\xff\xfe\x00",
        b"\0" * 512,
        b"[" * 100_000,
    ],
    ids=lambda line: repr(line[:30]),
)
def test_a_foreign_line_is_no_record(line: bytes) -> None:
    with pytest.raises(BadRecord):
        decode(line)


# --- what each kind says -----------------------------------------------------------------


def test_a_rule_is_known_by_all_that_its_record_says() -> None:
    known = replayed([BOOT, RULE]).rules["t1"]
    assert known.record == RULE
    assert (list(known.times), known.runs, known.triggers, known.refused) == ([], {}, 0, 0)
    assert (known.held, known.gone, known.last_end, known.last_trigger) == (None, False, None, None)


def test_reading_changes_no_record() -> None:
    records = [BOOT, RULE, TRIGGER, START, of("pid", pid=7), of("end", 3.0)]
    before = json.dumps(records)
    history = History()
    for record in records:
        history.read(record)
    for record in history.snapshot():
        history.read(record)
    assert json.dumps(records) == before


def test_a_trigger_is_open_until_its_end_and_started_from_its_start_on() -> None:
    history = replayed([BOOT, RULE, TRIGGER])
    known = history.rules["t1"]
    assert known.runs == {"r1": OpenRun("r1", 1002.0, 2.0)}
    assert (list(known.times), known.triggers, known.last_trigger) == ([2.0], 1, 1002.0)
    history.read(START)
    assert known.runs == {"r1": OpenRun("r1", 1002.0, 2.0, started=True)}
    history.read(of("pid", pid=4711))
    assert known.runs == {"r1": OpenRun("r1", 1002.0, 2.0, started=True, pid=4711)}
    history.read(of("end", 9.0))
    assert (known.runs, known.last_end, known.triggers) == ({}, 9.0, 1)


@pytest.mark.parametrize(("kind", "refused"), [("refused", 1), ("expired", 0), ("interrupted", 0)])
def test_what_ends_without_having_run_has_no_cooldown(kind: str, refused: int) -> None:
    known = replayed([BOOT, RULE, TRIGGER, of(kind, reason="why")]).rules["t1"]
    assert (known.runs, known.last_end, known.refused) == ({}, None, refused)


def test_a_trigger_that_came_too_late_is_refused_without_a_run() -> None:
    late = {name: value for name, value in of("refused").items() if name != "run"}
    known = replayed([BOOT, RULE, TRIGGER, late]).rules["t1"]
    assert (list(known.runs), known.refused) == (["r1"], 1)


def test_only_as_many_times_are_kept_as_the_limit_counts() -> None:
    rings = [of("trigger", float(n), run=f"r{n}") for n in range(10)]
    for limit, count in (("none", 0), ("1/1m", 1), ("3/1m", 3), ("1000/1d", 10)):
        known = replayed([BOOT, {**RULE, "policy": {"limit": limit}}, *rings]).rules["t1"]
        assert list(known.times) == [float(n) for n in range(10)][10 - count :]
        assert known.triggers == 10


def test_a_held_rule_is_held_until_its_release() -> None:
    history = replayed([BOOT, RULE, of("hold", reason="asked for")])
    assert history.rules["t1"].held == "asked for"
    history.read(of("hold"))
    assert history.rules["t1"].held == ""  # without a word, and held all the same
    history.read(of("release"))
    assert history.rules["t1"].held is None


def test_a_withdrawn_rule_is_forgotten_with_its_last_run() -> None:
    assert replayed([BOOT, RULE, of("unrule")]).rules == {}
    history = replayed([BOOT, RULE, TRIGGER, START, of("trigger", run="r2"), of("unrule")])
    assert history.rules["t1"].gone
    history.read(of("refused", run="r2"))
    assert list(history.rules["t1"].runs) == ["r1"]
    history.read(of("end"))
    assert history.rules == {}


def test_what_is_of_an_unknown_rule_or_run_or_kind_says_nothing() -> None:
    before = said(replayed([BOOT, RULE]))
    odd = [of(kind, rule="t9") for kind in ("trigger", "start", "pid", "end", "unrule", "hold")]
    odd += [of(kind) for kind in ("start", "pid", "end", "expired", "interrupted", "output")]
    odd += [of("trigger", run=""), of("colour"), {"kind": ""}, {"kind": "trigger"}]
    assert said(replayed([BOOT, RULE, *odd])) == before


def test_a_trigger_that_is_told_twice_is_not_startable_again() -> None:
    known = replayed([BOOT, RULE, TRIGGER, START, TRIGGER]).rules["t1"]
    assert (known.runs["r1"].started, known.triggers) == (True, 1)


@pytest.mark.parametrize(
    ("ids", "last"),
    [
        ([], 0),
        (["t1"], 1),
        (["t7", "t3"], 7),
        (["web/BELL", "t", "tx", "t-5", "x9"], 0),
        (["t" + "9" * 5000], 0),
    ],
)
def test_the_number_of_the_latest_transient_rule_is_known_though_it_is_gone(
    ids: list[str], last: int
) -> None:
    gone: list[Record] = [{"kind": "unrule", "rule": rule} for rule in ids]
    history = replayed([BOOT, *({**RULE, "rule": rule} for rule in ids), *gone])
    assert (history.last_id, history.rules) == (last, {})
    assert replayed(history.snapshot()).last_id == last


@pytest.mark.parametrize(
    "record",
    [{"kind": "boot"}, {"kind": "boot", "boot": 7}, {"kind": "rule"}, {"kind": "rule", "rule": ""}],
)
def test_a_record_of_the_wrong_shape_is_bad_and_changes_nothing(record: Record) -> None:
    history = replayed([BOOT, RULE, TRIGGER])
    before = said(history)
    with pytest.raises(BadRecord):
        history.read(record)
    assert said(history) == before


@pytest.mark.parametrize("number", ['"5"', "null", "[5]"])
def test_a_number_of_another_type_is_none(number: str) -> None:
    trigger = f'{{"kind":"trigger","rule":"t1","run":"r1","t":{number},"s":{number}}}'
    pid = f'{{"kind":"pid","rule":"t1","run":"r1","pid":{number}}}'
    history = replayed([BOOT, RULE, decode(trigger.encode()), decode(pid.encode())])
    assert history.rules["t1"].runs == {"r1": OpenRun("r1", 0.0, 0.0)}
    # So old that it is not run.
    assert may_replay(history.rules["t1"].runs["r1"], 2_000_000_000.0, 700.0)


# --- across boots ---------------------------------------------------------------------------


def test_another_boot_drops_everything_but_the_ids_and_the_breaks() -> None:
    broke = {"kind": "break", "rule": "key", "began": 5.0}
    held = of("hold", reason="x")
    records = [BOOT, {**RULE, "rule": "t4"}, RULE, TRIGGER, START, held, broke]
    history = replayed([*records, {**BOOT, "boot": "two"}])
    assert said(history) == ("two", 4, {"key": [5.0]}, {})
    # And what still comes of that time says nothing any more.
    history.read(of("end"))
    assert said(history) == ("two", 4, {"key": [5.0]}, {})


def test_the_same_boot_keeps_everything() -> None:
    records = [BOOT, RULE, TRIGGER, START]
    assert said(replayed([*records, BOOT])) == said(replayed(records))


@pytest.mark.parametrize("runs", [None, {}, "r1", [7, None, "r1", [], {}, {"run": ""}]])
def test_what_is_no_run_is_none(runs: object) -> None:
    state = {"runs": runs, "times": runs, "triggers": 3}
    known = replayed([BOOT, {**RULE, "state": state}]).rules["t1"]
    assert (known.runs, known.triggers) == ({}, 3)


@pytest.mark.parametrize("started", [None, 0, "", "no", [], True, 1])
def test_only_a_plain_no_makes_a_run_startable(started: object) -> None:
    run: dict[str, Any] = {"run": "r1", "t": 1.0, "s": 1.0}
    for says in ({**run, "started": started}, run):
        known = replayed([BOOT, {**RULE, "state": {"runs": [says]}}]).rules["t1"]
        assert known.runs["r1"].started
    says = {**run, "started": False}
    known = replayed([BOOT, {**RULE, "state": {"runs": [says]}}]).rules["t1"]
    assert not known.runs["r1"].started


# --- what may still be run ----------------------------------------------------------------------

OLD = "it waited longer than 600 s"


@pytest.mark.parametrize(
    ("wall", "steady", "why"),
    [
        (0.0, 0.0, None),
        (REPLAY_SECONDS, REPLAY_SECONDS, None),
        (REPLAY_SECONDS + 0.5, REPLAY_SECONDS + 0.5, OLD),
        # The clock was set back: a trigger grows no younger by that.
        (-86400.0, 1.0, None),
        (-86400.0, REPLAY_SECONDS, None),
        (-86400.0, REPLAY_SECONDS + 0.5, OLD),
        # It was set forward, or the machine slept: who knows, so rather not.
        (REPLAY_SECONDS + 0.5, 1.0, OLD),
        (REPLAY_SECONDS, 1.0, None),
        # A steady clock that went back is none: what is left is the wall's word.
        (5.0, -50.0, None),
        (REPLAY_SECONDS + 0.5, -50.0, OLD),
    ],
)
def test_a_trigger_that_waited_too_long_is_not_run(
    wall: float, steady: float, why: str | None
) -> None:
    assert may_replay(OpenRun("r1", 10_000.0, 500.0), 10_000.0 + wall, 500.0 + steady) == why


@pytest.mark.parametrize("number", [10**400, -(10**400), float("inf"), "7", None, [1]])
def test_a_number_that_no_float_can_hold_counts_as_none(number: Any) -> None:
    history = replayed([{**BOOT, "last_id": number}, RULE, of("pid", pid=number)])
    assert history.last_id == 1
    stop: Record = {"kind": "break", "t": 1.0, "s": 1.0, "rule": "key", "began": number}
    assert replayed([BOOT, stop]).breaks == {"key": [0.0]}


@pytest.mark.parametrize("policy", [{}, {"limit": "often"}, {"limit": 7}])
def test_of_a_rule_whose_limit_cannot_be_read_every_trigger_counts(policy: Record) -> None:
    history = replayed([BOOT, {**RULE, "policy": policy}])
    assert history.rules["t1"].times.count == MAX_COUNT


def test_an_equal_policy_is_kept_once_and_no_more_of_them_than_matter() -> None:
    records = [
        {**RULE, "rule": f"t{number}", "policy": {"limit": f"{number // 2}/1m"}}
        for number in range(2, 3 * MAX_POLICIES)
    ]
    history = replayed([BOOT, *records])
    policies = [known.record["policy"] for known in history.rules.values()]
    assert policies == [record["policy"] for record in records]
    assert all(one is other for one, other in zip(policies[::2], policies[1::2], strict=True))
    assert len(history._policies) <= MAX_POLICIES
