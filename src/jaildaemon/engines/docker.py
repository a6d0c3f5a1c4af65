# SPDX-License-Identifier: BSD-2-Clause
"""Docker and Podman, which have nearly the same command line."""

from collections.abc import Callable
from typing import ClassVar

from jaildaemon.engines.base import (
    Engine,
    EngineError,
    EventStream,
    Found,
    LookedUp,
    Scanned,
    Stream,
    found,
)

FORMAT = "{{.Id}} {{.State.Pid}} {{.State.Status}} {{.Name}}"
LIVING = ("running", "paused")


def _parse(untrusted: str) -> list[Found]:
    """Return what `inspect` says in FORMAT, a line each; what else is there is a complaint."""
    containers = []
    for line in untrusted.splitlines():
        words = line.split()
        if len(words) == 4 and words[2] in LIVING:  # noqa: PLR2004 - the words of FORMAT
            one = found(words[3].removeprefix("/"), words[0], words[1])
            containers += [one] if one else []
    return containers


class Docker(Engine):
    """Containers of the docker whose client root has configured."""

    name = "docker"
    events: ClassVar[tuple[str, ...]] = ("start", "die", "rename")
    gone: ClassVar[str] = "no such"

    def scan(self, wants: Callable[[str], bool], done: Scanned) -> None:
        """List the ids, then look at all of them."""

        def listed(answer: str | EngineError) -> None:
            if isinstance(answer, EngineError):
                done(answer)
                return
            ids = [word for word in answer.split() if found("x", word, 1)]
            if not ids:
                done([])
                return
            self._inspect(ids, inspected)

        def inspected(answer: list[Found] | EngineError) -> None:
            if isinstance(answer, list):
                answer = [one for one in answer if wants(one.name)]
            done(answer)

        states = [f"--filter=status={state}" for state in LIVING]
        self.ask([self.name, "ps", "--quiet", "--no-trunc", *states], listed)

    def _inspect(self, names: list[str], done: Scanned) -> None:
        def answered(answer: str | EngineError) -> None:
            if isinstance(answer, EngineError):
                # One has ended meanwhile; what it says of the others is so.
                gone = self.gone in str(answer).lower()
                done(_parse(answer.output) if gone else answer)
                return
            done(_parse(answer))

        argv = [self.name, "inspect", "--type=container", f"--format={FORMAT}", *names]
        self.ask(argv, answered)

    def lookup(self, name: str, done: LookedUp) -> None:
        """Look at one; an id, or the beginning of one, is no name."""

        def answered(answer: list[Found] | EngineError) -> None:
            if isinstance(answer, EngineError):
                done(answer)
                return
            done(next((one for one in answer if one.name == name), None))

        self._inspect([name], answered)

    def watch(self, poke: Callable[[], None], ended: Callable[[str], None]) -> Stream:
        """Follow its events."""
        filters = [f"--filter=event={event}" for event in self.events]
        argv = [self.name, "events", "--filter=type=container", *filters, "--format={{.ID}}"]
        return EventStream(self._loop, argv, poke, ended)


class Podman(Docker):
    """Containers of root's podman."""

    name = "podman"
    events: ClassVar[tuple[str, ...]] = ("start", "died", "rename", "restart")
