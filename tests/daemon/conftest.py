# SPDX-License-Identifier: BSD-2-Clause
"""A real daemon, and a jail for it."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.freebsd_jail import PersistentJail
from tests.contract.linux_jail import NamespaceJail
from tests.daemon.product import Daemon, short_directory
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
        other = PersistentJail()
        yield str(other.jid)
        other.close()


@pytest.fixture
def server(directory: Path) -> Iterator[Server]:
    """Give a control server in this process; afterwards nothing may be left in it."""
    made = Server(directory)
    yield made
    made.close()
