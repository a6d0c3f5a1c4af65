# SPDX-License-Identifier: BSD-2-Clause
"""Attacks 11, 12, 15, 22 on FreeBSD: signals and processes without end, another user's probe."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

if not sys.platform.startswith("freebsd"):
    pytest.skip("cannot: the FreeBSD attacker", allow_module_level=True)

from jaildaemon.backends import freebsd_libc as libc
from tests.attacks.freebsd_rig import Bell, Naive, cpu_seconds, jail_name
from tests.attacks.naive_freebsd import RUNG, USER
from tests.attacks.rig import Daemon
from tests.attacks.talker import Talker
from tests.attacks.tally import Tally

HUP = signal.SIGHUP
SIGNALS = 2000
RUNS = 5
BACKED_OFF_SECONDS = 8.0


def _flooded(inside: Talker, naive: Naive, number: signal.Signals, rings: int) -> int:
    """Flood the naive daemon until it has rung so often; return how often."""
    naive.serve(1)
    inside.ask(f"start flood {number:d}")
    rung = len([naive.rang() for _ in range(rings)])
    inside.counts("stop")
    naive.close()
    return rung


def test_a_flood_of_the_signal_runs_what_the_limit_allows_on_freebsd(
    jid: int, inside: Talker, naive: Naive, daemon: Daemon, tally: Tally
) -> None:
    rung = _flooded(inside, naive, HUP, 4 * RUNS)
    tally.control("flood of the signal", rung - RUNS, f"{rung} runs")
    policy = {"respawn": "now", "limit": f"{RUNS}/1h"}
    inside.ask(f"start flood {HUP:d}")
    answer = daemon.call("Attach", jail=str(jid), command=":", title="BELL", policy=policy)
    assert "error" not in answer, answer
    daemon.wait_log(": no probe for ")
    sent = int(inside.counts("stop")["attempts"])
    tally.attack("flood of the signal", sent, daemon.triggers() - RUNS)
    assert sent >= RUNS


def test_a_loop_of_kills_is_no_trigger_and_backs_off(
    jid: int, inside: Talker, naive: Naive, tmp_path: Path, tally: Tally
) -> None:
    """Against a rule in a file, which is armed again whatever happens to its probe."""
    rung = _flooded(inside, naive, signal.SIGKILL, 40)
    tally.control("loop of kills", rung, f"{rung} false runs, and as many probes")
    name, rules = jail_name(jid), tmp_path / "rules.toml"
    rules.write_text(
        f'[[rule]]\njail = "{name}"\ntitle = "BELL"\ncommand = ":"\nrespawn = "now"\n',
        encoding="ascii",
    )
    inside.ask(f"start flood {signal.SIGKILL:d}")
    daemon = Daemon(tmp_path, environment={"JAILDAEMON_CONFIG": str(rules)})
    other = Bell(daemon, tmp_path / "heard")
    try:
        tries, pause = 0, 0.0
        while pause < BACKED_OFF_SECONDS:
            found = daemon.wait_log(r"another try in ([\d.]+) s: .*the probe ")
            tries, pause = tries + 1, float(found.group(1))
        took = other.served(1)
        tally.note(f"loop of kills: another rule is served meanwhile, in {took:.0f} ms")
        sent = int(inside.counts("stop")["attempts"])
        assert tries <= sent
        tally.note(f"loop of kills: after {tries} probes the pause is {pause:.0f} s")
        tally.attack("loop of kills", sent, daemon.triggers() - 1)
        assert tries < 10
    finally:
        other.close()
        daemon.close()


def test_a_user_rings_only_probes_of_its_own_uid_on_freebsd(
    jid: int, inside: Talker, naive: Naive, daemon: Daemon, tally: Tally
) -> None:
    # Who gives up root for one user of his own, for all rules, is rung by that user.
    pid = naive.asked("arm drop")
    assert inside.ask(f"kill-as {USER} {pid} {HUP:d}") == ["ok"]
    code = int(naive.asked(f"reap {pid} block").split()[1])
    tally.control("another user's probe", os.waitstatus_to_exitcode(code) == RUNG)
    numbers = []
    for uid in (0, USER):
        wish = {"jail": str(jid), "command": ":", "title": f"U{uid}x"}
        answer = daemon.call("Attach", **wish, policy={"uid": uid, "gid": uid})
        numbers.append(answer["parameters"]["probe_pid"])
    roots, users = numbers
    for uid, number in ((USER, roots), (4321, roots), (4321, users)):
        (refused,) = inside.ask(f"kill-as {uid} {number} {HUP:d}")
        # With security.bsd.see_other_uids=0 it is not even seen.
        assert refused in ("Operation not permitted", "No such process")
    tally.attack("another user's probe", 3, daemon.triggers())
    assert inside.ask(f"kill-as {USER} {users} {HUP:d}") == ["ok"]
    daemon.wait_log("run .* ended")
    assert daemon.triggers() == 1


TRIES = 5
"""Of the naive daemon: the kernel itself lets half a second pass after each."""
MOST = 20_000
RINGS = 10
WINDOW_SECONDS = 30
FEW_LISTS = 3
"""That many times a list of all processes may be what a bomb costs the daemon."""


@contextlib.contextmanager
def _no_place_left() -> Iterator[None]:
    """Take the last places, which are the host's."""
    held: list[int] = []
    try:
        with contextlib.suppress(BlockingIOError):
            while len(held) < MOST:
                pid = os.fork()
                if pid == 0:
                    signal.pause()
                    os._exit(0)
                held.append(pid)
        yield
    finally:
        for pid in held:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _list_seconds() -> float:
    """Return what one list of all processes takes of the processor, made as the daemon does."""
    used = time.process_time()
    listed = sum(1 for _ in libc.processes())
    assert listed
    return time.process_time() - used


def _rung(daemon: Daemon) -> float:
    """Ring the rule in the file so often; return the daemon's seconds of processor for that."""
    used = cpu_seconds(daemon.pid)
    for _ in range(RINGS):
        (rule,) = (r for r in daemon.call("List")["parameters"]["rules"] if r["id"] == "bell")
        os.kill(int(rule["probe_pid"]), HUP)
        daemon.wait_log("bell: armed in jail ")
    return cpu_seconds(daemon.pid) - used


def test_a_fork_bomb_takes_no_place_and_no_time_from_the_daemon(
    jid: int, inside: Talker, naive: Naive, tmp_path: Path, tally: Tally
) -> None:
    """The last ten places are not a jail's; who forks inside gets none, and asks for ever.

    Who then takes those ten, too, leaves none for a probe: the daemon backs off.
    """
    name, rules = jail_name(jid), tmp_path / "rules.toml"
    rule = '[[rule]]\nname = "{1}"\njail = "{0}"\ntitle = "{1}"\ncommand = ":"\n'
    rule += 'respawn = "after"\nlimit = "none"\n'
    rules.write_text(rule.format(name, "bell"), encoding="ascii")
    daemon = Daemon(tmp_path, environment={"JAILDAEMON_CONFIG": str(rules)})
    try:
        daemon.wait_log("bell: armed in jail ")
        # Who came by jexec(8), as the attacker does here, proves nothing of a jail.
        subprocess.run(["jexec", str(jid), "daemon", "-f", "sleep", "1000000"], check=True)
        quiet = _rung(daemon)
        inside.ask(f"start bomb {MOST}")
        bombed = inside.counts()
        assert os.strerror(int(bombed["wins"])) == "Resource temporarily unavailable"
        vain = int(naive.asked(f"insist {TRIES}"))
        tally.control("fork bomb", vain == TRIES, f"{vain} tries in vain")
        costs, one = _rung(daemon) - quiet, _list_seconds()
        with _no_place_left():
            with rules.open("a", encoding="ascii") as file:
                file.write(rule.format(name, "late"))
            daemon.call("Reload")
            failed = r"late: not armed, another try in ([\d.]+) s: .*Resource temporarily"
            pauses = [float(daemon.wait_log(failed).group(1))]
            began, used = time.monotonic(), cpu_seconds(daemon.pid)
            while len(pauses) < 3 or time.monotonic() - began < WINDOW_SECONDS:
                pauses.append(float(daemon.wait_log(failed).group(1)))  # each try is the event
            took, waiting = time.monotonic() - began, cpu_seconds(daemon.pid) - used
        made = int(inside.counts("stop")["attempts"])
        tally.note(
            f"fork bomb: {made} processes, one list of which takes {one:.3f} s of a processor; "
            f"{RINGS} runs take {costs:+.3f} s more than without; with no place at all the daemon "
            f"takes {waiting:.3f} s, {waiting / took:.2%}, in {took:.0f} s and {len(pauses)} tries"
        )
        assert pauses[0] < pauses[1] < pauses[2]
        costly = max(costs, waiting) > FEW_LISTS * one
        tally.attack("fork bomb", made, costly, f"{costs}, {waiting} s; {one} s a list")
        assert waiting / took < 0.02
        daemon.wait_log("late: armed in jail ")
    finally:
        daemon.close()


LENGTH = 4000


def _ancestors() -> int:
    """Return how many steps it is from all processes to their last ancestors."""
    done = subprocess.run(
        ["ps", "-ax", "-o", "pid=", "-o", "ppid="], capture_output=True, text=True, check=True
    )
    parents = dict(line.split() for line in done.stdout.splitlines())
    depths = {"0": 0}
    for pid in parents:
        path = []
        at = pid
        while at not in depths:
            path.append(at)
            at = parents.get(at, "0")
        depths |= {below: n for n, below in enumerate(reversed(path), depths[at] + 1)}
    return sum(depths.values())


def test_a_chain_of_processes_costs_no_more_than_as_many_others(
    jid: int, inside: Talker, daemon: Daemon, tally: Tally
) -> None:
    """Before 15 it is looked who lives in the jail, by the ancestors of each."""
    costs = []
    for shape in ("bomb", "chain"):
        inside.ask(f"start {shape} {LENGTH}")
        if shape == "chain":
            steps = _ancestors()
            tally.control("chain of processes", steps > 100 * LENGTH, f"{steps} steps, one by one")
        used = cpu_seconds(daemon.pid)
        for _ in range(3):
            os.kill(daemon.attach(jid, "BELL"), HUP)
            daemon.wait_log("run .* ended")
        costs.append(cpu_seconds(daemon.pid) - used)
        assert int(inside.counts("stop")["attempts"]) == LENGTH
    tally.note("chain of processes: {1:.2f} s of a processor, as a bomb {0:.2f} s".format(*costs))
    tally.attack("chain of processes", LENGTH, costs[1] > 3 * costs[0] + 0.2, str(costs))
