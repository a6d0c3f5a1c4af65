# SPDX-License-Identifier: BSD-2-Clause
"""Attacks 8, 12, 19, 20, 22: numbers that run out, come back, or belong to a nested jail."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("cannot: the Linux attacker", allow_module_level=True)
assert sys.platform == "linux"

from tests.attacks.cage import ALL_CAPS, PLANS, Plan
from tests.attacks.linux_fixtures import Make, MakeNaive
from tests.attacks.rig import ENDED, HERE, Daemon
from tests.attacks.tally import Tally
from tests.helper.parent import status


def _reused(what: str) -> dict[str, Any]:
    """Run reuse.py where it may choose the numbers."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("unshare is missing; install the package util-linux")
    program = [sys.executable, str(HERE / "reuse.py"), what]
    command = [unshare, "--pid", "--fork", "--mount-proc", *program]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_later_jail_of_the_same_number_is_another_one(attacker: Path, tally: Tally) -> None:
    assert attacker.exists()
    found = _reused("jails")
    assert found["naive"] is True
    tally.control("container replaced", 1)
    told = found["told"]
    allowed = {"resolved: failed", "started: failed", "started: ended"}
    # While its init is dying the cause may be another; it is no arming all the same.
    known = {word: word.split(": attach:")[0] for word in told}
    wrong = {word: count for word, count in told.items() if known[word] not in allowed}
    tally.attack("container replaced", sum(told.values()), sum(wrong.values()), str(wrong))
    assert "resolved: failed" in told
    assert found["gone"] is True


def test_a_nested_jail_is_another_jail(make_cage: Make, daemon: Daemon, tally: Tally) -> None:
    """Made by the root of the jail, it has an init of its own, and no rule of the outer one."""
    cage = make_cage(Plan(ALL_CAPS))
    cage.ask("start nest")
    (nester,) = _children(cage.init)
    (nested,) = _children(nester)
    outer = daemon.attach(cage.init, "OUTER")
    inner = daemon.attach(nested, "INNER")
    # Who looks for the init of the jail by what it is called finds another jail's, too.
    inits = [pid for pid in (cage.init, nested) if _called(pid) == _called(cage.init)]
    tally.control("nested jail", len(inits) - 1)
    names = [os.readlink(f"/proc/{pid}/ns/pid") for pid in (outer, inner)]
    assert names == [os.readlink(f"/proc/{pid}/ns/pid") for pid in (cage.init, nested)]
    assert names[0] != names[1]
    rules = daemon.call("List")["parameters"]["rules"]
    assert [rule["jid"] for rule in rules] == [cage.init, nested]
    cage.counts("stop")
    daemon.wait_log(ENDED)
    assert os.path.exists(f"/proc/{outer}")
    tally.attack("nested jail", 2, daemon.triggers())


def _called(pid: int) -> tuple[str, str]:
    """Return a process's name, and its number in its own jail."""
    found = status(pid)
    return found["Name"], found["NSpid"].split()[-1]


def _children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in path.read_text(encoding="ascii").split()]


LIMIT = 150
TRIES = 10_000
"""Of the naive daemon, one after the other."""
WINDOW_SECONDS = 30 if os.environ.get("CI") else 0


def test_a_fork_bomb_costs_the_daemon_nothing_and_is_named(
    make_cage: Make, make_naive: MakeNaive, tmp_path: Path, tally: Tally
) -> None:
    """The limit counts the processes of the jail's root, and our probe would be one."""
    prlimit = shutil.which("prlimit")
    if prlimit is None:
        pytest.skip("prlimit is missing; install the package util-linux")
    limited = [prlimit, f"--nproc={LIMIT}:{LIMIT}", "--"]
    daemon = Daemon(tmp_path, wrap=limited)
    cage = make_cage(PLANS["user-namespace"])
    naive = make_naive(cage, limited)
    try:
        pid = daemon.attach(cage.init, "BELL", respawn="now")
        cage.ask(f"start bomb {2 * LIMIT}")
        assert int(cage.counts()["attempts"]) >= LIMIT
        vain = int(naive.asked(f"insist {TRIES}"))
        tally.control("fork bomb", vain, f"{vain} tries without a pause")
        assert vain == TRIES
        naive.close()
        rung = time.monotonic()
        os.kill(pid, signal.SIGHUP)
        failed = r"not armed, another try in ([\d.]+) s.*a limit on processes is reached"
        pauses = [float(daemon.wait_log(failed).group(1))]
        began, used = time.monotonic(), daemon.cpu_seconds()
        while len(pauses) < 3 or time.monotonic() - began < WINDOW_SECONDS:
            pauses.append(float(daemon.wait_log(failed).group(1)))  # each try is the event
        took, tries = time.monotonic() - began, len(pauses)
        assert pauses[0] < pauses[1] < pauses[2]
        # They are told with one digit; and we may hear of the first when it is nearly over.
        assert time.monotonic() - rung > 0.9 * sum(pauses[:-1])
        share = (daemon.cpu_seconds() - used) / took
        tally.note(
            f"fork bomb: the daemon takes {share:.2%} of a processor in {took:.0f} s, {tries} tries"
        )
        assert share < 0.02
        other = make_cage(PLANS["docker"])
        os.kill(daemon.attach(other.init, "OTHER"), signal.SIGHUP)
        daemon.wait_log(f"signal from jail {other.init};")
        tally.attack("fork bomb", int(cage.counts()["attempts"]), 0)
    finally:
        daemon.close()


def test_the_numbers_of_a_jail_may_go_round(make_cage: Make, daemon: Daemon, tally: Tally) -> None:
    """Thousands of short processes: the probe's number is its own while it stands."""
    # Who does not keep the dead for himself signals whoever has the number next.
    tally.control("churn of numbers", _reused("signal")["stranger"])
    cage = make_cage(PLANS["docker"])
    pid = daemon.attach(cage.init, "BELL")
    made = int(cage.counts("churn 3000")["attempts"])
    assert made == 3000
    cage.ask(f"kill {cage.number(pid)} {signal.SIGHUP:d}")
    daemon.wait_log("run .* ended")
    tally.attack("churn of numbers", made, daemon.triggers() - 1)
