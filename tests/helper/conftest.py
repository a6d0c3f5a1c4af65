# SPDX-License-Identifier: BSD-2-Clause
"""A jail for the helper to enter, and the check that nothing of a test is left."""

import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.contract.freebsd_jail import PersistentJail
from tests.helper.parent import (
    LONGEST_SECONDS,
    Parent,
    Target,
    children,
    wait_child,
    wait_readable,
)

if sys.platform == "linux":
    from tests.helper.linux_target import linux_target


@pytest.fixture(scope="session")
def target() -> Iterator[Target]:
    """Give a jail of this system."""
    if os.geteuid() != 0:
        pytest.skip("cannot: only root may enter a jail")
    if sys.platform == "linux":
        yield from linux_target(user_namespace=False)
    else:
        jail = PersistentJail()
        yield Target(jail.jid)
        jail.close()


@pytest.fixture(scope="session")
def user_target() -> Iterator[Target]:
    """Give a Linux jail with a user namespace of its own."""
    if os.geteuid() != 0:
        pytest.skip("cannot: only root may enter a jail")
    if sys.platform == "linux":
        yield from linux_target(user_namespace=True)
    else:
        pytest.skip("cannot: only Linux has user namespaces")


class Starter:
    """Starts helpers for one test."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.before = children()
        self.parents: list[Parent] = []

    def __call__(self, **how: Any) -> Parent:
        """Start one, with the fixture's jail unless another is given."""
        how.setdefault("target", self._target)
        self.parents.append(Parent(**how))
        return self.parents[-1]

    def reap_strays(self) -> None:
        """Wait for the end of every child that came by itself: the probes of dead helpers."""
        for pid in children() - self.before:
            wait_child(pid)

    def watch(self, pid: int) -> Callable[[], None]:
        """Return what waits for the end of `pid`, which is not our child."""
        if sys.platform == "linux":
            pidfd = os.pidfd_open(pid)

            def wait() -> None:
                wait_readable(pidfd)
                os.close(pidfd)

        else:
            queue = select.kqueue()
            exit_event = select.kevent(
                pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD, select.KQ_NOTE_EXIT
            )
            queue.control([exit_event], 0)

            def wait() -> None:
                assert queue.control(None, 1, LONGEST_SECONDS)
                queue.close()

        return wait


@pytest.fixture
def start(target: Target) -> Iterator[Starter]:
    """Give what starts helpers; afterwards no child may be left."""
    starter = Starter(target)
    yield starter
    for parent in starter.parents:
        parent.close()
    left = children() - starter.before
    for pid in left:  # or the jail could not end
        os.kill(pid, signal.SIGKILL)
        wait_child(pid)
    assert left == set()
