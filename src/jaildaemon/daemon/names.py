# SPDX-License-Identifier: BSD-2-Clause
"""Which jails have the names that rules in files mean: told by the kernel, or by engines.

A name is never the identity: what is told on is this very jail, as the backend
holds it.  Nothing is watched or asked that no rule needs.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from jaildaemon.backends.base import Backend, Jail
from jaildaemon.core.config import EnginePlace, FileRule
from jaildaemon.errors import JaildaemonError, Refused

LOOK_SECONDS = 1.0
"""Between two looks where nobody tells of a new jail."""

NOWHERE_ELSE: Mapping[str, EnginePlace] = {}

Answer = Callable[[Jail | JaildaemonError], None]


class Owner(Protocol):
    """Who is told."""

    def seen(self, name: str, jail: Jail) -> None:
        """Take note that `jail`, a fresh handle, has this full name now."""

    def gone(self, name: str, why: str) -> None:
        """Take note that what had this name has it no more."""

    def jail_of(self, name: str) -> Jail | None:
        """Return the jail that has this name."""

    def is_absent(self, rule: FileRule) -> bool:
        """Say whether a jail that the rule means may still have to be found."""

    def names_of(self, prefix: str) -> set[str]:
        """Return the present names that begin so."""


class Names(Protocol):
    """A source of names."""

    def want(
        self, rules: Sequence[FileRule], places: Mapping[str, EnginePlace] = NOWHERE_ELSE
    ) -> None:
        """Watch what these rules need, and nothing else; `places`: where engines are."""

    def look(self, name: str, seconds: float) -> None:
        """Look again, after so long: what had this name has ended."""

    def find(self, text: str, answer: Answer) -> None:
        """Say which jail -j `text` means, at once or later."""

    def trouble(self, rule_jail: str) -> str | None:
        """Say why jails of such a name cannot be seen now."""

    def engines(self) -> dict[str, str | None]:
        """Return each engine that is asked, and why it does not answer."""

    def refused(self) -> dict[str, str]:
        """Return each jail that runs and cannot be taken, and why."""

    def stop(self) -> None:
        """Watch nothing any more."""


class KernelNames:
    """The kernel itself names its jails (FreeBSD)."""

    def __init__(self, backend: Backend, owner: Owner) -> None:
        self._backend, self._owner = backend, owner
        self._rules: Sequence[FileRule] = ()
        self._stop: Callable[[], None] | None = None
        self._timer: int | None = None

    def want(
        self, rules: Sequence[FileRule], places: Mapping[str, EnginePlace] = NOWHERE_ELSE
    ) -> None:
        """Watch for new jails, or look for them once a second."""
        del places
        self._rules = rules
        if rules and self._stop is None:
            self._stop = self._backend.watch_jails(self._look)
        elif not rules:
            self.stop()
        self._look()

    def look(self, name: str, seconds: float) -> None:
        """Look for it soon, never at once: its end is still being taken note of."""
        del name
        self._look_in(seconds)

    def _look(self) -> None:
        self._timer = None
        present = self._owner.names_of("")
        for name in sorted(self._wanted() - present):
            jail = resolved(self._backend, name)
            if isinstance(jail, Jail):  # else it does not run, or not yet
                self._owner.seen(name, jail)
        if self._stop is None and any(self._owner.is_absent(rule) for rule in self._rules):
            self._look_in(LOOK_SECONDS)

    def _wanted(self) -> set[str]:
        """Return the names that may be found: by one walk, but for children of jails."""
        if not self._rules:
            return set()
        running = set(self._backend.jail_names())
        names = {rule.jail for rule in self._rules if not rule.is_pattern}
        patterns = [rule for rule in self._rules if rule.is_pattern]
        fitting = {name for name in running if any(rule.fits(name) for rule in patterns)}
        return names & running | {name for name in names if "." in name} | fitting

    def _look_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._backend.watcher.cancel(self._timer)
        self._timer = self._backend.watcher.call_in(seconds, self._look)

    def find(self, text: str, answer: Answer) -> None:
        """Ask the kernel."""
        answer(resolved(self._backend, text))

    def trouble(self, rule_jail: str) -> str | None:
        """Say nothing: the kernel can always be asked."""
        del rule_jail
        return None

    def engines(self) -> dict[str, str | None]:
        """Say that there are none."""
        return {}

    def refused(self) -> dict[str, str]:
        """Say nothing: what the kernel names can be taken."""
        return {}

    def stop(self) -> None:
        """Watch nothing any more."""
        if self._stop is not None:
            self._stop()
            self._stop = None
        if self._timer is not None:
            self._backend.watcher.cancel(self._timer)
            self._timer = None


def resolved(backend: Backend, text: str) -> Jail | JaildaemonError:
    """Return a fresh handle of the jail that the kernel knows so, or why there is none."""
    try:
        return backend.resolve(text)
    except JaildaemonError as error:
        return error
    except OSError as error:  # no descriptor is left, or no memory
        return Refused("attach", text, f"the jail cannot be examined: {error.strerror}")
