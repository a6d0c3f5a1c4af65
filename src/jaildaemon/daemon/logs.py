# SPDX-License-Identifier: BSD-2-Clause
"""What a line of the daemon's log is: its severity, its text, and the rule and run it is about.

Where the lines go, and how, is in sinks.py.
"""

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypedDict, Unpack

from jaildaemon.core.text import shown

MAX_BYTES = 8192
"""Of a line: syslogds take no longer one (rsyslog's default), and nobody reads it."""


class Severity(enum.IntEnum):
    """As syslog(3) numbers them."""

    ERROR = 3
    """Something does not work, and will not until somebody acts."""
    WARNING = 4
    """An operator must see it: a failed command, a rule that is not armed, a refused caller."""
    NOTICE = 5
    """A trigger."""
    INFO = 6


class Subject(Protocol):
    """What a line is about: a rule, or what is still known of one."""

    @property
    def id(self) -> str:
        """The rule's id."""

    @property
    def jail(self) -> str:
        """The jail, as the rule names it."""

    @property
    def title(self) -> str | None:
        """The rule's title."""


@dataclass(frozen=True, slots=True)
class Known:
    """A Subject of which only its parts are at hand."""

    id: str
    jail: str
    title: str | None


class About(TypedDict, total=False):
    """What a line may be about."""

    rule: Subject
    run: str
    exit_status: int | None


@dataclass(frozen=True, slots=True)
class Record:
    """One line."""

    severity: Severity
    text: str
    about: About

    @property
    def line(self) -> str:
        """The line for people: with the rule's id first, and its jail and title last."""
        rule = self.about.get("rule")
        if rule is None:
            return _cut(shown(self.text))
        where = f"{rule.jail}/{rule.title or ''}".removesuffix("/")
        # The id of a rule in a file is often the same.
        last = "" if rule.id == where else f" [{shown(where)}]"
        return _cut(f"{shown(rule.id)}: {shown(self.text)}") + last


def _cut(text: str) -> str:
    data = text.encode(errors="replace")
    return text if len(data) <= MAX_BYTES else data[:MAX_BYTES].decode(errors="ignore") + "..."


MAX_NAMED = 20
"""Rules that one line names."""


class Logger:
    """What the daemon logs with; `take` has each record written, and never waits."""

    def __init__(
        self, take: Callable[[Record], None], trouble: Callable[[], str | None] = lambda: None
    ) -> None:
        self._take, self.trouble = take, trouble

    def __call__(self, text: str) -> None:
        """Log what needs no attention and is about no rule."""
        self.info(text)

    def error(self, text: str, **about: Unpack[About]) -> None:
        """Log what does not work until somebody acts."""
        self._take(Record(Severity.ERROR, text, about))

    def warning(self, text: str, **about: Unpack[About]) -> None:
        """Log what an operator must see."""
        self._take(Record(Severity.WARNING, text, about))

    def notice(self, text: str, **about: Unpack[About]) -> None:
        """Log a trigger."""
        self._take(Record(Severity.NOTICE, text, about))

    def info(self, text: str, **about: Unpack[About]) -> None:
        """Log anything else."""
        self._take(Record(Severity.INFO, text, about))


def log_all(log: Logger, rules: Sequence[Subject], what: str) -> None:
    """Log what happens to several rules: one line, however many they are."""
    if len(rules) == 1:
        log.info(what, rule=rules[0])
        return
    more = len(rules) - MAX_NAMED
    names = ", ".join(rule.id for rule in rules[:MAX_NAMED]) or "no rule"
    log.info(f"{names}{f' and {more} more' if more > 0 else ''}: {what}")
