# SPDX-License-Identifier: BSD-2-Clause
# Longer than 400 lines because every cell of the table is decided in one place.
#
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
#   RESTING      no probe; one follows when the limit or the cooldown allows
#   FAILING      no probe; arming failed, another try follows
#   HOLDING      the probe is being killed, because the rule is to be held
#   HELD         no probe; one follows when the rule is released
#   WITHDRAWING  the probe is being killed; what it still reports starts nothing
#   WAITING      no probe; one follows when such a jail starts (rules in files only)
#   LEAVING      the jail ended, or is no longer meant: the probe is being killed;
#                a signal that was faster still counts
#   GONE         no probe will follow; the rule is forgotten with its last run
#
# Runs are counted beside the phase, for under Respawn.NOW they go on through
# any of them.  A run counts from its trigger on, also while it settles or waits
# in the queue: what becomes of it until its end is core/fleet.py's.
# "Never two visible probes of one rule" holds because ARM is an action only of
# cells whose phase has no probe.
"""The life of a rule as a table: (phase, event) -> (phase, actions)."""

import enum
from collections.abc import Mapping
from typing import NamedTuple

from jaildaemon.core.rules import Policy, Respawn


class Phase(enum.Enum):
    """Where a rule is in its life."""

    NEW = "new"
    ARMING = "arming"
    ARMED = "armed"
    RUNNING = "running"
    RESTING = "resting"
    FAILING = "failing"
    HOLDING = "holding"
    HELD = "held"
    WITHDRAWING = "withdrawing"
    WAITING = "waiting"
    LEAVING = "leaving"
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
    TRIGGER_REST = "trigger_rest"
    """The probe died of the signal, and another follows when the limit allows."""
    TRIGGER_SPENT = "trigger_spent"
    """The probe died of the signal, and another follows in the next jail of this name."""
    DIED = "died"
    """The probe died of anything else."""
    FELL = "fell"
    """The same of a rule in a file: another follows."""
    JAIL = "jail"
    """A jail that the rule waits for runs, and nothing is in the way of a probe."""
    JAIL_WAIT = "jail_wait"
    """Such a jail runs; a probe follows when a run ends."""
    JAIL_REST = "jail_rest"
    """Such a jail runs; a probe follows when the limit or the cooldown allows."""
    LEFT = "left"
    """The jail ended, or the rule means another one by now."""
    MISSED = "missed"
    """LOST, of a rule in a file; or its probe ended with the jail."""
    RUN_ENDED = "run_ended"
    """A run ended, or never started; a probe may follow at once."""
    RUN_ENDED_REST = "run_ended_rest"
    """A run ended; a probe may follow when the limit or the cooldown allows."""
    RESTED = "rested"
    """The wait for the limit or the cooldown is over."""
    RETRY = "retry"
    """The wait after FAILED is over."""
    HOLD = "hold"
    """The administrator, or the breaker, holds the rule."""
    RELEASE = "release"
    """The administrator releases it, and nothing is in the way of a probe."""
    RELEASE_WAIT = "release_wait"
    """The administrator releases it; a probe follows when a run ends."""
    RELEASE_REST = "release_rest"
    """The administrator releases it; a probe follows when the limit or the cooldown allows."""
    RELEASE_ABSENT = "release_absent"
    """The administrator releases it; a probe follows when such a jail starts."""
    DETACH = "detach"
    """The host's administrator, or the end of the daemon, withdraws the rule."""


class Action(enum.Enum):
    """What the effects must do, in the order given."""

    START = "start"
    """Take up one run: start its command, or let it settle or queue first."""
    ARM = "arm"
    """Start arming a probe."""
    KILL = "kill"
    """Kill the probe, or stop the arming, and report how it ended."""
    BACKOFF = "backoff"
    """Report RETRY after a growing delay."""
    REST = "rest"
    """Report RESTED when the limit and the cooldown allow a trigger again."""
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
_RUNNING, _RESTING, _FAILING = Phase.RUNNING, Phase.RESTING, Phase.FAILING
_HOLDING, _HELD = Phase.HOLDING, Phase.HELD
_WITHDRAWING, _GONE = Phase.WITHDRAWING, Phase.GONE
_WAITING, _LEAVING = Phase.WAITING, Phase.LEAVING
_START, _ARM, _KILL, _BACKOFF, _REST, _IGNORE = Action

TABLE: Table = {
    _NEW: _row(
        armed=(_ARMED, ()),
        # Whoever asked is told why; there was no rule yet to keep.
        failed=(_GONE, ()),
        lost=(_GONE, ()),
        trigger_last=None,
        trigger_wait=None,
        trigger_next=None,
        trigger_rest=None,
        trigger_spent=None,
        died=None,
        fell=None,
        jail=None,
        jail_wait=None,
        jail_rest=None,
        left=None,
        missed=None,
        run_ended=None,
        run_ended_rest=None,
        rested=None,
        retry=None,
        hold=None,
        release=None,
        release_wait=None,
        release_rest=None,
        release_absent=None,
        detach=(_WITHDRAWING, (_KILL,)),
    ),
    _ARMING: _row(
        armed=(_ARMED, ()),
        failed=(_FAILING, (_BACKOFF,)),
        lost=(_GONE, ()),
        trigger_last=None,
        trigger_wait=None,
        trigger_next=None,
        trigger_rest=None,
        trigger_spent=None,
        died=None,
        fell=None,
        jail=None,
        jail_wait=None,
        jail_rest=None,
        left=(_LEAVING, (_KILL,)),
        missed=(_WAITING, ()),
        run_ended=(_ARMING, ()),
        run_ended_rest=(_ARMING, ()),
        rested=None,
        retry=None,
        hold=(_HOLDING, (_KILL,)),
        release=None,
        release_wait=None,
        release_rest=None,
        release_absent=None,
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
        trigger_rest=(_RESTING, (_START, _REST)),
        trigger_spent=(_WAITING, (_START,)),
        # Killing the probe is how a rule is disarmed from inside the jail.
        died=(_GONE, ()),
        fell=(_FAILING, (_BACKOFF,)),
        jail=None,
        jail_wait=None,
        jail_rest=None,
        left=(_LEAVING, (_KILL,)),
        missed=(_WAITING, ()),
        run_ended=(_ARMED, ()),
        run_ended_rest=(_ARMED, ()),
        rested=None,
        retry=None,
        hold=(_HOLDING, (_KILL,)),
        release=None,
        release_wait=None,
        release_rest=None,
        release_absent=None,
        detach=(_WITHDRAWING, (_KILL,)),
    ),
    _RUNNING: _row(
        armed=None,
        failed=None,
        lost=None,
        trigger_last=None,
        trigger_wait=None,
        trigger_next=None,
        trigger_rest=None,
        trigger_spent=None,
        died=None,
        fell=None,
        jail=None,
        jail_wait=None,
        jail_rest=None,
        left=(_WAITING, ()),
        missed=None,
        run_ended=(_ARMING, (_ARM,)),
        run_ended_rest=(_RESTING, (_REST,)),
        rested=None,
        retry=None,
        hold=(_HELD, ()),
        release=None,
        release_wait=None,
        release_rest=None,
        release_absent=None,
        detach=(_GONE, ()),
    ),
    _RESTING: _row(
        armed=None,
        failed=None,
        lost=None,
        trigger_last=None,
        trigger_wait=None,
        trigger_next=None,
        trigger_rest=None,
        trigger_spent=None,
        died=None,
        fell=None,
        jail=None,
        jail_wait=None,
        jail_rest=None,
        left=(_WAITING, ()),
        missed=None,
        run_ended=(_RESTING, ()),
        run_ended_rest=(_RESTING, ()),
        rested=(_ARMING, (_ARM,)),
        retry=None,
        hold=(_HELD, ()),
        release=None,
        release_wait=None,
        release_rest=None,
        release_absent=None,
        detach=(_GONE, ()),
    ),
    _FAILING: _row(
        armed=None,
        failed=None,
        lost=None,
        trigger_last=None,
        trigger_wait=None,
        trigger_next=None,
        trigger_rest=None,
        trigger_spent=None,
        died=None,
        fell=None,
        jail=None,
        jail_wait=None,
        jail_rest=None,
        left=(_WAITING, ()),
        missed=None,
        run_ended=(_FAILING, ()),
        run_ended_rest=(_FAILING, ()),
        rested=None,
        retry=(_ARMING, (_ARM,)),
        # What the timers report later is not for a held rule: they are cancelled.
        hold=(_HELD, ()),
        release=None,
        release_wait=None,
        release_rest=None,
        release_absent=None,
        detach=(_GONE, ()),
    ),
    _HOLDING: _row(
        armed=None,
        failed=(_HELD, ()),
        lost=(_GONE, ()),
        trigger_last=(_HELD, (_IGNORE,)),
        trigger_wait=(_HELD, (_IGNORE,)),
        trigger_next=(_HELD, (_IGNORE,)),
        trigger_rest=(_HELD, (_IGNORE,)),
        trigger_spent=(_HELD, (_IGNORE,)),
        # By KILL, as a rule: whatever it was, it was no trigger.
        died=(_HELD, ()),
        fell=(_HELD, ()),
        jail=None,
        jail_wait=None,
        jail_rest=None,
        left=(_HOLDING, ()),
        missed=(_HELD, ()),
        run_ended=(_HOLDING, ()),
        run_ended_rest=(_HOLDING, ()),
        rested=None,
        retry=None,
        hold=(_HOLDING, ()),
        release=None,
        release_wait=None,
        release_rest=None,
        release_absent=None,
        detach=(_WITHDRAWING, ()),
    ),
    _HELD: _row(
        armed=None,
        failed=None,
        lost=None,
        trigger_last=None,
        trigger_wait=None,
        trigger_next=None,
        trigger_rest=None,
        trigger_spent=None,
        died=None,
        fell=None,
        jail=None,
        jail_wait=None,
        jail_rest=None,
        left=(_HELD, ()),
        missed=None,
        run_ended=(_HELD, ()),
        run_ended_rest=(_HELD, ()),
        rested=None,
        retry=None,
        hold=(_HELD, ()),
        release=(_ARMING, (_ARM,)),
        release_wait=(_RUNNING, ()),
        release_rest=(_RESTING, (_REST,)),
        release_absent=(_WAITING, ()),
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
        trigger_rest=(_GONE, (_IGNORE,)),
        trigger_spent=(_GONE, (_IGNORE,)),
        died=(_GONE, ()),
        fell=(_GONE, ()),
        jail=None,
        jail_wait=None,
        jail_rest=None,
        left=(_WITHDRAWING, ()),
        missed=(_GONE, ()),
        run_ended=(_WITHDRAWING, ()),
        run_ended_rest=(_WITHDRAWING, ()),
        rested=None,
        retry=None,
        hold=None,
        release=None,
        release_wait=None,
        release_rest=None,
        release_absent=None,
        detach=(_WITHDRAWING, ()),
    ),
    _WAITING: _row(
        armed=None,
        failed=None,
        lost=None,
        trigger_last=None,
        trigger_wait=None,
        trigger_next=None,
        trigger_rest=None,
        trigger_spent=None,
        died=None,
        fell=None,
        jail=(_ARMING, (_ARM,)),
        jail_wait=(_RUNNING, ()),
        jail_rest=(_RESTING, (_REST,)),
        left=None,
        missed=None,
        run_ended=(_WAITING, ()),
        run_ended_rest=(_WAITING, ()),
        rested=None,
        retry=None,
        hold=(_HELD, ()),
        release=None,
        release_wait=None,
        release_rest=None,
        release_absent=None,
        detach=(_GONE, ()),
    ),
    _LEAVING: _row(
        armed=None,
        failed=(_WAITING, ()),
        lost=None,
        trigger_last=None,
        # It rang while it was there: the jail's own end may have been what it rang for.
        trigger_wait=(_WAITING, (_START,)),
        trigger_next=(_WAITING, (_START,)),
        trigger_rest=(_WAITING, (_START,)),
        trigger_spent=(_WAITING, (_START,)),
        died=None,
        fell=(_WAITING, ()),
        jail=None,
        jail_wait=None,
        jail_rest=None,
        left=(_LEAVING, ()),
        missed=(_WAITING, ()),
        run_ended=(_LEAVING, ()),
        run_ended_rest=(_LEAVING, ()),
        rested=None,
        retry=None,
        hold=(_HOLDING, ()),
        release=None,
        release_wait=None,
        release_rest=None,
        release_absent=None,
        detach=(_WITHDRAWING, ()),
    ),
    _GONE: _row(
        armed=None,
        failed=None,
        lost=None,
        trigger_last=None,
        trigger_wait=None,
        trigger_next=None,
        trigger_rest=None,
        trigger_spent=None,
        died=None,
        fell=None,
        jail=None,
        jail_wait=None,
        jail_rest=None,
        left=None,
        missed=None,
        run_ended=(_GONE, ()),
        run_ended_rest=(_GONE, ()),
        rested=None,
        retry=None,
        hold=None,
        release=None,
        release_wait=None,
        release_rest=None,
        release_absent=None,
        detach=(_GONE, ()),
    ),
}


class Life(NamedTuple):
    """A rule's phase, its runs in progress, and its failed armings in a row."""

    phase: Phase = Phase.NEW
    runs: int = 0
    failures: int = 0

    @property
    def over(self) -> bool:
        """Whether nothing of the rule is left."""
        return self.phase is Phase.GONE and self.runs == 0


def sort_trigger(policy: Policy, runs: int, wait: float, *, lasting: bool = False) -> Event:
    """Return what a trigger is to a rule with `runs` in progress before it.

    `wait` is in how many seconds the limit allows one more after it.  A `lasting`
    rule, from a file, outlives its jail.
    """
    if policy.respawn is Respawn.NO:
        return Event.TRIGGER_SPENT if lasting else Event.TRIGGER_LAST
    if runs + 1 >= policy.at_once:
        return Event.TRIGGER_WAIT
    return Event.TRIGGER_REST if wait else Event.TRIGGER_NEXT


def step(life: Life, event: Event, table: Table = TABLE) -> tuple[Life, tuple[Action, ...]]:
    """Return the life after `event`, and what must be done; IllegalEvent if it cannot be."""
    cell = table[life.phase][event]
    ended = event in (Event.RUN_ENDED, Event.RUN_ENDED_REST)
    if cell is None or (ended and life.runs == 0):
        msg = f"{event.name} in phase {life.phase.name} with {life.runs} runs"
        raise IllegalEvent(msg)
    phase, actions = cell
    runs = life.runs + (Action.START in actions) - ended
    # What we ended ourselves, to hold or to withdraw the rule, did not fail.
    failures = 0 if event is Event.ARMED else life.failures + (Action.BACKOFF in actions)
    return Life(phase, runs, failures), actions


def backoff_seconds(failures: int) -> float:
    """Return the wait before the next try, after `failures` in a row: 1 s doubling to 60 s."""
    return float(min(60, 2 ** min(failures - 1, 6)))
