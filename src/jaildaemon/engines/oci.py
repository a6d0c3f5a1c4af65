# SPDX-License-Identifier: BSD-2-Clause
"""The OCI runtimes themselves, runc and crun: containers of root's default state directory."""

from collections.abc import Callable
from typing import ClassVar

from jaildaemon.engines.answers import Found, Scan, Stopped, as_json, found, stopped
from jaildaemon.engines.base import Engine, LookedUp, Scanned, Stream
from jaildaemon.engines.directory import DirectoryStream
from jaildaemon.engines.endpoint import EngineError
from jaildaemon.engines.identity import Init, in_state_file

LIVING = ("running", "pausing", "paused")


def _container(untrusted: object) -> Found | Stopped | None:
    """Return the container that a state of the OCI runtime specification speaks of."""
    if not isinstance(untrusted, dict):
        return None
    name = str(untrusted.get("id"))
    if untrusted.get("status") not in LIVING:
        return stopped(untrusted.get("status"))
    return found(name, name, untrusted.get("pid"))


class Runc(Engine):
    """Containers of runc."""

    name = "runc"
    settings = ("client",)
    state: ClassVar[str] = "state.json"

    def doubt(self, found: Found, init: Init) -> str | None:
        """Look into its state file: the control group's name may be anything."""
        path = f"/run/{self.name}/{found.id}/{self.state}"
        if in_state_file(path, init):
            return None
        return f"{path} does not name process {found.pid} and its start"

    def scan(self, wants: Callable[[str], bool], done: Scanned) -> None:
        """List them."""

        def listed(answer: str | EngineError) -> None:
            parsed = answer if isinstance(answer, EngineError) else as_json(answer, self.name)
            if isinstance(parsed, EngineError):
                done(parsed)
                return
            rows = parsed if isinstance(parsed, list) else []  # null where there are none
            containers = [one for row in rows if isinstance(one := _container(row), Found)]
            listed = {one.name: one.id for one in containers}
            done(Scan([one for one in containers if wants(one.name)], listed))

        self.ask([self.name, "list", "--format=json"], listed)

    def lookup(self, name: str, done: LookedUp) -> None:
        """Ask for its state."""

        def answered(answer: str | EngineError) -> None:
            if isinstance(answer, EngineError):
                gone = any(w in str(answer) for w in ("does not exist", "No such file"))
                done(None if gone else answer)
                return
            parsed = as_json(answer, self.name)
            done(parsed if isinstance(parsed, EngineError) else _container(parsed))

        self.ask([self.name, "state", name], answered)

    def watch(self, poke: Callable[[], None], ended: Callable[[str], None]) -> Stream:
        """Watch its state directory: a container has a directory there."""
        return DirectoryStream(self._loop, f"/run/{self.name}", poke, ended, depth=2)


class Crun(Runc):
    """Containers of crun."""

    name = "crun"
    state = "status"
