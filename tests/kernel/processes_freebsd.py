# SPDX-License-Identifier: BSD-2-Clause
"""What a FreeBSD host sees of a process: ps(1) and procstat(1)."""

import subprocess

Three = tuple[int, int, int]
Fields = tuple[int, int, str, Three, Three, tuple[int, ...], str]


def _run(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def fields(pid: int) -> Fields:
    """Return parent, session, name, uids, gids, groups, jid."""
    # One -o each: after "=" the rest of the argument is the header, commas and all.
    wish = ("-oppid=", "-osid=", "-ojid=", "-ocomm=")
    parent, session, jid, comm = _run("ps", *wish, "-p", str(pid)).split(maxsplit=3)
    # PID COMM EUID RUID SVUID EGID RGID SVGID UMASK FLAGS GROUPS.  COMM is one
    # word wherever this is asked: jailprobe, sh, python3.11.
    cred = _run("procstat", "-h", "-s", str(pid)).split()
    euid, ruid, svuid, egid, rgid, svgid = (int(word) for word in cred[2:8])
    groups = tuple(
        int(group) for word in cred[10:] for group in word.split(",") if group.isdecimal()
    )
    # Before 15 the effective gid is the first of the groups.
    supplementary = tuple(group for group in groups if group != egid)
    return (
        int(parent),
        int(session),
        comm.strip(),
        (ruid, euid, svuid),
        (rgid, egid, svgid),
        supplementary,
        jid,
    )


def own_space() -> str:
    """Return the host's jid."""
    return "0"


def open_files(pid: int) -> list[str]:
    """Return the descriptors that a process holds."""
    # PID COMM FD ...; FD is a word for the text, the directories and the like.
    rows = (line.split() for line in _run("procstat", "-h", "-f", str(pid)).splitlines())
    return [row[2] for row in rows if row[2].isdecimal()]


def environment(pid: int) -> dict[str, str]:
    """Return the environment that a process was started with.  No value may have a space."""
    pairs = _run("procstat", "-h", "-e", str(pid)).split()[2:]
    # "-" where there is none.
    return {name: value for name, is_one, value in (p.partition("=") for p in pairs) if is_one}


def unheeded(pid: int) -> set[str]:
    """Return the signals that a process ignores."""
    # PID COMM SIG FLAGS, where FLAGS has an I for an ignored signal.
    rows = (line.split() for line in _run("procstat", "-h", "-i", str(pid)).splitlines())
    return {f"SIG{row[2].removeprefix('SIG')}" for row in rows if "I" in row[3]}


def birth(pid: int) -> str | None:
    """Return what tells this process from a later one with the same number; None without one."""
    found = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or None


def alive(pid: int) -> bool:
    """Say whether a process runs and is no zombie."""
    found = subprocess.run(
        ["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return found.stdout.strip()[:1] not in ("", "Z")


def command_lines() -> dict[int, str]:
    """Return what ps(1) shows of every process; a probe's is its title."""
    lines = _run("ps", "-axww", "-opid=", "-oargs=").splitlines()
    rows = (line.strip().partition(" ") for line in lines)
    return {int(pid): words.strip() for pid, _, words in rows}


def memory_kib(pid: int) -> int:
    """Return the resident memory of a process."""
    return int(_run("ps", "-orss=", "-p", str(pid)))


def cpu_seconds(pid: int) -> float:
    """Return what a process has used of a processor."""
    minutes, seconds = _run("ps", "-otime=", "-p", str(pid)).split(":")
    return int(minutes) * 60 + float(seconds)


def children(pid: int) -> list[int]:
    """Return the children of a process."""
    rows = (line.split() for line in _run("ps", "-ax", "-opid=", "-oppid=").splitlines())
    return [int(child) for child, parent in rows if int(parent) == pid]
