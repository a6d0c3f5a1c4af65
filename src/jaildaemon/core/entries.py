# SPDX-License-Identifier: BSD-2-Clause
"""The journal's records as `log` shows them: Entry of org.jaildaemon.varlink.

A record names its rule by the id alone.  Which jail and title that is was said
by an earlier one, so what is to be shown is read from the oldest on.
"""

from datetime import UTC, datetime

from jaildaemon.core.journal import Record
from jaildaemon.core.ranges import number

Entry = dict[str, object]

_OF_RULES = {"rule", "unrule", "armed", "died", "left", "hold", "release"}
_OF_RUNS = {"trigger", "start", "end", "output", "refused", "interrupted", "expired"}
KINDS = frozenset(_OF_RULES | _OF_RUNS | {"boot"})
"""What is shown; the rest is for the daemon itself."""
MAX_NAMES = 20_000
"""Rules whose jail and title are remembered, gone ones too: their output comes late."""
_TEXTS = ("run", "reason", "output_tail")
_NUMBERS = ("exit_status", "signal")


def stamp(seconds: float | None) -> str | None:
    """Return a time as RFC 3339 UTC with milliseconds."""
    if seconds is None:
        return None
    when = datetime.fromtimestamp(seconds, UTC)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Entries:
    """Makes entries of records, read in their order.  `rule`: those of one rule alone."""

    def __init__(self, rule: str | None = None) -> None:
        self._wanted = rule
        self._names: dict[str, tuple[str, str | None]] = {}

    def read(self, record: Record) -> Entry | None:
        """Take the next record; return its entry, or None where it is not to be shown."""
        kind, rule = str(record["kind"]), str(record.get("rule", ""))
        snapshot = "state" in record if kind == "rule" else "last_id" in record
        if kind == "rule":
            self._name(rule, record)
        # What a new journal begins with has been told before.
        if kind not in KINDS or snapshot:
            return None
        entry: Entry = {"time": stamp(number(record.get("t"))), "kind": kind}
        jail, title = self._names.get(rule, (None, None))
        if self._wanted is not None and not self._is_wanted(rule, jail, title):
            return None
        entry |= {"rule": rule or None, "jail": jail, "title": title}
        entry |= {name: record[name] for name in _TEXTS if isinstance(record.get(name), str)}
        entry |= {name: record[name] for name in _NUMBERS if type(record.get(name)) is int}
        if "duration_seconds" in record:
            entry["duration_seconds"] = number(record["duration_seconds"])
        return {name: value for name, value in entry.items() if value is not None}

    def _name(self, rule: str, record: Record) -> None:
        title = record.get("title")
        self._names.pop(rule, None)
        self._names[rule] = str(record.get("jail")), None if title is None else str(title)
        if len(self._names) > MAX_NAMES:
            del self._names[next(iter(self._names))]

    def _is_wanted(self, rule: str, jail: str | None, title: str | None) -> bool:
        return self._wanted in (rule, title, None if title is None else f"{jail}/{title}")
