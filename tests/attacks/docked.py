# SPDX-License-Identifier: BSD-2-Clause
"""Containers of docker whose first process is the attacker."""

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

assert sys.platform == "linux"

from tests.attacks.cage import Cage, Plan
from tests.attacks.rig import LONGEST_SECONDS
from tests.kernel.jails import cannot_have
from tests.kernel.jails.base import NoSuchKind, must, must_have
from tests.kernel.jails.engines import Docker, Dockerd
from tests.kernel.place import Place


class Docked(Cage):
    """The attacker as the first process of a container of docker, with docker's defaults."""

    def __init__(self, dockerd: Dockerd, name: str, attacker: Path, options: list[str]) -> None:
        self.plan = Plan()
        run = ["run", "--rm", "--interactive", "--name", name, "--network", "none", *options]
        # AppArmor would save the naive probe too: test_attack_apparmor.py has docker with it.
        run += [] if "--security-opt" in options else ["--security-opt", "apparmor=unconfined"]
        run += ["--volume", f"{attacker}:/attacker:ro", "jail", "/attacker"]
        self._process = subprocess.Popen(
            dockerd.command(*run),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        assert self._line() == "ready"
        found = dockerd.command("inspect", "--format", "{{.State.Pid}}", name)
        self.init = int(must(found).stdout)
        self.pidfd = os.pidfd_open(self.init)
        self.name = name


MakeDocked = Callable[..., Docked]
NUMBERS = itertools.count()
"""No name is used twice: its first container may still be on its way out."""


@pytest.fixture(scope="module")
def dockerd() -> Iterator[Dockerd]:
    """Give a dockerd of our own."""
    place = Place()
    try:
        must_have(Docker.programs)
        made = Dockerd(place, userns=False)
    except NoSuchKind as error:
        excuse = cannot_have(Docker)
        pytest.skip(f"cannot: {excuse}" if excuse else str(error))
    yield made
    made.process.terminate()
    made.process.wait(LONGEST_SECONDS)
    place.close()


@pytest.fixture
def make_docked(attacker: Path, dockerd: Dockerd) -> Iterator[MakeDocked]:
    """Give what makes containers with the attacker in them."""
    made: list[Docked] = []

    def make(*options: str) -> Docked:
        name = f"attack{os.getpid()}x{next(NUMBERS)}"
        made.append(Docked(dockerd, name, attacker, list(options)))
        return made[-1]

    yield make
    for cage in reversed(made):
        cage.close()
