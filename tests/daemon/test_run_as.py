# SPDX-License-Identifier: BSD-2-Clause
"""A rule's user is whoever has the name now, and nobody else: at arming, start and reload."""

import json
from collections.abc import Iterator

import pytest

from jaildaemon.daemon.accounts import NO_ANSWER, Account
from jaildaemon.daemon.commands import Command
from tests.daemon.runs import Commands, probes, ring, rule
from tests.daemon.server import Message, Server, Wire

SVC = Account(2001, 2001, "/home/svc")
OTHER = SVC._replace(uid=2002)
GONE = "attach: run_as svc: the host has no such user"
ANOTHER = "it is uid 2002 gid 2001 now, and was uid 2001 gid 2001 when the rule was armed"


@pytest.fixture
def started(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Account]]:
    """Give the accounts that commands were started as."""
    found: list[Account] = []
    start = Command.start

    def noted(self: Command, command: str, account: Account, *more: object) -> None:
        found.append(account)
        start(self, command, account, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(Command, "start", noted)
    yield found
    while commands.running:
        commands.end()


def attach(server: Server, respawn: str = "after", **policy: object) -> tuple[Wire, Message]:
    """Ask for a rule of user svc; return the client, and the answer."""
    client = server.connect()
    policy = {"respawn": respawn, "run_as": "svc", "limit": "none", **policy}
    return client, client.ask("Attach", command="true", jail=server.jail, policy=policy)


def state(client: Wire) -> tuple[str, str | None]:
    """Return the one rule's state, and why it has no probe."""
    found = rule(client)
    return found["state"], found.get("reason")


def refusals(server: Server) -> list[str]:
    """Return why runs were refused."""
    return [line.split(" refused: ")[1] for line in server.log if " refused: " in line]


def test_it_runs_as_who_has_the_name_at_the_start(server: Server, started: list[Account]) -> None:
    server.accounts.users = {"svc": SVC}
    client, answer = attach(server)
    assert answer["parameters"]["id"] == "t1"
    ring(server)
    assert started == [SVC]
    assert state(client)[0] == "running"


def test_without_the_user_nothing_is_armed(server: Server) -> None:
    client, answer = attach(server)
    assert answer["parameters"] == {
        "what": "attach",
        "on": "run_as svc",
        "why": "the host has no such user",
    }
    assert client.ask("List")["parameters"]["rules"] == []
    assert probes(server) == []


def test_a_database_that_does_not_answer_is_named(server: Server) -> None:
    server.accounts.trouble = NO_ANSWER
    assert attach(server)[1]["parameters"]["why"] == NO_ANSWER


@pytest.mark.parametrize("respawn", ["after", "now"])
def test_another_number_is_refused_and_armed_anew(
    server: Server, started: list[Account], respawn: str
) -> None:
    server.accounts.users = {"svc": SVC}
    client, _ = attach(server, respawn)
    server.accounts.users = {"svc": OTHER}
    ring(server)
    assert started == []
    assert refusals(server) == [f"run_as svc: {ANOTHER}"]
    if respawn == "after":
        assert state(client) == ("failing", f"attach: run_as svc: {ANOTHER}")
        server.pass_time(1.0)  # the first backoff
    # Else the next probe was looked up for by itself, and found the new number.
    assert state(client)[0] == "armed"
    ring(server)
    assert started == [OTHER]


@pytest.mark.parametrize("respawn", ["after", "now"])
def test_a_user_that_is_gone_is_refused_until_it_is_back(
    server: Server, started: list[Account], respawn: str
) -> None:
    server.accounts.users = {"svc": SVC}
    client, _ = attach(server, respawn)
    server.accounts.users = {}
    ring(server)
    assert (started, refusals(server)) == ([], ["run_as svc: the host has no such user"])
    assert state(client) == ("failing", GONE)
    assert probes(server) == []
    server.pass_time(1.0)
    assert state(client) == ("failing", GONE)
    server.accounts.users = {"svc": SVC}
    server.pass_time(2.0)
    assert state(client)[0] == "armed"
    ring(server)
    assert started == [SVC]


def test_what_settled_is_judged_by_the_user_of_its_own_probe(
    server: Server, started: list[Account]
) -> None:
    server.accounts.users = {"svc": SVC}
    attach(server, "now", settle="10s", concurrency=4)
    server.accounts.users = {"svc": OTHER}
    ring(server)  # the next probe is armed for the new number
    server.pass_time(10.0)
    assert (started, refusals(server)) == ([], [f"run_as svc: {ANOTHER}"])


def test_a_hold_refuses_what_is_being_looked_up(
    server: Server, started: list[Account], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.accounts.users = {"svc": SVC}
    client, _ = attach(server)
    answers = []
    monkeypatch.setattr(server.accounts, "ask", lambda *words: answers.append(words[2]))
    ring(server)
    assert client.ask("Hold", rule="t1")["parameters"] == {"ids": ["t1"]}
    assert refusals(server) == ["the rule was held"]
    (answer,) = answers
    monkeypatch.undo()
    server.accounts.ask(["svc"], [], answer)
    server.settle()
    assert started == []


def test_a_trigger_is_in_the_journal_before_its_user_is_looked_up(
    server: Server, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.accounts.users = {"svc": SVC}
    attach(server)
    monkeypatch.setattr(server.accounts, "ask", lambda *_: None)
    ring(server)
    lines = (server.hub.journal.directory / "journal.jsonl").read_text("ascii").splitlines()
    assert json.loads(lines[-1])["kind"] == "trigger"
    assert commands.running == []


# --- a reload -----------------------------------------------------------------------------


def test_a_reload_ends_the_probe_of_a_user_that_is_gone(server: Server) -> None:
    server.accounts.users = {"svc": SVC}
    client, _ = attach(server)
    server.accounts.users = {}
    assert "error" not in client.ask("Reload")
    assert state(client) == ("failing", GONE)
    assert probes(server) == []
    server.accounts.users = {"svc": SVC}
    client.ask("Reload")
    assert state(client)[0] == "armed", "not at once"


def test_a_reload_takes_the_number_of_now(server: Server, started: list[Account]) -> None:
    server.accounts.users = {"svc": SVC}
    client, _ = attach(server)
    (before,) = probes(server)
    server.accounts.users = {"svc": OTHER}
    client.ask("Reload")
    assert probes(server) == [before]
    ring(server)
    assert started == [OTHER]


def test_a_reload_without_an_answer_changes_nothing(server: Server) -> None:
    server.accounts.users = {"svc": SVC}
    client, _ = attach(server)
    server.accounts.trouble, server.accounts.users = NO_ANSWER, {}
    client.ask("Reload")
    assert state(client)[0] == "armed"
