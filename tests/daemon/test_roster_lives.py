# SPDX-License-Identifier: BSD-2-Clause
"""Rules in files after the daemon's end, or the host's: one state directory, several lives."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from jaildaemon.backends.base import Death
from jaildaemon.core.config import FileRule
from jaildaemon.core.limits import Limit
from jaildaemon.core.rules import Policy, Respawn
from jaildaemon.daemon.hub import Hub
from jaildaemon.daemon.recovery import recover
from jaildaemon.daemon.roster import BROKEN
from tests.contract.fake import FakeBackend
from tests.daemon.test_roster import files, rule
from tests.logged import logger_into


class Lives:
    """One state directory, and a daemon's hub of it after the other."""

    def __init__(self, state: Path) -> None:
        self.backend, self._state = FakeBackend(), state
        self.log: list[str] = []
        self.hub: Hub | None = None

    def live(self, *rules: FileRule) -> Hub:
        """Begin a life; the one before was killed, and its probes with it."""
        if self.hub is not None:
            for process in list(self.backend.processes.values()):
                self.backend.end(process, process.death or Death(signal.SIGKILL, None))
            self.backend.processes.clear()
            self.backend.helpers.clear()
            self.hub.journal.close()
            fresh = FakeBackend()
            fresh.jails, fresh.the_boot = self.backend.jails, self.backend.the_boot
            fresh._births = self.backend._births
            self.backend = fresh
        self.hub = Hub(self.backend, self._state, logger_into(self.log))
        self.hub.roster.take(files(*rules))
        recover(self.hub, {}, [])
        self.backend.watcher.settle()
        return self.hub

    def states(self) -> dict[str, str]:
        """Return each rule's state."""
        assert self.hub is not None
        now = self.hub.now()
        return {name: m.shown(now).value for name, m in self.hub.fleet.members.items()}


@pytest.fixture
def lives(tmp_path: Path) -> Iterator[Lives]:
    """Give lives."""
    made = Lives(tmp_path)
    yield made
    if made.hub is not None:
        made.hub.journal.close()


def open_run(hub: Hub, *kinds: str) -> None:
    """Write into the journal what a death in the middle of a run leaves."""
    for kind in kinds:
        hub.journal.write(hub.journal.record(kind, rule="bell", run="x.1"))


def test_it_is_armed_again_in_the_very_jail_and_in_another_one(lives: Lives) -> None:
    lives.backend.begin_jail("web")
    lives.live(rule())
    lives.live(rule())
    assert lives.states() == {"bell": "armed"}
    lives.backend.begin_jail("web")
    lives.live(rule())
    assert lives.states() == {"bell": "armed"}


@pytest.mark.parametrize(
    ("after", "why"),
    [
        ((rule(command="false"),), "its rule changed"),
        ((), "its rule changed"),
        ((rule(jail="db"),), "its rule changed"),
    ],
    ids=["changed", "removed", "another jail"],
)
def test_a_trigger_that_waited_expires_where_its_rule_is_another(
    lives: Lives, after: tuple[FileRule, ...], why: str
) -> None:
    lives.backend.begin_jail("web")
    open_run(lives.live(rule()), "trigger")
    lives.live(*after)
    assert f"bell: run x.1 expired: {why}" in lives.log


def test_the_limit_goes_on_after_the_daemons_end(lives: Lives) -> None:
    once = rule(policy=Policy(Respawn.AFTER, limit=Limit(1, 60.0)))
    lives.backend.begin_jail("web")
    open_run(lives.live(once), "trigger", "start", "end")
    lives.live(once)
    assert lives.states() == {"bell": "limited"}


def test_a_spent_shot_is_not_fired_again_in_its_jail(lives: Lives) -> None:
    shot = rule(policy=Policy(Respawn.NO))
    lives.backend.begin_jail("web")
    open_run(lives.live(shot), "trigger", "start", "end")
    lives.live(shot)
    assert lives.states() == {"bell": "waiting"}
    lives.backend.begin_jail("web")
    lives.live(shot)
    assert lives.states() == {"bell": "armed"}


def test_after_a_reboot_it_is_there_again_and_what_was_held_is_held(lives: Lives) -> None:
    lives.backend.begin_jail("web")
    hub = lives.live(rule(), rule("gong", title="GONG"))
    hub.journal.write(hub.journal.record("hold", rule="gong", reason="asked for"))
    lives.backend.the_boot = "another"
    lives.backend.begin_jail("web")
    hub = lives.live(rule(), rule("gong", title="GONG"))
    assert lives.states() == {"bell": "armed", "gong": "held"}
    assert hub.fleet.members["gong"].reason == "asked for"


@pytest.mark.parametrize(
    ("policy", "state"),
    [
        (Policy(Respawn.AFTER, limit=Limit(1, 3600.0)), "limited"),
        (Policy(Respawn.AFTER, cooldown=3600.0), "cooling"),
        (Policy(Respawn.AFTER, cooldown=0.001), "armed"),
    ],
    ids=["limit", "cooldown", "over"],
)
@pytest.mark.parametrize("ended", [True, False], ids=["ended", "rang into the reboot"])
def test_limit_and_cooldown_outlive_the_host(
    lives: Lives, policy: Policy, state: str, *, ended: bool
) -> None:
    lives.backend.begin_jail("web")
    open_run(lives.live(rule(policy=policy)), "trigger", "start", *["end"] * ended)
    for boot in ("another", "a third"):
        lives.backend.the_boot = boot
        lives.backend.begin_jail("web")
        hub = lives.live(rule(policy=policy))
        lives.backend.watcher.pass_time(0.01)
        assert lives.states() == {"bell": state}
        member = hub.fleet.members["bell"]
        assert (member.triggers, member.last_trigger is None) == (1, False)
    assert hub.fleet.members["bell"].wait(hub.now()) <= 3600.0


def test_a_new_limit_counts_anew_after_a_reboot_too(lives: Lives) -> None:
    lives.backend.begin_jail("web")
    once = rule(policy=Policy(Respawn.AFTER, limit=Limit(1, 3600.0)))
    open_run(lives.live(once), "trigger", "start", "end")
    lives.backend.the_boot = "another"
    lives.backend.begin_jail("web")
    lives.live(rule(policy=Policy(Respawn.AFTER, limit=Limit(1, 60.0))))
    assert lives.states() == {"bell": "armed"}


def test_an_edit_while_the_daemon_was_away_is_no_release(lives: Lives) -> None:
    for name in ("web", "db"):
        lives.backend.begin_jail(name)
    hub = lives.live(rule())
    hub.journal.write(hub.journal.record("hold", rule="bell", reason="asked for"))
    for edited in (rule(command="false"), rule(jail="db"), rule(jail="db")):
        hub = lives.live(edited)
        assert lives.states() == {"bell": "held"}
        assert hub.fleet.members["bell"].reason == "asked for"


def test_the_breaker_holds_what_the_host_did_not_survive_ten_times(lives: Lives) -> None:
    for boot in range(10):
        lives.backend.the_boot = f"boot {boot}"
        lives.backend.begin_jail("web")
        hub = lives.live(rule())
        assert lives.states() == {"bell": "armed"}
        open_run(hub, "trigger", "start")
    for name in ("one more", "and another"):
        lives.backend.the_boot = name
        lives.backend.begin_jail("web")
        hub = lives.live(rule())
        assert lives.states() == {"bell": "held"}
        assert hub.fleet.members["bell"].reason == BROKEN
    hub.journal.write(hub.journal.record("release", rule="bell"))
    lives.live(rule())
    assert lives.states() == {"bell": "armed"}
