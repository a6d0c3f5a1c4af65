# SPDX-License-Identifier: BSD-2-Clause
"""Attacks 9, 10, 13, 17: signals that are not the signal, and probes that are held."""

import os
import signal
import sys
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("cannot: the Linux attacker", allow_module_level=True)
assert sys.platform == "linux"

from tests.attacks.cage import PLANS
from tests.attacks.linux_fixtures import Bell, Make, MakeNaive, freeze, served
from tests.attacks.linux_naive import Naive, wait_state
from tests.attacks.naive import RUNG
from tests.attacks.rig import ENDED, Daemon
from tests.attacks.tally import Tally
from tests.attacks.test_attack_proc import EXIT_GROUP, MACHINE

HUP = signal.SIGHUP
# A terminal's three do not stop who is alone in an orphaned group (setsid did that).
IGNORED = {signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
IGNORED |= {signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH}
# 32 and 33 are the C library's own, and signals to the kernel all the same.
OTHERS = sorted(set(range(1, 65)) - {HUP})
# Python ignores two of them, makes an exception of one, and one stops; who was started by
# posix_spawn(3), as by make(1), has the C library's own two ignored.
SPARED = {signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGSTOP, 32, 33}
FATAL = sorted(set(OTHERS) - IGNORED - SPARED)


def test_no_other_signal_is_a_trigger(
    make_cage: Make, make_naive: MakeNaive, daemon: Daemon, tally: Tally
) -> None:
    cage = make_cage(PLANS["docker"])
    naive = make_naive(cage)
    (pid,) = naive.serve(1)
    for number in FATAL:
        naive.wait_ready(pid)
        assert cage.ask(f"kill {cage.number(pid)} {number}") == ["ok"]
        pid = naive.rang()
    tally.control("every other signal", len(FATAL))
    for number in OTHERS:
        pid = daemon.attach(cage.init, f"S{number}x")
        assert cage.ask(f"kill {cage.number(pid)} {number}") == ["ok"]
        if number == signal.SIGSTOP:
            wait_state(pid, "T")
            assert cage.ask(f"kill {cage.number(pid)} {signal.SIGCONT:d}") == ["ok"]
        if number in IGNORED | {signal.SIGSTOP}:
            wait_state(pid, "S")
            daemon.detach_all()
        else:
            daemon.wait_log("gone: the probe died of ")
    assert daemon.triggers() == 0
    tally.attack("every other signal", len(OTHERS), daemon.triggers())


def test_a_broadcast_is_no_trigger_unless_it_is_the_signal(
    make_cage: Make, make_naive: MakeNaive, daemon: Daemon, tally: Tally
) -> None:
    cage = make_cage(PLANS["docker"])
    naive = make_naive(cage)
    naive.serve(8)
    assert cage.ask(f"kill -1 {signal.SIGTERM:d}") == ["ok"]
    tally.control("broadcast of other signals", sum(naive.rang() > 0 for _ in range(8)))
    naive.close()
    for number in (signal.SIGTERM, signal.SIGRTMIN + 5, signal.SIGRTMAX, signal.SIGKILL):
        daemon.attach_many(cage.init, 8)
        assert cage.ask(f"kill -1 {int(number)}") == ["ok"]
        for _ in range(8):
            daemon.wait_log("gone: the probe died of ")
    tally.attack("broadcast of other signals", 32, daemon.triggers())
    # What cannot be told apart (kernel-facts.md, D3): a lone kill -HUP -1.
    daemon.attach_many(cage.init, 8)
    assert cage.ask(f"kill -1 {HUP:d}") == ["ok"]
    for _ in range(8):
        daemon.wait_log("run .* ended")
    assert daemon.triggers() == 8


@pytest.mark.parametrize("kind", ["user-namespace", "all-but-ptrace"])
@pytest.mark.parametrize("how", [0, 1], ids=["restart", "power-off"])
def test_reboot_inside_is_no_trigger(
    kind: str, how: int, make_cage: Make, make_naive: MakeNaive, daemon: Daemon, tally: Tally
) -> None:
    """The kernel lets the jail's init "die by SIGHUP" then (reboot_pid_ns)."""
    cage = make_cage(PLANS[kind])
    naive = make_naive(cage)
    naive.serve(1)
    cage.tell(f"reboot {how}")
    assert naive.rang() == 0
    tally.control(f"reboot {kind} {how}", 1)
    cage = make_cage(PLANS[kind])
    daemon.attach_many(cage.init, 8)
    cage.tell(f"reboot {how}")
    for _ in range(8):
        daemon.wait_log(ENDED)
    ended = int(cage.answer()[-1].removeprefix("ended "))
    assert os.WTERMSIG(ended) == (signal.SIGINT if how else HUP)
    if not how:  # who takes the init's own status for the bit is rung
        tally.control(f"reboot {kind}, its init", 1)
    tally.attack(f"reboot {kind} {how}", 8, daemon.triggers())


def test_the_end_of_the_jail_is_no_trigger(
    make_cage: Make, make_naive: MakeNaive, daemon: Daemon, tally: Tally
) -> None:
    cage = make_cage(PLANS["docker"])
    naive = make_naive(cage)
    naive.serve(1)
    os.kill(cage.init, signal.SIGKILL)
    assert naive.rang() == 0
    tally.control("end of the jail", 1)
    for end in (signal.SIGKILL, None):
        cage = make_cage(PLANS["docker"])
        daemon.attach_many(cage.init, 8)
        if end:
            os.kill(cage.init, end)
        else:
            assert cage._process.stdin is not None
            cage._process.stdin.close()
        for _ in range(8):
            daemon.wait_log(ENDED)
    tally.attack("end of the jail", 16, daemon.triggers())


def test_a_forged_exit_code_rings_the_naive_probe(
    make_cage: Make, make_naive: MakeNaive, tally: Tally
) -> None:
    """The control of test_only_two_system_calls_are_left_even_to_a_tracer."""
    cage = make_cage(PLANS["docker"])
    naive = make_naive(cage)
    pid = naive.standing()
    call = f"inject {cage.number(pid)} {EXIT_GROUP[MACHINE]} {RUNG}"
    assert cage.ask(call) == [f"exit {RUNG}"]
    _, code = naive.asked(f"reap {pid} block").split()
    assert os.waitstatus_to_exitcode(int(code)) == RUNG
    tally.control("forged exit code", 1)


@pytest.mark.parametrize("kind", ["docker", "user-namespace"])
def test_what_root_may_do_to_its_processes_neither_rings_nor_silences(
    kind: str, make_cage: Make, daemon: Daemon, tally: Tally
) -> None:
    """Limits, priority, processors, the OOM killer's score: and then the signal, as ever."""
    cage = make_cage(PLANS[kind])
    number = cage.number(pid := daemon.attach(cage.init, "BELL"))
    lines = cage.ask(f"nuisance {number}")
    won = [line.split()[1] for line in lines if line.startswith("won ")]
    assert "prlimit 0" in lines, lines
    assert Path(f"/proc/{pid}/comm").read_text(encoding="ascii") == "jailprobe\n"
    # The name is shown to who opens it for writing, and no other process may write it.
    tally.attack(f"nuisance {kind}", len(lines), len(set(won) - {"comm"}), " ".join(won))
    assert daemon.triggers() == 0
    assert cage.ask(f"kill {number} {HUP:d}") == ["ok"]
    daemon.wait_log("run .* ended")
    assert daemon.triggers() == 1


def test_no_core_is_left_by_a_probe_that_crashes_on_linux(
    make_cage: Make, make_naive: MakeNaive, daemon: Daemon, tally: Tally
) -> None:
    """Attack 5, with the limit of a core's size raised as far as the jail's root may."""
    pattern = Path("/proc/sys/kernel/core_pattern").read_text(encoding="ascii").strip()
    if pattern.startswith(("|", "/", "@")):
        pytest.skip(f"cannot: this machine's cores do not go to where one crashed: {pattern}")
    cage = make_cage(PLANS["docker"])
    tree = Path(f"/proc/{cage.init}/root")
    naive = make_naive(cage)
    pid = naive.standing()
    assert "won core" in cage.ask(f"nuisance {cage.number(pid)}")
    cage.ask(f"kill {cage.number(pid)} {signal.SIGABRT:d}")
    code = int(naive.asked(f"reap {pid} block").split()[1])
    cores = [path for path in tree.iterdir() if path.name.startswith("core")]
    tally.control("core", os.WCOREDUMP(code) and len(cores))
    for core in cores:
        core.unlink()
    for number in (signal.SIGABRT, signal.SIGSEGV, signal.SIGQUIT):
        pid = daemon.attach(cage.init, "BELL")
        cage.ask(f"nuisance {cage.number(pid)}")
        cage.ask(f"kill {cage.number(pid)} {number:d}")
        daemon.wait_log("gone: the probe died of ")
    cores = [path for path in tree.iterdir() if path.name.startswith("core")]
    tally.attack("core", 3, len(cores))


# --- probes that are held: the daemon serves the others --------------------------------


def test_a_stopped_probe_stops_nothing_else(
    make_cage: Make, make_naive: MakeNaive, daemon: Daemon, other: Bell, tally: Tally
) -> None:
    cage = make_cage(PLANS["docker"])
    naive = make_naive(cage)
    pid = naive.standing()
    number = cage.number(pid)
    assert cage.ask(f"kill {number} {signal.SIGSTOP:d}") == ["ok"]
    assert cage.ask(f"kill {number} {HUP:d}") == ["ok"]
    tally.control("probe stopped", naive.hangs(pid))
    os.kill(pid, signal.SIGCONT)
    assert naive.line().split()[0] == str(pid)
    pid = daemon.attach(cage.init, "BELL")
    number = cage.number(pid)
    assert cage.ask(f"kill {number} {signal.SIGSTOP:d}") == ["ok"]
    wait_state(pid, "T")
    assert cage.ask(f"kill {number} {HUP:d}") == ["ok"]
    served(other, tally, "probe stopped")
    assert daemon.triggers() == 5
    assert cage.ask(f"kill {number} {signal.SIGCONT:d}") == ["ok"]
    daemon.wait_log(f"signal from jail {cage.init};")
    assert daemon.triggers() == 6


def _hold_naive(naive: Naive, freezer: Path) -> bool:
    """Freeze a naive probe; say whether its daemon hangs, and let it go on."""
    pid = naive.standing()
    (freezer / "cgroup.procs").write_text(str(pid), encoding="ascii")
    freeze(freezer, frozen=True)
    os.kill(pid, HUP)
    hung = naive.hangs(pid)
    freeze(freezer, frozen=False)
    assert naive.line().split()[0] == str(pid)
    return hung


def test_a_frozen_jail_stops_nothing_else(
    make_cage: Make,
    make_naive: MakeNaive,
    daemon: Daemon,
    other: Bell,
    freezer: Path,
    tally: Tally,
) -> None:
    """Docker pause: the probe is not in the jail's cgroup, so it cannot even be frozen."""
    cage = make_cage(PLANS["docker"])
    # As `docker exec` would, the naive one puts its probe into the jail's cgroup.
    tally.control("jail frozen", _hold_naive(make_naive(cage), freezer))
    (freezer / "cgroup.procs").write_text(str(cage.init), encoding="ascii")
    freeze(freezer, frozen=True)
    pid = daemon.attach(cage.init, "BELL")
    served(other, tally, "jail frozen")
    os.kill(pid, HUP)  # from the host: who is frozen sends nothing
    daemon.wait_log(f"signal from jail {cage.init};")
    daemon.attach(cage.init, "BELL")
    daemon.detach_all()
    freeze(freezer, frozen=False)


def test_a_frozen_probe_stops_nothing_else(
    make_cage: Make,
    make_naive: MakeNaive,
    daemon: Daemon,
    other: Bell,
    freezer: Path,
    tally: Tally,
) -> None:
    """As only a jail with the host's cgroups could do it."""
    cage = make_cage(PLANS["docker"])
    tally.control("probe frozen", _hold_naive(make_naive(cage), freezer))
    pid = daemon.attach(cage.init, "BELL")
    (freezer / "cgroup.procs").write_text(str(pid), encoding="ascii")
    freeze(freezer, frozen=True)
    os.kill(pid, HUP)
    served(other, tally, "probe frozen")
    freeze(freezer, frozen=False)
    daemon.wait_log(f"signal from jail {cage.init};")


def test_a_tracer_that_holds_the_zombie_stops_nothing_else(
    make_cage: Make, make_naive: MakeNaive, daemon: Daemon, other: Bell, tally: Tally
) -> None:
    cage = make_cage(PLANS["privileged"])
    naive = make_naive(cage)
    pid = naive.standing()
    cage.ask(f"start hold {cage.number(pid)}")
    os.kill(pid, signal.SIGKILL)
    wait_state(pid, "Z")
    # Dead, and yet not to be had: a waitpid(2) without WNOHANG hangs now, and
    # with it every rule of the naive daemon.
    assert naive.asked(f"reap {pid}") == "0 0"
    tally.control("zombie held by a tracer", naive.hangs(pid))
    assert cage.counts("stop")["wins"] == "1"
    assert naive.line().split()[0] == str(pid)

    pid = daemon.attach(cage.init, "BELL")
    cage.ask(f"start hold {cage.number(pid)}")
    os.kill(pid, HUP)
    wait_state(pid, "Z")
    served(other, tally, "zombie held by a tracer")
    assert daemon.triggers() == 5
    assert cage.counts("stop")["wins"] == "1"
    daemon.wait_log(f"signal from jail {cage.init};")  # late, and not lost
    assert daemon.triggers() == 6
