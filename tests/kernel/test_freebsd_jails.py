# SPDX-License-Identifier: BSD-2-Clause
"""Which jail it is, for good; a probe keeps no jail alive, and nobody inside touches it."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.kernel.events import Bell, Gate
from tests.kernel.jails.base import must
from tests.kernel.jails.freebsd import HostTreeJail
from tests.kernel.place import Place
from tests.kernel.product import Daemon

ATTACH = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
done = libc.ptrace(10, int(sys.argv[1]), None, 0)  # PT_ATTACH
print(done, ctypes.get_errno())
"""
SEIZE = """
import ctypes, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
seen, seized = set(), 0
while len(seen) < int(sys.argv[1]):
    ps = subprocess.run(["ps", "-axo", "pid=", "-ocomm="], capture_output=True, text=True)
    for pid, comm in (line.split(maxsplit=1) for line in ps.stdout.splitlines()):
        if comm == "jailprobe":
            seen.add(pid)
            seized += libc.ptrace(10, int(pid), None, 0) == 0
print(seized)
"""
PYTHON = [sys.executable, "-I", "-S", "-c"]


class FixedJail:
    """A jail on / with a jid of its own choice, in which a process lives."""

    def __init__(self, place: Place) -> None:
        self.name, self.jid = place.name("jaildaemon_"), str(900_000 + os.getpid() % 90_000)
        place.note("run", "jail", "-r", self.name)
        self.start()

    def start(self) -> None:
        """Make it."""
        parameters = [f"name={self.name}", f"jid={self.jid}", "path=/", "persist"]
        lives = "exec.start=/usr/sbin/daemon -f /bin/sleep 1000000"
        must(["jail", "-q", "-c", *parameters, lives])

    def stop(self) -> None:
        """Remove it, and return when it could be made again."""
        must(["jail", "-q", "-r", self.name])

    def find(self, title: str) -> bool:
        """Say whether a probe with this title stands in it."""
        argv = ["jexec", self.jid, "pgrep", "-f", f"^jaildaemon: {title}"]
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0

    def ring(self, title: str) -> None:
        """Signal the probe, which must be there."""
        must(["jexec", self.jid, "pkill", "-HUP", "-f", f"^jaildaemon: {title}"])


@pytest.fixture
def fixed(place: Place) -> Iterator[FixedJail]:
    """Give a jail with a fixed jid."""
    made = FixedJail(place)
    yield made
    made.stop()


def test_a_jail_that_came_back_with_its_jid_name_and_path_is_another_jail(
    fixed: FixedJail, daemon: Daemon, bell: Bell, gate: Gate
) -> None:
    done = daemon.attach(f"{bell.command()}; {gate.command}", fixed.jid, "BACK", "-r")
    assert done.returncode == 0, done.stderr
    fixed.ring("BACK")
    assert bell.wait() == "rang"
    fixed.stop()
    fixed.start()
    gate.open()
    daemon.wait_rule_gone("BACK")
    assert not fixed.find("BACK")
    assert bell.lines() == []


def test_a_jail_in_which_a_process_lives_on_is_the_same(
    fixed: FixedJail, daemon: Daemon, bell: Bell
) -> None:
    assert daemon.attach(bell.command(), fixed.name, "SAME", "-r").returncode == 0
    for _ in range(3):
        old = daemon.probe("SAME")
        fixed.ring("SAME")
        assert bell.wait() == "rang"
        daemon.wait_new_probe("SAME", old)


def test_a_second_rule_finds_the_same_jail_by_name_and_by_jid(
    fixed: FixedJail, daemon: Daemon
) -> None:
    for name in (fixed.name, fixed.jid):
        assert daemon.attach("true", name, "TWICE").returncode == 0
    assert all("may ring" in rule["reason"] for rule in daemon.rules())


@pytest.mark.parametrize("restarted", [False, True], ids=["", "after a restart"])
def test_a_jail_that_does_not_persist_ends_with_its_last_process(
    place: Place, daemon: Daemon, bell: Bell, *, restarted: bool
) -> None:
    name = place.name("jaildaemon_")
    place.note("run", "jail", "-r", name)
    with subprocess.Popen(
        ["jail", "-q", "-c", f"name={name}", "path=/", "command=/bin/cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as made:
        assert made.stdin is not None
        assert made.stdout is not None
        made.stdin.write(b"\n")
        made.stdin.flush()
        assert made.stdout.read(1) == b"\n"  # cat stands in its jail
        assert daemon.attach(bell.command(), name, "LAST", "-r").returncode == 0
        if restarted:
            assert daemon.cli("restart").returncode == 0
    daemon.wait_rule_gone("LAST")
    jls = ["jls", "-j", name]
    daemon.wait_until(
        lambda: subprocess.run(jls, capture_output=True, check=False).returncode != 0,
        "the end of the jail",
    )
    assert bell.lines() == []


def test_roots_debugger_inside_may_attach_to_its_own_and_not_to_the_probe(
    jail: HostTreeJail, daemon: Daemon
) -> None:
    daemon.arm("true", jail, "TRACED")
    (pid,) = jail.find("TRACED")
    assert jail.inside(*PYTHON, ATTACH, str(pid)).stdout.split() == ["-1", "1"]  # EPERM
    own = f"sleep 1000 & {sys.executable} -I -S -c '{ATTACH}' $!; kill -KILL $!"
    assert jail.inside("sh", "-c", own).stdout.split()[0] == "0"


def test_roots_debugger_inside_gets_no_probe_while_it_enters(
    jail: HostTreeJail, daemon: Daemon
) -> None:
    daemon.arm("true", jail, "SEIZED", "-R")
    wanted = 20
    with subprocess.Popen(
        jail.argv(*PYTHON, SEIZE, str(wanted)), stdout=subprocess.PIPE, text=True
    ) as attacker:
        while attacker.poll() is None:
            jail.inside("pkill", "-HUP", "-f", "^jaildaemon: SEIZED")
        assert attacker.stdout is not None
        assert attacker.stdout.read().strip() == "0"
