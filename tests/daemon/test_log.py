# SPDX-License-Identifier: BSD-2-Clause
"""Log and Entries on the fake backend: what streams, what is bounded, and across a new journal."""

import os
from typing import Any

import pytest

from jaildaemon.backends.base import Peer
from jaildaemon.core.config import Configuration
from jaildaemon.core.journal import decode
from jaildaemon.daemon import inquiry
from jaildaemon.daemon import journal as journal_module
from jaildaemon.daemon.journal import Journal
from tests.daemon.runs import Commands, attach, ring
from tests.daemon.server import Message, Server, Wire


def ask(client: Wire, method: str, **parameters: Any) -> list[Message]:
    """Call with "more"; return the answers so far."""
    client.say({"method": f"org.jaildaemon.{method}", "parameters": parameters, "more": True})
    return client.heard()


def kinds(answers: list[Message]) -> list[str]:
    """Return the kinds of the entries."""
    return [a["parameters"]["entry"]["kind"] for a in answers if "entry" in a["parameters"]]


def test_entries_ends_with_an_answer_that_has_none(server: Server, commands: Commands) -> None:
    client = attach(server, "after", title="A")
    ring(server)
    commands.end()
    answers = ask(client, "Entries")
    assert kinds(answers) == ["rule", "armed", "trigger", "start", "end", "armed"]
    assert [a.get("continues") for a in answers] == [True] * 6 + [None]
    assert answers[-1] == {"parameters": {}}
    trigger = answers[2]["parameters"]["entry"]
    assert (trigger["rule"], trigger["jail"], trigger["title"]) == ("t1", "jail1", "A")
    end = answers[4]["parameters"]["entry"]
    assert (end["exit_status"], end["run"]) == (0, trigger["run"])
    # The connection is as good as before.
    assert client.ask("Status")["parameters"]["rules"] == 1


@pytest.mark.parametrize(("last", "found"), [(0, []), (2, ["unrule", "end"]), (1000, None)])
def test_last_is_the_latest_so_many(
    server: Server, commands: Commands, last: int, found: list[str] | None
) -> None:
    client = attach(server, "no")
    ring(server)
    commands.end()
    every = ["rule", "armed", "trigger", "start", "unrule", "end"]
    got = kinds(ask(client, "Entries", last=last))
    assert got == (every if found is None else found)


def test_the_entries_of_one_rule_and_of_one_that_nobody_knows(
    server: Server, commands: Commands
) -> None:
    client = attach(server, "after", title="A")
    attach(server, "after", title="B")
    answers = ask(client, "Entries", rule="B")
    assert {a["parameters"]["entry"]["rule"] for a in answers[:-1]} == {"t2"}
    client.ask("Detach", rule="B")
    assert kinds(ask(client, "Entries", rule="B")) == ["rule", "armed", "unrule"]
    (answer,) = ask(client, "Entries", rule="C")
    assert answer["error"] == "org.jaildaemon.NoSuchRule"
    attach(server, "after", title="A")
    for known in ("t1", "A", f"{server.jail}/A"):  # the latter two are of two rules
        assert ask(client, "Entries", rule=known, last=0) == [{"parameters": {}}]


def test_a_follower_gets_what_was_and_then_each_new_entry(
    server: Server, commands: Commands
) -> None:
    other = attach(server, "after", title="A")
    client = server.connect()
    assert kinds(ask(client, "Log")) == ["rule", "armed"]
    ring(server)
    assert kinds(client.heard()) == ["trigger", "start"]
    commands.end()
    assert kinds(client.heard()) == ["end", "armed"]
    other.ask("Hold", rule="A")
    answers = client.heard()
    assert kinds(answers) == ["hold"]
    assert all(a["continues"] for a in answers)
    client.socket.close()
    server.settle()
    # What is written from here on wakes nobody, and closes no descriptor of others.
    other.ask("Release", rule="A")
    assert other.ask("Status")["parameters"]["rules"] == 1


def test_a_probe_that_dies_of_something_else_is_told(server: Server, commands: Commands) -> None:
    client = attach(server, "after")
    server.backend.kill(next(iter(server.backend.processes)), 15)
    for process in list(server.backend.processes.values()):
        server.backend.kill(process.pid, 15)
    server.settle()
    found = ask(client, "Entries")
    assert kinds(found) == ["rule", "armed", "died", "unrule"]
    reasons = [a["parameters"]["entry"]["reason"] for a in found[2:4]]
    assert reasons == ["the probe died of SIGTERM"] * 2


@pytest.mark.parametrize("method", ["Log", "Entries"])
def test_without_more_it_is_refused(server: Server, method: str) -> None:
    answer = server.connect().ask(method)
    assert answer["error"] == "org.jaildaemon.Refused"
    assert answer["parameters"]["why"] == 'the answer is long: call it with "more"'


def test_what_comes_after_a_long_answer_waits_for_its_end(
    server: Server, commands: Commands
) -> None:
    client = attach(server, "after")
    client.say(
        {"method": "org.jaildaemon.Entries", "more": True},
        {"method": "org.jaildaemon.Status", "more": True},
        {"method": "org.jaildaemon.Entries", "more": True, "parameters": {"last": 1}},
    )
    *first, status, latest, end = client.heard()
    assert kinds(first[:-1]) == ["rule", "armed"]
    assert (first[-1], status["parameters"]["rules"]) == ({"parameters": {}}, 1)
    assert "continues" not in status
    assert (kinds([latest]), end) == (["armed"], {"parameters": {}})


def test_a_long_answer_that_nobody_wants_is_none(server: Server, commands: Commands) -> None:
    client = attach(server, "after")
    client.say({"method": "org.jaildaemon.Log", "more": True, "oneway": True})
    assert client.heard() == []
    assert client.ask("Status")["parameters"]["rules"] == 1


@pytest.mark.parametrize("last", [-1, 1001])
def test_last_has_bounds(server: Server, last: int) -> None:
    (answer,) = ask(server.connect(), "Log", last=last)
    assert answer["parameters"]["why"] == "is not from 0 to 1000"


def test_sixteen_may_follow(server: Server) -> None:
    clients = [server.connect() for _ in range(17)]
    assert inquiry.MAX_FOLLOWERS == 16
    for client in clients[:16]:
        assert ask(client, "Log") == []
    (answer,) = ask(clients[16], "Log")
    assert answer["parameters"]["why"] == "16 clients read it already"
    clients[0].socket.close()
    server.settle()
    assert ask(clients[16], "Log") == []


def test_a_follower_that_does_not_read_is_hung_up_on_after_five_seconds(
    server: Server, commands: Commands
) -> None:
    client, other = server.connect(), server.connect()
    ask(client, "Log")
    record = server.hub.journal.record("armed", rule="t" * 2000)
    for _ in range(2000):  # more than the socket's buffer, and ours
        server.hub.journal.write(record)
    server.settle()
    before = len(server.log)
    server.pass_time(4.9)
    assert len(server.log) == before
    server.pass_time(0.2)
    assert "too slow" in server.log[-1]
    assert kinds(ask(other, "Entries", last=1)) == ["armed"]
    client.heard()
    assert client.closed


def test_the_log_goes_on_across_a_new_journal_and_tells_nothing_twice(
    server: Server, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, other = attach(server, "after", title="A"), server.connect()
    ask(client, "Log")
    monkeypatch.setattr(journal_module, "MAX_BYTES", 1000)
    told = []
    for _ in range(9):
        ring(server)
        commands.end()
        told += kinds(client.heard())
    assert told == ["trigger", "start", "end", "armed"] * 9
    names = os.listdir(server.hub.journal.directory)
    assert {journal_module.NAME, journal_module.OLD_NAME} <= set(names)
    # What a later reader finds names the rule, which only a snapshot says by now.
    later = ask(other, "Entries", rule="A")
    assert kinds(later)[-4:] == ["trigger", "start", "end", "armed"]
    assert len(later) < 9 * 4


def test_a_reader_that_slept_through_a_whole_file_finds_its_way(
    server: Server, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    attach(server, "after", title="A")
    reader = server.hub.journal.reader()
    assert reader.read() is not None
    monkeypatch.setattr(journal_module, "MAX_BYTES", 300)
    for _ in range(8):
        ring(server)
        commands.end()
    found = []
    while (records := reader.read()) is not None:
        found += records
    # Whether a new file was just begun hangs on how long the numbers in the records are.
    last = (server.hub.journal.directory / journal_module.NAME).read_bytes().splitlines()[-1]
    assert found[-1] == decode(last)
    assert reader.read() is None
    reader.close()


def test_a_journal_that_cannot_be_read_is_an_error_before_and_between(
    server: Server, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = attach(server, "after")

    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as bad:
        bad.setattr(Journal, "reader", broken)
        (answer,) = ask(client, "Log")
        assert answer["parameters"]["why"] == "the journal cannot be read: Input/output error"
    with monkeypatch.context() as bad:
        bad.setattr(journal_module.Reader, "read", broken)
        (answer,) = ask(client, "Log")
        assert answer["parameters"]["why"] == "the journal cannot be read: Input/output error"
    assert len(kinds(ask(client, "Entries"))) == 2


# --- explain and status --------------------------------------------------------------------


def test_explain_has_the_rules_of_a_jail_by_any_of_its_names(
    server: Server, commands: Commands
) -> None:
    client = attach(server, "after", title="A")
    attach(server, "after", title="B")
    for jail in (server.jail, "1"):
        found = client.ask("Explain", jail=jail)["parameters"]["rules"]
        assert [r["id"] for r in found] == ["t1", "t2"]
    (one,) = client.ask("Explain", jail=server.jail, title="B")["parameters"]["rules"]
    assert (one["id"], one["source"], one["state"]) == ("t2", "transient", "armed")


def test_explain_tells_an_unknown_jail_from_one_without_rules(server: Server) -> None:
    client = server.connect()
    answer = client.ask("Explain", jail="nowhere")
    assert answer["error"] == "org.jaildaemon.NoSuchJail"
    answer = client.ask("Explain", jail=server.jail, title="A")
    assert answer["error"] == "org.jaildaemon.NoSuchRule"
    assert answer["parameters"]["on"] == "jail1/A"
    assert answer["parameters"]["why"] == "no rule is for it"
    assert server.backend.open_handles == 0


def test_status_warns_of_what_an_administrator_should_look_at(
    server: Server, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = server.connect()
    assert client.ask("Status")["parameters"]["warnings"] == []
    policy = {"respawn": "after", "limit": "1/1h"}
    client.ask("Attach", command="true", jail=server.jail, policy=policy, title="A")
    client.ask("Attach", command="true", jail=server.jail, title="ABC")
    server.backend.kill(min(server.backend.processes), 1)
    server.settle()
    commands.end()
    now = server.hub.now().wall
    breaks = server.hub.journal.history.breaks
    breaks["REBOOT\0reboot"] = [now] * 10
    breaks["\0reboot"] = [now] * 10
    breaks["ONCE\0true"] = [now]
    monkeypatch.setattr(server.hub.journal, "_unwritten", [{}, {}])
    monkeypatch.setattr(type(server.hub.fleet), "queued", 3)
    monkeypatch.setattr(server.backend, "most_probes", 0, raising=False)
    assert client.ask("Status")["parameters"]["warnings"] == [
        "the journal cannot be written: 2 records wait",
        "1 probes: see jaildaemon(1), BUGS, of more than 0",
        "REBOOT: taken for a loop, and refused for 60 min",
        "reboot: taken for a loop, and refused for 60 min",
        "3 runs wait for a place",
        "t1: the limit of 1/1h is reached",
        "t1: its title rings others of its jail too",
    ]
    assert client.ask("Status")["parameters"]["state"] == str(server.hub.journal.directory)
    # A reader of the socket's group sees that there is such a rule, and no command.
    server.hub.roster.take(Configuration(readers="staff"))
    server.backend.the_peer = Peer(os.geteuid() + 1, os.getpid(), None)
    assert server.connect().ask("Status")["parameters"]["warnings"][2:4] == [
        "REBOOT: taken for a loop, and refused for 60 min",
        "a rule without a title: taken for a loop, and refused for 60 min",
    ]
    assert "state" not in server.connect().ask("Status")["parameters"]
    monkeypatch.setattr(server.hub.journal, "_unwritten", [])
    breaks.clear()


def test_status_has_twenty_warnings_at_most(server: Server) -> None:
    client = server.connect()
    for _ in range(23):
        client.ask("Attach", command="true", jail=server.jail)
    found = client.ask("Status")["parameters"]["warnings"]
    assert (len(found), found[-1]) == (21, "and 3 more")
