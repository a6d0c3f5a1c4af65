# SPDX-License-Identifier: BSD-2-Clause
"""What the host sees of a process: the same questions on both systems."""

import sys
from dataclasses import dataclass

if sys.platform == "linux":
    from tests.kernel.processes_linux import (
        alive,
        birth,
        children,
        command_lines,
        cpu_seconds,
        environment,
        fields,
        memory_kib,
        open_files,
        own_space,
        unheeded,
    )
else:
    from tests.kernel.processes_freebsd import (
        alive,
        birth,
        children,
        command_lines,
        cpu_seconds,
        environment,
        fields,
        memory_kib,
        open_files,
        own_space,
        unheeded,
    )

__all__ = [
    "Seen",
    "alive",
    "birth",
    "children",
    "command_lines",
    "cpu_seconds",
    "environment",
    "ignored_signals",
    "look",
    "memory_kib",
    "open_files",
    "own_space",
]

IGNORED_ANYWAY = {"SIGCHLD", "SIGCONT", "SIGURG", "SIGWINCH", "SIGIO", "SIGINFO"}
"""Signals whose default is to be ignored, which FreeBSD shows as ignored."""


@dataclass(frozen=True)
class Seen:
    """One process.  The ids are real, effective and saved; `space` is its PID namespace or jid.

    `groups` are the supplementary ones.
    """

    pid: int
    parent: int
    session: int
    comm: str
    uids: tuple[int, int, int]
    gids: tuple[int, int, int]
    groups: tuple[int, ...]
    space: str


def look(pid: int) -> Seen:
    """Return what the host sees of `pid`."""
    return Seen(pid, *fields(pid))


def ignored_signals(pid: int) -> set[str]:
    """Return which of the signals that end a process it ignores, or has blocked."""
    return unheeded(pid) - IGNORED_ANYWAY
