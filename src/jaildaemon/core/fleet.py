# SPDX-License-Identifier: BSD-2-Clause
"""All rules of one daemon: their ids, lives, runs and counts, and how they are found.

A run's own small life is here too: settling, then queued while the host has
enough to do, then running.
"""

import enum
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from jaildaemon.core.lifecycle import Action, Event, Life, Phase, sort_trigger, step
from jaildaemon.core.limits import Window
from jaildaemon.core.member import Member, Now, Run, Shown, Stage, overlapping
from jaildaemon.core.ranges import MAX_LAST_ID
from jaildaemon.core.rules import Policy, Rule
from jaildaemon.errors import Ambiguous, NoSuchRule, Refused

__all__ = ["Act", "Do", "Fleet", "Member", "Now", "Run", "Shown", "Stage"]

MAX_RUNS = 32
"""Runs of all rules at once.  What comes on top waits in the queue."""
CALM_SECONDS = 60.0
"""A probe that stood so long ends the row of failures of a rule in a file."""


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


class Do(NamedTuple):
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
        self._users: dict[str, dict[str, Member]] = {}
        """Who needs a jail: the rules that have it, and those with a run that it began."""
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
        if self.last_id >= MAX_LAST_ID:
            hint = "jaildaemon(1), FILES: begin a new journal"
            raise Refused("attach", jail, f"t{self.last_id} was the last id", hint)
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
        self._use(member, jail_key)
        return member

    def restore_run(
        self,
        member: Member,
        run_id: str,
        stage: Stage,
        triggered: Now,
        jail_key: str | None = None,
    ) -> Run:
        """Add a run that another life of the daemon began; its jail may be gone by now."""
        jail_key = member.jail_key if jail_key is None else jail_key
        run = Run(run_id, member, stage, triggered, jail_key)
        self._use(member, jail_key)
        member.runs.append(run)
        member.life = member.life._replace(runs=member.life.runs + 1)
        self._running += stage is Stage.RUNNING
        return run

    def set_phase(self, member: Member, phase: Phase, now: Now) -> None:
        """Put a restored rule where it was; from here on events move it."""
        member.life = member.life._replace(phase=phase)
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
        # What a pattern's rule has become, one a jail.
        found = found or [m for m in self.members.values() if m.rule.id.startswith(f"{name}@")]
        if not found:
            raise NoSuchRule(what, name, "no such rule", "see jaildaemon list")
        if len(found) > 1:
            raise Ambiguous(what, name, [m.rule.id for m in found])
        return found[0]

    def of_jail(self, jail_key: str) -> list[Member]:
        """Return the rules of one jail."""
        return [m for m in self._users.get(jail_key, {}).values() if m.jail_key == jail_key]

    def uses(self, jail_key: str) -> bool:
        """Say whether a rule or a run needs the jail."""
        return jail_key in self._users

    def overlapping(self, member: Member) -> list[Member]:
        """Return the rules of the same jail that `pkill -f` with a title may hit too."""
        key, looks_like = member.jail_key, overlapping(member.rule.title)
        return [
            m
            for m in self._users.get(key, {}).values()
            if looks_like(m.rule.title) and m is not member and m.jail_key == key
        ]

    # --- events ------------------------------------------------------------------

    def apply(self, member: Member, event: Event, now: Now) -> list[Do]:
        """Take `event`; return what must be done."""
        before = member.life
        if before.phase is Phase.ARMED and now.steady - member.armed_since >= CALM_SECONDS:
            before = before._replace(failures=0)
        member.life, actions = step(before, event)
        if event is Event.ARMED:
            member.armed_at, member.armed_since, member.reason = now.wall, now.steady, None
            if member.rule.lasting:
                # Only a probe that stands for a while shows that all is well again.
                member.life = member.life._replace(failures=before.failures)
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
        if member.life.phase in (Phase.ARMED, Phase.LEAVING):
            member.window.note(now.steady)
        wait, lasting = member.window.wait(now.steady), member.rule.lasting
        event = sort_trigger(member.rule.policy, member.life.runs, wait, lasting=lasting)
        return self.apply(member, event, now)

    def appear(self, member: Member, jail_key: str, now: Now) -> list[Do]:
        """Give a rule in a file, which waits or is held, the jail that runs now."""
        self.move(member, jail_key)
        if member.life.phase is Phase.HELD:
            return []
        if member.full:
            return self.apply(member, Event.JAIL_WAIT, now)
        rests = member.wait(now) > 0
        return self.apply(member, Event.JAIL_REST if rests else Event.JAIL, now)

    def move(self, member: Member, jail_key: str) -> None:
        """Let a rule have another jail, or none: ""; its runs keep theirs."""
        old, member.jail_key = member.jail_key, jail_key
        self._use(member, jail_key)
        self._disuse(member, old)

    def change(self, member: Member, rule: Rule) -> None:
        """Let a rule without a probe be another one of the same id; its runs go on."""
        if rule.policy.limit != member.rule.policy.limit:
            member.window = Window(rule.policy.limit)
        member.rule = rule

    def release(self, member: Member, now: Now) -> list[Do]:
        """Take the administrator's release of a held rule."""
        if member.life.phase is not Phase.HELD:
            raise Refused("release", member.rule.id, "is not held")
        member.reason = None
        if not member.jail_key:
            return self.apply(member, Event.RELEASE_ABSENT, now)
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
        self._disuse(member, run.jail_key)
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
        run_id = f"{self._life_id}.{self._last_run}"
        run = Run(run_id, member, Stage.SETTLING, now, member.jail_key)
        member.last_run = run_id
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
        self._unuse(member, member.jail_key)

    def _use(self, member: Member, jail_key: str) -> None:
        if jail_key:
            self._users.setdefault(jail_key, {})[member.rule.id] = member

    def _disuse(self, member: Member, jail_key: str) -> None:
        """Forget that the rule needs a jail, where neither it nor a run of it does."""
        if jail_key not in (member.jail_key, *(run.jail_key for run in member.runs)):
            self._unuse(member, jail_key)

    def _unuse(self, member: Member, jail_key: str) -> None:
        users = self._users.get(jail_key, {})
        if users.pop(member.rule.id, None) and not users:
            del self._users[jail_key]

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
