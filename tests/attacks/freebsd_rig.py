# SPDX-License-Identifier: BSD-2-Clause
"""FreeBSD jails with an attacker in them, and the naive daemon."""

import os
import select
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attacks.rig import HERE, LONGEST_SECONDS, SECRET, STRICT, Daemon, build

NAIVE = HERE / "naive_freebsd.py"


class Talker:
    """A program that answers lines."""

    def __init__(self, *command: str | Path) -> None:
        self._process = subprocess.Popen(
            command,
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

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


def make_jail(*parameters: str) -> int:
    """Make a jail that persists; return its jid."""
    made = subprocess.run(
        ["jail", "-i", "-c", "persist", *parameters], capture_output=True, text=True, check=True
    )
    return int(made.stdout)


def remove_jail(name: str | int) -> None:
    """Remove a jail: TERM, then KILL to what is in it."""
    subprocess.run(["jail", "-r", str(name)], check=True, capture_output=True)


@pytest.fixture(scope="session")
def attacker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the attacker."""
    if os.geteuid() != 0:
        pytest.skip("only root may make the jails: run the tests as root")
    program = tmp_path_factory.mktemp("attacker") / "fbsd_attacker"
    return build(program, *STRICT, HERE / "fbsd_attacker.c")


@pytest.fixture
def jid(attacker: Path) -> Iterator[int]:
    """Give a jail on /."""
    assert attacker.exists()
    name = f"jdattack{uuid.uuid4().hex[:8]}"
    yield make_jail(f"name={name}", "path=/")
    remove_jail(name)


@pytest.fixture
def inside(jid: int, attacker: Path) -> Iterator[Talker]:
    """Give the attacker, running as root of the jail."""
    talker = Talker("jexec", str(jid), attacker)
    assert talker.first.startswith("ready")
    yield talker
    talker.close()


@pytest.fixture
def naive(jid: int) -> Iterator[Talker]:
    """Give the naive daemon of that jail."""
    talker = Talker(sys.executable, NAIVE, str(jid))
    yield talker
    talker.close()


@pytest.fixture
def daemon(tmp_path: Path, attacker: Path) -> Iterator[Daemon]:
    """Give a daemon."""
    assert attacker.exists()
    running = Daemon(tmp_path)
    yield running
    running.close()
