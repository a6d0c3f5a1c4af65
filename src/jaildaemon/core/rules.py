# SPDX-License-Identifier: BSD-2-Clause
"""What a rule is: a jail, a title, a command and a policy.

Values are checked where they are made; a bad one cannot exist.
"""

import enum
from dataclasses import dataclass

from jaildaemon.core import text
from jaildaemon.errors import Refused


class Respawn(enum.Enum):
    """When a new probe follows a trigger."""

    NO = "no"
    """Never: one shot."""
    AFTER = "after"
    """When the command has completed, whatever its exit status (-r)."""
    NOW = "now"
    """At once, while the command still runs (-R)."""


CONCURRENCY_NOW = 8
"""Runs of one rule at a time under Respawn.NOW.  At the cap no probe stands in
the jail until a run ends, so a storm of signals ends in "no process"."""


def _check(what: str, problem: str | None) -> None:
    if problem:
        raise Refused("attach", what, problem)


@dataclass(frozen=True, slots=True)
class Policy:
    """How often the command may run, and who may ring; uid and gid as in the jail."""

    respawn: Respawn = Respawn.NO
    uid: int = 0
    gid: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        _check(f"uid {self.uid}", text.id_problem(self.uid))
        _check(f"gid {self.gid}", text.id_problem(self.gid))

    @property
    def concurrency(self) -> int:
        """How many runs of the rule there may be at once."""
        return CONCURRENCY_NOW if self.respawn is Respawn.NOW else 1


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.  `jail` is the jail as it was asked for, `id` never used twice."""

    id: str
    jail: str
    title: str | None
    command: str
    policy: Policy
    source: str = "transient"

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.title is not None:
            _check("title", text.title_problem(self.title))
        _check("command", text.command_problem(self.command))
