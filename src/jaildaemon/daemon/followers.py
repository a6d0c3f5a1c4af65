# SPDX-License-Identifier: BSD-2-Clause
"""Engines name the containers (Linux): each is followed while a rule needs it.

An event is only a poke: whatever it says, everything is listed anew, so that
what was missed is found, and no word of an engine's need be understood.
"""

import random
from collections.abc import Callable, Mapping, Sequence

from jaildaemon.backends.base import Backend, Jail
from jaildaemon.core.config import EnginePlace, FileRule
from jaildaemon.core.lifecycle import backoff_seconds
from jaildaemon.core.text import shown
from jaildaemon.daemon.confirmation import confirm, vet
from jaildaemon.daemon.logs import Logger
from jaildaemon.daemon.names import NOWHERE_ELSE, Answer, Owner, resolved
from jaildaemon.engines import ENGINES, Endpoint, Engine, made
from jaildaemon.engines.base import NAME, Found, Stream
from jaildaemon.engines.endpoint import EngineError
from jaildaemon.errors import NoSuchJail, Refused

CALM_SECONDS = 60.0
"""A stream that lasted so long ends the row of failures."""
AGAIN_SECONDS = (0.3, 1.0)
"""After a stream's begin: who subscribed may have missed what happened meanwhile."""
SOON_SECONDS = 0.02
"""Of several events at once the first is waited out: one look for all."""
JITTER = 0.2
MAX_TRIES = 4
"""To take a container that an engine tells of: one that is in no PID namespace of its
own never will be."""
CANNOT = "it runs, and cannot be taken"
ANEW_SECONDS = 60.0
"""Until one is tried for again of which the engine had nothing to say, and not no."""


class _Follower:
    """One engine, while a rule means a container of it."""

    def __init__(self, backend: Backend, engine: Engine, owner: Owner, log: Logger) -> None:
        self._backend, self._engine, self._owner, self._log = backend, engine, owner, log
        self._watcher = backend.watcher
        self._names: set[str] = set()
        self._patterns: list[FileRule] = []
        self._known: dict[str, Found] = {}
        self._asked: set[Found] = set()
        self._stream: Stream | None = None
        self._scanning = self._again = self._stopped = False
        self._failures = self._bad_answers = 0
        self._tries: dict[Found, int] = {}
        """How often each could not be taken."""
        self.trouble: str | None = None
        self.refused: dict[str, str] = {}
        """Why a container that runs cannot be taken, by name."""
        self._timers: set[int] = set()
        self._connect()

    def _call_in(self, seconds: float, call: Callable[[], None]) -> None:
        def due() -> None:
            self._timers.discard(handle)
            call()

        handle = self._watcher.call_in(seconds, due)
        self._timers.add(handle)

    def _connect(self) -> None:
        self._tries.clear()
        try:
            self._stream = self._engine.watch(self._poke, self._hung_up)
        except EngineError as error:
            self._hung_up(str(error))
            return
        self._call_in(CALM_SECONDS, self._forget_failures)
        self._scan()
        for seconds in AGAIN_SECONDS:
            self._call_in(seconds, self._scan)

    def _forget_failures(self) -> None:
        self._failures = 0

    def _hung_up(self, why: str) -> None:
        """Take note that nothing is told any more: rescan with the next connection."""
        if self._stopped:
            return
        self._clear()
        self._failures += 1
        self._complain(why)
        self._call_in(self._jitter(self._failures), self._connect)

    @staticmethod
    def _jitter(failures: int) -> float:
        seconds = backoff_seconds(failures)
        return seconds * (1 + random.uniform(-JITTER, JITTER))  # noqa: S311 - not a secret

    def _complain(self, why: str) -> None:
        if why != self.trouble:
            self._log.error(f"{self._engine.name}: {why}")
        self.trouble = why

    def _clear(self) -> None:
        for handle in self._timers:
            self._watcher.cancel(handle)
        self._timers.clear()
        if self._stream is not None:
            self._stream.stop()
            self._stream = None

    def stop(self) -> None:
        """Follow no more."""
        self._stopped = True
        self._clear()

    def _poke(self) -> None:
        if not self._again:
            self._again = True
            if not self._scanning:
                self._call_in(SOON_SECONDS, self._scan)

    def forget(self, name: str, seconds: float) -> None:
        """Take note that what had this name has ended; the engine may say so later."""
        if seconds:
            self._call_in(seconds, lambda: self.forget(name, 0.0))
            return
        self._known.pop(name, None)
        self._poke()

    def rescan(self) -> None:
        """Look at everything, for rules that are new."""
        self._poke()

    def want(self, rules: Sequence[FileRule]) -> None:
        """Look for what these rules mean."""
        self._names = {rule.jail for rule in rules if not rule.is_pattern}
        self._patterns = [rule for rule in rules if rule.is_pattern]

    def _wants(self, name: str) -> bool:
        full = f"{self._engine.name}:{name}"
        return full in self._names or any(rule.fits(full) for rule in self._patterns)

    def _scan(self) -> None:
        self._again = False
        if self._scanning:
            self._again = True
            return
        self._scanning = True
        self._engine.scan(self._wants, self._scanned)

    def _scanned(self, result: list[Found] | EngineError) -> None:
        self._scanning = False
        if self._stopped:
            return
        if isinstance(result, EngineError):
            # What runs goes on running; its end is told by the kernel.
            self._complain(str(result))
            self._bad_answers += 1
            self._call_in(self._jitter(self._bad_answers), self._poke)
        else:
            self.trouble, self._bad_answers = None, 0
            self._compare({found.name: found for found in result})
        if self._again:
            self._call_in(SOON_SECONDS, self._scan)

    def _compare(self, running: dict[str, Found]) -> None:
        name = self._engine.name
        known = {full.partition(":")[2] for full in self._owner.names_of(f"{name}:")}
        for gone in sorted((known | self._known.keys()) - running.keys()):
            self._known.pop(gone, None)
            self._owner.gone(f"{name}:{gone}")
        self._tries = {found: n for found, n in self._tries.items() if found in running.values()}
        self.refused = {name: why for name, why in self.refused.items() if name in running}
        for found in running.values():
            tried = self._tries.get(found, 0) >= MAX_TRIES
            if self._known.get(found.name) != found and found not in self._asked and not tried:
                self._asked.add(found)
                confirm(self._backend, self._engine, found, self._confirmed(found))

    def _try_anew(self, found: Found) -> None:
        self._tries.pop(found, None)
        self._poke()

    def _confirmed(self, found: Found) -> Callable[[Jail | None, str | EngineError], None]:
        full = f"{self._engine.name}:{found.name}"

        def answer(jail: Jail | None, why: str | EngineError) -> None:
            self._asked.discard(found)
            if self._stopped:
                if jail is not None:
                    jail.close()
            elif jail is None:
                self.refused[found.name] = str(why)
                tries = self._tries[found] = self._tries.get(found, 0) + 1
                if tries < MAX_TRIES:
                    # It may be just starting: after 0.1 s, then 0.3 and 0.9.
                    self._call_in(0.1 * 3 ** (tries - 1), self._poke)
                else:
                    self._log.warning(f"{full}: not taken: {why}")
                    if isinstance(why, EngineError):
                        self._call_in(ANEW_SECONDS, lambda: self._try_anew(found))
            else:
                self._known[found.name] = found
                self.refused.pop(found.name, None)
                self._owner.seen(full, jail)

        return answer


class EngineNames:
    """Engines name the containers (Linux); each is followed while a rule needs it."""

    def __init__(self, backend: Backend, owner: Owner, log: Logger) -> None:
        self._backend, self._owner, self._log = backend, owner, log
        self._followers: dict[str, _Follower] = {}
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
                follower = _Follower(self._backend, self._engine(name), self._owner, self._log)
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

        def found(result: Found | EngineError | None) -> None:
            if isinstance(result, EngineError):
                answer(Refused("attach", text, str(result)))
            elif result is None:
                answer(NoSuchJail("attach", text, "no such container runs"))
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
        refused = follower.refused.get(name)
        return follower.trouble if refused is None else f"{CANNOT}: {refused}"

    def stop(self) -> None:
        """Follow nothing any more."""
        for follower in self._followers.values():
            follower.stop()
        self._followers.clear()
