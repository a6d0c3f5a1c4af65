# SPDX-License-Identifier: BSD-2-Clause
"""Settle with a real daemon: what the end of a jail rings starts nothing, all else only later."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.world import Daemon, World
from tests.kernel.events import PATIENCE_SECONDS

LINUX = sys.platform == "linux"
S6_JAIL = f"jaildaemon_s6_{os.getpid()}"
S6_SHUTDOWN = "trap '' HUP TERM; echo up; read go; kill -HUP -1; kill -TERM -1; sleep 0.1; exit 0"


@pytest.fixture
def s6() -> Iterator["subprocess.Popen[bytes]"]:
    """A container whose init ends as s6-linux-init-shutdownd does: HUP and TERM to all, then exit.

    The real one waits some seconds before it kills and exits; a tenth is enough to be seen.
    """
    if LINUX:
        command = ["unshare", "--fork", "--pid", "--mount-proc", "sh", "-c", S6_SHUTDOWN]
    else:
        command = ["jail", "-c", f"name={S6_JAIL}", "path=/", "command=/bin/sh", "-c", S6_SHUTDOWN]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as jail:
        assert jail.stdout is not None
        assert jail.stdout.readline() == b"up\n"
        yield jail
        jail.kill()


def init_of(jail: "subprocess.Popen[bytes]") -> str:
    """Return what -j takes: the host's pid of its init, or its name."""
    if not LINUX:
        return S6_JAIL
    path = Path(f"/proc/{jail.pid}/task/{jail.pid}/children")
    return path.read_text(encoding="ascii").split()[0]


def shut_down(jail: "subprocess.Popen[bytes]") -> None:
    """Let its init end it."""
    assert jail.stdin is not None
    jail.stdin.write(b"go\n")
    jail.stdin.flush()


def until_it_exits(jail: "subprocess.Popen[bytes]", init: int) -> None:
    """Wait until the jail's init is on its way out; no event tells that it has no memory left."""
    end = time.monotonic() + PATIENCE_SECONDS
    if not LINUX:
        jail.wait(PATIENCE_SECONDS)
    while LINUX and Path(f"/proc/{init}/cmdline").read_bytes():
        assert time.monotonic() < end, "the jail's init lives on"


def test_a_shutdown_that_signals_everybody_rings_without_settle(
    daemon: Daemon, s6: "subprocess.Popen[bytes]"
) -> None:
    hup = daemon.attach(init_of(s6), "true", "HUP")
    settles = daemon.attach(init_of(s6), "true", "SETTLE", settle="2s")
    usr1 = daemon.attach(init_of(s6), "true", "USR1", signal="USR1", respawn="after")
    # It cannot end before its probes are reaped, but that alone is missing when we go on: the
    # settle is not to run against its programs.
    os.kill(daemon.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, daemon.pid, os.WSTOPPED)
    init = int(init_of(s6)) if LINUX else 0
    shut_down(s6)
    until_it_exits(s6, init)
    os.kill(daemon.pid, signal.SIGCONT)
    left = {f"{hup}: signal from", f"{settles}: run", f"{usr1}: gone: the probe died of SIGHUP"}
    while left:
        line = daemon.wait(*left)
        left = {text for text in left if text not in line}
    # It has ended by then, so nothing was started for it.
    why = daemon.wait(" refused: ").partition(" did not settle: ")[2]
    assert re.fullmatch(r"the (container|jail) has ended.*|no process is left in the jail", why)
    daemon.settled()
    assert [record["rule"] for record in daemon.journal("start")] == [hup]
    assert daemon.rules() == {}


def test_a_settle_in_a_jail_that_lives_on_only_takes_time(world: World, daemon: Daemon) -> None:
    jail = world.jail()
    rule = daemon.attach(jail.jail, "true", settle="200ms", respawn="after")
    daemon.ring(rule)
    daemon.wait("settles: ")
    daemon.started(rule)
    daemon.armed(rule)
    (trigger,), (start,) = (daemon.times(kind, rule) for kind in ("trigger", "start"))
    assert start - trigger >= 0.2
    slow = daemon.attach(jail.jail, "true", settle="1h", respawn="after")
    daemon.ring(slow)
    daemon.wait("settles: ")
    assert daemon.rule(slow)["state"] == "settling"
