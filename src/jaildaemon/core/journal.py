# SPDX-License-Identifier: BSD-2-Clause
"""The journal's records, and what a sequence of them means after a crash.

One line of JSON a record; the file is the only truth.  `start` means intent: a
run whose `start` is there is never started again, whatever became of it.
Reading and writing the file is daemon/journal.py's.

Every record has kind, t (seconds since the epoch) and s (seconds since the
boot).  Beyond those, by kind:

  boot       boot (the system's boot id); last_id, breaks and began (when that
             boot began, by the wall clock) where a new journal was begun
  break      rule (its breaker key), began: the host did not survive its run
  rule       rule, jail, identity, title, command, policy, and source where it
             is in a file; and where a new journal was begun: state, all that had
             become of it by then, in this one record, for a rule without its
             runs would ring again.  Of a rule that is there it is the new shape.
             (reason: who asked for it)
  jail       rule, identity: a rule in a file has another jail of the same name
  unrule     rule, reason
  armed      rule                died, left rule, reason: for `log` alone
  hold       rule, reason        release    rule, reason
  trigger    rule, run           start      rule, run
             (reason: who fired it on the host)
  pid        run, pid, start_time (Backend.start_time)
  end        rule, run, exit_status or signal, ...
  refused, expired, interrupted  rule, run, reason
             (boot: in which boot that was seen, where it is not the run's own)
  output     rule, run, output_tail
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from jaildaemon.core import breaker, ranges
from jaildaemon.core.limits import MAX_COUNT, MAX_SECONDS, Latest, parse_limit
from jaildaemon.core.ranges import number

Record = dict[str, object]

REPLAY_SECONDS = 600.0
"""A trigger that waited longer than this is not run any more: nobody expects it."""
MAX_BEGAN = 1e11
"""Of a boot, since the epoch: three thousand years."""
MAX_ID_SIZE = 12
"""Of a transient rule's id: a longer one is none of ours."""


class BadRecord(Exception):
    """A line is not a record."""


def encode(records: Iterable[Record]) -> bytes:
    """Return the lines of `records`, for one write(2)."""
    return "".join(f"{_LINES.encode(record)}\n" for record in records).encode("ascii")


def _no_constant(name: str) -> object:
    raise BadRecord(f"{name} is not JSON")


_LINES = json.JSONEncoder(separators=(",", ":"))
MAX_POLICIES = 1000
"""Of those that are kept once, for all the rules that have them."""


def decode(line: bytes) -> Record:
    """Return the record in `line`; BadRecord."""
    try:
        record = json.loads(line, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadRecord(str(error)) from error
    if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
        raise BadRecord("not an object with a kind")
    problem = ranges.problem(record)
    if problem:
        raise BadRecord(problem)
    return record


@dataclass(slots=True)
class OpenRun:
    """A trigger whose end is not in the journal."""

    run: str
    t: float
    s: float
    started: bool = False
    pid: int | None = None
    start_time: int | None = None
    """Of that process: together they name it within a boot."""


@dataclass(slots=True)
class KnownRule:
    """A rule that was there when the journal ends."""

    record: Record
    times: Latest
    """Its latest triggers, seconds since the boot: as many as its limit counts."""
    last_end: float | None = None
    last_trigger: float | None = None
    """Seconds since the epoch."""
    triggers: int = 0
    refused: int = 0
    held: str | None = None
    gone: bool = False
    """Withdrawn, but a run goes on."""
    spent: bool = False
    """Its one shot was fired, and it has not had another jail since."""
    runs: dict[str, OpenRun] = field(default_factory=dict)

    @property
    def lasting(self) -> bool:
        """Whether it is in a file."""
        return "source" in self.record

    @property
    def breaker_key(self) -> str:
        """What names the same rule in every boot (core/breaker.py)."""
        title = self.record.get("title")
        return breaker.key(None if title is None else str(title), str(self.record.get("command")))

    def no_later(self, steady: float) -> None:
        """Have nothing lie ahead of the clock, which never steps: such a time counts as now."""
        self.times = Latest(self.times.count, (min(time, steady) for time in self.times))
        if self.last_end is not None:
            self.last_end = min(self.last_end, steady)

    def go_on(self, before: "KnownRule") -> None:
        """Take over what has become of the rule under its former shape."""
        self.times.extend(before.times)
        self.last_end, self.last_trigger = before.last_end, before.last_trigger
        self.triggers, self.refused = before.triggers, before.refused
        self.held, self.runs = before.held, before.runs

    def after_reboot(self, shift: float, now: float) -> "KnownRule":
        """Return it as the next boot finds it: its jail and its runs are gone, its times are not.

        `shift` turns a time of the old boot's clock into one of the new one's.
        """
        anew = KnownRule({**self.record, "identity": {}}, Latest(self.times.count), held=self.held)
        anew.times.extend(_carried(self.times, shift, now))
        if self.last_end is not None:
            anew.last_end = next(_carried([self.last_end], shift, now), None)
        anew.triggers, anew.refused = self.triggers, self.refused
        anew.last_trigger = self.last_trigger
        return anew


class History:
    """What a journal says, read record by record."""

    def __init__(self) -> None:
        self.boot: str | None = None
        self.last_id = 0
        """The number of the latest transient rule, there or gone."""
        self.rules: dict[str, KnownRule] = {}
        self.breaks: breaker.Breaks = {}
        self._boot_record: Record = {}
        self._unstarted: dict[str, OpenRun] = {}
        """Triggers whose start has not been read."""
        self._began = 0.0
        """When this boot began, by the wall clock as the latest record has it."""
        self._policies: dict[str, object] = {}

    def read(self, record: Record) -> None:
        """Take the next record; BadRecord, and nothing has changed."""
        kind, rule = record["kind"], str(record.get("rule", ""))
        if kind == "boot":
            self._boot(record)
        elif kind == "break":
            breaker.note(self.breaks, rule, number(record.get("began")))
        elif kind == "rule":
            self._rule(rule, record)
        elif kind == "unrule":
            self._unrule(rule)
        elif kind == "jail" and rule in self.rules:
            known = self.rules[rule]
            known.record = {**known.record, "identity": record.get("identity")}
            known.spent = False
        elif rule in self.rules:
            self._of_rule(str(kind), rule, record)
        self._note_clock(str(kind), record)

    def _note_clock(self, kind: str, record: Record) -> None:
        # A new journal repeats old records, and these kinds are also what the next boot
        # says of the one before.
        if "state" in record or kind in ("break", "expired", "interrupted"):
            return
        if "t" in record and "s" in record:
            self._began = _beginning(record)
        if kind == "boot" and "began" in record:
            self._began = number(record["began"])

    def skip(self) -> None:
        """Pass over a line that is no record.  It may have been the start of any open run."""
        for run in self._unstarted.values():
            run.started = True
        self._unstarted.clear()

    def _boot(self, record: Record) -> None:
        boot = record.get("boot")
        if not isinstance(boot, str):
            raise BadRecord("a boot without its id")
        if boot != self.boot:
            # Nothing that lived in another boot lives now, and its clock is another.
            # A rule in a file is there still: a reboot is no way round its hold, its
            # limit or its cooldown.
            now, shift = number(record.get("s")), self._began - _beginning(record)
            self.rules = {
                rule: known.after_reboot(shift, now)
                for rule, known in self.rules.items()
                if known.lasting and not known.gone
            }
            self.boot = boot
            self._unstarted.clear()
        self._boot_record = record
        self.last_id = max(self.last_id, int(number(record.get("last_id"))))
        breaks = record.get("breaks")
        if isinstance(breaks, dict):
            self.breaks = {
                str(rule): [number(began) for began in _list(times)]
                for rule, times in breaks.items()
                if _list(times)
            }

    def _rule(self, rule: str, record: Record) -> None:
        if not rule:
            raise BadRecord("a rule without its id")
        said = {name: value for name, value in record.items() if name != "state"}
        if "policy" in said:
            said["policy"] = self._shared(said["policy"])
        before, known = self.rules.get(rule), KnownRule(said, Latest(_counted(record)))
        self.rules[rule] = known
        if before is not None:
            known.go_on(before)
        state = record.get("state")
        if isinstance(state, dict):
            _take_state(known, state)
            self._unstarted |= {n: run for n, run in known.runs.items() if not run.started}
        if rule.startswith("t") and rule[1:].isdecimal() and len(rule) <= MAX_ID_SIZE:
            self.last_id = max(self.last_id, int(rule[1:]))

    def _shared(self, policy: object) -> object:
        """Return an equal policy that is kept already: ten thousand rules have a few."""
        key = repr(policy)
        if key not in self._policies and len(self._policies) >= MAX_POLICIES:
            self._policies.clear()
        return self._policies.setdefault(key, policy)

    def _unrule(self, rule: str) -> None:
        known = self.rules.get(rule)
        if known is not None and not known.runs:
            del self.rules[rule]
        elif known is not None:
            known.gone = True

    def _of_rule(self, kind: str, rule: str, record: Record) -> None:
        known, run = self.rules[rule], str(record.get("run", ""))
        seconds = number(record.get("s"))
        if kind == "trigger" and run and run not in known.runs:
            known.runs[run] = self._unstarted[run] = OpenRun(run, number(record.get("t")), seconds)
            known.times.extend((seconds,))
            known.last_trigger = number(record.get("t"))
            known.triggers = min(known.triggers + 1, ranges.MAX_COUNTED)
            policy = known.record.get("policy")
            known.spent = isinstance(policy, dict) and policy.get("respawn") == "no"
        elif kind == "start" and run in known.runs:
            known.runs[run].started = True
            self._unstarted.pop(run, None)
        elif kind == "pid" and run in known.runs:
            known.runs[run].pid = _positive(record.get("pid"))
            known.runs[run].start_time = _positive(record.get("start_time"))
        elif kind in ("end", "refused", "expired", "interrupted"):
            ended = known.runs.pop(run, None)
            self._unstarted.pop(run, None)
            if ended is not None and (kind == "end" or (kind == "interrupted" and ended.started)):
                # What the host did not survive ended by the clock of the next boot.
                in_next = "boot" in record
                last_end = number(record.get("t")) - self._began if in_next else seconds
                known.last_end = min(max(-ranges.MAX_STEADY, last_end), ranges.MAX_STEADY)
            known.refused = min(known.refused + (kind == "refused"), ranges.MAX_COUNTED)
            if known.gone and not known.runs:
                del self.rules[rule]
        elif kind == "hold":
            known.held = str(record.get("reason", ""))
        elif kind == "release":
            known.held = None
            # The administrator has looked: the breaker counts anew.
            self.breaks.pop(known.breaker_key, None)

    def snapshot(self) -> list[Record]:
        """Return records that say the same in as few lines, for a new journal."""
        boot: Record = {
            **self._boot_record,
            "last_id": self.last_id,
            "breaks": self.breaks,
            "began": self._began,
        }
        found = [boot] if self._boot_record else []
        found += [{**known.record, "state": _state(known)} for known in self.rules.values()]
        return found


def _state(known: KnownRule) -> Record:
    """Return what has become of a rule, as JSON; what is None is left out."""
    state = {
        "times": list(known.times),
        "last_end": known.last_end,
        "last_trigger": known.last_trigger,
        "triggers": known.triggers,
        "refused": known.refused,
        "held": known.held,
        "gone": known.gone,
        "spent": known.spent,
        "runs": [
            {
                "run": run.run,
                "t": run.t,
                "s": run.s,
                "started": run.started,
                "pid": run.pid,
                "start_time": run.start_time,
            }
            for run in known.runs.values()
        ],
    }
    return {name: value for name, value in state.items() if value is not None}


def _take_state(known: KnownRule, state: Record) -> None:
    known.times.extend(number(value) for value in _list(state.get("times")))
    if "last_end" in state:
        known.last_end = number(state["last_end"])
    if "last_trigger" in state:
        known.last_trigger = number(state["last_trigger"])
    known.triggers = int(number(state.get("triggers")))
    known.refused = int(number(state.get("refused")))
    if "held" in state:
        known.held = str(state["held"])
    known.gone = state.get("gone") is True
    known.spent = state.get("spent") is True
    for run in _list(state.get("runs")):
        if isinstance(run, dict) and run.get("run"):
            name = str(run["run"])
            known.runs[name] = OpenRun(
                name,
                number(run.get("t")),
                number(run.get("s")),
                # Whatever else it says than that it was not started: it is not started again.
                run.get("started") is not False,
                _positive(run.get("pid")),
                _positive(run.get("start_time")),
            )


def _beginning(record: Record) -> float:
    """Return when the boot of a record began, by the wall clock as the record has it."""
    return min(max(0.0, number(record.get("t")) - number(record.get("s"))), MAX_BEGAN)


def _carried(times: Iterable[float], shift: float, now: float) -> Iterator[float]:
    """Give times of the boot before by this boot's clock; those that can still matter.

    A clock that was set back makes one lie ahead: it counts as now, so that no rule
    is closed for longer than its window.
    """
    for time in times:
        if time + shift > now - MAX_SECONDS:
            yield min(time + shift, now)


def _counted(record: Record) -> int:
    """Return how many triggers a rule's limit counts: no more of them are kept."""
    policy = record.get("policy")
    try:
        limit = parse_limit(policy["limit"]) if isinstance(policy, dict) else None
    except (ValueError, TypeError, KeyError):
        return MAX_COUNT  # the rule cannot be used, which is for others to say
    return limit.count if limit else 0


def _positive(value: object) -> int | None:
    return int(number(value)) or None


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def may_replay(run: OpenRun, now_wall: float, now_steady: float) -> str | None:
    """Say why a trigger that was never started must not be now; None if it may."""
    age = max(now_steady - run.s, 0.0)
    # A clock that was set back must not make an old trigger young: the steady
    # clock decides, and the wall clock may only add.
    if max(age, now_wall - run.t) > REPLAY_SECONDS:
        return f"it waited longer than {REPLAY_SECONDS:.0f} s"
    return None
