# SPDX-License-Identifier: BSD-2-Clause
"""Every test here has a daemon and jails of its own."""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.world import Daemon, World, world_in

LINUX_ONLY = [
    "test_accounts_live.py",
    "test_crash_points.py",
    "test_resources.py",
    "test_stuck.py",
    "test_syscall_faults.py",
]
"""They need strace(1), or are about what only Linux has."""
collect_ignore_glob = [] if sys.platform == "linux" else LINUX_ONLY


@pytest.fixture
def world() -> Iterator[World]:
    """A directory, and a daemon in it that is not started yet.

    Not pytest's: each other pytest that starts closes the directory above those to other users.
    """
    if os.geteuid() != 0:
        pytest.skip("cannot: only root may enter a jail")
    # A command that is killed at the end may make its file anew while we remove it.
    with (
        tempfile.TemporaryDirectory(prefix="jd.", ignore_cleanup_errors=True) as name,
        world_in(Path(name)) as found,
    ):
        yield found


@pytest.fixture
def daemon(world: World) -> Daemon:
    """A daemon that serves."""
    world.daemon.start()
    return world.daemon
