# SPDX-License-Identifier: BSD-2-Clause
"""What a rule is: a jail, a title, a command and a policy.

Values are checked where they are made; a bad one cannot exist.
"""

import enum
import functools
import re
from dataclasses import dataclass

from jaildaemon.core import text
from jaildaemon.core.limits import Limit, format_duration, parse_duration, parse_limit
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
MAX_CONCURRENCY = 64
DEFAULT_LIMIT = Limit(30, 60.0)
TRANSIENT = "transient"
_ENGINE_NAME = re.compile(r"[a-z]+:([A-Za-z0-9][A-Za-z0-9_.-]*)")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?")


def _check(what: str, problem: str | None) -> None:
    if problem:
        raise Refused("attach", what, problem)


@dataclass(frozen=True, slots=True)
class Policy:
    """How often the command may run, as whom, and who may ring; times in seconds.

    uid and gid are the probe's, as in the jail; run_as is a user of the host.
    """

    respawn: Respawn = Respawn.NO
    uid: int = 0
    gid: int = 0
    signal: str = "HUP"
    limit: Limit | None = DEFAULT_LIMIT
    cooldown: float = 0.0
    timeout: float | None = None
    settle: float = 0.0
    concurrency: int = 1
    run_as: str = "root"

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        _check(f"uid {text.shown_number(self.uid)}", text.id_problem(self.uid))
        _check(f"gid {text.shown_number(self.gid)}", text.id_problem(self.gid))
        if not 1 <= self.concurrency <= MAX_CONCURRENCY:
            wrong = f"concurrency {text.shown_number(self.concurrency)}"
            _check(wrong, f"is not from 1 to {MAX_CONCURRENCY}")
        if self.signal not in ("HUP", "USR1"):
            _check(f"signal {text.shown(self.signal)}", "is neither HUP nor USR1")
        if not _USER.fullmatch(self.run_as):
            _check(f"run_as {text.shown(self.run_as)}", "is no user name")

    @property
    def at_once(self) -> int:
        """How many runs may go on at once.  A probe stands only while there are fewer.

        A cooldown follows a run, so where there is one no two runs overlap.
        """
        return self.concurrency if self.respawn is Respawn.NOW and not self.cooldown else 1

    def texts(self) -> dict[str, object]:
        """Return it as Policy of org.jaildaemon.varlink: every field, durations as written.

        It is the same one each time, and not to be changed.
        """
        return _texts(self)


# Ten thousand rules have a few policies between them: each is kept once.


@functools.lru_cache(maxsize=1024)
def _one(policy: Policy) -> Policy:
    return policy


@functools.lru_cache(maxsize=1024)
def _texts(policy: Policy) -> dict[str, object]:
    return {
        "respawn": policy.respawn.value,
        "uid": policy.uid,
        "gid": policy.gid,
        "signal": policy.signal,
        "limit": "none" if policy.limit is None else str(policy.limit),
        "cooldown": format_duration(policy.cooldown),
        "timeout": "none" if policy.timeout is None else format_duration(policy.timeout),
        "settle": format_duration(policy.settle),
        "concurrency": policy.concurrency,
        "run_as": policy.run_as,
    }


def make_policy(  # noqa: PLR0913 - the fields of a Policy
    *,
    respawn: str | None = None,
    uid: int | None = None,
    gid: int | None = None,
    signal: str | None = None,
    limit: str | None = None,
    cooldown: str | None = None,
    timeout: str | None = None,
    settle: str | None = None,
    concurrency: int | None = None,
    run_as: str | None = None,
) -> Policy:
    """Return the policy that the texts name, absent ones at their defaults; Refused.

    Absent is None: an empty text is a mistake, such as a shell's unset variable.
    """
    try:
        when = Respawn.NO if respawn is None else Respawn(respawn)
    except ValueError:
        raise Refused("attach", f"respawn {respawn!r}", 'is none of "no", "after", "now"') from None
    if concurrency is None:
        concurrency = CONCURRENCY_NOW if when is Respawn.NOW else 1
    field = ""
    try:
        field = "limit"
        rate = DEFAULT_LIMIT if limit is None else parse_limit(limit)
        field = "cooldown"
        rest = 0.0 if cooldown is None else parse_duration(cooldown)
        field = "timeout"
        longest = None if timeout is None or timeout == "none" else parse_duration(timeout)
        field = "settle"
        quiet = 0.0 if settle is None else parse_duration(settle)
    except ValueError as error:
        raise Refused("attach", field, str(error)) from None
    policy = Policy(
        when,
        uid or 0,
        gid or 0,
        "HUP" if signal is None else signal,
        rate,
        rest,
        longest,
        quiet,
        concurrency,
        "root" if run_as is None else run_as,
    )
    return _one(policy)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.  `jail` is the jail as it was asked for, `id` never used twice."""

    id: str
    jail: str
    title: str | None
    command: str
    policy: Policy
    source: str = TRANSIENT
    """The file it came from, or TRANSIENT."""

    @property
    def lasting(self) -> bool:
        """Whether it is in a file, and so outlives its jail."""
        return self.source != TRANSIENT

    @property
    def jail_name(self) -> str | None:
        """The name in ENGINE:NAME, None where the jail was asked for otherwise."""
        found = _ENGINE_NAME.fullmatch(self.jail)
        return found[1] if found else None

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        # Both are in the environment of the command.
        _check("id", text.name_problem(self.id))
        _check("jail", text.name_problem(self.jail))
        if self.title is not None:
            _check("title", text.title_problem(self.title))
        _check("command", text.command_problem(self.command))
