# SPDX-License-Identifier: BSD-2-Clause
"""Numbers of any size, of a journal, a file or a client: each later layer holds them, or none."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jaildaemon.core import ranges, wire
from jaildaemon.core.config import parse, policy_of
from jaildaemon.core.entries import Entries, stamp
from jaildaemon.core.fleet import Fleet
from jaildaemon.core.journal import BadRecord, History, Record, decode, encode
from jaildaemon.core.limits import MAX_SECONDS, Limit
from jaildaemon.core.rules import MAX_CONCURRENCY, Policy, Rule, make_policy
from jaildaemon.core.text import MAX_ID
from jaildaemon.errors import Refused

WALL, STEADY = (0, ranges.MAX_WALL), (-ranges.MAX_STEADY, ranges.MAX_STEADY)
INT, COUNTED = (0, ranges.MAX_INT), (0, ranges.MAX_COUNTED)
ENDS = {
    "t": WALL,
    "s": STEADY,
    "began": WALL,
    "last_id": (0, ranges.MAX_LAST_ID),
    "pid": (1, ranges.MAX_INT),
    "exit_status": INT,
    "signal": INT,
    "duration_seconds": (0, ranges.MAX_STEADY),
    'breaks":{"key': WALL,
    'identity":{"pid': COUNTED,
    'state":{"times': STEADY,
    'state":{"last_end': STEADY,
    'state":{"last_trigger': WALL,
    'state":{"triggers': COUNTED,
    'state":{"refused': COUNTED,
    'state":{"runs":[{"t': WALL,
    'state":{"runs":[{"s': STEADY,
    'state":{"runs":[{"pid': (1, ranges.MAX_INT),
}
"""Each number of a record, as its line begins it, and its lowest and highest."""
LISTS = ("breaks", "times")
KINDS = ("boot", "break", "rule", "trigger", "start", "pid", "end", "hold", "output", "died")
NOW_STEADY = 1000.0
RULE: Record = {
    "kind": "rule",
    "rule": "t1",
    "jail": "web",
    "command": "true",
    "policy": {"limit": "2/1m"},
}


def record_line(kind: str, name: str, number: str) -> bytes:
    """Return a record's line with one number as it is written there."""
    value = f"[{number}]" if any(word in name for word in LISTS) else number
    run = ',"run":"r2"' if "runs" in name else ""
    close = "}" * name.count("{")
    close = close.replace("}", "}]", 1) if "[" in name else close
    said = f'"kind":"{kind}","rule":"t1","jail":"web","run":"r1","boot":"b"'
    return f'{{{said},"{name}":{value}{run}{close}}}'.encode()


def is_record(line: bytes) -> bool:
    """Say whether the line is a record; it must be JSON in any case."""
    json.loads(line)
    try:
        decode(line)
    except BadRecord:
        return False
    return True


@pytest.mark.parametrize("name", ENDS)
def test_a_number_of_the_journal_is_held_up_to_its_ends_and_not_beyond(name: str) -> None:
    lowest, highest = ENDS[name]
    for number in (lowest, highest):
        assert is_record(record_line("rule", name, str(number)))
    for number in (lowest - 1, highest + 1, 10**400):
        assert not is_record(record_line("rule", name, str(number)))
    for text in ("1e999", "-1e999", "1e300"):
        assert not is_record(record_line("rule", name, text))


EVERY_END = [end + more for pair in ENDS.values() for end in pair for more in (-1, 0, 1)]
NUMBERS = st.one_of(
    st.sampled_from(EVERY_END).map(str),
    st.sampled_from(["1e999", "-1e999", "1e17", "1e300", "-0.0", "9e8", "5e-324", "9" * 401]),
    st.integers().map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
)
"""As JSON has them: no float holds some of these."""
LINES = st.builds(record_line, st.sampled_from(KINDS), st.sampled_from(list(ENDS)), NUMBERS)


@example(lines=[record_line("trigger", "t", "0"), record_line("pid", "t", "0")])
@given(lines=st.lists(LINES, max_size=6))
def test_whatever_numbers_a_journal_has_a_daemon_takes_it_up(lines: list[bytes]) -> None:
    history, entries = History(), Entries()
    history.read(RULE)
    for line in lines:
        try:
            record = decode(line)
        except BadRecord:
            history.skip()
            continue
        history.read(record)
        json.dumps(entries.read(record), allow_nan=False)
    for known in history.rules.values():
        known.no_later(NOW_STEADY)
        member = Fleet("life").restore(
            Rule("t1", "web", None, "true", Policy(limit=Limit(1, MAX_SECONDS))),
            "jail",
            times=known.times,
            last_end=known.last_end,
        )
        assert 0 <= member.window.wait(NOW_STEADY) <= MAX_SECONDS
        stamp(known.last_trigger)
        for run in known.runs.values():
            stamp(run.t)
            assert run.pid is None or 0 < run.pid <= ranges.MAX_INT
    assert 0 <= history.last_id <= ranges.MAX_LAST_ID
    for record in history.snapshot():
        assert decode(encode([record])) == json.loads(encode([record]))


@pytest.mark.parametrize(("name", "kind"), [("triggers", "trigger"), ("refused", "refused")])
def test_a_count_at_its_end_stays_there_and_costs_no_rule_its_record(name: str, kind: str) -> None:
    history = History()
    history.read({**RULE, "state": {name: ranges.MAX_COUNTED}})
    history.read({"kind": kind, "rule": "t1", "run": "r1", "t": 5, "s": 1})
    (_, rule) = [{}, *history.snapshot()]
    assert decode(encode([rule])) == json.loads(encode([rule]))


def test_a_line_that_is_no_record_may_have_been_the_start_of_what_was_to_start() -> None:
    history = History()
    trigger = {"kind": "trigger", "rule": "t1", "t": 5, "s": 1}
    for record in (RULE, {**trigger, "run": "r1"}, {**trigger, "run": "r2"}):
        history.read(record)
    history.read({"kind": "end", "rule": "t1", "run": "r2"})
    history.skip()
    history.read({**trigger, "run": "r3"})
    runs = history.rules["t1"].runs
    assert {run.run: run.started for run in runs.values()} == {"r1": True, "r3": False}


def test_a_run_of_a_new_journal_may_have_been_started_by_a_line_that_is_no_record() -> None:
    history = History()
    runs = [{"run": "r1", "t": 5, "s": 1, "started": False}]
    history.read({**RULE, "state": {"runs": runs}})
    history.skip()
    assert history.rules["t1"].runs["r1"].started


def test_what_lies_ahead_of_the_clock_that_never_steps_is_of_now() -> None:
    history = History()
    state = {"times": [500, 2000], "last_end": 2000}
    history.read({**RULE, "state": state})
    known = history.rules["t1"]
    known.no_later(NOW_STEADY)
    assert (list(known.times), known.last_end) == ([500, NOW_STEADY], NOW_STEADY)


@pytest.mark.parametrize("run", ["a/b", "../x", "a\0b", "x" * 201])
def test_a_run_that_no_file_can_be_called_by_is_none(run: str) -> None:
    for values in ({"run": run}, {"state": {"runs": [{"run": run}]}}):
        with pytest.raises(BadRecord, match="run is not the id of a run"):
            decode(json.dumps({"kind": "rule", **values}).encode())


def test_when_no_id_is_left_nothing_is_attached() -> None:
    fleet = Fleet("life")
    fleet.last_id = ranges.MAX_LAST_ID - 1
    assert fleet.add("1", "jail", "A", "true", Policy()).rule.id == f"t{ranges.MAX_LAST_ID}"
    with pytest.raises(Refused, match="was the last id"):
        fleet.add("1", "jail", "B", "true", Policy())


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 1025])
def test_a_rule_or_a_jail_is_called_what_a_command_can_be_told(name: str) -> None:
    for rule, jail in ((name, "web"), ("t1", name)):
        with pytest.raises(Refused):
            Rule(rule, jail, None, "true", Policy())


@given(number=st.integers() | st.integers(1, 70_000).map(lambda bits: 2**bits))
def test_a_whole_number_of_any_length_is_taken_or_refused(number: int) -> None:
    for field, highest in (("uid", MAX_ID), ("gid", MAX_ID), ("concurrency", MAX_CONCURRENCY)):
        lowest = 1 if field == "concurrency" else 0
        if lowest <= number <= highest:
            assert getattr(make_policy(**{field: number}), field) == number  # type: ignore[arg-type]
            continue
        with pytest.raises(Refused) as caught:
            make_policy(**{field: number})  # type: ignore[arg-type]
        assert len(str(caught.value)) < 200


def test_numbers_of_any_base_and_length_in_a_file_are_told() -> None:
    fields = parse(f"uid = 0x{'f' * 20_000}\nconcurrency = 0b{'1' * 9}".encode())
    _, problems = policy_of(fields)
    assert [name for name, _ in problems] == ["uid", "concurrency"]
    assert "of 80000 bits is not a number from 0 to 4294967294" in problems[0][1]
    with pytest.raises(ValueError, match="has a number of too many digits"):
        parse(b"uid = " + b"9" * 5000)


def test_a_byte_order_mark_is_named() -> None:
    with pytest.raises(ValueError, match="begins with a byte order mark"):
        parse(b'\xef\xbb\xbf[[rule]]\njail = "web"')


@given(number=NUMBERS)
def test_a_number_of_a_client_is_taken_and_given_back_or_ends_its_connection(number: str) -> None:
    try:
        message = wire.decode(f'{{"parameters":{{"last":{number}}}}}'.encode())
    except wire.ProtocolError:
        assert "e" in number
    else:
        assert wire.decode(wire.encode(message)[:-1]) == message
