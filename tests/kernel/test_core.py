# SPDX-License-Identifier: BSD-2-Clause
"""What must hold in every kind of jail, whichever engine made it."""

import sys

import pytest

from tests.kernel.events import Bell, Gate
from tests.kernel.jails.base import Jail
from tests.kernel.processes import look, own_space
from tests.kernel.product import Daemon

NOT_THE_SIGNAL = ["TERM", "KILL", "QUIT", "INT", "USR1", "USR2", "ABRT", "ALRM"]

pytestmark = pytest.mark.every_kind


@pytest.mark.manpage("name", "probe", "command-once", "purpose", "c", "j", "t-visible")
def test_a_hangup_from_inside_runs_the_command_once(jail: Jail, daemon: Daemon, bell: Bell) -> None:
    daemon.arm(bell.command("$PPID"), jail, "Ring me")
    seen = look(daemon.probe("Ring me"))
    assert seen.space == jail.space
    assert seen.parent == daemon.process.pid

    jail.ring("Ring me")

    assert bell.wait() == str(daemon.process.pid)
    daemon.wait_rule_gone("Ring me")
    assert jail.find("Ring me") == []
    assert daemon.triggers() == 1
    assert bell.lines() == []


def test_the_command_runs_outside_the_jail(
    jail: Jail, daemon: Daemon, bell: Bell, gate: Gate
) -> None:
    daemon.arm(f"{bell.command('$$')}; {gate.command}", jail, "Out")
    jail.ring("Out")
    seen = look(int(bell.wait()))
    gate.open()
    assert seen.space == own_space() != jail.space
    assert seen.uids == (0, 0, 0)


@pytest.mark.manpage("command-once")
def test_no_other_signal_runs_the_command(jail: Jail, daemon: Daemon, bell: Bell) -> None:
    # -r: whoever took one of these for a trigger would arm a new probe.
    for name in NOT_THE_SIGNAL:
        daemon.arm(bell.command(name), jail, f"Not {name}", "-r")
    daemon.arm(bell.command("the signal"), jail, "Ring me")
    pids = {args: pid for pid, args in jail.ps().items()}
    kills = [f"kill -{name} {pids[jail.shown(f'Not {name}')]}" for name in NOT_THE_SIGNAL]

    done = jail.inside_sh("\n".join(["set -e", *kills]))

    assert done.returncode == 0, done.stderr
    daemon.wait_until(lambda: daemon.titles() == {"Ring me"}, "the end of the killed probes")
    jail.ring("Ring me")
    assert bell.wait() == "the signal"
    daemon.wait_rule_gone("Ring me")
    assert bell.lines() == []
    assert daemon.triggers() == 1


@pytest.mark.manpage("r", "respawn")
def test_r_arms_again_when_the_command_has_completed_and_not_before(
    jail: Jail, daemon: Daemon, bell: Bell, gate: Gate
) -> None:
    daemon.arm(f"{bell.command()}; {gate.command}", jail, "Again", "-r")
    old = daemon.probe("Again")
    jail.ring("Again")
    assert bell.wait() == "rang"

    assert daemon.rule("Again")["state"] == "running"
    assert jail.find("Again") == []

    gate.open()
    new = daemon.wait_new_probe("Again", old)
    assert look(new).space == jail.space
    jail.ring("Again")
    assert bell.wait() == "rang"
    gate.open()


@pytest.mark.manpage("R", "respawn")
def test_capital_r_arms_again_while_the_command_still_runs(
    jail: Jail, daemon: Daemon, bell: Bell, gate: Gate
) -> None:
    daemon.arm(f"{bell.command('$$')}; {gate.command}", jail, "At once", "-R")
    old = daemon.probe("At once")
    jail.ring("At once")
    first = int(bell.wait())

    new = daemon.wait_new_probe("At once", old)
    assert look(first).parent == daemon.process.pid  # it still runs
    jail.ring("At once")
    second = int(bell.wait())
    assert look(first).parent == look(second).parent == daemon.process.pid
    daemon.wait_new_probe("At once", new)
    gate.open()
    gate.open()


@pytest.mark.manpage("u", "g")
def test_the_probe_has_the_uid_and_gid_that_were_asked_for(
    jail: Jail, daemon: Daemon, bell: Bell
) -> None:
    daemon.arm(bell.command(), jail, "Mine", "-u", "1234", "-g", "2345")
    seen = look(daemon.probe("Mine"))
    assert seen.uids == (jail.first_id + 1234,) * 3
    assert seen.gids == (jail.first_id + 2345,) * 3
    assert seen.groups == ()

    (pid,) = jail.find("Mine")
    other = jail.inside_sh(f"kill -HUP {pid}", uid=4321)
    assert other.returncode != 0
    # FreeBSD may be told to hide it: mac_seeotheruids(4), security.bsd.see_other_uids.
    hidden = sys.platform != "linux" and "no such process" in other.stderr.lower()
    assert hidden or "not permitted" in other.stderr.lower()
    assert jail.find("Mine") == [pid]

    own = jail.inside_sh(f"kill -HUP {pid}", uid=1234)
    assert own.returncode == 0, own.stderr
    assert bell.wait() == "rang"
    daemon.wait_rule_gone("Mine")
    assert daemon.triggers() == 1
    assert bell.lines() == []


def test_the_engines_own_stop_is_no_trigger(fresh_jail: Jail, daemon: Daemon, bell: Bell) -> None:
    for title, option in (("Once", ()), ("After", ("-r",)), ("Now", ("-R",))):
        daemon.arm(bell.command(title), fresh_jail, title, *option)
    fresh_jail.stop()
    daemon.wait_until(lambda: daemon.rules() == [], "the end of the rules")
    assert daemon.triggers() == 0
    assert bell.lines() == []
