# SPDX-License-Identifier: BSD-2-Clause
"""-r and -R: when a new probe follows, and that it is as the old one."""

import pytest

from tests.kernel.events import Bell, Gate
from tests.kernel.jails.base import Jail
from tests.kernel.processes import look
from tests.kernel.product import Daemon

ENDS = {
    "exits 0": "exit 0",
    "exits 1": "exit 1",
    "exits 129": "exit 129",
    "is killed": "kill -KILL $$",
    "hangs up": "kill -HUP $$",
    "does not exist": "exec /nonexistent/command",
}


@pytest.mark.manpage("respawn", "command-once")
def test_a_single_shot_leaves_no_probe_and_no_rule(
    jail: Jail, daemon: Daemon, bell: Bell, gate: Gate
) -> None:
    daemon.arm(f"{bell.command()}; {gate.command}", jail, "ONCE")
    jail.ring("ONCE")
    assert bell.wait() == "rang"
    assert jail.find("ONCE") == []  # while the command runs
    gate.open()
    daemon.wait_rule_gone("ONCE")
    assert jail.find("ONCE") == []
    assert daemon.rules() == []
    assert bell.lines() == []


@pytest.mark.manpage("r")
def test_r_arms_again_however_the_command_ends(jail: Jail, daemon: Daemon, bell: Bell) -> None:
    for title, end in ENDS.items():
        daemon.arm(f"{bell.command(title)}; {end}", jail, title, "-r")
    for _ in range(2):
        for title in ENDS:
            old = daemon.probe(title)
            jail.ring(title)
            assert bell.wait() == title
            daemon.wait_new_probe(title, old)
    assert daemon.triggers() == 2 * len(ENDS)
    assert bell.lines() == []


@pytest.mark.manpage("r", "R")
def test_the_new_probe_is_as_the_old_one(jail: Jail, daemon: Daemon, bell: Bell) -> None:
    for title, option in (("AFTER", "-r"), ("NOW", "-R")):
        daemon.arm(bell.command(title), jail, title, option, "-u", "12", "-g", "34")
        first = daemon.rule(title)
        jail.ring(title)
        assert bell.wait() == title
        daemon.wait_new_probe(title, first["probe_pid"])
        again = daemon.rule(title)
        assert {name: again[name] for name in ("id", "jail", "title", "command", "policy")} == {
            name: first[name] for name in ("id", "jail", "title", "command", "policy")
        }
        seen = look(again["probe_pid"])
        assert seen.uids == (jail.first_id + 12,) * 3
        assert seen.gids == (jail.first_id + 34,) * 3
        assert seen.groups == ()
        assert seen.space == jail.space
        assert len(jail.find(title)) == 1


@pytest.mark.manpage("R")
def test_capital_r_wins_over_r(jail: Jail, daemon: Daemon, bell: Bell, gate: Gate) -> None:
    daemon.arm(f"{bell.command()}; {gate.command}", jail, "BOTH", "-rR")
    old = daemon.probe("BOTH")
    jail.ring("BOTH")
    assert bell.wait() == "rang"
    daemon.wait_new_probe("BOTH", old)
    assert daemon.status()["running"] == 1  # the command has not completed
    gate.open()


def test_each_of_many_signals_is_one_run(jail: Jail, daemon: Daemon, bell: Bell) -> None:
    daemon.arm(bell.command("$JAILDAEMON_RUN"), jail, "MANY", "-r")
    runs = set()
    for _ in range(10):
        old = daemon.probe("MANY")
        jail.ring("MANY")
        runs.add(bell.wait())
        daemon.wait_new_probe("MANY", old)
    assert len(runs) == 10
    assert daemon.rule("MANY")["triggers"] == 10
    assert bell.lines() == []


def test_nothing_is_armed_again_in_a_jail_that_ended_while_the_command_ran(
    fresh_jail: Jail, daemon: Daemon, bell: Bell, gate: Gate
) -> None:
    daemon.arm(f"{bell.command()}; {gate.command}", fresh_jail, "RESTART", "-r")
    fresh_jail.ring("RESTART")
    assert bell.wait() == "rang"
    fresh_jail.stop()
    assert daemon.titles() == {"RESTART"}
    gate.open()
    daemon.wait_rule_gone("RESTART")
    assert daemon.triggers() == 1
    assert bell.lines() == []
