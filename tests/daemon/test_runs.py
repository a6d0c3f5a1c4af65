# SPDX-License-Identifier: BSD-2-Clause
"""From the signal to the run's end and the next probe, on the fake backend: no time passes.

The commands are fake processes too; tests/kernel runs real ones.
"""

import errno
import os
import signal

import pytest

from jaildaemon.backends.base import Death
from tests.daemon.runs import DONE, Commands, attach, probes, ring, rule
from tests.daemon.server import Server


def test_one_shot_runs_once_and_leaves_nothing(server: Server, commands: Commands) -> None:
    client = attach(server, title="A")
    ring(server)
    assert [command.title for command in commands.running] == ["true"]
    assert (probes(server), rule(client)["state"]) == ([], "running")
    commands.end()
    assert client.ask("List")["parameters"] == {"rules": []}
    assert client.ask("Status")["parameters"]["triggers"] == 1
    assert server.backend.open_handles == 0


def test_the_run_is_told_what_it_is_for_and_nothing_from_the_jail(
    server: Server, commands: Commands
) -> None:
    attach(server, title="A")
    ring(server)
    (values,) = commands.values
    assert values.pop("RUN").endswith(".1")
    assert values == {"JID": "1", "JAIL": "jail1", "TITLE": "A", "RULE": "t1"}
    commands.end()


@pytest.mark.parametrize("death", [DONE, Death(None, 1), Death(signal.SIGKILL, None)])
def test_after_means_a_new_probe_when_the_command_has_ended_however(
    server: Server, commands: Commands, death: Death
) -> None:
    client = attach(server, "after", title="A")
    for count in (1, 2, 3):
        ring(server)
        assert (probes(server), rule(client)["state"]) == ([], "running")
        commands.end(death)
        assert (rule(client)["state"], rule(client)["triggers"]) == ("armed", count)
    assert f"ended: {death} after " in server.log[-2]


def test_a_new_probe_is_like_the_old_one(server: Server, commands: Commands) -> None:
    client = server.connect()
    policy = {"respawn": "after", "uid": 5, "gid": 6}
    client.ask("Attach", command="true", jail=server.jail, title="A", policy=policy)
    (old,) = probes(server)
    ring(server)
    commands.end()
    (new,) = probes(server)
    assert new.pid != old.pid
    assert (new.title, new.uid, new.gid) == ("jaildaemon: A", 5, 6)
    assert (old.title, old.uid, old.gid) == ("jaildaemon: A", 5, 6)


def test_now_means_a_new_probe_at_once_up_to_eight_runs(server: Server, commands: Commands) -> None:
    client = attach(server, "now")
    for count in range(1, 8):
        ring(server)
        assert (len(commands.running), rule(client)["state"]) == (count, "armed")
    ring(server)
    # The ninth signal finds no process: nothing stands there and is then ignored.
    assert (len(commands.running), probes(server), rule(client)["state"]) == (8, [], "running")
    commands.end()
    assert rule(client)["state"] == "armed"
    for _ in range(7):
        commands.end()
    assert rule(client)["triggers"] == 8


def test_detach_lets_a_running_command_run(server: Server, commands: Commands) -> None:
    client = attach(server, "after")
    ring(server)
    assert client.ask("Detach", rule="t1") == {"parameters": {"ids": ["t1"]}}
    assert rule(client)["state"] == "running"
    commands.end()
    assert (probes(server), client.ask("List")["parameters"]["rules"]) == ([], [])


def test_a_signal_and_a_detach_at_once_end_in_one_run_or_none(
    server: Server, commands: Commands
) -> None:
    client = attach(server)
    (probe,) = probes(server)
    server.backend.kill(probe.pid, signal.SIGHUP)  # dead, and not yet told
    assert client.ask("Detach", rule="t1") == {"parameters": {"ids": ["t1"]}}
    status = client.ask("Status")["parameters"]
    assert (status["triggers"], status["refused"]) in ((1, 0), (0, 1))
    assert len(commands.running) == status["triggers"]
    for _ in commands.running[:]:
        commands.end()
    assert client.ask("Status")["parameters"]["rules"] == 0


def test_a_shell_that_cannot_be_started_is_a_run_that_ended(
    server: Server, commands: Commands
) -> None:
    client = attach(server, "after")
    commands.error = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    ring(server)
    assert rule(client)["state"] == "armed"
    why = "/bin/sh cannot be started: Resource temporarily unavailable"
    assert [line for line in server.log if why in line]


# --- arming again, when it fails ----------------------------------------------------------


def test_a_probe_that_cannot_be_armed_again_is_tried_after_1_2_4_to_60_seconds(
    server: Server, commands: Commands
) -> None:
    client = attach(server, "after")
    server.backend.failing = ("clone", errno.EAGAIN)
    ring(server)
    commands.end()
    for seconds in (1, 2, 4, 8, 16, 32, 60, 60):
        found = rule(client)
        assert found["state"] == "failing"
        assert found["reason"] == (
            "attach: jail1: step clone of the helper failed: Resource temporarily unavailable"
        )
        assert f"t1: not armed, another try in {seconds}.0 s: " in server.log[-1]
        tries = len(server.log)
        server.pass_time(seconds - 0.5)
        assert len(server.log) == tries
        server.pass_time(0.500001)
        assert len(server.log) == tries + 1
    server.backend.failing = None
    server.pass_time(61)
    assert (rule(client)["state"], "reason" in rule(client)) == ("armed", False)
    # Armed once, the next failure begins at one second again.
    server.backend.failing = ("clone", errno.EAGAIN)
    ring(server)
    commands.end()
    assert "another try in 1.0 s" in server.log[-1]


def test_a_rule_that_waits_for_its_next_try_can_be_detached(
    server: Server, commands: Commands
) -> None:
    client = attach(server, "after")
    server.backend.failing = ("clone", errno.EAGAIN)
    ring(server)
    commands.end()
    assert client.ask("Detach", rule="t1") == {"parameters": {"ids": ["t1"]}}
    server.pass_time(100)
    assert server.backend.processes == {}


def test_a_jail_that_ended_during_the_run_takes_the_rule_along(
    server: Server, commands: Commands
) -> None:
    client = attach(server, "after")
    ring(server)
    server.backend.end_jail(server.jail)
    commands.end()
    assert client.ask("List")["parameters"]["rules"] == []
    assert server.log[-1] == "t1: gone: the jail has ended"
    assert server.backend.open_handles == 0


def test_two_rules_of_one_jail_know_nothing_of_each_other(
    server: Server, commands: Commands
) -> None:
    client = attach(server, "after", title="A")
    attach(server, "after", title="B")
    first = next(p for p in probes(server) if p.title == "jaildaemon: A")
    server.backend.kill(first.pid, signal.SIGHUP)
    server.settle()
    states = [r["state"] for r in client.ask("List")["parameters"]["rules"]]
    assert (states, len(commands.running)) == (["running", "armed"], 1)
    commands.end()
    states = [r["state"] for r in client.ask("List")["parameters"]["rules"]]
    assert states == ["armed", "armed"]
