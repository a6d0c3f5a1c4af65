# SPDX-License-Identifier: BSD-2-Clause
"""One engine is followed, while a rule means a container of it.

An event is only a poke: whatever it says, everything is listed anew, so that
what was missed is found, and no word of an engine's need be understood.
"""

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from jaildaemon.backends.base import Backend, Jail
from jaildaemon.core.config import FileRule, fits
from jaildaemon.core.lifecycle import backoff_seconds
from jaildaemon.daemon.confirmation import confirm
from jaildaemon.daemon.logs import Logger
from jaildaemon.daemon.names import Owner
from jaildaemon.engines import Engine
from jaildaemon.engines.answers import Found, Scan
from jaildaemon.engines.endpoint import EngineError

if TYPE_CHECKING:
    from jaildaemon.engines.base import Stream

CALM_SECONDS = 60.0
"""A stream that lasted so long ends the row of failures."""
AGAIN_SECONDS = (0.3, 1.0)
"""After a stream's begin: who subscribed may have missed what happened meanwhile."""
SOON_SECONDS = 0.02
"""Of several events at once the first is waited out: one look for all."""
JITTER = 0.2
MAX_TRIES = 4
"""In a row, to take a container that an engine tells of: it may be just starting."""
ANEW_SECONDS = 60.0
"""Until one that could not be taken is tried once more."""
ENDED = "its jail ended"
ANOTHER = "another container has its name now"
CANNOT = "it runs, and cannot be taken"


class Follower:
    """Tells its owner which container has which name."""

    def __init__(self, backend: Backend, engine: Engine, owner: Owner, log: Logger) -> None:
        self._backend, self._engine, self._owner, self._log = backend, engine, owner, log
        self._watcher = backend.watcher
        self._names: set[str] = set()
        self._patterns: list[FileRule] = []
        self._known: dict[str, Found] = {}
        self._asked: set[Found] = set()
        self._stream: Stream | None = None
        self._return: Stream | None = None
        """Tells that an engine that was not there may be there again."""
        self._scanning = self._again = self._retrying = self._stopped = False
        self._failures = self._bad_answers = 0
        self._tries: dict[Found, int] = {}
        """How often each could not be taken."""
        self._why: str | None = None
        self._refused: dict[str, str] = {}
        """Why a container that runs cannot be taken, by name."""
        self._silent: dict[str, str] = {}
        """Why the engine does not say more of a container, by name."""
        self._logged: dict[str, str] = {}
        """What was said last of a container that has no probe, or keeps it, by name."""
        self._listed: frozenset[str] = frozenset()
        """Names that the engine lists."""
        self._timers: set[int] = set()
        self._connect()

    def _call_in(self, seconds: float, call: Callable[[], None]) -> None:
        def due() -> None:
            self._timers.discard(handle)
            call()

        handle = self._watcher.call_in(seconds, due)
        self._timers.add(handle)

    # --- whether the engine answers ----------------------------------------------

    @property
    def trouble(self) -> str | None:
        """Say why the engine does not answer; None if it does."""
        if self._why is None:
            return None
        name = self._engine.name
        return f"{name} does not answer: {self._why.removeprefix(f'{name} failed: ')}"

    @property
    def refused(self) -> dict[str, str]:
        """Return the names of the containers that run and have no probe, and why."""
        said = {name: f"{CANNOT}: {why}" for name, why in self._refused.items()}
        name = self._engine.name
        return said | {one: f"{name} tells no more of it: {w}" for one, w in self._silent.items()}

    def near(self, pattern: str) -> str | None:
        """Say which container a pattern misses for its dots, where it fits none; None if none."""
        if not set(pattern) & set("*?") or any(fits(pattern, name) for name in self._listed):
            return None
        near = sorted(name for name in self._listed if fits(pattern, name, dots=True))
        return f"{near[0]} does not fit: neither * nor ? matches a dot" if near else None

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
        self._call_in(self._jitter(self._failures), self._reconnect)
        self._return = self._engine.watch_return(self._reconnect)

    def _reconnect(self) -> None:
        self._clear()
        self._connect()

    @staticmethod
    def _jitter(failures: int) -> float:
        seconds = backoff_seconds(failures)
        return seconds * (1 + random.uniform(-JITTER, JITTER))  # noqa: S311 - not a secret

    def _complain(self, why: str) -> None:
        if why != self._why:
            self._log.error(f"{self._engine.name}: {why}")
        self._why = why

    def _clear(self) -> None:
        for handle in self._timers:
            self._watcher.cancel(handle)
        self._timers.clear()
        self._retrying = False
        for stream in (self._stream, self._return):
            if stream is not None:
                stream.stop()
        self._stream = self._return = None

    def stop(self) -> None:
        """Follow no more."""
        self._stopped = True
        self._clear()

    # --- what is looked for --------------------------------------------------------

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

    def _full(self, name: str) -> str:
        return f"{self._engine.name}:{name}"

    def _wants(self, name: str) -> bool:
        full = self._full(name)
        return full in self._names or any(rule.fits(full) for rule in self._patterns)

    def _scan(self) -> None:
        self._again = False
        if self._scanning:
            self._again = True
            return
        self._scanning = True
        self._engine.scan(self._wants, self._scanned)

    def _scanned(self, result: Scan | EngineError) -> None:
        self._scanning = False
        if self._stopped:
            return
        if isinstance(result, EngineError):
            # What runs goes on running; its end is told by the kernel.
            self._complain(str(result))
        else:
            self._why = None
            self._silent = dict(result.silent)
            self._listed = frozenset(result.listed)
            self._compare(result)
        if not isinstance(result, EngineError) and not result.silent:
            self._bad_answers = 0
        elif not self._retrying:
            self._retrying = True
            self._bad_answers += 1
            self._call_in(self._jitter(self._bad_answers), self._retry)
        if self._again:
            self._call_in(SOON_SECONDS, self._scan)

    def _retry(self) -> None:
        self._retrying = False
        self._poke()

    def _compare(self, scan: Scan) -> None:
        running = {found.name: found for found in scan.found}
        present = {full.partition(":")[2] for full in self._owner.names_of(self._full(""))}
        for name in sorted(present | self._known.keys()):
            why = self._lost(name, running.get(name), scan)
            if why is not None:
                self._known.pop(name, None)
                self._owner.gone(self._full(name), why)
        of_now = set(running.values())
        self._tries = {found: n for found, n in self._tries.items() if found in of_now}
        self._refused = {name: why for name, why in self._refused.items() if name in running}
        self._logged = {n: w for n, w in self._logged.items() if n in running or n in present}
        for name, why in scan.silent.items():
            self._say(name, f"{self._engine.name} tells no more of it: {why}")
        for found in running.values():
            tried = self._tries.get(found, 0) >= MAX_TRIES
            if self._known.get(found.name) != found and found not in self._asked and not tried:
                self._asked.add(found)
                confirm(self._backend, self._engine, found, self._confirmed(found))

    def _lost(self, name: str, now: Found | None, scan: Scan) -> str | None:
        """Say why a container that was there has lost its name; None if it has not.

        What the engine says otherwise is believed.  What it does not say is asked of
        the kernel: a container that is ending is in no list of some engines.
        """
        jail, before = self._owner.jail_of(self._full(name)), self._known.get(name)
        if jail is None:
            return ENDED if now is None else None
        if now is not None:
            same = now.pid == jail.number if before is None else now == before
            return None if same else ANOTHER
        mine = self._id(jail, scan) if before is None else before.id
        if name in scan.listed:
            if scan.listed[name] != mine:
                return ANOTHER
        else:
            other = next((one for one, ident in scan.listed.items() if ident == mine), None)
            if other is not None:
                return f"its container is called {other} now"
        if jail.alive():
            self._say(name, f"{self._engine.name} does not say that it runs, and it does")
            return None
        return ENDED

    def _id(self, jail: Jail, scan: Scan) -> str | None:
        """Return the id of a jail that an earlier daemon found, if the engine lists it."""
        for name, ident in scan.listed.items():
            try:
                if self._engine.doubt(Found(name, ident, jail.number), jail) is None:
                    return ident
            except OSError:
                return None  # it has ended
        return None

    def _say(self, name: str, what: str) -> None:
        if self._logged.get(name) != what:
            self._logged[name] = what
            self._log.warning(f"{self._full(name)}: {what}")

    # --- taking a container --------------------------------------------------------

    def _try_anew(self, found: Found) -> None:
        if found in self._tries:
            self._tries[found] = MAX_TRIES - 1
            self._poke()

    def _confirmed(self, found: Found) -> Callable[[Jail | None, str | EngineError], None]:
        def answer(jail: Jail | None, why: str | EngineError) -> None:
            self._asked.discard(found)
            if self._stopped:
                if jail is not None:
                    jail.close()
            elif jail is None:
                self._cannot(found, why)
            else:
                self._known[found.name] = found
                self._refused.pop(found.name, None)
                self._owner.seen(self._full(found.name), jail)

        return answer

    def _cannot(self, found: Found, why: str | EngineError) -> None:
        self._refused[found.name] = str(why)
        tries = self._tries[found] = self._tries.get(found, 0) + 1
        if tries < MAX_TRIES:
            # It may be just starting: after 0.1 s, then 0.3 and 0.9.
            self._call_in(0.1 * 3 ** (tries - 1), self._poke)
            return
        self._say(found.name, f"not taken: {why}")
        self._call_in(ANEW_SECONDS, lambda: self._try_anew(found))
        if isinstance(why, str):
            # An earlier daemon may have taken it for the one that is meant.
            self._owner.gone(self._full(found.name), f"it cannot be taken: {why}")
