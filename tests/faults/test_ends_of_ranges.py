# SPDX-License-Identifier: BSD-2-Clause
"""Each duration, count and number at its ends, through the whole of a daemon's life."""

import json
import time

import pytest

from jaildaemon.cli import client
from jaildaemon.core import ranges
from jaildaemon.core.text import MAX_ID
from jaildaemon.errors import Refused
from tests.faults.world import Daemon, World


def entries(daemon: Daemon) -> list[str]:
    """Return the kinds of what the log shows."""
    found = [reply.get("entry") for reply in client.stream(daemon.socket, "Entries", {})]
    return [entry["kind"] for entry in found if isinstance(entry, dict)]


def look_at(daemon: Daemon, rule: str) -> str:
    """Look at the rule in every way; return its state."""
    daemon.settled()
    assert daemon.call("Status")["rules"] == 1
    assert "trigger" in entries(daemon)
    shown = daemon.rule(rule)
    assert [r["id"] for r in daemon.call("Explain", jail=shown["jail"])["rules"]] == [rule]
    return str(shown["state"])


def live_through(daemon: Daemon, rule: str) -> list[str]:
    """Look at the rule now, after a restart and after a crash; return its states."""
    states = [look_at(daemon, rule)]
    daemon.launch_restart()
    assert daemon.restarted() == 0
    daemon.wait(" serves ")
    states.append(look_at(daemon, rule))
    daemon.again()
    return [*states, look_at(daemon, rule)]


@pytest.mark.parametrize(
    ("field", "value", "said", "state"),
    [
        ("limit", "1/366d", "no probe for 31", "limited"),
        ("cooldown", "366d", "no probe for 31", "cooling"),
        ("settle", "366d", " settles: ", "settling"),
        ("timeout", "366d", " is pid ", "running"),
    ],
)
def test_the_longest_time_that_a_rule_may_have_is_waited(
    world: World, daemon: Daemon, field: str, value: str, said: str, state: str
) -> None:
    go_on = world.fifo()
    command = f"read x < {go_on.path}" if field == "timeout" else "true"
    # A daemon with nothing else to wait for: the year is the next that is due.
    rule = daemon.attach(world.jail().jail, command, "LONG", respawn="after", **{field: value})
    daemon.ring(rule)
    daemon.wait(said)
    assert live_through(daemon, rule) == [state] * 3
    go_on.write("go\n")


@pytest.mark.parametrize(
    ("field", "value"),
    [("limit", "1000/1ms"), ("cooldown", "1ms"), ("settle", "1ms"), ("timeout", "1ms")],
)
def test_the_shortest_time_that_a_rule_may_have_is_over_at_once(
    world: World, daemon: Daemon, field: str, value: str
) -> None:
    rule = daemon.attach(world.jail().jail, "true", "SHORT", respawn="after", **{field: value})
    daemon.armed(rule)
    daemon.ring(rule)
    daemon.armed(rule)
    daemon.ring(rule)
    daemon.armed(rule)
    assert daemon.rule(rule)["triggers"] == 2


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("uid", -1),
        ("uid", MAX_ID + 1),
        ("gid", 2**64),
        ("uid", int("9" * 4300)),
        ("concurrency", 0),
        ("concurrency", 10**30),
        ("timeout", "367d"),
        ("limit", "1001/1s"),
        ("settle", "999999999d"),
    ],
)
def test_what_is_out_of_range_is_refused_in_a_short_line(
    world: World, daemon: Daemon, field: str, value: object
) -> None:
    with pytest.raises(Refused) as caught:
        daemon.attach(world.jail().jail, "true", "OUT", **{field: value})
    assert field in str(caught.value)
    assert len(str(caught.value)) < 200
    assert daemon.call("Status")["rules"] == 0


DAMAGE = {
    "a duration that is infinite": {"kind": "end", "run": "r", "duration_seconds": "1e999"},
    "a duration of 401 digits": {"kind": "end", "run": "r", "duration_seconds": "9" * 401},
    "a time beyond the calendar": {"kind": "trigger", "run": "r", "t": "1e17"},
    "an id of 301 digits": {"kind": "boot", "last_id": "1e300"},
    "a number of triggers": {"kind": "rule", "state": '{"triggers":1e300}'},
    "a process that has no number": {"kind": "rule", "identity": f'{{"pid":{"9" * 300}}}'},
    "a run with a path": {"kind": "trigger", "run": "/../../../x"},
    "a policy of other types": {"kind": "rule", "policy": '{"uid":5.5,"signal":["HUP"]}'},
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_numbers_start_nothing_and_stop_nothing(
    world: World, daemon: Daemon, damage: str
) -> None:
    rule = daemon.attach(world.jail().jail, "true", "OK", respawn="after")
    daemon.crash()
    mine = damage in ("a duration that is infinite", "a duration of 401 digits")
    said = {"rule": rule if mine else "t7", "jail": "1", "command": "x", "boot": "b"}
    fields = {**{name: json.dumps(value) for name, value in said.items()}, **DAMAGE[damage]}
    words = [
        f'"{name}":{json.dumps(value) if name in ("kind", "run") else value}'
        for name, value in fields.items()
    ]
    with daemon.journal_path.open("ab") as file:
        file.write(("{" + ",".join(words) + "}\n").encode())
    daemon.start()
    daemon.armed(rule)
    daemon.ring(rule)
    daemon.armed(rule)
    assert set(daemon.rules()) == {rule}
    assert len(daemon.journal("start")) == 1
    assert "start" in entries(daemon)
    assert live_through(daemon, rule)[-1] in ("armed", "waiting")
    # An id is never used twice: that of the rule that cannot be used is not.
    assert daemon.attach(world.jail().jail, "true", "NEXT") in ("t2", "t8")


def test_a_trigger_of_the_future_closes_a_rule_for_no_longer_than_its_window(
    world: World, daemon: Daemon
) -> None:
    rule = daemon.attach(world.jail().jail, "true", "AHEAD", respawn="after", limit="1/1s")
    daemon.crash()
    ahead = {"kind": "trigger", "rule": rule, "run": "r", "t": time.time(), "s": ranges.MAX_STEADY}
    with daemon.journal_path.open("a", encoding="ascii") as file:
        file.write(f"{json.dumps(ahead)}\n")
        file.write(f"{json.dumps({**ahead, 'kind': 'end'})}\n")
    daemon.start()
    daemon.armed(rule)


def test_a_start_that_cannot_be_read_is_not_made_again(world: World, daemon: Daemon) -> None:
    fifo = world.fifo()
    rule = daemon.attach(world.jail().jail, f"echo ran > {fifo.path}", "ONCE", respawn="after")
    daemon.crash()
    now = {"rule": rule, "run": "r", "t": time.time(), "s": time.monotonic()}
    with daemon.journal_path.open("a", encoding="ascii") as file:
        file.write(f"{json.dumps({'kind': 'trigger', **now})}\n")
        file.write(f"{json.dumps({'kind': 'start', **now, 't': 1e300})}\n")
    daemon.start()
    daemon.wait(" interrupted: ")
    daemon.armed(rule)
    assert fifo.waiting() == []
