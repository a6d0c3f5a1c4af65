# SPDX-License-Identifier: BSD-2-Clause
"""systemd-nspawn: the containers that machined knows."""

from collections.abc import Callable
from dataclasses import replace

from jaildaemon.engines.answers import NAME, Found, Stopped, as_json, found
from jaildaemon.engines.base import Engine, LookedUp, Scanned, Stream
from jaildaemon.engines.directory import DirectoryStream
from jaildaemon.engines.endpoint import EngineError
from jaildaemon.engines.identity import Init, unit

MACHINES = "/run/systemd/machines"
# Not "machinectl list": for that machined reads in each machine's tree which system it
# is, and waits as long as whoever is root there likes.
LIST = ["busctl", "--json=short", "call", "org.freedesktop.machine1", "/org/freedesktop/machine1"]
LIST += ["org.freedesktop.machine1.Manager", "ListMachines"]


def containers(untrusted: object) -> list[str]:
    """Return the names of the containers in machined's list: a name, a class, and more, of each."""
    try:
        (rows,) = untrusted["data"]  # type: ignore[index]
        return [str(row[0]) for row in rows if row[1] == "container"]
    except (KeyError, IndexError, TypeError, ValueError):
        return []


class Nspawn(Engine):
    """Containers of systemd-nspawn; a machine's Leader is the host's pid of its init."""

    name = "nspawn"

    def doubt(self, found: Found, init: Init) -> str | None:
        """Compare the unit that machined names with the one of the process."""
        if found.unit and unit(init) == found.unit:
            return None
        return f"process {found.pid} is not in unit {found.unit or 'of any name'}"

    def scan(self, wants: Callable[[str], bool], done: Scanned) -> None:
        """List the machines, then ask for each one's leader."""

        def listed(answer: str | EngineError) -> None:
            if isinstance(answer, EngineError):
                done(answer)
                return
            parsed = as_json(answer, "busctl")
            if isinstance(parsed, EngineError):
                done(parsed)
                return
            names = [name for name in containers(parsed) if NAME.fullmatch(name)]
            self.look_up_all([name for name in names if wants(name)], {}, done)

        self.ask(LIST, listed)

    def lookup(self, name: str, done: LookedUp) -> None:
        """Ask for the leader, and once more where that fails.

        machinectl asks for the machine, then for its properties: one that ends in between
        is an error of many wordings.  Asked again, it knows no such machine.
        """

        def first(answer: Found | Stopped | EngineError | None) -> None:
            if isinstance(answer, EngineError):
                self._show(name, done)
            else:
                done(answer)

        self._show(name, first)

    def _show(self, name: str, done: LookedUp) -> None:
        def answered(answer: str | EngineError) -> None:
            if isinstance(answer, EngineError):
                gone = "no machine" in str(answer).lower()
                done(None if gone else answer)
                return
            values = dict(line.partition("=")[::2] for line in answer.splitlines())
            stamp = values.get("TimestampMonotonic", "")
            one = found(name, stamp or "0", values.get("Leader", ""))
            done(one and replace(one, unit=values.get("Unit", "")))

        fields = [f"--property={field}" for field in ("Leader", "TimestampMonotonic", "Unit")]
        self.ask(["machinectl", "show", "--no-pager", *fields, name], answered)

    def watch(self, poke: Callable[[], None], ended: Callable[[str], None]) -> Stream:
        """Watch machined's directory, in which each machine has a file."""
        return DirectoryStream(self._loop, MACHINES, poke, ended)
