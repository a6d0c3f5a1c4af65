# SPDX-License-Identifier: BSD-2-Clause
"""Attack 4 on FreeBSD: the jail's tree is made of traps, and whoever looks in it is seen."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if not sys.platform.startswith("freebsd"):
    pytest.skip("cannot: the FreeBSD attacker", allow_module_level=True)

from tests.attacks.freebsd_rig import SUSPENDED, Naive, make_jail, remove_jail, shows
from tests.attacks.rig import HERE, Daemon, build_helper
from tests.attacks.talker import Talker
from tests.attacks.tally import Tally

PLANTED_GID = 42
PROBES = 12
PLACES = 10
"""Which the attacker must watch, at least."""


@pytest.fixture
def trap(attacker: Path, tmp_path: Path) -> Iterator[int]:
    """Give a jail with a tree of its own: other libraries, groups, devices and mounts."""
    root = tmp_path / "root"
    for name in ("etc", "lib", "libexec", "dev", "usr/lib"):
        (root / name).mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", root / "usr/lib"], check=True)
    for name in ("lib/libc.so.7", "libexec/ld-elf.so.1", "usr/lib/libc.so.7"):
        (root / name).write_bytes(b"evil")
    (root / "etc/group").write_text(f"bell:*:{PLANTED_GID}:\n", encoding="ascii")
    (root / "etc/passwd").write_text("bell:*:42:42::0:0::/:/bin/sh\n", encoding="ascii")
    (root / "etc/nsswitch.conf").write_text("group: files\npasswd: files\n", encoding="ascii")
    (root / "dev/null").symlink_to("../etc/group")
    shutil.copy(attacker, root / "attacker")
    name = f"jdtrap{os.getpid()}"
    yield make_jail(f"name={name}", f"path={root}")
    remove_jail(name)
    subprocess.run(["umount", root / "usr/lib"], check=True)


@pytest.fixture
def miner(trap: int) -> Iterator[Talker]:
    """Give the attacker in that jail."""
    talker = Talker("jexec", str(trap), "/attacker")
    assert talker.first.startswith("ready")
    yield talker
    talker.close()


@pytest.fixture
def credulous(trap: int) -> Iterator[Naive]:
    """Give the naive daemon of that jail."""
    naive = Naive(trap)
    yield naive
    naive.close()


def test_nothing_in_a_hostile_tree_is_opened_on_freebsd(
    trap: int, miner: Talker, credulous: Naive, daemon: Daemon, tally: Tally
) -> None:
    miner.ask("start watch")
    # It asked for a group and took the jail's word for it.
    assert credulous.asked("look-up") == str(PLANTED_GID)
    control = miner.counts("stop")
    assert int(control["attempts"]) >= PLACES, control
    tally.control("watched tree", int(control["wins"]))
    miner.ask("start watch")
    assert len(daemon.attach_many(trap, PROBES)) == PROBES
    pid = daemon.attach(trap, "BELL", respawn="now")
    assert miner.ask(f"kill {pid} {signal.SIGHUP:d}") == ["ok"]
    daemon.wait_log("run .* ended")
    found = miner.counts("stop")
    assert int(found["attempts"]) >= PLACES, found
    tally.attack("watched tree", PROBES + 2, int(found["wins"]))


RECORD = re.compile(r" *(\d+) .*? (CALL|NAMI) +(.*)")


class Trace:
    """ktrace(1) of a process and of all that it makes from now on."""

    def __init__(self, pid: int, log: Path) -> None:
        self._pid, self._log = str(pid), log
        subprocess.run(["ktrace", "-i", "-t", "cn", "-f", log, "-p", self._pid], check=True)

    def after_attach(self) -> tuple[set[str], list[str], list[str]]:
        """Return who entered a jail, and what they called and looked up from then on."""
        subprocess.run(["ktrace", "-c", "-p", self._pid], check=True)
        done = subprocess.run(
            ["kdump", "-f", self._log], capture_output=True, text=True, errors="replace", check=True
        )
        entered: set[str] = set()
        calls: list[str] = []
        names: list[str] = []
        for line in done.stdout.splitlines():
            match = RECORD.match(line)
            if match is None:
                continue
            who, kind, what = match.groups()
            if kind == "CALL" and what.startswith("jail_attach"):
                entered.add(who)
            elif who in entered:
                (calls if kind == "CALL" else names).append(what)
        return entered, calls, names


def test_no_path_is_looked_up_in_a_hostile_tree_on_freebsd(
    trap: int, credulous: Naive, tmp_path: Path, tally: Tally
) -> None:
    """The very helper, but for the call by which it forbids the trace (untraced.c)."""
    trace = Trace(credulous.pid, tmp_path / "naive.ktrace")
    credulous.asked("look-up")
    _, _, names = trace.after_attach()
    tally.control("trace after jail_attach", len(names), "; ".join(names[:5]))
    helper = build_helper(tmp_path / "libexec", f"-Wl,--wrap=procctl {HERE / 'untraced.c'}")
    daemon = Daemon(tmp_path, helper=helper)
    try:
        trace = Trace(daemon.pid, tmp_path / "ours.ktrace")
        pids = daemon.attach_many(trap, PROBES)
        assert len(pids) == PROBES
        assert all(shows(pid, "wchan", SUSPENDED) for pid in pids)
        daemon.detach_all()
        entered, calls, names = trace.after_attach()
    finally:
        daemon.close()
    assert len(entered) == PROBES
    # It was traced to the end: the last call of each is the sleep.
    assert sum(call.startswith("sigsuspend") for call in calls) == PROBES
    tally.attack("trace after jail_attach", len(calls), len(names), "; ".join(names))
