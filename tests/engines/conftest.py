# SPDX-License-Identifier: BSD-2-Clause
"""Real engines, and daemons whose rules in files name their containers."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kernel.conftest import skip_or_fail
from tests.kernel.jails import cannot_have
from tests.kernel.place import Place

if sys.platform != "linux":
    collect_ignore_glob = ["test_*.py"]
else:
    from tests.engines.asking import machine  # noqa: F401 - a fixture
    from tests.engines.elsewhere import REPORTS, Inside, Outside
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
        try:
            made: Maker = request.param(host)
            made.try_out()
        except NoSuchKind as error:
            skip_or_fail(f"{request.param.engine}: {error}", cannot_have(request.param))
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


Delays = dict[str, list[tuple[float, float]]]
"""By engine: after how many seconds a container was armed, and how many one question took then."""
DELAYS = pytest.StashKey[Delays]()
ARMED = "armed after seconds"


class Figures:
    """Collects what the tests measured, here or elsewhere, from their reports."""

    def __init__(self, delays: Delays) -> None:
        self._delays = delays

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the figures of a test that is over."""
        if report.when == "teardown":
            for name, value in report.user_properties:
                engine, _, what = name.partition(" ")
                if what == ARMED:
                    assert isinstance(value, list | tuple)
                    armed, asked = value
                    self._delays.setdefault(engine, []).append((armed, asked))


def pytest_configure(config: pytest.Config) -> None:
    """Begin the figures, and have what needs systemd run where it is."""
    config.stash[DELAYS] = {}
    config.pluginmanager.register(Figures(config.stash[DELAYS]))
    if sys.platform == "linux" and os.geteuid() == 0:
        inside = REPORTS in os.environ
        config.pluginmanager.register(Inside(config) if inside else Outside(config))


@pytest.fixture
def note_delay(
    record_property: Callable[[str, object], None],
) -> Callable[[str, float, float], None]:
    """Note how long after its first process's start an engine's container was armed."""
    return lambda engine, *seconds: record_property(f"{engine} {ARMED}", seconds)


@pytest.fixture
def delays(request: pytest.FixtureRequest) -> Delays:
    """What was noted by the tests that are over, by engine."""
    return request.config.stash[DELAYS]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the figures."""
    found = config.stash[DELAYS]
    if found:
        terminalreporter.section("from a container's start to its armed probe")
    for engine, seconds in found.items():
        each = ", ".join(f"{1000 * armed:.0f}" for armed, _ in seconds)
        terminalreporter.write_line(f"{engine}: {each} ms")
