# SPDX-License-Identifier: BSD-2-Clause
"""A jail that AppArmor confines: its probe is confined as it is, and so it may ring."""

import signal
import sys

import pytest

if sys.platform != "linux":
    pytest.skip("cannot: Linux's security modules", allow_module_level=True)
assert sys.platform == "linux"

from jaildaemon.backends import HELPER
from jaildaemon.backends.base import LABEL_APPARMOR, LABEL_NONE, ArmingError
from jaildaemon.backends.linux import LinuxBackend
from jaildaemon.backends.linux_jail import apparmor_is_in_use, label_of
from tests.attacks.docked import MakeDocked
from tests.attacks.linux_fixtures import MakeNaive
from tests.attacks.rig import Daemon
from tests.attacks.tally import Tally
from tests.attacks.test_attack_proc import looked

if not apparmor_is_in_use():
    pytest.skip("cannot: this kernel has no AppArmor", allow_module_level=True)

DEFAULT = (LABEL_APPARMOR, b"docker-default")


def test_a_probe_has_the_label_of_its_jail_and_can_be_rung_by_it(
    make_docked: MakeDocked, make_naive: MakeNaive, daemon: Daemon, tally: Tally
) -> None:
    cage = make_docked("--security-opt", "apparmor=docker-default")
    assert label_of(cage.init) == DEFAULT
    naive = make_naive(cage).standing()
    assert label_of(naive) == (LABEL_NONE, b"")
    # What is not labelled is out of the jail's reach: nobody could ring it.
    (refused,) = cage.ask(f"kill {cage.number(naive)} {signal.SIGHUP:d}")
    tally.control("kill without the label", refused != "ok", refused)

    probe = daemon.attach(cage.init, "BELL")
    assert label_of(probe) == DEFAULT
    number = cage.number(probe)
    won, tries = looked(cage, probe, number)
    tally.attack("look docker with AppArmor", tries, len(won), " ".join(sorted(won)))
    assert daemon.triggers() == 0
    assert cage.ask(f"kill {number} {signal.SIGHUP:d}") == ["ok"]
    daemon.wait_log("run .* ended")
    assert daemon.triggers() == 1


def test_an_unconfined_jail_has_an_unconfined_probe(
    make_docked: MakeDocked, daemon: Daemon
) -> None:
    cage = make_docked()
    assert label_of(cage.init) == (LABEL_NONE, b"")
    probe = daemon.attach(cage.init, "BELL")
    assert label_of(probe) == (LABEL_NONE, b"")
    assert cage.ask(f"kill {cage.number(probe)} {signal.SIGHUP:d}") == ["ok"]
    daemon.wait_log("run .* ended")


def test_a_probe_without_its_jails_label_is_not_let_go(
    make_docked: MakeDocked, make_naive: MakeNaive
) -> None:
    """As when the first process got its label, by its exec, while the probe was on its way."""
    cage = make_docked("--security-opt", "apparmor=docker-default")
    unlabelled = make_naive(cage).standing()
    backend = LinuxBackend(HELPER)
    jail = backend.resolve(str(cage.init))
    with pytest.raises(ArmingError, match="label became another"):
        backend.verify(jail, unlabelled)
    jail.close()
    backend.watcher.close()
