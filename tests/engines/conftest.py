# SPDX-License-Identifier: BSD-2-Clause
"""Real engines, and daemons whose rules in files name their containers."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.conftest import skip_or_fail
from tests.kernel.place import Place

if sys.platform != "linux":
    collect_ignore_glob = ["test_*.py"]
else:
    from tests.engines.machined import NspawnMaker
    from tests.engines.makers import (
        CrunMaker,
        DockerMaker,
        Host,
        LxcMaker,
        Maker,
        PodmanMaker,
        RuncMaker,
    )
    from tests.engines.ruled import Ruled
    from tests.kernel.jails.base import NoSuchKind

    MAKERS = [DockerMaker, PodmanMaker, LxcMaker, NspawnMaker, RuncMaker, CrunMaker]

    @pytest.fixture(scope="session")
    def host() -> Iterator[Host]:
        """A mount namespace with all engines' default places."""
        if os.geteuid() != 0:
            pytest.skip("cannot: only root makes containers")
        place = Place()
        made = None
        try:
            made = Host(place)
            yield made
        except NoSuchKind as error:
            skip_or_fail(str(error))
        finally:
            if made is not None:
                made.close()
            place.close()

    @pytest.fixture(scope="session", params=MAKERS, ids=[kind.engine for kind in MAKERS])
    def maker(host: Host, request: pytest.FixtureRequest) -> Iterator[Maker]:
        """An engine."""
        excuse = request.param.excuse()
        if excuse:
            pytest.skip(f"cannot: {request.param.engine}: {excuse}")
        try:
            made: Maker = request.param(host)
        except NoSuchKind as error:
            skip_or_fail(f"{request.param.engine}: {error}")
            raise
        yield made
        made.stop()

    @pytest.fixture
    def ruled(maker: Maker, directory: Path) -> Iterator[Ruled]:
        """Give a daemon without rules."""
        made = Ruled(maker.prefix, directory)
        yield made
        made.stop()

    @pytest.fixture
    def directory(host: Host) -> Path:
        """A directory of the test's own, with a short path."""
        return host.place.new_directory()


DELAYS = pytest.StashKey[dict[str, list[float]]]()


def pytest_configure(config: pytest.Config) -> None:
    """Begin the figures."""
    config.stash[DELAYS] = {}


@pytest.fixture
def delays(request: pytest.FixtureRequest) -> dict[str, list[float]]:
    """How long after its first process's start each container was armed, by engine."""
    return request.config.stash[DELAYS]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the figures."""
    found = config.stash[DELAYS]
    if found:
        terminalreporter.section("from a container's start to its armed probe")
    for engine, seconds in found.items():
        each = ", ".join(f"{1000 * one:.0f}" for one in seconds)
        terminalreporter.write_line(f"{engine}: {each} ms")
