# SPDX-License-Identifier: BSD-2-Clause
"""The journal's records, and what a sequence of them means after a crash.

One line of JSON a record; the file is the only truth.  `start` means intent: a
run whose `start` is there is never started again, whatever became of it.
Reading and writing the file is daemon/journal.py's.

Every record has kind, t (seconds since the epoch) and s (seconds since the
boot).  Beyond those, by kind:

  boot       boot (the system's boot id); last_id and breaks where a new
             journal was begun
  break      rule (its breaker key), began: the host did not survive its run
  rule       rule, jail, identity, title, command, policy; and where a new
             journal was begun: times, triggers, refused, last_end, last_trigger
  unrule     rule, reason
  hold       rule, reason        release    rule
  trigger    rule, run           start      rule, run
  pid        run, pid            end        rule, run, exit_status or signal, ...
  refused, expired, interrupted  rule, run, reason
  output     rule, run, output_tail
"""

import json
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from jaildaemon.core import breaker
from jaildaemon.core.limits import MAX_COUNT

Record = dict[str, object]

REPLAY_SECONDS = 600.0
"""A trigger that waited longer than this is not run any more: nobody expects it."""


class BadRecord(Exception):
    """A line is not a record."""


def encode(records: Iterable[Record]) -> bytes:
    """Return the lines of `records`, for one write(2)."""
    lines = (json.dumps(record, separators=(",", ":")) for record in records)
    return "".join(f"{line}\n" for line in lines).encode("ascii")


def decode(line: bytes) -> Record:
    """Return the record in `line`; BadRecord."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadRecord(str(error)) from error
    if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
        raise BadRecord("not an object with a kind")
    return record


@dataclass(slots=True)
class OpenRun:
    """A trigger whose end is not in the journal."""

    run: str
    t: float
    s: float
    started: bool = False
    pid: int | None = None


@dataclass(slots=True)
class KnownRule:
    """A rule that was there when the journal ends."""

    record: Record
    times: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_COUNT))
    """Its latest triggers, seconds since the boot."""
    last_end: float | None = None
    last_trigger: float | None = None
    """Seconds since the epoch."""
    triggers: int = 0
    refused: int = 0
    held: str | None = None
    gone: bool = False
    """Withdrawn, but a run goes on."""
    runs: dict[str, OpenRun] = field(default_factory=dict)


class History:
    """What a journal says, read record by record."""

    def __init__(self) -> None:
        self.boot: str | None = None
        self.last_id = 0
        self.rules: dict[str, KnownRule] = {}
        self.breaks: breaker.Breaks = {}

    def read(self, record: Record) -> None:
        """Take the next record."""
        kind, rule = record["kind"], str(record.get("rule", ""))
        if kind == "boot":
            self._boot(record)
        elif kind == "break":
            breaker.note(self.breaks, rule, _number(record.get("began")))
        elif kind == "rule":
            self._rule(rule, record)
            if rule.startswith("t") and rule[1:].isdecimal():
                self.last_id = max(self.last_id, int(rule[1:]))
        elif kind == "unrule":
            self._unrule(rule)
        elif rule in self.rules:
            self._of_rule(str(kind), self.rules[rule], record)

    def _rule(self, rule: str, record: Record) -> None:
        known = self.rules[rule] = KnownRule(record)
        times = record.pop("times", None)
        if isinstance(times, list):
            known.times.extend(_number(value) for value in times)
        if "last_end" in record:
            known.last_end = _number(record.pop("last_end"))
        if "last_trigger" in record:
            known.last_trigger = _number(record.pop("last_trigger"))
        known.triggers = int(_number(record.pop("triggers", 0)))
        known.refused = int(_number(record.pop("refused", 0)))

    def _boot(self, record: Record) -> None:
        self.last_id = max(self.last_id, int(_number(record.get("last_id"))))
        breaks = record.get("breaks")
        if isinstance(breaks, dict):
            self.breaks = {
                str(rule): [_number(began) for began in times]
                for rule, times in breaks.items()
                if isinstance(times, list)
            }
        boot = str(record.get("boot"))
        if boot != self.boot:
            # Nothing that lived in another boot lives now, and its clock is another.
            self.boot, self.rules = boot, {}

    def _unrule(self, rule: str) -> None:
        known = self.rules.get(rule)
        if known is not None and not known.runs:
            del self.rules[rule]
        elif known is not None:
            known.gone = True

    def _of_rule(self, kind: str, known: KnownRule, record: Record) -> None:
        run = str(record.get("run", ""))
        seconds = _number(record.get("s"))
        if kind == "trigger":
            known.runs[run] = OpenRun(run, _number(record.get("t")), seconds)
            known.times.append(seconds)
            known.last_trigger = _number(record.get("t"))
            known.triggers += 1
        elif kind == "start" and run in known.runs:
            known.runs[run].started = True
        elif kind == "pid" and run in known.runs:
            known.runs[run].pid = int(_number(record.get("pid")))
        elif kind in ("end", "refused", "expired", "interrupted"):
            was_open = known.runs.pop(run, None) is not None
            if was_open and kind == "end":
                known.last_end = seconds
            known.refused += kind == "refused"
            if known.gone and not known.runs:
                del self.rules[str(record["rule"])]
        elif kind == "hold":
            known.held = str(record.get("reason", ""))
        elif kind == "release":
            known.held = None

    def snapshot(self) -> list[Record]:
        """Return records that say the same in as few lines, for a new journal."""
        found: list[Record] = []
        for name, known in self.rules.items():
            open_runs = {run.s for run in known.runs.values()}
            rule: Record = dict(known.record)
            rule["times"] = [s for s in known.times if s not in open_runs]
            rule["triggers"] = known.triggers - len(known.runs)
            rule["refused"] = known.refused
            if known.last_end is not None:
                rule["last_end"] = known.last_end
            if known.last_trigger is not None:
                rule["last_trigger"] = known.last_trigger
            found.append(rule)
            for run in known.runs.values():
                base: Record = {"t": run.t, "s": run.s, "rule": name, "run": run.run}
                found.append({"kind": "trigger", **base})
                if run.started:
                    found.append({"kind": "start", **base})
                if run.pid is not None:
                    found.append({"kind": "pid", **base, "pid": run.pid})
            if known.held is not None:
                found.append(
                    {"kind": "hold", "t": 0.0, "s": 0.0, "rule": name, "reason": known.held}
                )
            if known.gone:
                found.append({"kind": "unrule", "t": 0.0, "s": 0.0, "rule": name, "reason": "gone"})
        return found


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def may_replay(run: OpenRun, now_wall: float, now_steady: float) -> str | None:
    """Say why a trigger that was never started must not be now; None if it may."""
    age = max(now_steady - run.s, 0.0)
    # A clock that was set back must not make an old trigger young: the steady
    # clock decides, and the wall clock may only add.
    if max(age, now_wall - run.t) > REPLAY_SECONDS:
        return f"it waited longer than {REPLAY_SECONDS:.0f} s"
    return None
