# SPDX-License-Identifier: BSD-2-Clause
"""All rules of one daemon: their ids, lives, runs and counts, and how they are found.

A run's own small life is here too: settling, then queued while the host has
enough to do, then running.
"""

import enum
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from jaildaemon.core.lifecycle import Action, Event, Life, Phase, sort_trigger, step
from jaildaemon.core.limits import Window
from jaildaemon.core.rules import Policy, Rule
from jaildaemon.core.text import NAME, process_title
from jaildaemon.errors import Ambiguous, NoSuchRule, Refused

MAX_RUNS = 32
"""Runs of all rules at once.  What comes on top waits in the queue."""


class Shown(enum.Enum):
    """A rule's state as `list` shows it (architecture.md, Words)."""

    ARMED = "armed"
    RUNNING = "running"
    COOLING = "cooling"
    LIMITED = "limited"
    SETTLING = "settling"
    QUEUED = "queued"
    HELD = "held"
    FAILING = "failing"
    WAITING = "waiting"
    GONE = "gone"


class Stage(enum.Enum):
    """Where a run is."""

    SETTLING = "settling"
    QUEUED = "queued"
    RUNNING = "running"


@dataclass(frozen=True, slots=True)
class Now:
    """One instant, on two clocks.

    `wall` is in seconds since the epoch, for people; `steady` in seconds since
    the boot, which no clock step moves, for every decision.
    """

    wall: float
    steady: float


@dataclass(slots=True, eq=False)
class Run:
    """One run, from its trigger on."""

    id: str
    member: "Member"
    stage: Stage
    triggered: Now
    by: str | None = None
    """Who fired it; None for whoever rang in the jail."""


@dataclass(slots=True, eq=False)
class Member:
    """One rule of the fleet."""

    rule: Rule
    jail_key: str
    """Which jail it is, for good: two rules with the same key share a jail."""
    window: Window
    life: Life = field(default_factory=Life)
    runs: list[Run] = field(default_factory=list)
    reason: str | None = None
    armed_at: float | None = None
    last_trigger: float | None = None
    last_run: str | None = None
    """The run that the latest trigger of this life became."""
    last_end: float | None = None
    """When the latest run ended, steady."""
    next_arming: float | None = None
    triggers: int = 0
    refused: int = 0

    @property
    def full(self) -> bool:
        """Whether so many runs go on that no probe may stand."""
        return self.life.runs >= self.rule.policy.at_once

    def wait(self, now: Now) -> float:
        """Return in how many seconds the limit and the cooldown allow a probe; 0 for now."""
        cooling = 0.0
        if self.last_end is not None:
            cooling = self.last_end + self.rule.policy.cooldown - now.steady
        return max(0.0, cooling, self.window.wait(now.steady))

    def shown(self, now: Now) -> Shown:
        """Return the state that `list` shows."""
        phase = self.life.phase
        if phase in (Phase.RUNNING, Phase.GONE) and self.runs:
            stages = list(Stage)
            return Shown(max(self.runs, key=lambda run: stages.index(run.stage)).stage.value)
        if phase is Phase.RESTING:
            return Shown.LIMITED if self.window.wait(now.steady) else Shown.COOLING
        return _SHOWN[phase]


_SHOWN = {
    Phase.NEW: Shown.WAITING,
    Phase.ARMING: Shown.WAITING,
    Phase.ARMED: Shown.ARMED,
    Phase.RUNNING: Shown.RUNNING,
    Phase.FAILING: Shown.FAILING,
    Phase.HOLDING: Shown.HELD,
    Phase.HELD: Shown.HELD,
    Phase.WITHDRAWING: Shown.GONE,
    Phase.GONE: Shown.GONE,
}


class Act(enum.Enum):
    """What the effects must do; the last three are about one run."""

    ARM = "arm"
    KILL = "kill"
    BACKOFF = "backoff"
    REST = "rest"
    IGNORE = "ignore"
    SETTLE = "settle"
    """Wait the rule's settle, then report `settled`."""
    QUEUE = "queue"
    """Nothing but a record: START follows when a place is free."""
    START = "start"
    """Start the command, once, now."""


@dataclass(frozen=True, slots=True)
class Do:
    """One act, and on what."""

    act: Act
    member: Member
    run: Run | None = None


_PLAIN = {
    Action.ARM: Act.ARM,
    Action.KILL: Act.KILL,
    Action.BACKOFF: Act.BACKOFF,
    Action.REST: Act.REST,
    Action.IGNORE: Act.IGNORE,
}


class Fleet:
    """Every rule, by id, in the order in which they came."""

    def __init__(self, life_id: str) -> None:
        self._life_id = life_id
        """Tells this daemon's runs from those of any other: part of a run's id."""
        self._last_run = 0
        self.members: dict[str, Member] = {}
        self._by_jail: dict[str, dict[str, Member]] = {}
        self.triggers = 0
        self.refused = 0
        self.last_id = 0
        self._queue: deque[Run] = deque()
        self._running = 0

    # --- rules ------------------------------------------------------------------

    def add(
        self, jail: str, jail_key: str, title: str | None, command: str, policy: Policy
    ) -> Member:
        """Add a transient rule; its first probe is still to come."""
        rule = Rule(f"t{self.last_id + 1}", jail, title, command, policy)
        self.last_id += 1  # only now: a refused rule uses up no id
        return self.restore(rule, jail_key)

    def restore(
        self,
        rule: Rule,
        jail_key: str,
        *,
        phase: Phase = Phase.NEW,
        times: Iterable[float] = (),
        last_end: float | None = None,
    ) -> Member:
        """Add a rule that has its id already; `times` are its latest triggers, steady."""
        member = Member(rule, jail_key, Window(rule.policy.limit, times), Life(phase))
        member.last_end = last_end
        self.members[rule.id] = member
        self._by_jail.setdefault(jail_key, {})[rule.id] = member
        return member

    def restore_run(self, member: Member, run_id: str, stage: Stage, triggered: Now) -> Run:
        """Add a run that another life of the daemon began."""
        run = Run(run_id, member, stage, triggered)
        member.runs.append(run)
        member.life = replace(member.life, runs=member.life.runs + 1)
        self._running += stage is Stage.RUNNING
        return run

    def set_phase(self, member: Member, phase: Phase, now: Now) -> None:
        """Put a restored rule where it was; from here on events move it."""
        member.life = replace(member.life, phase=phase)
        if phase is Phase.ARMED:
            member.armed_at = now.wall

    def again(self, run: Run) -> Do:
        """Take up a restored trigger that was never started: settle is done again."""
        if run.member.rule.policy.settle:
            return Do(Act.SETTLE, run.member, run)
        return self._submit(run)

    def find(self, name: str, what: str) -> Member:
        """Return the rule whose id, JAIL/TITLE or unique TITLE is `name`."""
        if name in self.members:
            return self.members[name]
        found = [
            m
            for m in self.members.values()
            if m.rule.title is not None and name in (f"{m.rule.jail}/{m.rule.title}", m.rule.title)
        ]
        if not found:
            raise NoSuchRule(what, name, "no such rule", "see jaildaemon list")
        if len(found) > 1:
            raise Ambiguous(what, name, [m.rule.id for m in found])
        return found[0]

    def of_jail(self, jail_key: str) -> list[Member]:
        """Return the rules of one jail."""
        return list(self._by_jail.get(jail_key, {}).values())

    def overlapping(self, member: Member) -> list[Member]:
        """Return the rules of the same jail that `pkill -f` with a title may hit too."""
        return [
            m
            for m in self.of_jail(member.jail_key)
            if m is not member and _overlap(m.rule.title, member.rule.title)
        ]

    # --- events ------------------------------------------------------------------

    def apply(self, member: Member, event: Event, now: Now) -> list[Do]:
        """Take `event`; return what must be done."""
        member.life, actions = step(member.life, event)
        if event is Event.ARMED:
            member.armed_at, member.reason = now.wall, None
        if member.life.phase is not Phase.ARMED:
            member.armed_at = None
        if member.life.phase not in (Phase.RESTING, Phase.FAILING):
            member.next_arming = None
        todo: list[Do] = []
        for action in actions:
            if action is Action.START:
                todo.append(self._take_trigger(member, now))
                continue
            if action is Action.IGNORE:
                self.refuse(member)
            elif action is Action.REST:
                member.next_arming = now.wall + member.wait(now)
            todo.append(Do(_PLAIN[action], member))
        if member.life.over:
            self._forget(member)
        return todo

    def trigger(self, member: Member, now: Now) -> list[Do]:
        """Take the probe's death by its signal."""
        if member.life.phase is Phase.ARMED:
            member.window.note(now.steady)
        event = sort_trigger(member.rule.policy, member.life.runs, member.window.wait(now.steady))
        return self.apply(member, event, now)

    def release(self, member: Member, now: Now) -> list[Do]:
        """Take the administrator's release of a held rule."""
        if member.life.phase is not Phase.HELD:
            raise Refused("release", member.rule.id, "is not held")
        member.reason = None
        if member.full:
            return self.apply(member, Event.RELEASE_WAIT, now)
        rests = member.wait(now) > 0
        return self.apply(member, Event.RELEASE_REST if rests else Event.RELEASE, now)

    def refuse(self, member: Member) -> None:
        """Count a trigger that starts nothing."""
        member.refused += 1
        self.refused += 1

    def settled(self, run: Run) -> list[Do]:
        """Take it that the run's jail lives on after the settle."""
        return [self._submit(run)]

    def run_ended(self, run: Run, now: Now) -> list[Do]:
        """Take the end of a run, or that it will never start."""
        member = run.member
        if run.stage is Stage.RUNNING:
            self._running -= 1
            member.last_end = now.steady
        elif run.stage is Stage.QUEUED:
            self._queue.remove(run)
        member.runs.remove(run)
        event = Event.RUN_ENDED_REST if member.wait(now) else Event.RUN_ENDED
        todo = self.apply(member, event, now)
        if self._queue and self._running < MAX_RUNS:
            todo.append(self._submit(self._queue.popleft()))
        return todo

    # --- runs ---------------------------------------------------------------------

    def _take_trigger(self, member: Member, now: Now) -> Do:
        member.triggers += 1
        member.last_trigger = now.wall
        self.triggers += 1
        self._last_run += 1
        run = Run(f"{self._life_id}.{self._last_run}", member, Stage.SETTLING, now)
        member.last_run = run.id
        member.runs.append(run)
        if member.rule.policy.settle:
            return Do(Act.SETTLE, member, run)
        return self._submit(run)

    def _submit(self, run: Run) -> Do:
        if self._running >= MAX_RUNS:
            run.stage = Stage.QUEUED
            self._queue.append(run)
            return Do(Act.QUEUE, run.member, run)
        run.stage = Stage.RUNNING
        self._running += 1
        return Do(Act.START, run.member, run)

    def _forget(self, member: Member) -> None:
        if self.members.pop(member.rule.id, None) is None:
            return  # withdrawn once more: two administrators, one rule
        neighbours = self._by_jail[member.jail_key]
        del neighbours[member.rule.id]
        if not neighbours:
            del self._by_jail[member.jail_key]

    # --- counts ---------------------------------------------------------------------

    def count(self, phase: Phase) -> int:
        """Return how many rules are in `phase`."""
        return sum(m.life.phase is phase for m in self.members.values())

    @property
    def running(self) -> int:
        """How many commands run."""
        return self._running

    @property
    def queued(self) -> int:
        """How many runs wait for a place."""
        return len(self._queue)


def _overlap(one: str | None, other: str | None) -> bool:
    """Say whether looking for one title finds the other's probe too.

    pkill -f looks at the whole argv[0], "jaildaemon: " included; a rule without
    a title can only be rung by that name, which is in all of them.
    """
    return (one or NAME) in process_title(other) or (other or NAME) in process_title(one)
