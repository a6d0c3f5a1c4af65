# SPDX-License-Identifier: BSD-2-Clause
"""Names that an engine gives, in the fake's world: nothing is believed that is not asked twice."""

from collections.abc import Callable, Iterator

import pytest

from jaildaemon.backends.base import Jail
from jaildaemon.core.config import FileRule
from jaildaemon.core.rules import Policy, Respawn
from jaildaemon.daemon import followers
from jaildaemon.daemon.followers import EngineNames
from jaildaemon.engines.base import HERE, Engine, Found, LookedUp, Loop, Scanned, Stream
from jaildaemon.engines.endpoint import Endpoint, EngineError
from jaildaemon.engines.identity import Init
from tests.contract.fake import FakeBackend
from tests.logged import logger_into


class FakeStream(Stream):
    """A stream that says what the test wants."""

    def __init__(self, poke: Callable[[], None], ended: Callable[[str], None]) -> None:
        self.poke, self.ended = poke, ended
        self.stopped = False

    def stop(self) -> None:
        """Take note of it."""
        self.stopped = True


class FakeEngine(Engine):
    """An engine whose containers are those of a dictionary."""

    name = "docker"
    made: "list[FakeEngine]" = []  # noqa: RUF012 - emptied by the fixture

    def __init__(self, loop: Loop, endpoint: Endpoint = HERE) -> None:
        super().__init__(loop, endpoint)
        self.doubts: dict[str, str] = {}
        """Why a container's process is not shown to be its own, by name."""
        self.running: dict[str, Found] = {}
        self.later: dict[str, Found | EngineError | None] = {}
        """What a lookup says, where that differs from the list."""
        self.streams: list[FakeStream] = []
        self.error: EngineError | None = None
        self.scans = 0
        FakeEngine.made.append(self)

    def scan(self, wants: Callable[[str], bool], done: Scanned) -> None:
        """List them, later."""
        self.scans += 1
        found = [one for one in self.running.values() if wants(one.name)]
        error = self.error
        self._loop.call_in(0, lambda: done(error or found))

    def lookup(self, name: str, done: LookedUp) -> None:
        """Say which, later."""
        found = self.later.get(name, self.running.get(name))
        self._loop.call_in(0, lambda: done(found))

    def doubt(self, found: Found, init: Init) -> str | None:
        """Doubt what the test wants."""
        del init
        return self.doubts.get(found.name)

    def watch(self, poke: Callable[[], None], ended: Callable[[str], None]) -> Stream:
        """Begin a stream."""
        if self.error is not None:
            raise self.error
        self.streams.append(FakeStream(poke, ended))
        return self.streams[-1]


class Host:
    """A host with one engine, and who is told of its containers."""

    def __init__(self) -> None:
        self.backend = FakeBackend()
        self.log: list[str] = []
        self.present: dict[str, Jail] = {}
        self.names = EngineNames(self.backend, self, logger_into(self.log))

    def seen(self, name: str, jail: Jail) -> None:
        """Take note."""
        old = self.present.get(name)
        if old is not None:
            old.close()
        self.present[name] = jail

    def gone(self, name: str) -> None:
        """Take note."""
        jail = self.present.pop(name, None)
        if jail is not None:
            jail.close()

    def is_absent(self, rule: FileRule) -> bool:
        """Nobody asks."""
        raise NotImplementedError

    def names_of(self, prefix: str) -> set[str]:
        """Return what was told."""
        return {name for name in self.present if name.startswith(prefix)}

    def want(self, *jails: str) -> None:
        """Have rules for these."""
        policy = Policy(Respawn.AFTER)
        self.names.want([FileRule(jail, jail, "A", "true", policy, "x") for jail in jails])
        self.backend.watcher.settle()

    @property
    def engine(self) -> FakeEngine:
        """The engine that is followed."""
        return FakeEngine.made[-1]

    def run(self, name: str, pid: int) -> None:
        """Run a container."""
        self.backend.begin_jail(str(pid))
        self.engine.running[name] = Found(name, f"id-{name}", pid)

    def poke(self) -> None:
        """Let the engine say that something happened."""
        self.engine.streams[-1].poke()
        self.backend.watcher.settle()
        self.backend.watcher.pass_time(0.1)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """Give a host; at its end nothing is held."""
    FakeEngine.made.clear()
    monkeypatch.setattr(followers, "ENGINES", {"docker": FakeEngine})
    monkeypatch.setattr(followers, "made", lambda _, loop, endpoint: FakeEngine(loop, endpoint))
    made = Host()
    yield made
    made.names.stop()
    for name in list(made.present):
        made.gone(name)
    made.backend.watcher.pass_time(3600)
    assert made.backend.open_handles == 0
    assert made.backend.watcher.idle


def test_an_engine_is_followed_while_a_rule_names_it(host: Host) -> None:
    host.want()
    assert FakeEngine.made == []
    host.want("docker:web")
    (stream,) = host.engine.streams
    host.want()
    assert stream.stopped
    assert host.backend.watcher.idle


def test_a_container_is_told_when_it_runs_and_when_it_does_not(host: Host) -> None:
    host.want("docker:web")
    host.run("web", 7)
    host.run("other", 8)
    host.poke()
    assert {name: jail.number for name, jail in host.present.items()} == {"docker:web": 7}
    del host.engine.running["web"]
    host.poke()
    assert host.present == {}


def test_another_container_of_the_name_is_told_of(host: Host) -> None:
    host.want("docker:web")
    host.run("web", 7)
    host.poke()
    host.run("web", 9)
    host.poke()
    assert host.present["docker:web"].number == 9


def test_what_is_another_when_it_is_asked_again_is_not_taken(host: Host) -> None:
    host.want("docker:web")
    host.run("web", 7)
    host.engine.later["web"] = Found("web", "another-id", 7)
    host.poke()
    assert host.present == {}
    host.backend.watcher.pass_time(10)
    assert host.log == ["docker:web: not taken: it ended, or was replaced, while it was looked at"]
    host.poke()
    assert len(host.log) == 1, "said again and again"
    del host.engine.later["web"]
    host.run("web", 9)
    host.poke()
    assert host.present["docker:web"].number == 9


def test_an_engine_that_did_not_answer_is_asked_anew(host: Host) -> None:
    """A host that is too busy to have it answer in time is not so for ever."""
    host.want("docker:web")
    host.run("web", 7)
    host.engine.later["web"] = EngineError("no answer in 5 s")
    host.poke()
    host.backend.watcher.pass_time(10)
    assert host.log == ["docker:web: not taken: no answer in 5 s"]
    del host.engine.later["web"]
    host.backend.watcher.pass_time(60)
    assert host.present["docker:web"].number == 7


def test_what_ends_while_it_is_asked_for_is_not_taken(host: Host) -> None:
    host.want("docker:web")
    host.run("web", 7)
    host.engine.later["web"] = None
    host.poke()
    assert host.present == {}


def test_a_pid_that_is_no_init_is_not_taken(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.want("docker:web")
    host.run("web", 7)
    host.backend.begin_jail("8")
    resolve = host.backend.resolve
    monkeypatch.setattr(host.backend, "resolve", lambda _: resolve("8"))
    host.poke()
    host.backend.watcher.pass_time(10)
    assert host.present == {}
    why = "it shares the PID namespace of another container, whose init is 8"
    assert host.log == [f"docker:web: not taken: {why}"]


def test_a_pid_that_is_not_shown_to_be_the_containers_is_not_taken(host: Host) -> None:
    host.want("docker:web")
    host.run("web", 7)
    host.engine.doubts["web"] = "it is another's"
    host.poke()
    host.backend.watcher.pass_time(10)
    assert host.present == {}
    assert host.log == ["docker:web: not taken: it is another's"]


def test_after_the_stream_ended_all_is_looked_at_anew(host: Host) -> None:
    host.want("docker:web")
    host.backend.watcher.pass_time(5)
    host.engine.streams[-1].ended("docker ended")
    assert host.log == ["docker: docker ended"]
    assert host.names.trouble("docker:web") == "docker ended"
    host.run("web", 7)
    host.backend.watcher.pass_time(0.7)
    assert len(host.engine.streams) == 1
    host.backend.watcher.pass_time(0.6)
    assert len(host.engine.streams) == 2
    assert host.present["docker:web"].number == 7
    assert host.names.trouble("docker:web") is None


def test_an_engine_that_is_not_there_is_asked_ever_more_rarely(host: Host) -> None:
    host.want("docker:web")
    engine = host.engine
    engine.error = EngineError("no engine")
    engine.streams[-1].ended("no engine")
    host.backend.watcher.pass_time(600)
    assert host.log == ["docker: no engine"]
    assert engine.scans < 20
    engine.error = None
    host.backend.watcher.pass_time(73)
    assert len(engine.streams) == 2


def test_a_bad_answer_changes_nothing_and_is_asked_for_again(host: Host) -> None:
    host.want("docker:web")
    host.run("web", 7)
    host.poke()
    host.engine.error = EngineError("no answer in 5 s")
    del host.engine.running["web"]
    host.poke()
    assert host.present["docker:web"].number == 7
    host.engine.error = None
    host.backend.watcher.pass_time(2)
    assert host.present == {}


def test_many_events_are_one_look(host: Host) -> None:
    host.want("docker:web")
    host.backend.watcher.pass_time(2)
    before = host.engine.scans
    for _ in range(100):
        host.engine.streams[-1].poke()
    host.backend.watcher.pass_time(0.5)
    assert host.engine.scans - before <= 2


def test_a_jail_that_could_not_be_entered_is_not_tried_at_once_again(host: Host) -> None:
    host.want("docker:web")
    host.run("web", 7)
    host.poke()
    host.gone("docker:web")
    host.names.look("docker:web", 1.0)
    host.poke()
    assert host.present == {}
    host.backend.watcher.pass_time(1.1)
    assert host.present["docker:web"].number == 7
