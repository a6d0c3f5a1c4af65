# SPDX-License-Identifier: BSD-2-Clause
"""A program that is told lines and answers with lines: an attacker, or the naive daemon."""

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

from tests.attacks.rig import LONGEST_SECONDS, SECRET


class Talker:
    """A program that answers lines."""

    def __init__(self, *command: str | Path, wrap: Iterable[str | Path] = ()) -> None:
        self._process = subprocess.Popen(
            [*wrap, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "NAIVE_SECRET": SECRET},
            bufsize=0,
        )
        self._told = b""
        self.first = self.line()

    def line(self) -> str:
        """Return its next line; it is waited for."""
        assert self._process.stdout is not None
        while b"\n" not in self._told:
            ready, _, _ = select.select([self._process.stdout], [], [], LONGEST_SECONDS)
            assert ready, "it says nothing"
            more = os.read(self._process.stdout.fileno(), 65536)
            assert more, "it has ended"
            self._told += more
        line, _, self._told = self._told.partition(b"\n")
        return line.decode()

    def say(self, words: str) -> None:
        """Send a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{words}\n".encode())

    def asked(self, words: str) -> str:
        """Return the one line that answers a command."""
        self.say(words)
        return self.line()

    def ask(self, words: str) -> list[str]:
        """Have a command carried out; the answer ends with a dot."""
        self.say(words)
        lines = []
        while (line := self.line()) != ".":
            lines.append(line)
        return lines

    def counts(self, words: str = "counts") -> dict[str, str]:
        """Return the attacker's own counters; "stop" ends the attack."""
        (line,) = self.ask(words)
        return dict(word.split("=", 1) for word in line.split())

    def silent(self) -> bool:
        """Say whether it has said nothing that was not read."""
        assert self._process.stdout is not None
        return not self._told and not select.select([self._process.stdout], [], [], 0)[0]

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


class NaiveTalker(Talker):
    """The naive daemon of either system, where both say the same."""

    own = 0
    """Its number, whatever it is wrapped in."""
    _serves = False

    def close(self) -> None:
        """End it and its probes."""
        if self._process.poll() is None and not self._serves:
            with contextlib.suppress(BrokenPipeError):  # it was told already
                self.say("end")
            self._process.wait(LONGEST_SECONDS)
        end = time.monotonic() + LONGEST_SECONDS
        while self._process.poll() is None:
            assert time.monotonic() < end, "it does not end"
            # Once is not enough: Python forgets to look between its last look and waitpid(2).
            os.kill(self.own, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1)
        super().close()

    def rang(self) -> int:
        """Wait until it rings; return the pid of the probe that follows, 0 without one."""
        words = self.line().split()
        assert words[0] == "rang", words
        return int(words[1])
