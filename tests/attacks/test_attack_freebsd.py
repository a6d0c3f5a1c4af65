# SPDX-License-Identifier: BSD-2-Clause
"""Attacks 1, 2, 3, 5, 6 on FreeBSD: CVE-2020-25582 and its like, by root of a jail."""

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if not sys.platform.startswith("freebsd"):
    pytest.skip("cannot: the FreeBSD attacker", allow_module_level=True)

from tests.attacks.freebsd_rig import SUSPENDED, Naive, shows
from tests.attacks.rig import Daemon, arm_under, wait_counts
from tests.attacks.talker import Talker
from tests.attacks.tally import Tally

TARGETS = 2000
"""How many probes the attacker must have seen."""
AT_ONCE = 40
NAIVE = 10


def test_racing_the_entry_gains_nothing_on_freebsd(
    jid: int, inside: Talker, naive: Naive, daemon: Daemon, tally: Tally
) -> None:
    inside.ask("start race")
    pids = [naive.asked("arm") for _ in range(NAIVE)]
    wait_counts(inside, "wins", 1)
    control = inside.counts("stop")
    for pid in pids:
        naive.asked(f"kill {pid}")
    tally.control("race", int(control["wins"]), control["won"])

    inside.ask("start race")
    armed = arm_under(inside, daemon, jid, TARGETS, AT_ONCE)
    found = inside.counts("stop")
    attempts, seen, wins = (int(found[name]) for name in ("attempts", "seen", "wins"))
    tally.note(
        f"race: {wins} of {attempts} attempts on {seen} of {armed} probes; naive: "
        f"{control['wins']} of {control['attempts']} on {control['seen']} ({control['won']})"
    )
    assert seen >= TARGETS
    tally.attack("race", attempts, wins, found["won"])
    assert daemon.triggers() == 0


def _won(lines: list[str]) -> set[str]:
    return {line.split()[1] for line in lines if line.startswith("won")}


def test_a_standing_probe_shows_nothing_on_freebsd(
    jid: int, inside: Talker, naive: Naive, daemon: Daemon, tally: Tally
) -> None:
    pid = naive.asked("arm")
    lines = inside.ask(f"look {pid}")
    won = _won(lines)
    naive.asked(f"kill {pid}")
    assert {"env", "filedesc", "vmmap", "attach", "ktrace"} <= won, lines
    for name in won:
        tally.control(f"look: {name}", 1)
    lines = inside.ask(f"look {daemon.attach(jid, 'BELL')}")
    won = _won(lines)
    assert len(lines) >= 16
    tally.attack("look", len(lines), len(won), " ".join(sorted(won)))
    assert daemon.triggers() == 0


@pytest.fixture
def procfs(tmp_path: Path) -> Iterator[Path]:
    """Give a procfs(5) that is in the jail, too, as `mount.procfs` would have it."""
    place = tmp_path / "procfs"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "procfs", "proc", place], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip("cannot: this kernel has no procfs")
    yield place
    subprocess.run(["umount", place], check=True)


def test_procfs_in_the_jail_shows_no_memory_and_no_registers(
    jid: int, inside: Talker, naive: Naive, daemon: Daemon, procfs: Path, tally: Tally
) -> None:
    pid = naive.asked("arm")
    won = _won(inside.ask(f"procfs {pid} {procfs}"))
    naive.asked(f"kill {pid}")
    assert {"map", "mem"} <= won
    for name in won:
        tally.control(f"procfs: {name}", 1)
    lines = inside.ask(f"procfs {daemon.attach(jid, 'BELL')} {procfs}")
    tally.attack("procfs", len(lines), len(_won(lines)), " ".join(lines))


def _procstat(jid: int, option: str, pid: str) -> list[str]:
    done = subprocess.run(
        ["jexec", str(jid), "procstat", option, pid], capture_output=True, text=True, check=False
    )
    lines = done.stdout.splitlines()[1:]
    # A line without a value: the process is there, and nothing is shown of it.
    return [line for line in lines if not re.fullmatch(r" *\d+ \S+ *-?", line)]


def test_procstat_in_the_jail_shows_no_descriptor_map_or_environment(
    jid: int, naive: Naive, daemon: Daemon, tally: Tally
) -> None:
    pid = naive.asked("arm")
    for option in ("-f", "-v", "-e"):
        tally.control(f"procstat {option}", len(_procstat(jid, option, pid)))
    naive.asked(f"kill {pid}")
    pid = str(daemon.attach(jid, "BELL"))
    shown = [line for option in ("-f", "-v", "-e", "-x") for line in _procstat(jid, option, pid)]
    tally.attack("procstat", 4, len(shown), str(shown))


P_PID = 0  # sys/wait.h
PROC_TRACE_STATUS, PROC_NO_NEW_PRIVS_STATUS = 8, 20  # sys/procctl.h
NO_NEW_PRIVS = 1


def _procctl(pid: int, what: int) -> int:
    """Return what procctl(2) says; of tracing -1 where nobody may, 0 where nobody does."""
    libc, found = ctypes.CDLL(None, use_errno=True), ctypes.c_int(99)
    assert libc.procctl(P_PID, ctypes.c_int64(pid), what, ctypes.byref(found)) == 0
    return found.value


def test_the_final_state_as_seen_from_outside_on_freebsd(
    jid: int, naive: Naive, daemon: Daemon, tally: Tally
) -> None:
    """From the daemon's own arming: attack 1 with a parent that leaks."""

    def shown(*option: str) -> list[str]:
        command = ["procstat", *option, str(pid)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()[1:]

    pid = int(naive.asked("arm"))
    other = ["traceable"] * (_procctl(pid, PROC_TRACE_STATUS) == 0)
    other += ["files"] * any(line.split()[2].isdecimal() for line in shown("-f"))
    other += ["environment"] * ("=" in " ".join(shown("-e")))
    other += ["no capability mode"] * ("C" not in shown("-s")[0].split()[9])
    other += ["new privileges"] * (_procctl(pid, PROC_NO_NEW_PRIVS_STATUS) != NO_NEW_PRIVS)
    assert len(other) == 5, other
    tally.control("final state", len(other), " ".join(other))
    naive.asked(f"kill {pid}")
    pid = daemon.attach(jid, "BELL")
    assert shows(pid, "wchan", SUSPENDED)  # what it was started with is closed
    kinds = {line.split()[2] for line in shown("-f")}
    assert kinds <= {"text", "cwd", "root", "jail"}
    assert "=" not in " ".join(shown("-e"))
    (credentials,) = shown("-s")
    words = credentials.split()
    assert words[2:8] == ["0"] * 6  # effective, real and saved ids
    assert "C" in words[9]  # capability mode
    assert _procctl(pid, PROC_TRACE_STATUS) == -1  # P2_NOTRACE
    assert _procctl(pid, PROC_NO_NEW_PRIVS_STATUS) == NO_NEW_PRIVS
    words = [word for name in ("ppid", "pgid", "sid", "tty", "jid") for word in ("-o", f"{name}=")]
    command = ["ps", *words, "-p", str(pid)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert told == [str(daemon.pid), str(pid), str(pid), "-", str(jid)]
    tally.attack("final state", 8, 0)


def test_a_held_naive_probe_hangs_and_ours_cannot_be_held(
    jid: int, inside: Talker, naive: Naive, daemon: Daemon, tally: Tally
) -> None:
    held_pid = int(naive.asked("arm"))
    inside.ask(f"start hold {held_pid}")
    os.kill(held_pid, signal.SIGKILL)
    assert naive.asked(f"reap {held_pid}") == "0 0"
    tally.control("hold", naive.hangs(held_pid))
    held = inside.counts("stop")
    assert held["wins"] == "1"
    assert naive.line().split()[0] == str(held_pid)
    pid = daemon.attach(jid, "BELL")
    inside.ask(f"start hold {pid}")
    os.kill(pid, signal.SIGHUP)
    daemon.wait_log("run .* ended")
    held = inside.counts("stop")
    tally.attack("hold", int(held["attempts"]), int(held["wins"]))


def _sysctl(*words: str) -> str:
    done = subprocess.run(["sysctl", *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_no_core_is_left_by_a_probe_that_crashes(
    jid: int, inside: Talker, naive: Naive, daemon: Daemon, tmp_path: Path, tally: Tally
) -> None:
    """Attack 5, where an administrator has cores of who changed its rights (security(7))."""
    with contextlib.ExitStack() as stack:
        for name, value in (("sugid_coredump", "1"), ("corefile", f"{tmp_path}/%P.core")):
            stack.callback(_sysctl, f"kern.{name}={_sysctl('-n', f'kern.{name}')}")
            _sysctl(f"kern.{name}={value}")
        pid = naive.asked("arm")
        inside.ask(f"kill {pid} {signal.SIGABRT:d}")
        while naive.asked(f"reap {pid}") == "0 0":
            os.sched_yield()
        cores = list(tmp_path.glob("*.core"))
        tally.control("core", len(cores))
        for core in cores:
            core.unlink()
        for number in (signal.SIGABRT, signal.SIGSEGV, signal.SIGQUIT):
            probe = daemon.attach(jid, "BELL")
            inside.ask(f"kill {probe} {number:d}")
            daemon.wait_log("gone: the probe died of ")
        tally.attack("core", 3, len(list(tmp_path.glob("*.core"))))
