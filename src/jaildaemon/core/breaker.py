# SPDX-License-Identifier: BSD-2-Clause
"""The breaker: a rule whose command reboots the host must not do so for ever.

A jail that rings at each of its starts, and a command that reboots the host,
make a loop that no limit within one boot can see.  So the runs that were in
progress when the host went down are counted across boots.
"""

MAX_BREAKS = 10
WINDOW_SECONDS = 3600.0

Breaks = dict[str, list[float]]
"""Of each rule: when its runs began that the host did not survive, since the epoch."""


def key(title: str | None, command: str) -> str:
    """Return what names the same rule in every boot: numbers of jails do not last."""
    return f"{title or ''}\0{command}"


def note(breaks: Breaks, rule: str, began: float) -> None:
    """Take note of one more, and keep no more than can matter."""
    breaks[rule] = [*breaks.get(rule, []), began][-MAX_BREAKS:]


def broken(breaks: Breaks, rule: str, now: float) -> float | None:
    """Return in how many seconds the rule may be armed again; None for at once.

    A clock that was set back makes a time lie ahead: it counts as this moment.
    """
    times = [min(began, now) for began in breaks.get(rule, [])]
    recent = sorted(began for began in times if now - began < WINDOW_SECONDS)
    if len(recent) < MAX_BREAKS:
        return None
    return recent[0] + WINDOW_SECONDS - now
