# SPDX-License-Identifier: BSD-2-Clause
# Theory of operation
# ===================
#
# Rule 1: whatever decides when a rule has a probe, and when its command starts,
#   is in this file.  Nothing else does: the effects (daemon/) carry out actions
#   and report events.
# Rule 2: a cell of the table that is None cannot happen.  If it does, the
#   effects are wrong: IllegalEvent is raised and nothing has changed.
#
# A rule lives through phases.  What happens to it arrives as one of the events
# below, already sorted by what the rule's policy makes of it (a trigger is
# TRIGGER_LAST, _WAIT or _NEXT: see `sort_trigger`), so that the table itself
# needs no condition.
#
#   NEW          the first probe is on its way; whoever asked waits for the answer
#   ARMING       a later probe is on its way
#   ARMED        a probe stands in the jail
#   RUNNING      no probe; one follows when a run ends
#   FAILING      no probe; arming failed, another try follows
#   WITHDRAWING  the probe is being killed; what it still reports starts nothing
#   GONE         no probe will follow; the rule is forgotten with its last run
#
# Runs are counted beside the phase, for under Respawn.NOW they go on through
# any of them.  "Never two visible probes of one rule" holds because ARM is an
# action only of cells whose phase has no probe.
"""The life of a rule as a table: (phase, event) -> (phase, actions)."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from jaildaemon.core.rules import Policy, Respawn


class Phase(enum.Enum):
    """Where a rule is in its life."""

    NEW = "new"
    ARMING = "arming"
    ARMED = "armed"
    RUNNING = "running"
    FAILING = "failing"
    WITHDRAWING = "withdrawing"
    GONE = "gone"


class Event(enum.Enum):
    """What can happen to a rule."""

    ARMED = "armed"
    """The probe is verified to be in the right jail, and may sleep."""
    FAILED = "failed"
    """Arming failed for a reason that may pass; nothing is left of the try."""
    LOST = "lost"
    """Arming failed because the jail is no longer there, or no longer the same."""
    TRIGGER_LAST = "trigger_last"
    """The probe died of the signal, and no other is to follow."""
    TRIGGER_WAIT = "trigger_wait"
    """The probe died of the signal, and another follows when a run ends."""
    TRIGGER_NEXT = "trigger_next"
    """The probe died of the signal, and another follows at once."""
    DIED = "died"
    """The probe died of anything else."""
    RUN_ENDED = "run_ended"
    """A run ended, or its command could not be started."""
    RETRY = "retry"
    """The wait after FAILED is over."""
    DETACH = "detach"
    """The host's administrator, or the end of the daemon, withdraws the rule."""


class Action(enum.Enum):
    """What the effects must do, in the order given."""

    START = "start"
    """Start the command, once."""
    ARM = "arm"
    """Start arming a probe."""
    KILL = "kill"
    """Kill the probe, or stop the arming, and report how it ended."""
    BACKOFF = "backoff"
    """Report RETRY after a growing delay."""
    IGNORE = "ignore"
    """Record that a trigger came too late to count."""


class IllegalEvent(Exception):
    """An event that cannot happen in this phase: a bug in the effects."""


Cell = tuple[Phase, tuple[Action, ...]] | None
Table = Mapping[Phase, Mapping[Event, Cell]]


def _row(**cells: Cell) -> dict[Event, Cell]:
    """Return a full row; every event must be named, "cannot happen" is None."""
    row = {Event(name): cell for name, cell in cells.items()}
    if row.keys() != set(Event):
        msg = f"not every event is decided: {set(Event) - row.keys()}"
        raise ValueError(msg)
    return row


_NEW, _ARMING, _ARMED = Phase.NEW, Phase.ARMING, Phase.ARMED
_RUNNING, _FAILING = Phase.RUNNING, Phase.FAILING
_WITHDRAWING, _GONE = Phase.WITHDRAWING, Phase.GONE
_START, _ARM, _KILL, _BACKOFF, _IGNORE = Action

TABLE: Table = {
    _NEW: _row(
        armed=(_ARMED, ()),
        # Whoever asked is told why; there was no rule yet to keep.
        failed=(_GONE, ()),
        lost=(_GONE, ()),
        trigger_last=None,
        trigger_wait=None,
        trigger_next=None,
        died=None,
        run_ended=None,
        retry=None,
        detach=(_WITHDRAWING, (_KILL,)),
    ),
    _ARMING: _row(
        armed=(_ARMED, ()),
        failed=(_FAILING, (_BACKOFF,)),
        lost=(_GONE, ()),
        trigger_last=None,
        trigger_wait=None,
        trigger_next=None,
        died=None,
        run_ended=(_ARMING, ()),
        retry=None,
        detach=(_WITHDRAWING, (_KILL,)),
    ),
    _ARMED: _row(
        armed=None,
        failed=None,
        lost=None,
        # START comes first: it is what the sender waits for.
        trigger_last=(_GONE, (_START,)),
        trigger_wait=(_RUNNING, (_START,)),
        trigger_next=(_ARMING, (_START, _ARM)),
        # Killing the probe is how a rule is disarmed from inside the jail.
        died=(_GONE, ()),
        run_ended=(_ARMED, ()),
        retry=None,
        detach=(_WITHDRAWING, (_KILL,)),
    ),
    _RUNNING: _row(
        armed=None,
        failed=None,
        lost=None,
        trigger_last=None,
        trigger_wait=None,
        trigger_next=None,
        died=None,
        run_ended=(_ARMING, (_ARM,)),
        retry=None,
        detach=(_GONE, ()),
    ),
    _FAILING: _row(
        armed=None,
        failed=None,
        lost=None,
        trigger_last=None,
        trigger_wait=None,
        trigger_next=None,
        died=None,
        run_ended=(_FAILING, ()),
        retry=(_ARMING, (_ARM,)),
        detach=(_GONE, ()),
    ),
    _WITHDRAWING: _row(
        # KILL closes the go pipe: what was not armed by then never will be.
        armed=None,
        failed=(_GONE, ()),
        lost=(_GONE, ()),
        trigger_last=(_GONE, (_IGNORE,)),
        trigger_wait=(_GONE, (_IGNORE,)),
        trigger_next=(_GONE, (_IGNORE,)),
        died=(_GONE, ()),
        run_ended=(_WITHDRAWING, ()),
        retry=None,
        detach=(_WITHDRAWING, ()),
    ),
    _GONE: _row(
        armed=None,
        failed=None,
        lost=None,
        trigger_last=None,
        trigger_wait=None,
        trigger_next=None,
        died=None,
        run_ended=(_GONE, ()),
        retry=None,
        detach=(_GONE, ()),
    ),
}


@dataclass(frozen=True, slots=True)
class Life:
    """A rule's phase, its runs in progress, and its failed armings in a row."""

    phase: Phase = Phase.NEW
    runs: int = 0
    failures: int = 0

    @property
    def over(self) -> bool:
        """Whether nothing of the rule is left."""
        return self.phase is Phase.GONE and self.runs == 0


def sort_trigger(policy: Policy, runs: int) -> Event:
    """Return what a trigger is to a rule with `runs` in progress before it."""
    if policy.respawn is Respawn.NO:
        return Event.TRIGGER_LAST
    if policy.respawn is Respawn.NOW and runs + 1 < policy.concurrency:
        return Event.TRIGGER_NEXT
    return Event.TRIGGER_WAIT


def step(life: Life, event: Event, table: Table = TABLE) -> tuple[Life, tuple[Action, ...]]:
    """Return the life after `event`, and what must be done; IllegalEvent if it cannot be."""
    cell = table[life.phase][event]
    if cell is None or (event is Event.RUN_ENDED and life.runs == 0):
        msg = f"{event.name} in phase {life.phase.name} with {life.runs} runs"
        raise IllegalEvent(msg)
    phase, actions = cell
    runs = life.runs + (Action.START in actions) - (event is Event.RUN_ENDED)
    failures = {Event.FAILED: life.failures + 1, Event.ARMED: 0}.get(event, life.failures)
    return Life(phase, runs, failures), actions


def backoff_seconds(failures: int) -> float:
    """Return the wait before the next try, after `failures` in a row: 1 s doubling to 60 s."""
    return float(min(60, 2 ** min(failures - 1, 6)))
