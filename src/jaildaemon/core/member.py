# SPDX-License-Identifier: BSD-2-Clause
"""One rule of the fleet: its life, its runs, its counts, and what `list` shows of it."""

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from jaildaemon.core.lifecycle import Life, Phase
from jaildaemon.core.limits import Window
from jaildaemon.core.rules import Rule
from jaildaemon.core.text import NAME, process_title


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


class Now(NamedTuple):
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
    jail_key: str
    """The jail that rang, which its rule may have left by now."""
    by: str | None = None
    """Who fired it; None for whoever rang in the jail."""
    account: str | None = None
    """The numbers of the user of its command when the probe was armed, where they are known."""


@dataclass(slots=True, eq=False)
class Member:
    """One rule of the fleet."""

    rule: Rule
    jail_key: str
    """Which jail it is: two rules with the same key share a jail.  "" while a rule in
    a file has none; a transient rule has one for good."""
    window: Window
    life: Life = field(default_factory=Life)
    runs: list[Run] = field(default_factory=list)
    reason: str | None = None
    armed_at: float | None = None
    armed_since: float = 0.0
    """The same, steady; of the latest arming."""
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
        if phase in (Phase.RUNNING, Phase.GONE, Phase.WAITING) and self.runs:
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
    Phase.WAITING: Shown.WAITING,
    Phase.LEAVING: Shown.WAITING,
    Phase.GONE: Shown.GONE,
}


def overlapping(title: str | None) -> Callable[[str | None], bool]:
    """Return what says whether looking for one title finds the other's probe too.

    pkill -f looks at the whole argv[0], "jaildaemon: " included; a rule without
    a title can only be rung by that name, which is in all of them.
    """
    sought, whole = title or NAME, process_title(title)

    def overlaps(other: str | None) -> bool:
        return (other or NAME) in whole or sought in process_title(other)

    return overlaps
