# SPDX-License-Identifier: BSD-2-Clause
"""Attacks 11, 12, 13, 15: signals without end, the daemon's own end, another user's probe."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("cannot: the Linux attacker", allow_module_level=True)
assert sys.platform == "linux"

from tests.attacks.cage import PLANS, Cage
from tests.attacks.linux_fixtures import Bell, Make, MakeNaive, freeze, served
from tests.attacks.linux_naive import Naive, wait_state
from tests.attacks.naive import RUNG, USER
from tests.attacks.rig import LONGEST_SECONDS, Daemon
from tests.attacks.tally import Tally
from tests.daemon.product import wait_until
from tests.helper.parent import status, wait_readable

SIGNALS = 100_000
RUNS = 20
GROWTH_KIB = 4096
LINES_A_RUN = 4
"""Armed, the signal, the run's start and its end."""


def _resident_kib(pid: int) -> int:
    return int(status(pid)["VmRSS"].split()[0])


def _flooded(cage: Cage, naive: Naive, number: signal.Signals, rings: int) -> int:
    """Flood the naive daemon until it has rung so often; return how often."""
    naive.serve(1)
    cage.ask(f"start flood {number:d}")
    rung = len([naive.rang() for _ in range(rings)])
    cage.counts("stop")
    naive.close()
    return rung


def test_a_flood_of_the_signal_runs_what_the_limit_allows(
    make_cage: Make, make_naive: MakeNaive, daemon: Daemon, other: Bell, tally: Tally
) -> None:
    cage = make_cage(PLANS["docker"])
    rung = _flooded(cage, make_naive(cage), signal.SIGHUP, 10 * RUNS)
    tally.control("flood of the signal", rung - RUNS, f"{rung} runs")
    policy = {"respawn": "now", "limit": f"{RUNS}/1h"}
    wish = {"jail": str(cage.init), "command": ":", "title": "BELL"}
    served(other, tally, "before the flood")
    before, triggers, lines = _resident_kib(daemon.pid), daemon.triggers(), len(daemon.lines)
    assert "error" not in daemon.call("Attach", **wish, policy=policy)
    cage.ask(f"start flood {signal.SIGHUP:d}")
    daemon.wait_log(": no probe for ")
    assert daemon.triggers() == triggers + RUNS
    served(other, tally, "flood of the signal")
    while int(cage.counts()["attempts"]) < SIGNALS:
        os.sched_yield()
    sent = int(cage.counts("stop")["attempts"])
    runs = daemon.triggers() - triggers - 5  # served rang five times
    grown = _resident_kib(daemon.pid) - before
    tally.note(f"flood: {sent} signals to all, {runs} runs, the daemon grew by {grown} KiB")
    tally.attack("flood of the signal", sent, runs - RUNS)
    assert grown < GROWTH_KIB
    assert len(daemon.lines) - lines <= LINES_A_RUN * (RUNS + 5) + 5


def test_a_flood_of_kills_is_no_trigger_and_costs_nobody_else(
    make_cage: Make, make_naive: MakeNaive, daemon: Daemon, other: Bell, tally: Tally
) -> None:
    """A probe that is killed takes its rule along, armed or while it is being armed."""
    cage = make_cage(PLANS["docker"])
    rung = _flooded(cage, make_naive(cage), signal.SIGKILL, 100)
    tally.control("flood of kills", rung, f"{rung} false runs, and as many probes")
    cage.ask(f"start flood {signal.SIGKILL:d}")
    for n in range(100):
        wish = {"jail": str(cage.init), "command": ":", "title": f"B{n:02}L"}
        daemon.call("Attach", **wish, policy={"respawn": "now"})
    served(other, tally, "flood of kills")

    def left() -> list[str]:
        rules = daemon.call("List")["parameters"]["rules"]
        return [rule["id"] for rule in rules if rule["jid"] == cage.init]

    wait_until(lambda: not left(), "every probe is killed, and its rule gone")
    sent = int(cage.counts("stop")["attempts"])
    tally.attack("flood of kills", sent, daemon.triggers() - 5)


def test_the_daemon_ends_though_its_probes_are_held(
    make_cage: Make, make_naive: MakeNaive, tmp_path: Path, freezer: Path, tally: Tally
) -> None:
    """Stopped, frozen, and dead in the hands of a tracer."""
    daemon = Daemon(tmp_path)
    cage, privileged = make_cage(PLANS["docker"]), make_cage(PLANS["privileged"])
    naive = make_naive(privileged)
    pid = naive.standing()
    privileged.ask(f"start hold {privileged.number(pid)}")
    naive.say("end")
    wait_state(pid, "Z")
    naive.wait_hangs()
    tally.control("end with held probes", naive.silent())
    assert privileged.counts("stop")["wins"] == "1"
    assert naive.line() == "ended"
    stopped = daemon.attach(cage.init, "STOPPED")
    frozen = daemon.attach(cage.init, "FROZEN")
    held = daemon.attach(privileged.init, "HELD")
    pidfds = [os.pidfd_open(pid) for pid in (stopped, frozen, held)]
    cage.ask(f"kill {cage.number(stopped)} {signal.SIGSTOP:d}")
    wait_state(stopped, "T")
    (freezer / "cgroup.procs").write_text(str(frozen), encoding="ascii")
    freeze(freezer, frozen=True)
    privileged.ask(f"start hold {privileged.number(held)}")
    began = time.monotonic()
    daemon.close()
    took = time.monotonic() - began
    tally.note(f"held probes: the daemon ends in {took:.1f} s")
    assert took < LONGEST_SECONDS / 2
    tally.attack("end with held probes", 3, 0)
    freeze(freezer, frozen=False)
    privileged.counts("stop")
    # It has said so, and they die with it, as soon as they can.
    for pidfd in pidfds:
        wait_readable(pidfd)
        os.close(pidfd)
    assert daemon.lines[-2].endswith("ended")


def test_a_user_rings_only_probes_of_its_own_uid(
    make_cage: Make, make_naive: MakeNaive, daemon: Daemon, tally: Tally
) -> None:
    """With -u that uid may, and no other but root's."""
    cage = make_cage(PLANS["docker"])
    # Who gives up root for one user of his own, for all rules, is rung by that user.
    naive = make_naive(cage)
    pid = int(naive.asked("arm drop"))
    wait_state(pid, "S")
    assert cage.ask(f"kill-as {USER} {cage.number(pid)} {signal.SIGHUP:d}") == ["ok"]
    code = int(naive.asked(f"reap {pid} block").split()[1])
    tally.control("another user's probe", os.waitstatus_to_exitcode(code) == RUNG)
    wish = {"jail": str(cage.init), "command": ":"}
    numbers = []
    for uid in (0, USER):
        policy = {"uid": uid, "gid": uid}
        answer = daemon.call("Attach", **wish, title=f"U{uid}x", policy=policy)
        numbers.append(cage.number(answer["parameters"]["probe_pid"]))
    roots, users = numbers
    for uid, number in ((USER, roots), (4321, roots), (4321, users)):
        refused = cage.ask(f"kill-as {uid} {number} {signal.SIGHUP:d}")
        assert refused == ["Operation not permitted"]
    tally.attack("another user's probe", 3, daemon.triggers())
    assert cage.ask(f"kill-as {USER} {users} {signal.SIGHUP:d}") == ["ok"]
    daemon.wait_log("run .* ended")
    assert daemon.triggers() == 1
