# SPDX-License-Identifier: BSD-2-Clause
"""The kernel suite: real jails, the installed command, and the man page's every sentence.

A test that takes `jail` runs in each kind of jail that is made for the full
list; with the mark `every_kind`, in all kinds.  `JAILDAEMON` names another
command than the one beside this Python.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kernel import manpage
from tests.kernel.events import Bell, Fifo, Gate
from tests.kernel.jails import FULL, KINDS, Jails, cannot_have
from tests.kernel.jails.base import Jail, NoSuchKind
from tests.kernel.place import Place
from tests.kernel.product import Daemon

collect_ignore_glob = ["test_freebsd*.py" if sys.platform == "linux" else "test_linux*.py"]

_JAILS = pytest.StashKey[Jails]()
_LEFTOVERS = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks."""
    config.addinivalue_line("markers", "manpage(*ids): proves these sentences of manpage.toml")
    config.addinivalue_line("markers", "every_kind: run in every kind of jail")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test its kinds of jail."""
    for name in ("jail", "fresh_jail"):
        marks = metafunc.definition.iter_markers("parametrize")
        named = any(mark.args[0] == name for mark in marks)
        if name in metafunc.fixturenames and not named:
            every = metafunc.definition.get_closest_marker("every_kind") is not None
            kinds = KINDS if every else FULL
            metafunc.parametrize(
                name, kinds, indirect=True, ids=[kind.kind for kind in kinds], scope="function"
            )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fail where a sentence of the man page has no test, or a test names no sentence."""
    here = Path(__file__).parent
    if any(here in item.path.parents for item in items):
        problems = manpage.problems(manpage.load(), manpage.tests_in(here))
        if problems:
            raise pytest.UsageError("tests/kernel/manpage.toml:\n" + "\n".join(problems))


def pytest_terminal_summary(
    terminalreporter: Any, config: pytest.Config
) -> None:  # pytest has no public type for the reporter
    """Say which kinds of jail ran, and why the others did not."""
    jails = config.stash.get(_JAILS, None)
    if jails is None:
        return
    terminalreporter.section("kinds of jail")
    for kind in KINDS:
        if kind in jails.failed:
            excuse = cannot_have(kind)
            why = jails.failed[kind] + (f" (no failure: {excuse})" if excuse else "")
            terminalreporter.write_line(f"did not run: {kind.kind}: {why}")
        elif kind in jails.ran:
            terminalreporter.write_line(f"ran: {kind.kind}")
        else:
            terminalreporter.write_line(f"not asked for: {kind.kind}")
    for name in config.stash.get(_LEFTOVERS, []):
        terminalreporter.write_line(f"removed what session {name} had left")


def skip_or_fail(why: str, excuse: str | None = None) -> None:
    """Skip a test; in CI fail it, unless the machine cannot have what is missing."""
    if os.environ.get("CI") == "1" and excuse is None:
        pytest.fail(why, pytrace=False)
    pytest.skip(f"cannot: {why} ({excuse})" if excuse else why)


def _made(jails: Jails, kind: type[Jail], *, fresh: bool) -> Jail:
    try:
        return jails.fresh(kind) if fresh else jails.shared(kind)
    except NoSuchKind as error:
        skip_or_fail(f"{kind.kind}: {error}", cannot_have(kind))
        raise


@pytest.fixture(scope="session")
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """Where the session works."""
    made = Place()
    request.config.stash[_LEFTOVERS] = made.leftovers
    yield made
    made.close()


@pytest.fixture(scope="session")
def jails(place: Place, request: pytest.FixtureRequest) -> Iterator[Jails]:
    """The session's jails."""
    made = Jails(place)
    request.config.stash[_JAILS] = made
    yield made
    made.close()


@pytest.fixture
def jail(jails: Jails, request: pytest.FixtureRequest) -> Jail:
    """A jail that other tests use too."""
    return _made(jails, request.param, fresh=False)


@pytest.fixture
def fresh_jail(jails: Jails, request: pytest.FixtureRequest) -> Iterator[Jail]:
    """A jail for a test that ends it."""
    made = _made(jails, request.param, fresh=True)
    yield made
    made.stop()


@pytest.fixture
def _fifos() -> Iterator[list[Fifo]]:
    """The test's FIFOs.  Closed last of all, so that no command waits to open one for ever."""
    made: list[Fifo] = []
    yield made
    for fifo in made:
        fifo.close()


@pytest.fixture
def directory(place: Place, _fifos: list[Fifo]) -> Iterator[Path]:
    """A directory of the test's own, with a short path."""
    made = place.new_directory()
    yield made
    shutil.rmtree(made)


@pytest.fixture
def daemon(place: Place, directory: Path) -> Iterator[Daemon]:
    """A daemon of the test's own.  It must end well, and leave nothing of its own."""
    made = Daemon(place, directory)
    try:
        yield made
        made.wait_no_command()
        assert made.end() == 0, made.log
        assert [path for path in (made.socket, made.pidfile) if path.exists()] == []
    finally:
        made.end()
        print("the daemon's log:", *made.log, sep="\n")  # shown where the test failed


@pytest.fixture
def bell(directory: Path, _fifos: list[Fifo]) -> Bell:
    """What commands write to."""
    made = Bell(directory / "bell")
    _fifos.append(made)
    return made


@pytest.fixture
def gate(directory: Path, _fifos: list[Fifo]) -> Gate:
    """What commands wait at."""
    made = Gate(directory / "gate")
    _fifos.append(made)
    return made
