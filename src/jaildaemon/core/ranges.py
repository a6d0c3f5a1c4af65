# SPDX-License-Identifier: BSD-2-Clause
"""What the numbers of a journal's record may be, so that every later layer can hold them.

JSON has numbers that no float, no date and no file name holds.  A record with
one of those was not written by a daemon.
"""

import math
import re
from collections.abc import Iterator

MAX_WALL = 253_402_300_799
"""Seconds since the epoch: the last one of the year 9999, where datetime ends."""
MAX_STEADY = 2**33
"""Seconds since the boot, 272 years: no host is up longer."""
MAX_COUNTED = 2**53 - 1
"""The largest whole number that is the same for every reader of JSON (RFC 8259, 6)."""
MAX_INT = 2**31 - 1
"""A pid, a signal, an exit status: int of the kernel."""
MAX_LAST_ID = 10**11 - 1
"""Of transient rules: no host has had so many."""

_WALL, _COUNTED, _INT = (0, MAX_WALL), (0, MAX_COUNTED), (0, MAX_INT)
_STEADY = (-MAX_STEADY, MAX_STEADY)
_RECORD = {
    "t": _WALL,
    "s": _STEADY,
    "began": _WALL,
    "last_id": (0, MAX_LAST_ID),
    "pid": (1, MAX_INT),
    "start_time": _COUNTED,
    "exit_status": _INT,
    "signal": _INT,
    "duration_seconds": (0, MAX_STEADY),
}
_STATE = {
    "times": _STEADY,
    "last_end": _STEADY,
    "last_trigger": _WALL,
    "triggers": _COUNTED,
    "refused": _COUNTED,
}
_RUN = {name: _RECORD[name] for name in ("t", "s", "pid", "start_time")}
_RUN_ID = re.compile(r"[^/]{1,200}")
"""Part of a file's name and of a command's environment."""


def number(value: object) -> float:
    """Return a number as it is, 0 for everything else; JSON has some that no float can hold."""
    try:
        found = float(value) if isinstance(value, int | float) else 0.0
    except OverflowError:
        return 0.0
    return found if math.isfinite(found) else 0.0


def problem(record: dict[str, object]) -> str | None:
    """Say which value of a record is out of its range; a value of another type is not looked at."""
    return next(_problems(record), None)


def _problems(record: dict[str, object]) -> Iterator[str]:
    yield from _outside(record, _RECORD)
    breaks = record.get("breaks")
    if isinstance(breaks, dict):
        for times in breaks.values():
            yield from _outside({"breaks": times}, {"breaks": _WALL})
    yield from _of_run(record)
    identity = record.get("identity")
    if isinstance(identity, dict):
        for value in identity.values():
            yield from _outside({"identity": list(_flat(value))}, {"identity": _COUNTED})
    state = record.get("state")
    if isinstance(state, dict):
        yield from _outside(state, _STATE)
        runs = state.get("runs")
        for run in runs if isinstance(runs, list) else ():
            if isinstance(run, dict):
                yield from _outside(run, _RUN)
                yield from _of_run(run)


def _outside(values: dict[str, object], ranges: dict[str, tuple[int, int]]) -> Iterator[str]:
    for name, (lowest, highest) in ranges.items():
        value = values.get(name)
        for each in value if isinstance(value, list) else (value,):
            # Whole numbers of any size are compared with these exactly.
            if isinstance(each, int | float) and not lowest <= each <= highest:
                yield f"{name} is not from {lowest} to {highest}"


def _flat(value: object) -> Iterator[object]:
    """Give what is in a list of lists: no deeper, for no identity is."""
    for each in value if isinstance(value, list) else (value,):
        yield from each if isinstance(each, list) else (each,)


def _of_run(values: dict[str, object]) -> Iterator[str]:
    run = values.get("run")
    if isinstance(run, str) and run and not (run.isprintable() and _RUN_ID.fullmatch(run)):
        yield "run is not the id of a run"
