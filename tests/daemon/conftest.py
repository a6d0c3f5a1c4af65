# SPDX-License-Identifier: BSD-2-Clause
"""A real daemon, and a jail for it."""

import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jaildaemon.backends.base import Death
from jaildaemon.daemon.accounts import Account
from jaildaemon.daemon.commands import Command
from tests.contract.freebsd_jail import PersistentJail
from tests.contract.linux_jail import NamespaceJail
from tests.daemon.engine_host import host  # noqa: F401 - a fixture
from tests.daemon.product import Daemon, short_directory
from tests.daemon.runs import Commands
from tests.daemon.server import Server


def need_root() -> None:
    """Skip where no daemon can arm."""
    if os.geteuid() != 0:
        pytest.skip("cannot: only root may enter a jail")


@pytest.fixture
def directory() -> Iterator[Path]:
    """Give a directory with a short path."""
    with short_directory() as found:
        yield found


@pytest.fixture
def daemon(directory: Path) -> Iterator[Daemon]:
    """Give a daemon of the test's own."""
    started = Daemon(directory)
    yield started
    started.stop()


@pytest.fixture(scope="module")
def served() -> Iterator[Daemon]:
    """Give a daemon that the tests of one file share; they leave nothing in it."""
    with short_directory() as found:
        started = Daemon(found)
        yield started
        assert started.status()["rules"] == 0
        started.stop()


@pytest.fixture(scope="module")
def jail() -> Iterator[str]:
    """Give a jail, as -j takes it."""
    need_root()
    if sys.platform == "linux":
        made = NamespaceJail()
        yield str(made.init)
        made.close()
    else:
        other = PersistentJail(lived_in=True)
        yield str(other.jid)
        other.close()


@pytest.fixture
def server(directory: Path) -> Iterator[Server]:
    """Give a control server in this process; afterwards nothing may be left in it."""
    made = Server(directory)
    yield made
    made.close()


@pytest.fixture
def commands(server: Server, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """Give the commands of a server; every wait is of its middle length."""
    made = Commands(server)

    def start(
        self: Command,
        command: str,
        _account: Account,
        values: dict[str, str],
        ended: Callable[[Death], None],
    ) -> None:
        made.start(self, command, values, ended)

    monkeypatch.setattr(Command, "start", start)
    monkeypatch.setattr(random, "uniform", lambda _low, _high: 0.0)
    return made
