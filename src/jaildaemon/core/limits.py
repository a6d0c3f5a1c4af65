# SPDX-License-Identifier: BSD-2-Clause
"""Durations, rate limits and the window that says when a rule may ring again."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
"""In milliseconds: whole numbers, so that 9 ms is 0.009 s and nothing beside it."""
_DURATION = re.compile(r"([0-9]{1,9})(ms|s|m|h|d)")
_LIMIT = re.compile(r"([0-9]{1,4})/(.+)")

MAX_SECONDS = 366 * 86400.0
"""Longer than any rule needs, and far from where timers overflow."""

MAX_COUNT = 1000
"""Of a rate limit: each of its triggers is kept, with its time."""


def parse_duration(text: str) -> float:
    """Return "10s" and the like in seconds; ValueError says what is wrong.

    A bare number is an error: nobody knows whether it is seconds.
    """
    found = _DURATION.fullmatch(text)
    if found is None:
        msg = f'{text!r} is no duration, which is a number and ms, s, m, h or d, such as "10s"'
        raise ValueError(msg)
    seconds = int(found[1]) * _UNITS[found[2]] / 1000
    if seconds > MAX_SECONDS:
        msg = f"{text!r} is longer than a year"
        raise ValueError(msg)
    return seconds


def format_duration(seconds: float) -> str:
    """Return the shortest text that `parse_duration` gives back as `seconds`."""
    milliseconds = round(seconds * 1000)
    if milliseconds == 0:
        return "0s"
    for unit in ("d", "h", "m", "s"):
        if milliseconds % _UNITS[unit] == 0:
            return f"{milliseconds // _UNITS[unit]}{unit}"
    return f"{milliseconds}ms"


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `count` triggers in any `seconds`."""

    count: int
    seconds: float

    def __str__(self) -> str:
        """Return it as it is written: "30/1m"."""
        return f"{self.count}/{format_duration(self.seconds)}"


def parse_limit(text: str) -> Limit | None:
    """Return "30/1m" as a Limit, "none" as None; ValueError says what is wrong."""
    if text == "none":
        return None
    found = _LIMIT.fullmatch(text)
    if found is None or not 1 <= int(found[1]) <= MAX_COUNT:
        msg = f'{text!r} is neither "none" nor N/DUR, such as "30/1m", N up to {MAX_COUNT}'
        raise ValueError(msg)
    seconds = parse_duration(found[2])
    if seconds == 0:
        msg = f"{text!r} is no limit: the time must not be 0"
        raise ValueError(msg)
    return Limit(int(found[1]), seconds)


class Latest:
    """The latest `count` times of something; costs next to nothing while there are none."""

    __slots__ = ("_times", "count")

    def __init__(self, count: int, times: Iterable[float] = ()) -> None:
        self.count = count
        self._times: tuple[float, ...] = ()
        self.extend(times)

    def extend(self, times: Iterable[float]) -> None:
        """Add later ones, and keep no more than matter."""
        if self.count:
            self._times = (*self._times, *times)[-self.count :]

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._times)

    def __iter__(self) -> Iterator[float]:
        """Give them, the earliest first."""
        return iter(self._times)


class Window:
    """The latest triggers of one rule, at times of a clock that never steps."""

    __slots__ = ("_limit", "_times")

    def __init__(self, limit: Limit | None, times: Iterable[float] = ()) -> None:
        self._limit = limit
        self._times = Latest(limit.count if limit else 0, times)

    def note(self, now: float) -> None:
        """Take note of a trigger."""
        self._times.extend((now,))

    def wait(self, now: float) -> float:
        """Return the seconds until one more trigger is within the limit; 0 if it is now."""
        if self._limit is None or len(self._times) < self._limit.count:
            return 0.0
        return max(0.0, next(iter(self._times)) + self._limit.seconds - now)
