# SPDX-License-Identifier: BSD-2-Clause
"""Attach, Detach, List and Status on the fake backend: what they do, and what is left."""

import errno
import os
import signal

import pytest

from tests.daemon.server import Message, Server, Wire, call


def attach(client: Wire, server: Server, **more: object) -> Message:
    """Attach a rule; return the reply."""
    answer = client.ask("Attach", **{"command": "true", "jail": server.jail, **more})
    assert "error" not in answer, answer
    parameters: Message = answer["parameters"]
    return parameters


def counts(client: Wire) -> tuple[int, int]:
    """Return the number of rules and of probes."""
    status = client.ask("Status")["parameters"]
    return status["rules"], status["probes"]


def rules(client: Wire, **which: str) -> list[Message]:
    """List rules."""
    found: list[Message] = client.ask("List", **which)["parameters"]["rules"]
    return found


# --- Attach --------------------------------------------------------------------------------


def test_the_answer_comes_when_the_probe_is_armed(server: Server) -> None:
    client = server.connect()
    reply = attach(client, server, title="BELL", policy={"uid": 5, "gid": 6})
    process = server.backend.processes[reply["probe_pid"]]
    assert (reply["id"], process.asleep) == ("t1", True)
    assert (process.title, process.uid, process.gid) == ("jaildaemon: BELL", 5, 6)
    who = f"asked for by uid {os.geteuid()} pid {os.getpid()}"
    assert server.log == [
        f"t1: {who}",
        f"t1: armed in jail jail1 as pid {process.pid}: jaildaemon: BELL",
    ]


def test_without_a_title_it_is_jaildaemon(server: Server) -> None:
    reply = attach(server.connect(), server)
    assert server.backend.processes[reply["probe_pid"]].title == "jaildaemon"


def test_what_cannot_be_armed_is_answered_with_the_reason_and_forgotten(server: Server) -> None:
    client = server.connect()
    server.backend.failing = ("clone", errno.EAGAIN)
    answer = client.ask("Attach", command="true", jail=server.jail)
    assert answer == {
        "error": "org.jaildaemon.Refused",
        "parameters": {
            "what": "attach",
            "on": "jail1",
            "why": "step clone of the helper failed: Resource temporarily unavailable",
        },
    }
    assert counts(client) == (0, 0)
    assert server.backend.open_handles == 0


def test_an_unknown_jail_is_answered_as_such(server: Server) -> None:
    answer = server.connect().ask("Attach", command="true", jail="jail99")
    assert answer == {
        "error": "org.jaildaemon.NoSuchJail",
        "parameters": {
            "what": "attach",
            "on": "jail99",
            "why": "no such jail",
            "hint": "the fake's are jail1, jail2, ...",
        },
    }


def test_a_jail_that_ends_while_arming_is_lost(server: Server) -> None:
    client = server.connect()
    server.backend.passive = True
    client.say(call("Attach", command="true", jail=server.jail))
    server.backend.end_jail(server.jail)
    server.backend.passive = False
    server.settle()
    (answer,) = client.heard()
    assert answer["error"] == "org.jaildaemon.NoSuchJail"
    assert answer["parameters"]["why"] == "the jail has ended"


@pytest.mark.parametrize("birth", [False, True])
def test_who_hangs_up_while_arming_leaves_no_rule_and_no_probe(server: Server, birth: bool) -> None:
    other, client = server.connect(), server.connect()
    server.backend.passive = True
    client.say(call("Attach", command="true", jail=server.jail))
    if birth:
        server.backend.birth(server.backend.helpers[0])
    assert counts(other) == (1, 0)
    client.socket.close()
    server.settle()
    assert counts(other) == (0, 0)
    assert server.backend.processes == {}
    assert server.backend.open_handles == 0


def test_who_hangs_up_after_the_answer_leaves_the_rule(server: Server) -> None:
    client = server.connect()
    attach(client, server)
    client.socket.close()
    server.settle()
    assert counts(server.connect()) == (1, 1)


def test_a_second_attach_of_one_title_makes_a_second_probe_and_warns(server: Server) -> None:
    client = server.connect()
    first, second = attach(client, server, title="A"), attach(client, server, title="A")
    assert (first["id"], second["id"]) == ("t1", "t2")
    assert first["probe_pid"] != second["probe_pid"]
    assert "t2: warning: pkill -f may ring t1 too, their titles overlap" in server.log
    assert [rule["reason"] for rule in rules(client)] == [
        "pkill -f may ring t2 too",
        "pkill -f may ring t1 too",
    ]


def test_replace_takes_the_place_of_the_same_title_in_the_same_jail_only(server: Server) -> None:
    client = server.connect()
    other_jail = server.backend.add_jail()
    attach(client, server, title="A")
    attach(client, server, title="B")
    attach(client, server, title="A", jail=other_jail)
    attach(client, server, title="A", replace=True)
    assert [rule["id"] for rule in rules(client)] == ["t2", "t3", "t4"]
    assert counts(client) == (3, 3)


def test_replace_that_fails_leaves_the_old_rule(server: Server) -> None:
    client = server.connect()
    attach(client, server, title="A")
    server.backend.failing = ("clone", errno.EAGAIN)
    answer = client.ask("Attach", command="true", jail=server.jail, title="A", replace=True)
    assert answer["error"] == "org.jaildaemon.Refused"
    assert [rule["id"] for rule in rules(client)] == ["t1"]
    assert counts(client) == (1, 1)


# --- what happens to a rule --------------------------------------------------------------------


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL, signal.SIGQUIT])
def test_a_probe_killed_by_another_signal_takes_its_rule_along(
    server: Server, signum: signal.Signals
) -> None:
    client = server.connect()
    reply = attach(client, server)
    server.backend.kill(reply["probe_pid"], signum)
    server.settle()
    assert counts(client) == (0, 0)
    assert server.log[-1] == f"t1: gone: the probe died of {signum.name}"
    assert client.ask("Status")["parameters"]["triggers"] == 0


def test_the_end_of_the_jail_takes_its_rules_along(server: Server) -> None:
    client = server.connect()
    attach(client, server)
    attach(client, server)
    server.backend.end_jail(server.jail)
    server.settle()
    assert counts(client) == (0, 0)
    assert server.backend.open_handles == 0


# --- Detach ------------------------------------------------------------------------------------


def test_detach_answers_when_the_probe_is_gone(server: Server) -> None:
    client = server.connect()
    reply = attach(client, server, title="A")
    assert client.ask("Detach", rule="t1") == {"parameters": {"ids": ["t1"]}}
    assert reply["probe_pid"] not in server.backend.processes
    assert counts(client) == (0, 0)


def test_a_rule_is_found_by_id_by_jail_and_title_and_by_a_unique_title(server: Server) -> None:
    client = server.connect()
    for name in ("t1", f"{server.jail}/A", "A"):
        reply = attach(client, server, title="A")
        wanted = reply["id"] if name == "t1" else name
        assert client.ask("Detach", rule=wanted) == {"parameters": {"ids": [reply["id"]]}}


def test_a_title_that_two_rules_have_lists_both(server: Server) -> None:
    client = server.connect()
    attach(client, server, title="A")
    attach(client, server, title="A")
    assert client.ask("Detach", rule="A") == {
        "error": "org.jaildaemon.Ambiguous",
        "parameters": {"what": "detach", "on": "A", "candidates": ["t1", "t2"]},
    }
    assert counts(client) == (2, 2)


def test_detach_by_jail_by_title_and_all(server: Server) -> None:
    client = server.connect()
    other_jail = server.backend.add_jail()
    attach(client, server, title="A")
    attach(client, server, title="B")
    attach(client, server, title="A", jail=other_jail)
    assert client.ask("Detach", jail=server.jail, title="B")["parameters"] == {"ids": ["t2"]}
    assert client.ask("Detach", jail=other_jail)["parameters"] == {"ids": ["t3"]}
    assert client.ask("Detach", all=True)["parameters"] == {"ids": ["t1"]}
    assert client.ask("Detach", all=True)["parameters"] == {"ids": []}
    assert server.backend.open_handles == 0


def test_detach_of_nothing_in_particular_is_refused(server: Server) -> None:
    client = server.connect()
    attach(client, server, title="A")
    for parameters in ({}, {"title": "A"}, {"all": False}):
        answer = client.ask("Detach", **parameters)
        assert answer["error"] == "org.jaildaemon.Refused"
        assert answer["parameters"]["why"] == "name a rule, a jail, or all"
    assert client.ask("Detach", rule="t9")["error"] == "org.jaildaemon.NoSuchRule"
    assert counts(client) == (1, 1)


def test_two_clients_may_detach_the_same_rule_at_once(server: Server) -> None:
    clients = [server.connect(), server.connect()]
    attach(clients[0], server)
    for client in clients:
        client.socket.send(b'{"method":"org.jaildaemon.Detach","parameters":{"rule":"t1"}}\0')
    server.settle()
    answers = [client.heard()[0] for client in clients]
    assert answers[0] == {"parameters": {"ids": ["t1"]}}
    assert answers[1] in (answers[0], {**answers[1], "error": "org.jaildaemon.NoSuchRule"})


# --- List ----------------------------------------------------------------------------------------


def test_a_listed_rule_says_everything_about_itself(server: Server) -> None:
    client = server.connect()
    reply = attach(client, server, title="A", policy={"respawn": "now", "uid": 5})
    (rule,) = rules(client)
    assert rule.pop("armed_at").endswith("Z")
    assert rule == {
        "id": "t1",
        "jail": server.jail,
        "jid": 1,
        "title": "A",
        "command": "true",
        "policy": {
            "respawn": "now",
            "uid": 5,
            "gid": 0,
            "signal": "HUP",
            "limit": "30/1m",
            "cooldown": "0s",
            "timeout": "none",
            "settle": "0s",
            "concurrency": 8,
            "run_as": "root",
        },
        "source": "transient",
        "state": "armed",
        "probe_pid": reply["probe_pid"],
        "triggers": 0,
        "refused": 0,
    }


def test_list_of_a_jail_has_its_rules_only(server: Server) -> None:
    client = server.connect()
    other_jail = server.backend.add_jail()
    attach(client, server)
    attach(client, server, jail=other_jail)
    assert [rule["id"] for rule in rules(client, jail=other_jail)] == ["t2"]
    assert rules(client, jail="nowhere") == []


def test_what_the_host_did_not_survive_ten_times_is_refused_to_a_client_too(
    server: Server,
) -> None:
    client = server.connect()
    now = server.hub.now().wall
    breaks = server.hub.journal.history.breaks
    breaks["REBOOT\0reboot"] = [now] * 10
    wish = {"command": "reboot", "jail": server.jail, "title": "REBOOT"}
    answer = client.ask("Attach", **wish)
    assert answer["error"] == "org.jaildaemon.Refused"
    assert "10 times within an hour" in answer["parameters"]["why"]
    assert server.hub.fleet.members == {}
    # Another command of the title is another rule; and an hour later it is none any more.
    assert "id" in client.ask("Attach", **{**wish, "command": "true"})["parameters"]
    breaks["REBOOT\0reboot"] = [now - 3601.0] * 10
    assert "id" in client.ask("Attach", **wish)["parameters"]
