# SPDX-License-Identifier: BSD-2-Clause
"""Engines name the containers (Linux): which engines are followed, and what is asked once."""

import re
from collections.abc import Mapping, Sequence

from jaildaemon.backends.base import Backend, Jail
from jaildaemon.core.config import EnginePlace, FileRule, fits
from jaildaemon.core.text import shown
from jaildaemon.daemon.confirmation import confirm, vet
from jaildaemon.daemon.engine_follower import CANNOT, Follower
from jaildaemon.daemon.logs import Logger
from jaildaemon.daemon.names import NOWHERE_ELSE, Answer, Owner, resolved
from jaildaemon.engines import ENGINES, Endpoint, Engine, made
from jaildaemon.engines.answers import NAME, Found, Stopped
from jaildaemon.engines.endpoint import EngineError
from jaildaemon.errors import NoSuchJail, Refused

_ID = re.compile(r"[0-9a-f]{12}|[0-9a-f]{64}")


class EngineNames:
    """Engines name the containers (Linux); each is followed while a rule needs it."""

    def __init__(self, backend: Backend, owner: Owner, log: Logger) -> None:
        self._backend, self._owner, self._log = backend, owner, log
        self._followers: dict[str, Follower] = {}
        self._engines: dict[str, Engine] = {}
        self._places: Mapping[str, EnginePlace] = {}

    def _engine(self, name: str) -> Engine:
        """Return an engine, where the files say that it is."""
        if name not in self._engines:
            place = self._places.get(name, EnginePlace())
            endpoint = Endpoint(place.client, place.socket, vet)
            self._engines[name] = made(name, self._backend.watcher, endpoint)
        return self._engines[name]

    def want(
        self, rules: Sequence[FileRule], places: Mapping[str, EnginePlace] = NOWHERE_ELSE
    ) -> None:
        """Follow the engines that they name, where they are."""
        named = {rule.engine for rule in rules if rule.engine}
        moved = {name for name in ENGINES if places.get(name) != self._places.get(name)}
        self._places = places
        for name in moved:
            self._engines.pop(name, None)
        for name in sorted(self._followers.keys() - (named - moved)):
            self._followers.pop(name).stop()
        for name in sorted(named):
            follower = self._followers.get(name)
            if follower is None:
                follower = Follower(self._backend, self._engine(name), self._owner, self._log)
                self._followers[name] = follower
            else:
                follower.rescan()
            follower.want([rule for rule in rules if rule.engine == name])

    def look(self, name: str, seconds: float) -> None:
        """Let its engine be asked."""
        engine, _, plain = name.partition(":")
        if engine in self._followers:
            self._followers[engine].forget(plain, seconds)

    def find(self, text: str, answer: Answer) -> None:
        """Ask the engine for ENGINE:NAME, the kernel for anything else."""
        name, colon, plain = text.partition(":")
        if not colon:
            answer(resolved(self._backend, text))
            return
        if name not in ENGINES:
            known = ", ".join(ENGINES)
            why = f"there is no engine {name[:80]!r}"
            answer(NoSuchJail("attach", shown(text[:80]), why, f"there are {known}"))
            return
        if not NAME.fullmatch(plain):
            answer(NoSuchJail("attach", shown(text[:80]), "no container can have this name"))
            return
        engine = self._engine(name)

        def found(result: Found | Stopped | EngineError | None) -> None:
            if isinstance(result, EngineError):
                answer(Refused("attach", text, str(result)))
            elif result is None:
                hint = "by its name, not by its id" if _ID.fullmatch(plain) else None
                answer(NoSuchJail("attach", text, "there is no such container", hint))
            elif isinstance(result, Stopped):
                why, hint = f"it does not run: it is {result.state}", "start it first"
                answer(NoSuchJail("attach", text, why, hint))
            else:
                confirm(self._backend, engine, result, confirmed)

        def confirmed(jail: Jail | None, why: str | EngineError) -> None:
            answer(jail or Refused("attach", text, f"{CANNOT}: {why}"))

        engine.lookup(plain, found)

    def trouble(self, rule_jail: str) -> str | None:
        """Say why a container that runs cannot be taken, or what is wrong with the engine."""
        engine, _, name = rule_jail.partition(":")
        follower = self._followers.get(engine)
        if follower is None:
            return None
        refused = follower.refused
        fitting = (f"{engine}:{one}: {refused[one]}" for one in refused if fits(name, one))
        return refused.get(name) or next(fitting, None) or follower.trouble or follower.near(name)

    def engines(self) -> dict[str, str | None]:
        """Return each engine that is followed, and why it does not answer."""
        return {name: follower.trouble for name, follower in self._followers.items()}

    def refused(self) -> dict[str, str]:
        """Return each container that runs and has no probe, and why."""
        return {
            f"{engine}:{name}": why
            for engine, follower in self._followers.items()
            for name, why in follower.refused.items()
        }

    def stop(self) -> None:
        """Follow nothing any more."""
        for follower in self._followers.values():
            follower.stop()
        self._followers.clear()
