# SPDX-License-Identifier: BSD-2-Clause
"""Jails with an attacker in them, a daemon to attack, and the account at the end."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.attacks.cage import Cage, Plan
from tests.attacks.rig import Daemon, Naive

HERE = Path(__file__).parent
STRICT = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-static"]


@dataclass
class Tally:
    """What was tried, and what came of it."""

    attempts: dict[str, int] = field(default_factory=dict)
    wins: dict[str, str] = field(default_factory=dict)
    controls: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def attack(self, name: str, attempts: int, wins: int, how: str = "") -> None:
        """Note an attack on ours; a win is a failed test."""
        self.attempts[name] = self.attempts.get(name, 0) + attempts
        if wins:
            self.wins[name] = how or str(wins)
        assert attempts > 0, f"{name}: nothing was tried"
        assert wins == 0, f"{name} SUCCEEDED AGAINST US: {wins} of {attempts}: {how}"

    def control(self, name: str, wins: int, how: str = "") -> None:
        """Note the same attack on the naive probe: it must win."""
        assert wins > 0, f"{name}: the naive probe withstood, so nothing is proved"
        self.controls[name] = how or str(wins)

    def note(self, text: str) -> None:
        """Note a figure."""
        self.notes.append(text)


def build(program: Path, *arguments: str | Path) -> Path:
    """Compile a program of ours."""
    subprocess.run(["cc", "-o", program, *arguments], check=True)
    return program


TALLY = pytest.StashKey[Tally]()


def pytest_configure(config: pytest.Config) -> None:
    """Begin the account."""
    config.stash[TALLY] = Tally()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the account."""
    tally = config.stash[TALLY]
    if not tally.attempts:
        return
    system = os.uname()
    terminalreporter.section(f"attacks on {system.sysname} {system.release} {system.machine}")
    for note in tally.notes:
        terminalreporter.write_line(note)
    terminalreporter.write_line(
        f"{len(tally.attempts)} attacks tried ({sum(tally.attempts.values())} attempts), "
        f"{len(tally.controls)} negative controls succeeded, "
        f"{len(tally.wins)} attacks succeeded against us"
    )
    for name, how in tally.wins.items():
        terminalreporter.write_line(f"SUCCEEDED: {name}: {how}")


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """Give the account."""
    return request.config.stash[TALLY]


@pytest.fixture(scope="session")
def attacker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the attacker."""
    if os.geteuid() != 0:
        pytest.skip("cannot: only root may make the jails")
    if sys.platform != "linux":
        pytest.skip("cannot: the Linux attacker")
    program = tmp_path_factory.mktemp("attacker") / "attacker"
    names = ("attacker.c", "attack_race.c", "attack_look.c", "attack_trace.c")
    return build(program, *STRICT, *(HERE / name for name in names))


Make = Callable[[Plan], Cage]


@pytest.fixture
def make_cage(attacker: Path) -> Iterator[Make]:
    """Give what makes jails."""
    with contextlib.ExitStack() as stack:

        def make(plan: Plan) -> Cage:
            cage = Cage(attacker, plan)
            stack.callback(cage.close)
            return cage

        yield make


@pytest.fixture
def daemon(tmp_path: Path, attacker: Path) -> Iterator[Daemon]:
    """Give a daemon."""
    assert attacker.exists()
    running = Daemon(tmp_path)
    yield running
    running.close()


MakeNaive = Callable[[Cage], Naive]


@pytest.fixture
def make_naive(tmp_path: Path) -> Iterator[MakeNaive]:
    """Give what makes naive daemons."""
    with contextlib.ExitStack() as stack:

        def make(cage: Cage) -> Naive:
            directory = tmp_path / "naive"
            directory.mkdir(exist_ok=True)
            naive = Naive(cage.init, cage.plan.caps, directory)
            stack.callback(naive.close)
            return naive

        yield make
