# SPDX-License-Identifier: BSD-2-Clause
"""Journals that a daemon could have written, and what they must say."""

import json
from dataclasses import dataclass, field

from hypothesis import strategies as st

from jaildaemon.core.journal import History, Record

LIMITS = {"none": 0, "1/1m": 1, "2/1m": 2, "30/1m": 30}
KINDS = (
    "rule ring ring-start ring-start start start pid end end refused expired interrupted "
    "hold release unrule output boot reboot break"
).split()
OPS = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 7)), max_size=60)
"""Each does the nearest thing that is possible, or nothing."""

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
).filter(lambda value: "Infinity" not in json.dumps(value))
"""Anything that JSON can say."""


@dataclass
class PastRun:
    """A run, by what its records say."""

    rule: str
    t: float
    s: float
    started: bool = False
    pid: int | None = None


@dataclass
class PastRule:
    """A rule, by what its records say."""

    count: int
    times: list[float] = field(default_factory=list)
    last_end: float | None = None
    last_trigger: float | None = None
    triggers: int = 0
    refused: int = 0
    held: str | None = None
    gone: bool = False


class Past:
    """What happened, kept as simply as it can be, and the records of it."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.rules: dict[str, PastRule] = {}
        self.runs: dict[str, PastRun] = {}
        self.started: set[str] = set()
        self.last_id = self.last_run = 0
        self.boot = 1
        self.breaks: list[float] = []
        self.s = 100.0
        self.write(self.record("boot", boot="boot1"))
        self.do("rule", 2)

    def record(self, kind: str, **values: object) -> Record:
        # The clock on the wall is set back now and then: nobody may count on it.
        return {"kind": kind, "t": 5000.0 - self.s, "s": self.s, **values}

    def write(self, *records: Record) -> None:
        self.records += records

    def do(self, op: str, which: int) -> None:
        """Let one thing happen, a second later."""
        self.s += 1.0
        match op:
            case "rule":
                self.last_id += 1
                text, count = list(LIMITS.items())[which % len(LIMITS)]
                self.rules[f"t{self.last_id}"] = PastRule(count)
                policy = {"limit": text}
                self.write(self.record("rule", rule=f"t{self.last_id}", jail="x", policy=policy))
            case "boot":
                self.write(self.record("boot", boot=f"boot{self.boot}"))
            case "reboot":
                self.boot += 1
                self.rules, self.runs = {}, {}
                self.write(self.record("boot", boot=f"boot{self.boot}"))
            case "break":
                self.breaks = [*self.breaks, self.s][-10:]
                self.write(self.record("break", rule="key", began=self.s))
            case "start" | "pid" | "end" | "refused" | "expired" | "interrupted":
                self.of_run(op, which)
            case _:
                names = list(self.rules)
                if names:
                    self.of_rule(op, names[which % len(names)])

    def of_rule(self, op: str, name: str) -> None:
        rule = self.rules[name]
        match op:
            case "ring" | "ring-start" if not rule.gone and rule.held is None:
                self.last_run += 1
                run = f"life.{self.last_run}"
                trigger = self.record("trigger", rule=name, run=run)
                self.runs[run] = PastRun(name, 5000.0 - self.s, self.s)
                rule.times = [*rule.times, self.s][len(rule.times) + 1 - rule.count :]
                rule.last_trigger = 5000.0 - self.s
                rule.triggers += 1
                if op == "ring":
                    self.write(trigger)
                    return
                self.runs[run].started = True
                self.started.add(run)
                self.write(trigger, self.record("start", rule=name, run=run))
            case "hold" if not rule.gone:
                rule.held = "why"
                self.write(self.record("hold", rule=name, reason="why"))
            case "release":
                rule.held = None
                self.write(self.record("release", rule=name))
            case "unrule" if not rule.gone:
                rule.gone = True
                self.write(self.record("unrule", rule=name, reason="detached"))
                self.forget(name)
            case "output":
                self.write(self.record("output", rule=name, run="life.1", output_tail="x\n"))

    def of_run(self, op: str, which: int) -> None:
        started = op in ("pid", "end", "interrupted")
        those = [name for name, run in self.runs.items() if run.started == started]
        if not those:
            return
        name = those[which % len(those)]
        run = self.runs[name]
        if op == "start":
            run.started = True
            self.started.add(name)
            self.write(self.record("start", rule=run.rule, run=name))
        elif op == "pid":
            run.pid = 4000 + which
            self.write(self.record("pid", rule=run.rule, run=name, pid=run.pid))
        else:
            del self.runs[name]
            rule = self.rules[run.rule]
            rule.refused += op == "refused"
            rule.last_end = self.s if op in ("end", "interrupted") else rule.last_end
            self.write(self.record(op, rule=run.rule, run=name))
            self.forget(run.rule)

    def forget(self, name: str) -> None:
        if self.rules[name].gone and not any(run.rule == name for run in self.runs.values()):
            del self.rules[name]

    def says(self) -> object:
        """Return all of it, as `said` returns it of a History."""
        rules = {
            name: (
                rule.times,
                (rule.last_end, rule.last_trigger, rule.triggers, rule.refused),
                (rule.held, rule.gone),
                {
                    run: (past.t, past.s, past.started, past.pid)
                    for run, past in self.runs.items()
                    if past.rule == name
                },
            )
            for name, rule in self.rules.items()
        }
        breaks = {"key": self.breaks} if self.breaks else {}
        return f"boot{self.boot}", self.last_id, breaks, rules


def said(history: History) -> object:
    """Return all that a History says, in plain values."""
    rules = {
        name: (
            list(known.times),
            (known.last_end, known.last_trigger, known.triggers, known.refused),
            (known.held, known.gone),
            {
                run: (known_run.t, known_run.s, known_run.started, known_run.pid)
                for run, known_run in known.runs.items()
            },
        )
        for name, known in history.rules.items()
    }
    return history.boot, history.last_id, history.breaks, rules


def past_of(ops: list[tuple[str, int]]) -> Past:
    """Let it all happen."""
    past = Past()
    for op, which in ops:
        past.do(op, which)
    return past


def replayed(records: list[Record]) -> History:
    """Read records as they come from a file: fresh ones."""
    history = History()
    for record in records:
        history.read(dict(record))
    return history
