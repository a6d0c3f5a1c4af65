# SPDX-License-Identifier: BSD-2-Clause
"""Programs of our own in the place of the engines', and a loop to ask them."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jaildaemon.engines import base, endpoint
from jaildaemon.engines.base import Question

assert sys.platform == "linux"

from jaildaemon.backends.linux_watcher import LinuxWatcher  # noqa: E402 - see above

LONGEST_SECONDS = 60.0
"""A failure's bound, never a wait; and no answer of a program here has another."""


class Machine:
    """A watcher, and programs of our own in the place of the engines'."""

    def __init__(self, directory: Path) -> None:
        self.watcher = LinuxWatcher()
        self.directory = directory
        self.answers: list[Any] = []

    def program(self, name: str, script: str) -> None:
        """Write a program."""
        path = self.directory / name
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        path.chmod(0o755)

    def wait(self, done: Callable[[], object]) -> None:
        """Serve events until something is so."""
        end = time.monotonic() + LONGEST_SECONDS
        while not done():
            assert time.monotonic() < end, "it never happened"
            handle = self.watcher.call_in(1.0, lambda: None)
            self.watcher.wait()
            self.watcher.cancel(handle)

    def ask(self, ask: Callable[[Callable[[Any], None]], None]) -> Any:
        """Return what is answered."""
        self.answers.clear()
        ask(self.answers.append)
        assert self.answers == [], "answered within the call"
        self.wait(lambda: self.answers)
        self.wait(lambda: not self.watcher.children())
        (answer,) = self.answers
        return answer

    def question(self, *words: str) -> Any:
        """Ask by a command."""

        def ask(done: Callable[[Any], None]) -> None:
            Question(self.watcher, list(words), done, seconds=base.SECONDS)

        return self.ask(ask)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """Give a machine whose only programs are ours, and sh(1)'s."""
    monkeypatch.setattr(endpoint, "DIRECTORIES", (str(tmp_path), "/usr/bin", "/bin"))
    monkeypatch.setattr(base, "SECONDS", LONGEST_SECONDS)
    made = Machine(tmp_path)
    yield made
    made.watcher.close()
