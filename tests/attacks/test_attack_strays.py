# SPDX-License-Identifier: BSD-2-Clause
"""A jail whose arming fails, which its root can bring about, must not reach another jail's."""

import os
import sys
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("cannot: the Linux attacker", allow_module_level=True)
assert sys.platform == "linux"

from jaildaemon.backends import HELPER
from jaildaemon.backends.linux import LinuxBackend
from jaildaemon.backends.probe import Probe
from tests.attacks.cage import PLANS
from tests.attacks.linux_fixtures import Make
from tests.attacks.tally import Tally
from tests.contract.worlds import Owner
from tests.daemon.product import wait_until


def _unreported(before: set[int]) -> set[int]:
    path = Path(f"/proc/self/task/{os.getpid()}/children")
    return {int(word) for word in path.read_text(encoding="ascii").split()} - before


def test_a_failed_arming_ends_nothing_in_another_jail(make_cage: Make, tally: Tally) -> None:
    victim, hostile = make_cage(PLANS["docker"]), make_cage(PLANS["docker"])
    before = _unreported(set())
    backend = LinuxBackend(HELPER)
    jail = backend.resolve(str(victim.init))
    owner = Owner()
    probe = Probe(backend, jail, owner)
    probe.arm("jaildaemon: BELL", 0, 0)
    other = backend.resolve(str(hostile.init))
    try:
        # Born, and nobody has read of it yet: the helper has ended.
        wait_until(lambda: len(_unreported(before)) == 2, "the probe is born")
        (born,) = (pid for pid in _unreported(before) if not backend.watcher.watches(pid))
        # Who ends every child that he does not know ends this one for the other jail's sake.
        tally.control("failing jail against another", born in _unreported(before))
        assert born not in backend.strays(other)
        assert born in backend.strays(jail)
        while not owner.told:
            backend.watcher.wait()
        assert owner.told == ["armed"], owner.error
        assert probe.pid == born
    finally:  # or the jail could not end
        probe.kill()
        while owner.told[-1:] not in (["failed"], ["ended"]):
            backend.watcher.wait()
    for handle in (jail, other):
        handle.close()
    backend.watcher.close()
    tally.attack("failing jail against another", 1, 0)
