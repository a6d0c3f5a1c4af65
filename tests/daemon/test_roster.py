# SPDX-License-Identifier: BSD-2-Clause
"""Rules in files, in this process, in the fake's world: they follow their jails."""

import errno
import json
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from jaildaemon.core.config import Configuration, FileRule
from jaildaemon.core.lifecycle import Event
from jaildaemon.core.rules import Policy, Respawn
from jaildaemon.daemon.journal import NAME
from jaildaemon.daemon.roster import ABSENT
from jaildaemon.errors import BadConfiguration
from tests.daemon.server import Server, Wire, call

FILE = "/etc/jaildaemon.toml"
AFTER = Policy(Respawn.AFTER)


def rule(name: str = "bell", jail: str = "web", **values: Any) -> FileRule:
    """Return a rule in a file."""
    given = {"title": "BELL", "command": "true", "policy": AFTER, "source": FILE, **values}
    return FileRule(name, jail, **given)


def files(*rules: FileRule, **values: Any) -> Configuration:
    """Return what files say."""
    return Configuration(rules, **values)


class World:
    """A server, what its files say, and a client."""

    def __init__(self, server: Server) -> None:
        self.server, self.backend, self.hub = server, server.backend, server.hub
        self.files: Configuration | BadConfiguration = Configuration()
        server.methods.reloading.read = self._read
        self.client: Wire = server.connect()

    def _read(self) -> Configuration:
        if isinstance(self.files, BadConfiguration):
            raise self.files
        return self.files

    def reload(self, *rules: FileRule) -> dict[str, Any]:
        """Write the files anew, and reload."""
        self.files = files(*rules)
        answer: dict[str, Any] = self.client.ask("Reload")["parameters"]
        return answer

    def begin(self, name: str) -> None:
        """Start a jail."""
        self.backend.begin_jail(name)
        self.server.settle()

    def end(self, name: str) -> None:
        """End a jail."""
        self.backend.end_jail(name)
        self.server.settle()

    def shown(self) -> list[dict[str, Any]]:
        """Return what `list` shows."""
        rules: list[dict[str, Any]] = self.client.ask("List")["parameters"]["rules"]
        return rules

    def states(self) -> dict[str, str]:
        """Return each rule's state."""
        return {shown["id"]: shown["state"] for shown in self.shown()}

    def one(self) -> dict[str, Any]:
        """Return the one rule that there is."""
        (found,) = self.shown()
        return found

    def kinds(self) -> list[str]:
        """Return the kinds of the journal's records about `bell`, but those for `log` alone."""
        lines = (self.hub.journal.directory / NAME).read_text(encoding="ascii").splitlines()
        records = [json.loads(line) for line in lines]
        kinds = [record["kind"] for record in records if record.get("rule") == "bell"]
        return [kind for kind in kinds if kind not in ("armed", "died", "left")]


@pytest.fixture
def world(server: Server) -> Iterator[World]:
    """Give a world; at its end the files are empty."""
    made = World(server)
    yield made
    made.reload()


# --- following a jail ------------------------------------------------------------------


def test_a_rule_waits_for_its_jail_and_follows_it(world: World) -> None:
    assert world.reload(rule()) == {"added": ["bell"], "removed": [], "kept": 0}
    seen = world.one()
    assert (seen["state"], seen["reason"], seen["source"]) == ("waiting", ABSENT, FILE)
    assert "jid" not in seen
    world.begin("web")
    first = world.one()
    assert (first["state"], "reason" in first) == ("armed", False)
    world.end("web")
    assert world.one()["state"] == "waiting"
    assert world.backend.processes == {}
    world.begin("web")
    assert world.one()["state"] == "armed"
    assert world.one()["probe_pid"] != first["probe_pid"]
    assert world.kinds() == ["rule", "jail", "jail"]


def test_the_end_of_its_jail_is_an_entry_of_the_log(world: World) -> None:
    world.reload(rule())
    world.begin("web")
    world.end("web")
    lines = (world.hub.journal.directory / NAME).read_text(encoding="ascii").splitlines()
    left = [record for line in lines if (record := json.loads(line))["kind"] == "left"]
    assert [(record["rule"], record["reason"]) for record in left] == [("bell", "its jail ended")]
    assert "bell: its jail ended" in world.server.log


def test_a_jail_that_runs_already_is_found_at_once(world: World) -> None:
    world.begin("web")
    world.reload(rule())
    assert world.one()["state"] == "armed"


def test_a_jail_that_is_replaced_in_one_instant_is_another_one(world: World) -> None:
    world.reload(rule())
    world.begin("web")
    first = world.one()["probe_pid"]
    world.backend.end_jail("web")
    world.backend.begin_jail("web")
    world.server.settle()
    assert world.one()["state"] == "armed"
    assert world.one()["probe_pid"] != first


def test_each_jail_of_a_pattern_has_its_probe(world: World) -> None:
    world.reload(rule(jail="web-*"))
    seen = world.one()
    assert (seen["id"], seen["jail"], seen["state"]) == ("bell", "web-*", "waiting")
    for name in ("web-1", "web-2", "web-1.evil", "db"):
        world.begin(name)
    assert world.states() == {"bell@web-1": "armed", "bell@web-2": "armed"}
    world.end("web-1")
    assert world.states() == {"bell@web-2": "armed"}
    world.end("web-2")
    assert world.states() == {"bell": "waiting"}


def test_a_rule_of_a_pattern_is_kept_as_long_as_its_limit_counts(world: World) -> None:
    world.reload(rule(jail="web-*"))
    world.begin("web-1")
    member = world.hub.fleet.members["bell@web-1"]
    member.last_trigger = world.hub.now().wall
    world.end("web-1")
    # Of no use to anybody in a list, and there all the same.
    assert world.states() == {"bell": "waiting"}
    assert world.client.ask("Status")["parameters"]["rules"] == 0
    assert world.hub.fleet.members["bell@web-1"] is member
    member.last_trigger -= 61
    world.begin("web-2")
    assert world.states() == {"bell@web-2": "armed"}
    assert "bell@web-1" not in world.hub.fleet.members


def test_a_rule_of_a_pattern_whose_jail_is_back_goes_on_with_its_limit(world: World) -> None:
    world.reload(rule(jail="web-*"))
    world.begin("web-1")
    member = world.hub.fleet.members["bell@web-1"]
    member.last_trigger = world.hub.now().wall
    world.end("web-1")
    world.begin("web-1")
    assert world.states() == {"bell@web-1": "armed"}
    assert world.hub.fleet.members["bell@web-1"] is member


def test_a_held_rule_of_a_pattern_is_shown_without_its_jail(world: World) -> None:
    world.reload(rule(jail="web-*"))
    world.begin("web-1")
    world.client.ask("Hold", rule="bell@web-1")
    world.end("web-1")
    assert world.states() == {"bell@web-1": "held"}


def test_without_events_of_jails_it_is_looked_once_a_second_while_one_is_absent(
    world: World,
) -> None:
    world.backend.tells_of_jails = False
    world.reload(rule())
    world.backend.begin_jail("web")
    world.server.settle()
    assert world.one()["state"] == "waiting"
    world.server.pass_time(1.0)
    assert world.one()["state"] == "armed"
    assert world.backend.watcher._next_deadline() is None


def test_nothing_is_watched_when_no_rule_needs_it(world: World) -> None:
    world.backend.tells_of_jails = False
    world.reload(rule())
    assert world.backend.watcher._next_deadline() is not None
    world.reload()
    assert world.backend.watcher._next_deadline() is None


def test_a_probe_that_dies_of_something_else_is_armed_again_with_backoff(world: World) -> None:
    world.reload(rule())
    world.begin("web")
    for longest in (1.2, 2.4):
        world.backend.kill(world.one()["probe_pid"], signal.SIGKILL)
        world.server.settle()
        seen = world.one()
        assert (seen["state"], seen["reason"]) == ("failing", "the probe died of SIGKILL")
        world.server.pass_time(longest * 0.66)
        assert world.one()["state"] == "failing"
        world.server.pass_time(longest)
        assert world.one()["state"] == "armed"


def test_a_new_jail_is_armed_at_once_whatever_failed_in_the_one_before(world: World) -> None:
    world.reload(rule())
    world.begin("web")
    world.backend.kill(world.one()["probe_pid"], signal.SIGKILL)
    world.server.settle()
    assert world.one()["state"] == "failing"
    world.end("web")
    assert world.one()["state"] == "waiting"
    world.begin("web")
    assert world.one()["state"] == "armed"


def test_a_jail_of_which_nobody_told_that_it_ended_is_found_out_when_it_is_armed(
    world: World,
) -> None:
    world.reload(rule())
    world.backend.failing = ("enter", 3)
    world.begin("web")
    # The kernel says ESRCH: to the helper the jail is gone, to the list it is there.
    world.backend.jails["web"] += 1000
    world.backend.failing = None
    world.server.pass_time(5.0)
    assert world.one()["state"] == "armed"


def test_a_jail_that_cannot_be_watched_is_taken_when_it_can(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.reload(rule())

    def full(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as short:
        short.setattr(world.backend, "watch_end", full)
        world.begin("web")
        assert world.one()["state"] == "waiting"
    world.server.pass_time(1.0)
    assert world.one()["state"] == "armed"
    assert "web: cannot be watched now: Too many open files" in world.server.log


def test_what_is_held_stays_held_through_the_jails_restart(world: World) -> None:
    world.reload(rule())
    world.begin("web")
    member = world.hub.fleet.members["bell"]
    world.hub.event(member, Event.HOLD)
    world.server.settle()
    world.end("web")
    world.begin("web")
    assert world.one()["state"] == "held"
    world.hub.perform(world.hub.fleet.release(member, world.hub.now()))
    world.server.settle()
    assert world.one()["state"] == "armed"


def test_an_edit_is_no_release(world: World) -> None:
    world.reload(rule())
    world.begin("web")
    world.begin("db")
    world.hub.event(world.hub.fleet.members["bell"], Event.HOLD)
    world.server.settle()
    for edited in (rule(command="false"), rule(jail="db"), rule(jail="db", title="GONG")):
        world.reload(edited)
        world.server.settle()
        assert world.one()["state"] == "held"
    world.reload()
    world.reload(rule())
    assert world.one()["state"] == "armed"


# --- reload ------------------------------------------------------------------------------


def test_an_unchanged_rule_keeps_its_very_probe(world: World) -> None:
    world.begin("web")
    world.reload(rule(), rule("gong", title="GONG"))
    before = {shown["id"]: shown["probe_pid"] for shown in world.shown()}
    answer = world.reload(rule(source="/etc/other.toml"), rule("horn", title="HORN"))
    assert answer == {"added": ["horn"], "removed": ["gong"], "kept": 1}
    after = {shown["id"]: shown for shown in world.shown()}
    assert set(after) == {"bell", "horn"}
    assert after["bell"]["probe_pid"] == before["bell"]
    assert after["bell"]["source"] == "/etc/other.toml"
    assert len(world.backend.processes) == 2


def test_a_changed_rule_gets_another_probe_and_keeps_its_counts(world: World) -> None:
    world.begin("web")
    world.reload(rule())
    before = world.one()["probe_pid"]
    answer = world.reload(rule(title="GONG"))
    assert answer == {"added": ["bell"], "removed": ["bell"], "kept": 0}
    world.server.settle()
    seen = world.one()
    assert (seen["state"], seen["title"]) == ("armed", "GONG")
    assert seen["probe_pid"] != before
    assert [p.title for p in world.backend.processes.values()] == ["jaildaemon: GONG"]


def test_a_bad_file_keeps_the_old_rules_and_says_why(world: World) -> None:
    world.begin("web")
    world.reload(rule())
    before = world.one()
    why = "x.toml: a: uid: is bad\nx.toml: b: is bad"
    world.files = BadConfiguration("reload", FILE, why, "the old rules stay")
    answer = world.client.ask("Reload")
    assert answer["error"] == "org.jaildaemon.BadConfiguration"
    assert answer["parameters"]["why"] == why
    assert world.one() == before


def test_a_removed_rule_may_come_back(world: World) -> None:
    world.begin("web")
    world.reload(rule())
    world.reload()
    assert (world.shown(), world.backend.processes) == ([], {})
    world.reload(rule())
    assert world.one()["state"] == "armed"


def test_what_is_in_a_file_cannot_be_detached(world: World) -> None:
    world.begin("web")
    world.reload(rule())
    answer = world.client.ask("Detach", rule="bell")
    assert answer["parameters"]["why"] == f"is in {FILE}"
    for which in ({"all": True}, {"jail": "web"}):
        assert world.client.ask("Detach", **which)["parameters"] == {"ids": []}
    assert world.one()["state"] == "armed"


def test_replace_takes_the_place_of_transient_rules_alone(world: World) -> None:
    world.begin("web")
    world.reload(rule())
    asked = {"command": "true", "jail": "web", "title": "BELL", "replace": True}
    assert world.client.ask("Attach", **asked)["parameters"]["id"] == "t1"
    assert world.client.ask("Attach", **asked)["parameters"]["id"] == "t2"
    assert world.states() == {"bell": "armed", "t2": "armed"}
    world.client.say(call("Detach", all=True))
    assert [m["parameters"] for m in world.client.heard()] == [{"ids": ["t2"]}]
