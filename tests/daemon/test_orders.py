# SPDX-License-Identifier: BSD-2-Clause
"""Hold, Release and Fire on the fake backend: what they do, in every state of a rule."""

import errno
import os

import pytest

from jaildaemon.daemon.journal import Journal
from tests.daemon.runs import Commands, attach, probes, ring, rule
from tests.daemon.server import Message, Server, call

WHO = f"by uid {os.geteuid()} pid {os.getpid()}"


def refused(answer: Message) -> str:
    """Return why something was refused."""
    assert answer["error"] == "org.jaildaemon.Refused", answer
    why: str = answer["parameters"]["why"]
    return why


def records(server: Server, *kinds: str) -> list[Message]:
    """Return what the journal says."""
    reader = server.hub.journal.reader()
    found = reader.read() or []
    reader.close()
    return [record for record in found if record["kind"] in kinds]


def no_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be written to the journal from here on."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Journal, "write", full)
    monkeypatch.setattr(Journal, "check", full)


# --- hold ------------------------------------------------------------------------------


@pytest.mark.parametrize("respawn", ["no", "after", "now"])
def test_a_held_rule_has_no_probe_until_its_release(
    server: Server, commands: Commands, respawn: str
) -> None:
    client = attach(server, respawn, title="A")
    assert client.ask("Hold", rule="A") == {"parameters": {"ids": ["t1"]}}
    assert probes(server) == []
    found = rule(client)
    assert (found["state"], found["reason"]) == ("held", f"held {WHO}")
    assert client.ask("Release", rule="t1") == {"parameters": {"ids": ["t1"]}}
    server.settle()
    found = rule(client)
    assert (found["state"], "reason" in found) == ("armed", False)
    ring(server)
    assert len(commands.running) == 1
    commands.end()
    assert f"t1: held {WHO}" in server.log
    assert f"t1: released {WHO}" in server.log
    assert [(r["kind"], r["reason"]) for r in records(server, "hold", "release")] == [
        ("hold", f"held {WHO}"),
        ("release", f"released {WHO}"),
    ]


def test_hold_while_the_command_runs_lets_it_run_and_arms_nothing_after(
    server: Server, commands: Commands
) -> None:
    client = attach(server, "after")
    ring(server)
    assert client.ask("Hold", rule="t1") == {"parameters": {"ids": ["t1"]}}
    commands.end()
    assert (probes(server), rule(client)["state"]) == ([], "held")
    client.ask("Release", rule="t1")
    server.settle()
    assert rule(client)["state"] == "armed"


def test_what_settles_when_its_rule_is_held_never_starts(
    server: Server, commands: Commands
) -> None:
    client = server.connect()
    client.ask("Attach", command="true", jail=server.jail, policy={"settle": "5s"})
    client.ask("Attach", command="true", jail=server.jail, policy={"respawn": "after"})
    first = probes(server)[0]
    server.backend.kill(first.pid, 1)
    server.settle()
    # The one shot of t1 is spent: it is gone but for its run, and cannot be held.
    answer = client.ask("Hold", rule="t1")
    assert answer["error"] == "org.jaildaemon.NoSuchRule"
    assert answer["parameters"]["why"] == "it is gone, and only its run goes on"
    assert client.ask("Hold", all=True) == {"parameters": {"ids": ["t2"]}}
    server.pass_time(6)
    commands.end()


def test_a_run_that_settles_is_refused_by_hold(server: Server, commands: Commands) -> None:
    client = server.connect()
    policy = {"settle": "5s", "respawn": "after"}
    client.ask("Attach", command="true", jail=server.jail, policy=policy)
    ring(server)
    client.ask("Hold", all=True)
    server.pass_time(6)
    assert commands.running == []
    assert (rule(client)["state"], rule(client)["refused"]) == ("held", 1)
    assert [r["reason"] for r in records(server, "refused")] == ["the rule was held"]


def test_hold_and_release_twice_are_the_same_as_once(server: Server, commands: Commands) -> None:
    client = attach(server, "after")
    for _ in range(2):
        assert client.ask("Hold", rule="t1") == {"parameters": {"ids": ["t1"]}}
    assert len(records(server, "hold")) == 1
    assert client.ask("Release", all=True) == {"parameters": {"ids": ["t1"]}}
    server.settle()
    assert refused(client.ask("Release", rule="t1")) == "is not held"
    assert client.ask("Release", all=True) == {"parameters": {"ids": []}}


def test_a_release_that_comes_while_the_probe_is_dying_waits_for_it(
    server: Server, commands: Commands
) -> None:
    client, other = attach(server, "after"), server.connect()
    client.socket.send(b'{"method":"org.jaildaemon.Hold","parameters":{"rule":"t1"}}\0')
    other.socket.send(b'{"method":"org.jaildaemon.Release","parameters":{"rule":"t1"}}\0')
    server.settle()
    assert client.heard() == other.heard() == [{"parameters": {"ids": ["t1"]}}]
    server.settle()
    assert rule(client)["state"] == "armed"


def test_a_rule_whose_first_probe_is_on_its_way_cannot_be_held_yet(server: Server) -> None:
    server.backend.passive = True
    client, other = server.connect(), server.connect()
    client.say(call("Attach", command="true", jail=server.jail))
    assert refused(other.ask("Hold", rule="t1")) == "its first probe is on its way"
    assert other.ask("Hold", all=True) == {"parameters": {"ids": []}}
    server.backend.passive = False
    server.settle()


def test_hold_of_an_arming_rule_keeps_its_own_reason(server: Server, commands: Commands) -> None:
    client = attach(server, "after")
    ring(server)
    server.backend.passive = True
    commands.end()
    assert rule(client)["state"] == "waiting"
    client.ask("Hold", rule="t1")
    assert (rule(client)["state"], rule(client)["reason"]) == ("held", f"held {WHO}")
    server.backend.passive = False


def test_neither_is_done_to_nothing_in_particular(server: Server, commands: Commands) -> None:
    client = attach(server, "after")
    for method in ("Hold", "Release"):
        assert refused(client.ask(method)) == "name a rule, or all"
        assert client.ask(method, rule="t9")["error"] == "org.jaildaemon.NoSuchRule"


def test_what_cannot_be_written_down_is_not_done(
    server: Server, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = attach(server, "after")
    client.ask("Attach", command="true", jail=server.jail, title="B")
    client.ask("Hold", rule="B")
    told = "the journal cannot be written: No space left on device"
    with monkeypatch.context() as full:
        no_journal(full)
        assert refused(client.ask("Hold", rule="t1")) == told
        assert refused(client.ask("Release", rule="B")) == told
        assert refused(client.ask("Fire", rule="t1")) == told
    states = [r["state"] for r in client.ask("List")["parameters"]["rules"]]
    assert states == ["armed", "held"]


# --- fire ------------------------------------------------------------------------------


def test_fire_is_a_ring_of_the_hosts_own(server: Server, commands: Commands) -> None:
    client = attach(server, "after", title="A")
    answer = client.ask("Fire", rule="A")["parameters"]
    (trigger,) = records(server, "trigger")
    assert answer == {"run": trigger["run"], "would_run": "true"}
    assert trigger["reason"] == f"fired {WHO}"
    assert (len(commands.running), rule(client)["triggers"]) == (1, 1)
    line = next(line for line in server.log if "; run " in line)
    assert line.startswith(f"t1: fired {WHO} for jail jail1; run {trigger['run']} is pid ")
    assert line.endswith(" as root")
    commands.end()
    assert rule(client)["state"] == "armed"
    ring(server)
    assert "reason" not in records(server, "trigger")[-1]
    commands.end()


def test_fire_uses_up_a_one_shot_rule(server: Server, commands: Commands) -> None:
    client = attach(server, "no")
    assert "run" in client.ask("Fire", rule="t1")["parameters"]
    commands.end()
    assert client.ask("List") == {"parameters": {"rules": []}}


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        ({"respawn": "after"}, "its command runs"),
        ({"respawn": "now", "limit": "1/1h"}, "the limit of 1/1h is reached"),
        ({"respawn": "after", "settle": "5s"}, "its run starts if its jail still lives after 5s"),
    ],
)
def test_fire_is_refused_where_the_jail_could_not_ring(
    server: Server, commands: Commands, policy: dict[str, str], why: str
) -> None:
    client = server.connect()
    client.ask("Attach", command="true", jail=server.jail, policy=policy)
    assert client.ask("Fire", rule="t1", dry_run=True) == {"parameters": {"would_run": "true"}}
    client.ask("Fire", rule="t1")
    assert refused(client.ask("Fire", rule="t1")) == why
    dry = client.ask("Fire", rule="t1", dry_run=True)
    assert dry == {"parameters": {"would_run": "true", "refused": why}}
    assert rule(client)["triggers"] == 1
    server.pass_time(5)
    commands.end()


def test_two_fires_at_once_are_one_run_and_one_refusal(server: Server, commands: Commands) -> None:
    client, other = attach(server, "after"), server.connect()
    for who in (client, other):
        who.socket.send(b'{"method":"org.jaildaemon.Fire","parameters":{"rule":"t1"}}\0')
    server.settle()
    answers = sorted([client.heard()[0], other.heard()[0]], key=lambda a: "error" in a)
    assert "run" in answers[0]["parameters"]
    assert refused(answers[1]) in ("it has just been fired", "its command runs")
    assert len(commands.running) == 1
    commands.end()


def test_a_probe_that_does_not_take_the_signal_is_told_of_and_rings_later(
    server: Server, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = attach(server, "after")
    (probe,) = probes(server)
    monkeypatch.setattr(server.backend.watcher, "signal_process", lambda _pid, _signum: None)
    client.say(call("Fire", rule="t1"))
    server.pass_time(5.1)
    (answer,) = client.heard()
    assert refused(answer) == "its probe has not taken the signal after 5 s"
    server.backend.kill(probe.pid, 1)
    server.settle()
    assert (client.heard(), len(commands.running)) == ([], 1)
    monkeypatch.undo()
    commands.end()


def test_a_probe_that_dies_of_another_signal_meanwhile_is_no_run(
    server: Server, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = attach(server, "after")
    (probe,) = probes(server)
    with monkeypatch.context() as stopped:
        stopped.setattr(server.backend.watcher, "signal_process", lambda _pid, _signum: None)
        client.say(call("Fire", rule="t1"))
    server.backend.kill(probe.pid, 9)
    server.settle()
    (answer,) = client.heard()
    assert refused(answer) == "the probe died of SIGKILL"
    assert commands.running == []


# --- who asked ---------------------------------------------------------------------------


def test_who_withdrew_a_rule_is_kept(server: Server, commands: Commands) -> None:
    client = attach(server, "after")
    client.ask("Detach", all=True)
    assert f"t1: withdrawn {WHO}" in server.log
    assert [r["reason"] for r in records(server, "unrule")] == [f"withdrawn {WHO}"]
    assert records(server, "rule")[0]["reason"] == f"asked for {WHO}"


def test_a_line_names_twenty_rules_and_counts_the_others(server: Server) -> None:
    client = server.connect()
    for _ in range(23):
        client.ask("Attach", command="true", jail=server.jail)
    client.ask("Hold", all=True)
    names = ", ".join(f"t{n}" for n in range(1, 21))
    assert server.log[-1] == f"{names} and 3 more: held {WHO}"
    client.ask("Detach", all=True)
