# SPDX-License-Identifier: BSD-2-Clause
"""All rules of one daemon: their ids, lives and counts, and how they are found."""

import enum
from dataclasses import dataclass, field

from jaildaemon.core.lifecycle import Action, Event, Life, Phase, sort_trigger, step
from jaildaemon.core.rules import Policy, Rule
from jaildaemon.core.text import NAME, process_title
from jaildaemon.errors import Ambiguous, NoSuchRule


class Shown(enum.Enum):
    """A rule's state as `list` shows it (architecture.md, Words)."""

    ARMED = "armed"
    RUNNING = "running"
    FAILING = "failing"
    WAITING = "waiting"
    GONE = "gone"


_SHOWN = {
    Phase.NEW: Shown.WAITING,
    Phase.ARMING: Shown.WAITING,
    Phase.ARMED: Shown.ARMED,
    Phase.RUNNING: Shown.RUNNING,
    Phase.FAILING: Shown.FAILING,
    Phase.WITHDRAWING: Shown.GONE,
    Phase.GONE: Shown.GONE,
}


@dataclass(slots=True)
class Member:
    """One rule of the fleet.  Times are the caller's, in seconds since the epoch."""

    rule: Rule
    jail_key: str
    """Which jail it is, for good: two rules with the same key share a jail."""
    life: Life = field(default_factory=Life)
    reason: str | None = None
    armed_at: float | None = None
    last_trigger: float | None = None
    retry_at: float | None = None
    triggers: int = 0
    refused: int = 0

    @property
    def shown(self) -> Shown:
        """The state that `list` shows."""
        if self.life.phase is Phase.GONE and self.life.runs:
            return Shown.RUNNING
        return _SHOWN[self.life.phase]


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
        self._last_id = 0

    def add(
        self, jail: str, jail_key: str, title: str | None, command: str, policy: Policy
    ) -> Member:
        """Add a transient rule; its first probe is still to come."""
        rule = Rule(f"t{self._last_id + 1}", jail, title, command, policy)
        self._last_id += 1  # only now: a refused rule uses up no id
        member = Member(rule, jail_key)
        self.members[rule.id] = member
        self._by_jail.setdefault(jail_key, {})[rule.id] = member
        return member

    def apply(self, member: Member, event: Event, now: float) -> tuple[Action, ...]:
        """Take `event` at time `now`; return what must be done."""
        member.life, actions = step(member.life, event)
        if event is Event.ARMED:
            member.armed_at, member.reason = now, None
        elif Action.START in actions:
            member.triggers += 1
            member.last_trigger = now
            self.triggers += 1
        elif Action.IGNORE in actions:
            member.refused += 1
            self.refused += 1
        if member.life.phase is not Phase.ARMED:
            member.armed_at = None
        if member.life.phase is not Phase.FAILING:
            member.retry_at = None
        if member.life.over:
            self._forget(member)
        return actions

    def _forget(self, member: Member) -> None:
        if member.rule.id not in self.members:
            return  # withdrawn once more: two administrators, one rule
        del self.members[member.rule.id]
        neighbours = self._by_jail[member.jail_key]
        del neighbours[member.rule.id]
        if not neighbours:
            del self._by_jail[member.jail_key]

    def trigger(self, member: Member, now: float) -> tuple[Action, ...]:
        """Take the probe's death by its signal."""
        return self.apply(member, sort_trigger(member.rule.policy, member.life.runs), now)

    def next_run(self) -> str:
        """Return the id of the next run, never used before."""
        self._last_run += 1
        return f"{self._life_id}.{self._last_run}"

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

    def of_jail(self, jail_key: str, title: str | None = None) -> list[Member]:
        """Return the rules of one jail, or those of them with `title`."""
        return [
            m
            for m in self._by_jail.get(jail_key, {}).values()
            if title is None or m.rule.title == title
        ]

    def overlapping(self, member: Member) -> list[Member]:
        """Return the rules of the same jail that `pkill -f` with a title may hit too."""
        return [
            m
            for m in self.of_jail(member.jail_key)
            if m is not member and _overlap(m.rule.title, member.rule.title)
        ]

    def count(self, phase: Phase) -> int:
        """Return how many rules are in `phase`."""
        return sum(m.life.phase is phase for m in self.members.values())

    @property
    def runs(self) -> int:
        """How many runs are in progress."""
        return sum(m.life.runs for m in self.members.values())


def _overlap(one: str | None, other: str | None) -> bool:
    """Say whether looking for one title finds the other's probe too.

    pkill -f looks at the whole argv[0], "jaildaemon: " included; a rule without
    a title can only be rung by that name, which is in all of them.
    """
    return (one or NAME) in process_title(other) or (other or NAME) in process_title(one)
