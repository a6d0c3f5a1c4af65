# SPDX-License-Identifier: BSD-2-Clause
"""A host with one engine of the fake's world, and who is told of its containers."""

from collections.abc import Callable, Iterator

import pytest

from jaildaemon.backends.base import Jail
from jaildaemon.core.config import FileRule
from jaildaemon.core.rules import Policy, Respawn
from jaildaemon.daemon import followers
from jaildaemon.daemon.followers import EngineNames
from jaildaemon.engines.answers import Found, Scan
from jaildaemon.engines.base import HERE, Engine, LookedUp, Loop, Scanned, Stream
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
        self.pids: dict[str, int] = {}
        """Whose process is whose, by id, for the kernel's part."""
        self.running: dict[str, Found] = {}
        self.later: dict[str, Found | EngineError | None] = {}
        """What a lookup says, where that differs from the list."""
        self.streams: list[FakeStream] = []
        self.error: EngineError | None = None
        self.scans = 0
        self.more: dict[str, str] = {}
        """The ids of names that are listed, and do not run."""
        self.silent: dict[str, str] = {}
        self.backs: list[Callable[[], None]] = []
        FakeEngine.made.append(self)

    def scan(self, wants: Callable[[str], bool], done: Scanned) -> None:
        """List them, later."""
        self.scans += 1
        found = [one for one in self.running.values() if wants(one.name)]
        listed = {one.name: one.id for one in self.running.values()} | self.more
        answer = self.error or Scan(found, listed, dict(self.silent))
        self._loop.call_in(0, lambda: done(answer))

    def lookup(self, name: str, done: LookedUp) -> None:
        """Say which, later."""
        found = self.later.get(name, self.running.get(name))
        self._loop.call_in(0, lambda: done(found))

    def doubt(self, found: Found, init: Init) -> str | None:
        """Doubt what the test wants."""
        other = self.pids.get(found.id, init.number) != init.number
        return "it is another's" if other else self.doubts.get(found.name)

    def watch_return(self, back: Callable[[], None]) -> Stream | None:
        """Keep what is to be called."""
        self.backs.append(back)
        return FakeStream(back, lambda _: None)

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
        self.whys: list[str] = []
        """Why each was gone."""
        self.names = EngineNames(self.backend, self, logger_into(self.log))

    def seen(self, name: str, jail: Jail) -> None:
        """Take note."""
        old = self.present.get(name)
        if old is not None:
            old.close()
        self.present[name] = jail

    def gone(self, name: str, why: str) -> None:
        """Take note."""
        jail = self.present.pop(name, None)
        if jail is not None:
            self.whys.append(why)
            jail.close()

    def jail_of(self, name: str) -> Jail | None:
        """Return what was told."""
        return self.present.get(name)

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
        made.gone(name, "the test is over")
    made.backend.watcher.pass_time(3600)
    assert made.backend.open_handles == 0
    assert made.backend.watcher.idle
