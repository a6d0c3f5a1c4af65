# SPDX-License-Identifier: BSD-2-Clause
"""Attacks 1, 2, 5, 6: what the root of a jail reads, opens and changes of a probe."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("cannot: the Linux attacker", allow_module_level=True)
assert sys.platform == "linux"

from jaildaemon.backends import HELPER
from tests.attacks.cage import PLANS, UNPRIVILEGED, Cage, Plan
from tests.attacks.linux_fixtures import Make, MakeNaive
from tests.attacks.linux_naive import NAIVE
from tests.attacks.naive import RUNG, held_caps
from tests.attacks.rig import HERE, SECRET, STRICT, Daemon, build
from tests.attacks.tally import Tally
from tests.daemon.product import wait_until
from tests.helper.parent import status, wait_readable

HARMLESS_BY_PERFMON = {"auxv", "maps", "smaps", "perf_event_open", "process_madvise"}
"""Who has CAP_PERFMON or CAP_SYS_ADMIN in the first user namespace may see the layout of
any process (6.13, kernel/fork.c, may_access_mm) and count its time.  A probe's is no secret."""
ALWAYS_WON = {"process_vm_readv", "pidfd_getfd", "attach", "seize", "maps", "exe", "root", "escape"}
NEEDS_PROC = {"maps", "exe", "root"}


def looked(cage: Cage, pid: int, number: int) -> tuple[set[str], int]:
    """Let the attacker look at a process; return what it won, and how much it tried."""
    assert status(pid)["NSpid"].split()[-1] == str(number)
    lines = cage.ask(f"look {number}")
    won = {line.split()[1] for line in lines if line.startswith("won ")}
    assert len(lines) > 30, lines
    return won, len(lines)


@pytest.mark.parametrize("kind", UNPRIVILEGED)
def test_a_standing_probe_shows_nothing(
    kind: str, make_cage: Make, make_naive: MakeNaive, daemon: Daemon, tally: Tally
) -> None:
    cage = make_cage(PLANS[kind])
    naive = make_naive(cage)
    pid = naive.standing()
    won, _ = looked(cage, pid, cage.number(pid))
    wanted = ALWAYS_WON - (NEEDS_PROC if cage.plan.proc == "none" else set())
    assert won >= wanted
    for name in won:
        tally.control(f"{name} {kind}", 1)
    pid = daemon.attach(cage.init, "BELL")
    won, tries = looked(cage, pid, cage.number(pid))
    first_namespace = not cage.plan.user
    if first_namespace and cage.plan.caps >> 21 & 1:
        won -= HARMLESS_BY_PERFMON
    tally.attack(f"look {kind}", tries, len(won), " ".join(sorted(won)))
    assert daemon.triggers() == 0


def test_the_root_of_a_privileged_jail_finds_nothing_of_the_host_either(
    make_cage: Make, make_naive: MakeNaive, daemon: Daemon, tally: Tally
) -> None:
    """What cannot be prevented (he may trace), and what holds all the same."""
    cage = make_cage(PLANS["privileged"])
    naive = make_naive(cage)
    number = cage.number(naive.arm())
    (found,) = cage.ask(f"scan {number} {SECRET}")
    assert found.endswith("found 1")
    tally.control("scan of memory", 1)
    pid = naive.arm()
    won, _ = looked(cage, pid, cage.number(pid))
    assert {"escape", "environ"} <= won
    tally.control("escape by a descriptor, privileged", 1)

    pid = daemon.attach(cage.init, "BELL")
    number = cage.number(pid)
    won, tries = looked(cage, pid, number)
    assert {"attach", "seize", "mem", "exe"} <= won  # cannot be prevented
    gains = won & {"environ", "fd", "fdinfo", "pidfd_getfd", "escape", "exe-write"}
    tally.attack("look privileged, of the host's", tries, len(gains), " ".join(gains))
    (found,) = cage.ask(f"scan {number} {SECRET}")
    assert found.endswith("found 0"), found
    # One small image, a stack, and the kernel's own pages: that was all there is.
    size = int(found.split()[1])
    assert 8192 <= size < 400_000, found
    tally.attack("scan of memory, privileged", size, 0)
    tally.note(f"scan: all {size} readable bytes of a probe hold nothing of the daemon's")


def test_other_rules_are_not_in_the_memory_of_a_probe(
    make_cage: Make, make_naive: MakeNaive, daemon: Daemon, tally: Tally
) -> None:
    cage = make_cage(PLANS["privileged"])
    number = cage.number(make_naive(cage).standing())
    for word in (SECRET, str(NAIVE)):  # its rules, and what it is
        (found,) = cage.ask(f"scan {number} {word}")
        tally.control(f"scan for {word}", found.endswith("found 1"))
    daemon.attach(cage.init, "OTHER-TITLE", command=f": {SECRET}")
    number = cage.number(daemon.attach(cage.init, "BELL"))
    for word in (SECRET, "OTHER-TITLE", "JAILDAEMON", str(HELPER)):
        (found,) = cage.ask(f"scan {number} {word}")
        assert found.endswith("found 0"), (word, found)
        tally.attack("scan for other rules", 1, 0)
    (found,) = cage.ask(f"scan {number} BELL")
    assert found.endswith("found 1"), "the scan finds nothing at all"


@pytest.mark.parametrize("kind", ["docker", "user-namespace", "privileged"])
def test_the_image_is_never_changed(
    kind: str, tmp_path: Path, make_cage: Make, daemon: Daemon, tally: Tally
) -> None:
    """CVE-2019-5736, alive and after death; the naive probe runs from a copy of its file."""
    cage = make_cage(PLANS[kind])
    victim = build(tmp_path / "naive", HERE / "naive_exe.c", *STRICT)
    before = victim.read_bytes()
    if not cage.plan.user:  # there nobody owns the host's file
        command = [str(victim), str(cage.init), f"{cage.plan.caps & held_caps():x}"]
        made = subprocess.run(command, capture_output=True, text=True, check=True)
        _overwrite(cage, int(made.stdout))
        assert victim.read_bytes() != before
        tally.control(f"overwrite {kind}", 1)

    image = HELPER.read_bytes()
    pid = daemon.attach(cage.init, "BELL")
    won, tries = _overwrite(cage, pid)
    tally.attack(f"overwrite {kind}", tries, len(won), " ".join(won))
    assert HELPER.read_bytes() == image
    number = cage.number(daemon.attach(cage.init, "BELL"))
    assert cage.ask(f"kill {number} {signal.SIGHUP:d}") == ["ok"]
    daemon.wait_log("run .* ended")  # the image that they all share is as it was


def _overwrite(cage: Cage, pid: int) -> tuple[list[str], int]:
    pidfd = os.pidfd_open(pid)
    cage.tell(f"overwrite {cage.number(pid)}")
    lines = cage.answer()
    os.kill(pid, signal.SIGKILL)
    wait_readable(pidfd)
    os.close(pidfd)
    lines += cage.answer()
    won = [line.split()[1] for line in lines if line.startswith("won ")]
    return won, len(lines)


STATE = {
    "NoNewPrivs": "1",
    "Seccomp": "2",
    "CapInh": "0" * 16,
    "CapPrm": "0" * 16,
    "CapEff": "0" * 16,
    "CapBnd": "0" * 16,
    "CapAmb": "0" * 16,
    "SigBlk": "0" * 16,
    "SigIgn": "0" * 16,
    "SigCgt": "0" * 16,
    "Threads": "1",
}


@pytest.mark.parametrize("kind", PLANS)
def test_the_final_state_as_seen_from_outside(
    kind: str, make_cage: Make, make_naive: MakeNaive, daemon: Daemon, tally: Tally
) -> None:
    """From the daemon's own arming, not a test's: attack 1 with a parent that leaks."""
    cage = make_cage(PLANS[kind])
    naive = make_naive(cage).standing()
    other = [name for name in STATE if status(naive)[name] != STATE[name]]
    other += [name for name in ("fd", "fdinfo") if os.listdir(f"/proc/{naive}/{name}")]
    other += ["environ"] * (SECRET.encode() in Path(f"/proc/{naive}/environ").read_bytes())
    assert {"NoNewPrivs", "Seccomp", "CapEff", "fd", "environ"} <= {*other}
    tally.control(f"final state {kind}", len(other), " ".join(other))
    pid = daemon.attach(cage.init, "BELL")
    proc = Path(f"/proc/{pid}")
    fields = status(pid)
    assert {name: fields[name] for name in STATE} == STATE
    assert fields["Groups"].split() == []
    assert os.listdir(proc / "fd") == []
    assert (proc / "environ").read_bytes() == b""
    assert (proc / "cmdline").read_bytes() == b"jaildaemon: BELL\0"
    words = (proc / "stat").read_text(encoding="ascii").rpartition(")")[2].split()
    assert words[2] == words[3] != str(pid)  # group and session, which the helper began
    # The helper ends beside the probe: armed may be told before it is reaped.
    wait_until(lambda: not os.path.exists(f"/proc/{words[3]}"), "the end of the helper")
    assert words[4] == "0"  # no terminal
    assert int(fields["PPid"]) == daemon.pid
    for name in os.listdir(proc / "ns"):
        if name != "time_for_children":
            theirs = os.stat(f"/proc/{cage.init}/ns/{name}")
            assert os.path.samestat(os.stat(proc / "ns" / name), theirs), name
    for link in ("root", "cwd"):
        assert os.path.samestat(os.stat(proc / link), os.stat(f"/proc/{cage.init}/root"))
    assert os.stat(proc / "mem").st_uid == 0  # dumpable 0: not its own user's
    tally.attack(f"final state {kind}", len(STATE) + 12, 0)


GETPID = {"x86_64": 39, "aarch64": 172}
EXIT_GROUP = {"x86_64": 231, "aarch64": 94}
MACHINE = os.uname().machine
UPROBE = {"x86_64": (335, 336), "aarch64": ()}[MACHINE]
"""uretprobe (6.11) and uprobe (6.18)."""


def _inject(cage: Cage, daemon: Daemon, how: str, call: int, argument: int = 0) -> str:
    pid = daemon.attach(cage.init, "BELL")
    (answer,) = cage.ask(f"{how} {cage.number(pid)} {call} {argument}")
    return answer


def test_only_two_system_calls_are_left_even_to_a_tracer(
    make_cage: Make, make_naive: MakeNaive, daemon: Daemon, tally: Tally
) -> None:
    cage = make_cage(PLANS["privileged"])
    naive = make_naive(cage)
    number = cage.number(naive.standing())
    found = cage.ask(f"inject {number} {GETPID[MACHINE]} 0")
    tally.control("injected system calls", found == [f"returned {number}"], str(found))
    number = cage.number(pid := naive.standing())
    assert cage.ask(f"inject {number} {EXIT_GROUP[MACHINE]} {RUNG}") == [f"exit {RUNG}"]
    code = int(naive.asked(f"reap {pid} block").split()[1])
    tally.control("forged exit codes", os.waitstatus_to_exitcode(code) == RUNG)
    refused = 0
    for call in range(460):
        if call in (EXIT_GROUP[MACHINE], {"x86_64": 130, "aarch64": 133}[MACHINE]):
            continue
        if call % 7 and call != GETPID[MACHINE] and call not in UPROBE:
            continue  # one in seven: each is an arming
        answer = _inject(cage, daemon, "inject", call)
        if call in UPROBE and answer != f"signal {signal.SIGSYS:d}":
            # No filter sees these two (kernel/seccomp.c, seccomp_uprobe_exception);
            # elsewhere than in the kernel's own trampoline they do nothing.
            assert answer.startswith("returned -") or answer == f"signal {signal.SIGILL:d}", answer
            daemon.detach_all()
            continue
        assert answer == f"signal {signal.SIGSYS:d}", (call, answer)
        refused += 1
        daemon.wait_log("gone: the probe died of SIGSYS")
    tally.attack("injected system calls", refused, 0)
    # An exit code that looks like death by the signal (128 + 1) is none.
    for code in (129, 1, 0, 128, 255):
        assert _inject(cage, daemon, "inject", EXIT_GROUP[MACHINE], code) == f"exit {code}"
        daemon.wait_log(f"gone: the probe died of exit {code}")
    assert daemon.triggers() == 0
    tally.attack("forged exit codes", 5, 0)


def test_what_a_privileged_tracer_can_do_cannot_be_prevented(
    make_cage: Make, daemon: Daemon, tally: Tally
) -> None:
    """Kernel-facts D2: he has the filter suspended, and then runs what he could run anyway."""
    cage = make_cage(Plan(PLANS["privileged"].caps))
    answer = _inject(cage, daemon, "suspend", GETPID[MACHINE])
    assert answer.startswith("returned "), answer
    assert daemon.triggers() == 0
    tally.note(f"privileged: PTRACE_O_SUSPEND_SECCOMP, an injected getpid: {answer} (documented)")
    # In a user namespace of its own the same root may not.
    cage = make_cage(PLANS["user-namespace"])
    answer = _inject(cage, daemon, "suspend", GETPID[MACHINE])
    assert answer == "seize: Operation not permitted"
