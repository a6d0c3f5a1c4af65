# SPDX-License-Identifier: BSD-2-Clause
"""An arming that fails, which a jail's root can bring about, must not reach another rule's."""

import os
import signal
import sys
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("cannot: the Linux attacker", allow_module_level=True)
assert sys.platform == "linux"

from jaildaemon.backends import HELPER
from jaildaemon.backends.base import ArmingError
from jaildaemon.backends.linux import LinuxBackend
from jaildaemon.backends.linux_jail import namespace
from jaildaemon.backends.probe import Probe
from tests.attacks.cage import PLANS
from tests.attacks.linux_fixtures import Make, MakeCareless
from tests.attacks.rig import Daemon
from tests.attacks.tally import Tally
from tests.contract.worlds import Owner
from tests.daemon.product import wait_until
from tests.helper.parent import wait_child


def _unreported(before: set[int]) -> set[int]:
    path = Path(f"/proc/self/task/{os.getpid()}/children")
    return {int(word) for word in path.read_text(encoding="ascii").split()} - before


def test_a_failed_arming_ends_nothing_of_another_rule(make_cage: Make, tally: Tally) -> None:
    """Two armings in one jail: what came of the one is not the other's."""
    cage = make_cage(PLANS["docker"])
    before = _unreported(set())
    backend = LinuxBackend(HELPER)
    jail = backend.resolve(str(cage.init))
    owner = Owner()
    probe = Probe(backend, jail, owner)
    probe.arm("jaildaemon: BELL", 0, 0)
    try:
        # Born, and nobody has read of it yet: the helper has ended.
        wait_until(lambda: len(_unreported(before)) == 2, "the probe is born")
        (born,) = (pid for pid in _unreported(before) if not backend.watcher.watches(pid))
        failing = backend.spawn(jail, "jaildaemon: OTHER", 0, 0)
        backend.watcher.watch_process(failing.helper_pid, lambda _: None)
        wait_until(lambda: len(_unreported(before)) == 4, "its probe is born")
        (other,) = (p for p in _unreported(before) - {born} if not backend.watcher.watches(p))
        # Who takes every unwatched child of the jail for a failing arming's ends both.
        in_jail = {p for p in (born, other) if namespace(p, "pid") == jail.space}
        tally.control("failing arming against another", born in in_jail)
        with pytest.raises(ArmingError, match="another helper's probe"):
            backend.probe_reported(jail, born, failing.helper_pid)
        assert backend.strays(failing.helper_pid) == [other]
        assert wait_child(other) == ("signal", signal.SIGKILL)
        os.close(failing.status_fd)
        os.close(failing.go_fd)
        backend.over(failing.helper_pid)
        while not owner.told:
            backend.watcher.wait()
        assert owner.told == ["armed"], owner.error
        assert probe.pid == born
    finally:  # or the jail could not end
        for pid in _unreported(before):
            os.kill(pid, signal.SIGKILL)
        for pid in _unreported(before):
            if not backend.watcher.watches(pid):
                wait_child(pid)
        probe.kill()
        while owner.told[-1:] not in (["failed"], ["ended"]):
            backend.watcher.wait()
    jail.close()
    backend.watcher.close()
    tally.attack("failing arming against another", 1, 0)


AT_ONCE, ROUNDS = 20, 4


def _armed_beside(daemon: Daemon, init: int) -> tuple[int, int]:
    """Wish for pairs, pipelined; return how many good ones were armed, how many refused."""
    good = bad = 0
    for _ in range(ROUNDS):
        uids = [0 if n % 2 else 70_000 for n in range(AT_ONCE)]
        answers = daemon.attach_each(init, [{"policy": {"uid": uid}} for uid in uids])
        good += sum("error" not in answer for answer in answers)
        bad += sum("has no such uid" in str(answer) for answer in answers)
        daemon.detach_all()
    return good, bad


def test_armings_that_fail_beside_others_leave_those_alone(
    make_cage: Make, daemon: Daemon, make_careless: MakeCareless, tally: Tally
) -> None:
    """Pipelined, every other one with a uid that the jail's user namespace does not have."""
    cage = make_cage(PLANS["user-namespace"])
    wanted = AT_ONCE * ROUNDS // 2
    good, _ = _armed_beside(make_careless("strays"), cage.init)
    tally.control("failing armings beside good ones", wanted - good)
    good, bad = _armed_beside(daemon, cage.init)
    tally.attack("failing armings beside good ones", bad, wanted - good)
    assert bad == wanted
