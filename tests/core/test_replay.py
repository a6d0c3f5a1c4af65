# SPDX-License-Identifier: BSD-2-Clause
"""Whatever happened, and at whatever byte the journal ends: what is read from it is so."""

from hypothesis import given, settings
from hypothesis import strategies as st

from jaildaemon.core.journal import BadRecord, History, Record, decode, encode
from tests.core.past import OPS, VALUES, past_of, replayed, said

MANY = settings(max_examples=300)


@MANY
@given(ops=OPS)
def test_a_history_says_what_happened(ops: list[tuple[str, int]]) -> None:
    past = past_of(ops)
    assert said(replayed(past.records)) == past.says()


@MANY
@given(ops=OPS, more=OPS)
def test_a_new_journal_says_the_same_and_goes_on_the_same(
    ops: list[tuple[str, int]], more: list[tuple[str, int]]
) -> None:
    past = past_of(ops)
    before = len(past.records)
    whole = replayed(past.records)
    lines = encode(whole.snapshot()).splitlines()
    assert len(lines) == 1 + len(whole.rules)
    anew = replayed([decode(line) for line in lines])
    assert said(anew) == said(whole)
    assert {n: k.record for n, k in anew.rules.items()} == {
        n: k.record for n, k in whole.rules.items()
    }
    assert anew.snapshot() == whole.snapshot()
    for op, which in more:
        past.do(op, which)
    for record in past.records[before:]:
        whole.read(dict(record))
        anew.read(dict(record))
    assert said(anew) == said(whole) == past.says()


@MANY
@given(ops=OPS, data=st.data())
def test_at_whatever_byte_the_journal_ends_no_started_run_can_be_started(
    ops: list[tuple[str, int]], data: st.DataObject
) -> None:
    whole = encode(past_of(ops).records)
    cut = whole[: data.draw(st.integers(0, len(whole)), label="bytes")]
    history, begun, written = History(), set(), []
    for line in cut.splitlines():
        try:
            record = decode(line)
        except BadRecord:
            assert not cut.endswith(b"\n"), "a whole line was taken for a torn one"
            continue
        history.read(record)
        written.append(record)
        if record["kind"] == "start":
            begun.add(record["run"])
    for known in history.rules.values():
        for run in known.runs.values():
            assert run.started == (run.run in begun)
    # What was read says the same in a new journal, and there too nothing can be started twice.
    assert said(replayed(history.snapshot())) == said(history)
    for n in range(len(history.snapshot())):
        for known in replayed(history.snapshot()[:n]).rules.values():
            assert all(run.started == (run.run in begun) for run in known.runs.values())


ODD = st.fixed_dictionaries(
    {"kind": st.sampled_from("boot rule unrule hold release trigger start pid end break".split())},
    optional={
        "rule": st.sampled_from(["t1", "t2", "", 5, None]),
        "run": st.sampled_from(["r1", "r2", "", 5, None]),
        "boot": st.sampled_from(["one", "two", 5, None]),
        **dict.fromkeys(["t", "s", "pid", "began", "last_id", "reason"], VALUES),
        "policy": VALUES | st.fixed_dictionaries({"limit": st.sampled_from(["2/1m", "x", 5])}),
        "breaks": VALUES | st.dictionaries(st.text(), VALUES),
        "state": VALUES
        | st.fixed_dictionaries(
            {},
            optional={
                **dict.fromkeys(
                    "times last_end last_trigger triggers refused held gone runs".split(), VALUES
                ),
                "runs": st.lists(
                    VALUES
                    | st.fixed_dictionaries(
                        {"run": st.sampled_from(["r1", "", 5])},
                        optional=dict.fromkeys(["t", "s", "started", "pid"], VALUES),
                    )
                ),
            },
        ),
    },
)


@given(records=st.lists(ODD, max_size=8))
def test_nothing_that_is_json_stops_a_start(records: list[Record]) -> None:
    history = replayed([{"kind": "boot", "boot": "one"}])
    for record in records:
        before = said(history)
        try:
            history.read(decode(encode([record])))
        except BadRecord:
            assert said(history) == before
    lines = encode(history.snapshot()).splitlines()
    assert said(replayed([decode(line) for line in lines])) == said(history)
