# SPDX-License-Identifier: BSD-2-Clause
"""Attacks 2, 3, 16 from real containers: docker's own seccomp filter, and --pid=container:."""

import signal
import sys

import pytest

if sys.platform != "linux":
    pytest.skip("cannot: the Linux attacker", allow_module_level=True)
assert sys.platform == "linux"

import os

from tests.attacks.docked import MakeDocked
from tests.attacks.linux_fixtures import MakeNaive
from tests.attacks.rig import Daemon, arm_under, wait_counts
from tests.attacks.tally import Tally
from tests.attacks.test_attack_proc import looked
from tests.attacks.test_attack_race import AT_ONCE, FEWER, NAIVE, raced
from tests.helper.parent import status

SECCOMP_FILTER = "2"


def test_docker_with_its_default_seccomp_filter_gains_nothing(
    make_docked: MakeDocked, make_naive: MakeNaive, daemon: Daemon, tally: Tally
) -> None:
    cage = make_docked()
    assert status(cage.init)["Seccomp"] == SECCOMP_FILTER
    naive = make_naive(cage)
    pid = naive.standing()
    won, _ = looked(cage, pid, cage.number(pid))
    assert won >= {"attach", "seize", "maps", "exe", "root", "environ", "fd"}
    for name in won:
        tally.control(f"{name} docker with seccomp", 1)
    pid = daemon.attach(cage.init, "BELL")
    won, tries = looked(cage, pid, cage.number(pid))
    tally.attack("look docker with seccomp", tries, len(won), " ".join(sorted(won)))
    daemon.detach_all()

    cage.ask("start race")
    for _ in range(NAIVE):
        naive.arm()
    wait_counts(cage, "wins", 1)
    control = cage.counts("stop")
    tally.control("race docker with seccomp", int(control["wins"]), control["won"])
    cage.ask("start race")
    arm_under(cage, daemon, cage.init, FEWER, AT_ONCE)
    found = cage.counts("stop")
    attempts, seen, wins = raced(found)
    assert seen >= FEWER
    tally.attack("race docker with seccomp", attempts, wins, found["won"])
    tally.note(f"race docker with seccomp: {wins} of {attempts} attempts on {seen} probes")
    assert daemon.triggers() == 0


def test_a_sibling_in_the_same_pid_namespace_may_ring_and_nothing_else(
    make_docked: MakeDocked, make_naive: MakeNaive, daemon: Daemon, tally: Tally
) -> None:
    """--pid=container: as the second container of a pod with one PID namespace."""
    cage = make_docked()
    sibling = make_docked(f"--pid=container:{cage.name}")
    spaces = [os.readlink(f"/proc/{one.init}/ns/pid") for one in (cage, sibling)]
    assert spaces[0] == spaces[1]
    naive = make_naive(cage)
    pid = naive.standing()
    won, _ = looked(sibling, pid, cage.number(pid))
    assert won >= {"attach", "seize", "maps", "exe", "root", "environ", "fd"}
    for name in won:
        tally.control(f"{name} from a sibling", 1)
    number = cage.number(pid := daemon.attach(cage.init, "BELL"))
    won, tries = looked(sibling, pid, number)
    tally.attack("look from a sibling", tries, len(won), " ".join(sorted(won)))
    # The bell is that of whoever is in the PID namespace (docs/attacks.md).
    assert sibling.ask(f"kill {number} {signal.SIGTERM:d}") == ["ok"]
    daemon.wait_log("gone: the probe died of SIGTERM")
    assert daemon.triggers() == 0
    number = cage.number(daemon.attach(cage.init, "BELL"))
    assert sibling.ask(f"kill {number} {signal.SIGHUP:d}") == ["ok"]
    daemon.wait_log("run .* ended")
    assert daemon.triggers() == 1
