# SPDX-License-Identifier: BSD-2-Clause
"""A log that a test can read."""

from jaildaemon.daemon.logs import Logger, Record


def words(record: Record) -> str:
    """Return a record as its text, after the id of the rule that it is about."""
    rule = record.about.get("rule")
    return record.text if rule is None else f"{rule.id}: {record.text}"


def logger_into(lines: list[str]) -> Logger:
    """Return a logger that appends to `lines`."""
    return Logger(lambda record: lines.append(words(record)))
