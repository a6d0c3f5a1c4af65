# SPDX-License-Identifier: BSD-2-Clause
"""Every world in turn: two fakes always, this machine's kernel where we may."""

import os
import sys
from collections.abc import Iterator

import pytest

from tests.contract.worlds import FakeWorld, World

if sys.platform == "linux":
    from tests.contract.world_linux import LinuxWorld as Machine
else:
    from tests.contract.world_freebsd import FreeBSDWorld as Machine


def _descriptors() -> set[str]:
    """Return our open descriptors; FreeBSD shows all of them only with fdescfs."""
    return set(os.listdir("/dev/fd")) if sys.platform == "linux" else set()


@pytest.fixture(scope="session")
def _machine() -> Iterator[World]:
    if os.geteuid() != 0:
        pytest.skip("cannot: only root may enter a jail")
    world = Machine()
    yield world
    world.backend.watcher.close()


@pytest.fixture(params=["fake", "fake_one_process", "machine"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """Give one world; afterwards no child, descriptor or deadline may be left of the test."""
    if request.param == "machine":
        found: World = request.getfixturevalue("_machine")
    else:
        found = FakeWorld(one_process=request.param == "fake_one_process")
    children, descriptors = found.children(), _descriptors()
    yield found
    found.close()
    assert found.children() == children
    assert _descriptors() == descriptors
