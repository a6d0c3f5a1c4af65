# SPDX-License-Identifier: BSD-2-Clause
"""What a Linux host sees of a process: proc(5)."""

import contextlib
import os
import signal
from pathlib import Path

Three = tuple[int, int, int]
Fields = tuple[int, int, str, Three, Three, tuple[int, ...], str]


def status(pid: int) -> dict[str, str]:
    """Return /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _stat(pid: int) -> list[str]:
    """Return /proc/PID/stat from its third field on; the second may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()


def _three(text: str) -> Three:
    real, effective, saved = (int(word) for word in text.split()[:3])
    return real, effective, saved


def fields(pid: int) -> Fields:
    """Return parent, session, name, uids, gids, groups, PID namespace."""
    found = status(pid)
    return (
        int(found["PPid"]),
        int(_stat(pid)[3]),
        found["Name"],
        _three(found["Uid"]),
        _three(found["Gid"]),
        tuple(int(group) for group in found["Groups"].split()),
        os.readlink(f"/proc/{pid}/ns/pid"),
    )


def own_space() -> str:
    """Return the host's PID namespace."""
    return os.readlink("/proc/self/ns/pid")


def open_files(pid: int) -> list[str]:
    """Return the descriptors that a process holds."""
    return sorted(os.listdir(f"/proc/{pid}/fd"))


def environment(pid: int) -> dict[str, str]:
    """Return the environment that a process was started with."""
    text = Path(f"/proc/{pid}/environ").read_text(encoding="utf-8")
    pairs = text.rstrip("\0").split("\0") if text else []
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


def unheeded(pid: int) -> set[str]:
    """Return the signals that a process ignores, or has blocked."""
    found = status(pid)
    mask = int(found["SigIgn"], 16) | int(found["SigBlk"], 16)
    return {number.name for number in signal.Signals if mask >> (number - 1) & 1}


def birth(pid: int) -> str | None:
    """Return what tells this process from a later one with the same number; None without one."""
    try:
        return _stat(pid)[19]
    except (FileNotFoundError, ProcessLookupError):
        return None


def alive(pid: int) -> bool:
    """Say whether a process runs and is no zombie."""
    try:
        return _stat(pid)[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def command_lines() -> dict[int, str]:
    """Return what ps(1) would show of every process; a probe's is its title."""
    found = {}
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            data = Path(f"/proc/{name}/cmdline").read_bytes()
            found[int(name)] = data.rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
    return found


def memory_kib(pid: int) -> int:
    """Return the resident memory of a process."""
    return int(status(pid)["VmRSS"].split()[0])


def cpu_seconds(pid: int) -> float:
    """Return what a process has used of a processor."""
    return sum(int(ticks) for ticks in _stat(pid)[11:13]) / os.sysconf("SC_CLK_TCK")


def children(pid: int) -> list[int]:
    """Return the children of a process."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(word) for word in text.split()]
