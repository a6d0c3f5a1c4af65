# SPDX-License-Identifier: BSD-2-Clause
"""Attack 4: the jail's tree is made of traps, and whoever opens anything in it is seen."""

import re
import shutil
import sys
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("cannot: the Linux attacker", allow_module_level=True)
assert sys.platform == "linux"

from tests.attacks.cage import Plan
from tests.attacks.linux_fixtures import Make, MakeNaive
from tests.attacks.rig import Daemon
from tests.attacks.tally import Tally

PLANTED_UID = 42
PROBES = 12
FORKS = ("clone", "clone3", "fork", "vfork")


def test_nothing_in_a_hostile_tree_is_opened(
    make_cage: Make, make_naive: MakeNaive, daemon: Daemon, tally: Tally
) -> None:
    cage = make_cage(Plan(hostile=True))
    naive = make_naive(cage)
    cage.ask("start watch")
    pid = naive.asked("arm lookup")
    _, code = naive.asked(f"reap {pid} block").split()
    control = cage.counts("stop")
    # It asked for a user and took the jail's word for it (CVE-2019-14271).
    assert int(code) >> 8 == PLANTED_UID
    tally.control("planted /etc/passwd", 1)
    tally.control("watched tree", int(control["wins"]))

    cage.ask("start watch")
    assert len(daemon.attach_many(cage.init, PROBES)) == PROBES
    pid_of_one = daemon.attach(cage.init, "BELL", respawn="now")
    cage.ask(f"kill {cage.number(pid_of_one)} 1")
    daemon.wait_log("run .* ended")
    found = cage.counts("stop")
    assert int(found["attempts"]) >= 5, "the watch was not set"
    tally.attack("watched tree", PROBES + 2, int(found["wins"]))


def _trace(log: Path) -> list[str | Path]:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is missing; install the package strace")
    calls = ",".join(["trace=%file", "setns", "execveat", "connect", *FORKS])
    return [strace, "-f", "-qq", "-e", calls, "-e", "signal=none", "-o", log]


def _after_setns(log: Path) -> tuple[set[str], list[str]]:
    """Return who joined a jail, and what they and those that they made looked up from then on."""
    joined: set[str] = set()
    born: set[str] = set()
    after: list[str] = []
    for line in log.read_text(encoding="utf-8").splitlines():
        match = re.match(r"(\d+) +(?:<\.\.\. )?(\w+)", line)
        if match is None:
            continue
        who, call = match.groups()
        if call == "setns":
            joined.add(who)
        elif who in joined | born:
            if call in FORKS:
                born.update(re.findall(r"= (\d+)$", line))
            elif "resumed>" not in line:  # it was counted when it began
                after.append(line)
    return joined, after


def test_no_path_is_looked_up_in_a_hostile_tree(
    make_cage: Make, make_naive: MakeNaive, tmp_path: Path, tally: Tally
) -> None:
    """A trace of the daemon's own arming: after setns nothing but the empty path."""
    log = tmp_path / "trace"
    cage = make_cage(Plan(hostile=True))
    naive = make_naive(cage, _trace(log))
    naive.asked(f"reap {naive.asked('arm lookup')} block")
    naive.close()
    tally.control("trace after setns", len(_after_setns(log)[1]))
    traced = Daemon(tmp_path, wrap=_trace(log))
    try:
        assert len(traced.attach_many(cage.init, PROBES)) == PROBES
        traced.detach_all()
    finally:
        traced.close()
    joined, after = _after_setns(log)
    assert len(joined) == PROBES
    others = [line for line in after if ' execveat(6, "", ["jaildaemon: T' not in line]
    tally.attack("trace after setns", len(after), len(others), "; ".join(others))
    assert len(after) == PROBES
