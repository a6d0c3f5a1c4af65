# SPDX-License-Identifier: BSD-2-Clause
"""Armings of one connection that overlap: their order, and what may not overtake them."""

import json

from jaildaemon.daemon.control import MAX_OVERLAPPING
from tests.daemon.server import Server, call


def test_armings_of_one_connection_overlap_and_are_answered_in_their_order(
    server: Server,
) -> None:
    client = server.connect()
    server.backend.passive = True
    attach = call("Attach", command="true", jail=server.jail)
    refused = call("Attach", command="", jail=server.jail)
    client.say(*[attach] * 10, refused, *[attach] * 10, call("Status"), attach)
    assert client.heard() == []
    assert len(server.methods.fleet.members) == MAX_OVERLAPPING - 1  # and the refused one
    server.backend.passive = False
    server.settle()
    *answers, status, last = client.heard()
    assert "error" in answers.pop(10)
    assert [a["parameters"]["id"] for a in answers] == [f"t{n}" for n in range(1, 21)]
    assert status["parameters"]["probes"] == 20, "nothing overtakes an arming"
    assert last["parameters"]["id"] == "t21"


def test_a_replacement_waits_until_it_is_alone(server: Server) -> None:
    client = server.connect()
    wish = {"command": "true", "jail": server.jail, "title": "T"}
    client.say(call("Attach", **wish), call("Attach", **wish, replace=True))
    assert [a["parameters"]["id"] for a in client.heard()] == ["t1", "t2"]
    assert list(server.methods.fleet.members) == ["t2"]


def test_what_was_asked_for_before_garbage_is_answered(server: Server) -> None:
    client = server.connect()
    server.backend.passive = True
    attach = call("Attach", command="true", jail=server.jail)
    client.send(json.dumps(attach).encode() + b"\0garbage\0")
    assert client.heard() == []
    server.backend.passive = False
    server.settle()
    assert [a["parameters"]["id"] for a in client.heard()] == ["t1"]
    assert client.closed
    assert list(server.methods.fleet.members) == ["t1"]


def test_who_hangs_up_leaves_none_of_its_armings_behind(server: Server) -> None:
    client = server.connect()
    server.backend.passive = True
    client.say(*[call("Attach", command="true", jail=server.jail)] * 20)
    client.socket.close()
    server.backend.passive = False
    server.settle()
    assert server.methods.fleet.members == {}
