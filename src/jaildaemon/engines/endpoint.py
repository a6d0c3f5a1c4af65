# SPDX-License-Identifier: BSD-2-Clause
"""How an engine is reached: a client of this host, and a socket of this host.

An engine of another machine names pids of that machine: no variable, context or
connection that could lead there is passed on or followed.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass

DIRECTORIES = ("/usr/bin", "/usr/sbin", "/bin", "/sbin", "/usr/local/bin", "/usr/local/sbin")
PATH = ":".join(DIRECTORIES)
NOWHERE = "/nonexistent"
"""HOME of every client: what root has configured there may name another machine."""


class EngineError(Exception):
    """The engine cannot be asked, or says no; the text says why, `output` all that it said."""

    def __init__(self, why: str, output: str = "") -> None:
        super().__init__(why)
        self.output = output


def program(name: str) -> str:
    """Return a program's absolute path, from a fixed list; EngineError."""
    for directory in DIRECTORIES:
        path = f"{directory}/{name}"
        if os.access(path, os.X_OK):
            return path
    msg = f"there is no {name} in {PATH}"
    raise EngineError(msg)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one engine is; what is None is the engine's default."""

    client: str | None = None
    socket: str | None = None
    vet: Callable[[str], str | None] = lambda _: None
    """Says why a program is not to be started: somebody else than root can change it."""

    def path(self, name: str) -> str:
        """Return the path of the program that is started for `name`; EngineError."""
        path = self.client or program(name)
        why = self.vet(path)
        if why is not None:
            raise EngineError(f"{path} {why}")
        return path

    @property
    def environment(self) -> dict[str, str]:
        """All that a client is told of where it runs."""
        return {"PATH": PATH, "HOME": NOWHERE}
