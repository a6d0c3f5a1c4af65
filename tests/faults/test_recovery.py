# SPDX-License-Identifier: BSD-2-Clause
"""What the next daemon takes up of the one before it, and what it must not."""

import json
import os
import signal
import sys
import time
from typing import Any

import pytest

from tests.faults.world import Daemon, World, alive, in_run, wait_gone

ENDS = [signal.SIGKILL, signal.SIGTERM]
LONG_AGO = 601.0
HOUR = 3600.0


def edit(daemon: Daemon, kind: str, **values: Any) -> None:
    """Change the records of a kind."""
    records = daemon.journal()
    for record in records:
        if record["kind"] == kind:
            record.update(values)
    daemon.rewrite(records)


def add_waiting_trigger(daemon: Daemon, rule: str, *, age: float = 0.0) -> None:
    """Add a trigger that was never started, as of a daemon that died while it waited."""
    record = {
        "kind": "trigger",
        "t": time.time() - age,
        "s": time.monotonic() - age,
        "rule": rule,
        "run": "waiting.1",
    }
    with daemon.journal_path.open("a", encoding="ascii") as file:
        file.write(json.dumps(record) + "\n")


# --- rules ----------------------------------------------------------------------------


@pytest.mark.parametrize("how", ENDS)
def test_rules_come_back_if_the_very_jail_runs(
    world: World, daemon: Daemon, how: signal.Signals
) -> None:
    jail, fifo = world.jail(), world.fifo()
    command = f'echo "$JAILDAEMON_RULE" > {fifo.path}'
    rules = [
        daemon.attach(jail.jail, command, "ONE"),
        daemon.attach(jail.jail, command, "TWO", respawn="after", uid=7, gid=8, cooldown="3ms"),
        daemon.attach(jail.jail, command, respawn="now", signal="USR1", limit="none"),
    ]
    before = daemon.rules()
    daemon.end(how)
    for found in before.values():
        wait_gone(found["probe_pid"])
    daemon.start()
    daemon.all_armed(*rules)
    after = daemon.rules()
    varies = {"probe_pid", "armed_at"}
    for rule in rules:
        was, now = before[rule], after[rule]
        assert {k: was[k] for k in was if k not in varies} == {
            k: now[k] for k in now if k not in varies
        }
    for rule, number in zip(rules, [signal.SIGHUP, signal.SIGHUP, signal.SIGUSR1], strict=True):
        daemon.ring(rule, number)
        assert fifo.line() == rule
    # No id is used twice, and none of a rule that is gone.
    assert daemon.attach(jail.jail, command) == "t4"


@pytest.mark.parametrize("how", ENDS)
def test_the_probes_die_with_the_daemon(world: World, daemon: Daemon, how: signal.Signals) -> None:
    probe = daemon.probe(daemon.attach(world.jail().jail, "true"))
    daemon.end(how)
    wait_gone(probe)
    assert not alive(probe)


def test_no_rule_comes_back_after_its_jail_ended(world: World, daemon: Daemon) -> None:
    jail, other = world.jail(), world.jail()
    rule, stays = daemon.attach(jail.jail, "true"), daemon.attach(other.jail, "true")
    daemon.crash()
    jail.close()
    daemon.start()
    assert "gone: " in daemon.wait(f"{rule}: ")
    daemon.armed(stays)
    assert set(daemon.rules()) == {stays}
    assert [r["rule"] for r in daemon.journal("unrule")] == [rule]


def test_no_rule_comes_back_in_another_jail_with_the_same_number(
    world: World, daemon: Daemon
) -> None:
    rule = daemon.attach(world.jail().jail, "true")
    daemon.crash()
    (record,) = daemon.journal("rule")
    identity = record["identity"]
    if sys.platform == "linux":
        identity["start"] -= 1
    else:  # pid, and when it was started, of each process that was seen in it
        identity["witnesses"] = [[pid, sec - 1, usec] for pid, sec, usec in identity["witnesses"]]
    edit(daemon, "rule", identity=identity)
    daemon.start()
    assert "gone: attach: " in daemon.wait(f"{rule}: ")
    assert daemon.rules() == {}


def test_nothing_comes_back_after_a_reboot(world: World, daemon: Daemon) -> None:
    rule = daemon.attach(world.jail().jail, "true", respawn="after")
    daemon.crash()
    edit(daemon, "boot", boot="another")
    add_waiting_trigger(daemon, rule)
    daemon.start()
    assert daemon.rules() == {}
    assert any("waiting.1 expired: the host has rebooted" in line for line in daemon.log)
    assert daemon.journal("start") == []


def test_a_withdrawn_rule_does_not_come_back(world: World, daemon: Daemon) -> None:
    daemon.attach(world.jail().jail, "true")
    daemon.call("Detach", all=True)
    daemon.again()
    assert daemon.rules() == {}


def test_a_one_shot_that_is_spent_does_not_come_back(world: World, daemon: Daemon) -> None:
    fifo = world.fifo()
    rule = daemon.attach(world.jail().jail, f"read x < {fifo.path}")
    run = daemon.run(rule)
    daemon.again()
    daemon.wait("goes on as pid")
    assert daemon.rule(rule)["state"] == "running"
    fifo.write("\n")
    daemon.wait(f"run {run} ended")
    assert daemon.rules() == {}
    daemon.again()
    assert daemon.rules() == {}
    assert len(daemon.journal("trigger")) == 1


# --- windows -----------------------------------------------------------------------------


@pytest.mark.parametrize("how", ENDS)
def test_the_limit_is_kept(world: World, daemon: Daemon, how: signal.Signals) -> None:
    rule = daemon.attach(world.jail().jail, "true", respawn="now", limit="2/1h")
    daemon.run(rule)
    daemon.armed(rule)
    daemon.run(rule)
    daemon.wait("the limit of 2/1h is reached")
    daemon.end(how)
    daemon.start()
    daemon.wait("the limit of 2/1h is reached")
    found = daemon.rule(rule)
    assert (found["state"], found["triggers"]) == ("limited", 2)
    assert found["next_arming"] > found["last_trigger"]


@pytest.mark.parametrize("how", ENDS)
def test_the_cooldown_is_kept(world: World, daemon: Daemon, how: signal.Signals) -> None:
    rule = daemon.attach(world.jail().jail, "true", respawn="after", cooldown="1h")
    daemon.run(rule)
    daemon.wait("cooldown")
    daemon.end(how)
    daemon.start()
    daemon.wait("cooldown")
    assert daemon.rule(rule)["state"] == "cooling"


def test_a_window_that_is_over_is_no_obstacle(world: World, daemon: Daemon) -> None:
    rule = daemon.attach(world.jail().jail, "true", respawn="after", limit="1/1h", cooldown="30m")
    daemon.run(rule)
    daemon.wait("the limit of 1/1h is reached")
    daemon.crash()
    for kind in ("trigger", "end"):
        edit(daemon, kind, s=time.monotonic() - 3601)
    daemon.start()
    daemon.armed(rule)


# --- commands that outlived the daemon ------------------------------------------------------


@pytest.mark.parametrize("how", ENDS)
def test_a_command_that_outlived_the_daemon_is_waited_for(
    world: World, daemon: Daemon, how: signal.Signals
) -> None:
    fifo = world.fifo()
    command = f"read go < {fifo.path}; echo done; read go < {fifo.path}"
    rule = daemon.attach(world.jail().jail, command, respawn="after")
    daemon.ring(rule)
    run, pid = daemon.started(rule)
    daemon.end(how)
    assert in_run(pid, run)
    daemon.start()
    daemon.wait(f"run {run} goes on as pid {pid}")
    assert daemon.rule(rule)["state"] == "running"
    fifo.write("go\n")
    daemon.until_read(run, b"done\n")
    fifo.write("go\n")
    # Of a stranger FreeBSD tells how it ended.
    how_it_ended = "with an unknown status" if sys.platform == "linux" else "exit 0"
    daemon.wait(f"run {run} ended: {how_it_ended}")
    daemon.armed(rule)
    assert len(daemon.journal("start")) == 1
    # What it wrote is not lost either.
    daemon.end()
    daemon.start()
    assert [r["output_tail"] for r in daemon.journal("output")] == ["done\n"]


def test_a_command_that_ended_meanwhile_is_interrupted(world: World, daemon: Daemon) -> None:
    fifo = world.fifo()
    rule = daemon.attach(world.jail().jail, f"read go < {fifo.path}", respawn="after")
    daemon.ring(rule)
    run, pid = daemon.started(rule)
    daemon.crash()
    fifo.write("go\n")
    wait_gone(pid)
    daemon.start()
    daemon.wait(f"run {run} interrupted: ")
    daemon.armed(rule)
    assert [r["run"] for r in daemon.journal("interrupted")] == [run]
    assert len(daemon.journal("start")) == 1


def test_the_timeout_goes_on(world: World, daemon: Daemon) -> None:
    rule = daemon.attach(world.jail().jail, "exec sleep 1000", respawn="after", timeout="1h")
    daemon.ring(rule)
    run, pid = daemon.started(rule)
    daemon.crash()
    edit(daemon, "trigger", s=time.monotonic() - HOUR)
    daemon.start()
    daemon.wait(f"run {run} has not ended after 3600 s: SIGTERM")
    wait_gone(pid)
    daemon.wait(f"run {run} ended")
    daemon.armed(rule)


def test_of_a_pid_that_was_used_again_nothing_is_believed(world: World, daemon: Daemon) -> None:
    rule = daemon.attach(world.jail().jail, "true", respawn="after")
    run = daemon.run(rule)
    daemon.wait(f"run {run} ended")
    daemon.armed(rule)
    daemon.crash()
    daemon.rewrite([r for r in daemon.journal() if r["kind"] != "end"])
    edit(daemon, "pid", pid=os.getpid())
    daemon.start()
    daemon.wait(f"run {run} interrupted: ")


@pytest.mark.parametrize("with_pid", [True, False])
def test_kill_right_after_the_start_starts_nothing_twice(
    world: World, daemon: Daemon, *, with_pid: bool
) -> None:
    fifo, hold = world.fifo(), world.fifo("hold")
    command = f"echo ran > {fifo.path}; read x < {hold.path}"
    rule = daemon.attach(world.jail().jail, command, respawn="after")
    daemon.ring(rule)
    fifo.line()
    daemon.crash()
    if not with_pid:  # it died before it could write it: found by its environment
        daemon.rewrite([r for r in daemon.journal() if r["kind"] != "pid"])
    daemon.start()
    daemon.wait("goes on as pid")
    hold.write("\n")
    daemon.armed(rule)
    assert fifo.waiting() == []
    assert len(daemon.journal("start")) == 1


def test_a_start_without_its_process_is_never_run_again(world: World, daemon: Daemon) -> None:
    fifo = world.fifo()
    rule = daemon.attach(world.jail().jail, f"echo ran > {fifo.path}", respawn="after")
    daemon.crash()
    add_waiting_trigger(daemon, rule)
    (record,) = daemon.journal("trigger")
    daemon.rewrite([*daemon.journal(), {**record, "kind": "start"}])
    daemon.start()
    daemon.wait("run waiting.1 interrupted: ")
    daemon.armed(rule)
    assert daemon.call("Status")["running"] == 0
    assert len(daemon.journal("start")) == 1
    assert fifo.waiting() == []


# --- triggers that waited -----------------------------------------------------------------


@pytest.mark.parametrize("how", ENDS)
def test_a_trigger_that_settled_is_taken_up_again(
    world: World, daemon: Daemon, how: signal.Signals
) -> None:
    rule = daemon.attach(world.jail().jail, "true", respawn="after", settle="1h")
    daemon.ring(rule)
    daemon.wait("settles: it starts if its jail lives in 3600 s")
    assert daemon.rule(rule)["state"] == "settling"
    daemon.end(how)
    assert daemon.journal("start") == []
    # It settles anew, which is not to take an hour.
    (record,) = daemon.journal("rule")
    edit(daemon, "rule", policy={**record["policy"], "settle": "10ms"})
    daemon.start()
    daemon.started(rule)
    daemon.armed(rule)
    assert len(daemon.journal("start")) == len(daemon.journal("trigger")) == 1


@pytest.mark.parametrize("respawn", ["no", "after"])
def test_a_queued_trigger_is_run(world: World, daemon: Daemon, respawn: str) -> None:
    fifo = world.fifo()
    command = f"echo $JAILDAEMON_RUN > {fifo.path}"
    rule = daemon.attach(world.jail().jail, command, respawn=respawn)
    daemon.crash()
    add_waiting_trigger(daemon, rule)
    daemon.start()
    assert fifo.line() == "waiting.1"
    daemon.wait("run waiting.1 ended: exit 0")
    daemon.again()
    assert daemon.call("Status")["running"] == 0
    assert len(daemon.journal("start")) == 1
    assert fifo.waiting() == []


def test_a_trigger_that_waited_too_long_has_expired(world: World, daemon: Daemon) -> None:
    rule = daemon.attach(world.jail().jail, "true", respawn="after")
    daemon.crash()
    add_waiting_trigger(daemon, rule, age=LONG_AGO)
    daemon.start()
    daemon.wait("run waiting.1 expired: it waited longer than 600 s")
    daemon.armed(rule)
    assert daemon.journal("start") == []


@pytest.mark.parametrize("clock", ["t", "s"])
def test_either_clock_lets_a_trigger_expire(world: World, daemon: Daemon, clock: str) -> None:
    # A clock that was set back or forward must not make an old trigger young.
    rule = daemon.attach(world.jail().jail, "true", respawn="after")
    daemon.crash()
    add_waiting_trigger(daemon, rule)
    now = time.time() if clock == "t" else time.monotonic()
    edit(daemon, "trigger", **{clock: now - LONG_AGO})
    daemon.start()
    daemon.wait("run waiting.1 expired: ")


def test_a_trigger_expires_with_its_jail(world: World, daemon: Daemon) -> None:
    jail = world.jail()
    rule = daemon.attach(jail.jail, "true", respawn="after")
    daemon.crash()
    add_waiting_trigger(daemon, rule)
    jail.close()
    daemon.start()
    daemon.wait("run waiting.1 expired: ")
    assert daemon.journal("start") == []


def test_a_trigger_of_a_held_rule_expires(world: World, daemon: Daemon) -> None:
    rule = daemon.attach(world.jail().jail, "true", respawn="after")
    daemon.crash()
    add_waiting_trigger(daemon, rule)
    hold = {"kind": "hold", "t": 0, "s": 0, "rule": rule, "reason": "by hand"}
    daemon.rewrite([*daemon.journal(), hold])
    daemon.start()
    daemon.wait("run waiting.1 expired: its rule is held")
    found = daemon.rule(rule)
    assert (found["state"], found["reason"]) == ("held", "by hand")
