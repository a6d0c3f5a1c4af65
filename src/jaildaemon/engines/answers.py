# SPDX-License-Identifier: BSD-2-Clause
"""What is taken of an engine's answer: hostile until checked, and then a name, an id and a pid."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from jaildaemon.engines.endpoint import EngineError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")


@dataclass(frozen=True, slots=True)
class Found:
    """A running container: its name, its engine's id of it, and the host's pid of its init."""

    name: str
    id: str
    pid: int
    unit: str = ""
    """The systemd unit that it is in, where its engine says so."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """A container that an engine knows, and that does not run."""

    state: str


@dataclass(frozen=True, slots=True)
class Scan:
    """What an engine said of its containers."""

    found: list[Found]
    """Those of a wanted name that run."""
    listed: Mapping[str, str]
    """The id of each name that the engine lists with one, wanted or not; it may not run."""
    silent: Mapping[str, str] = field(default_factory=dict)
    """Wanted names of which it could not be asked more, and why."""


def found(untrusted_name: str, untrusted_id: str, untrusted_pid: object) -> Found | None:
    """Return a container that an engine speaks of; None where it is none that could be meant."""
    pid = 0
    if isinstance(untrusted_pid, int):
        pid = untrusted_pid
    elif isinstance(untrusted_pid, str) and re.fullmatch(r"[0-9]{1,10}", untrusted_pid):
        pid = int(untrusted_pid)
    plain = NAME.fullmatch(untrusted_name) and NAME.fullmatch(untrusted_id)
    return Found(untrusted_name, untrusted_id, pid) if plain and pid > 0 else None


def stopped(untrusted_state: object) -> Stopped:
    """Return a container that does not run, in the engine's word where it is one."""
    state = str(untrusted_state).lower()
    return Stopped(state if re.fullmatch(r"[a-z]{1,20}", state) else "stopped")


def as_json(answer: str, name: str) -> object:
    """Return what a command wrote, or an EngineError."""
    try:
        parsed: object = json.loads(answer)
    except (ValueError, RecursionError):
        return EngineError(f"{name} answered what is not JSON")
    return parsed
