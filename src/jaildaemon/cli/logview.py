# SPDX-License-Identifier: BSD-2-Clause
"""The log for people: a line for each decision, below it what the command wrote."""

from typing import Any

from jaildaemon.core.text import shown

LAST_LINES = 10
"""Of a run's output; --json has all that was kept."""

Entry = dict[str, Any]


class Lines:
    """Makes lines of entries; a trigger and the start that came with it are one."""

    def __init__(self) -> None:
        self._triggered: str | None = None

    def of(self, entry: Entry) -> list[str]:
        """Return the lines of an entry."""
        kind, run = entry["kind"], entry.get("run")
        if kind == "start" and run is not None and run == self._triggered:
            return []
        self._triggered = run if kind == "trigger" else None
        when = f"{entry['time'][:10]} {entry['time'][11:19]}"
        words = [when, _rule(entry), _decision(entry)]
        return [" ".join(word for word in words if word), *_output(entry)]


def _rule(entry: Entry) -> str:
    if "rule" not in entry:
        return ""
    name = shown(entry.get("jail", ""))
    if "title" in entry:
        name = f"{name}/{shown(entry['title'])}"
    rule = shown(entry["rule"])
    return f"{rule}:" if name in ("", rule) else f"{rule} {name}:"


def _decision(entry: Entry) -> str:
    kind = entry["kind"]
    why = shown(entry.get("reason", ""))
    # A run's id ends in its number of this life of the daemon, which is what people need.
    run = f"run {shown(entry.get('run', '?')).rpartition('.')[2]}"
    words = {
        "boot": "the daemon started",
        "rule": f"new, {why}" if why else "new",
        "unrule": f"gone: {why}",
        "armed": "armed",
        "died": why,
        "left": why,
        "trigger": f"{why or 'rung in the jail'}, {run}",
        "start": f"{run} started",
        "end": f"{run} ended: {_end(entry)}",
        "output": f"{run} wrote",
        "hold": why,
        "release": why,
    }
    if kind in words:
        return words[kind]
    return f"{run if 'run' in entry else 'a signal'} {shown(kind)}: {why}"


def _end(entry: Entry) -> str:
    how = "with an unknown status"
    if "signal" in entry:
        how = f"signal {entry['signal']}"
    elif "exit_status" in entry:
        how = f"exit {entry['exit_status']}"
    why = f": {shown(entry['reason'])}" if "reason" in entry else ""
    return f"{how} after {entry.get('duration_seconds', 0.0):.3f} s{why}"


def _output(entry: Entry) -> list[str]:
    if "output_tail" not in entry:
        return []
    lines = [line for line in entry["output_tail"].split("\n") if line][-LAST_LINES:]
    return [f"    | {shown(line)}" for line in lines]
