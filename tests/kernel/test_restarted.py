# SPDX-License-Identifier: BSD-2-Clause
"""`jaildaemon restart` in real jails: every probe stays, whoever else lives in its jail."""

from tests.kernel.events import Bell
from tests.kernel.jails.base import Jail
from tests.kernel.product import Daemon


def test_a_restart_keeps_the_probes_and_they_ring(jail: Jail, daemon: Daemon, bell: Bell) -> None:
    daemon.arm(bell.command(), jail, "KEPT", "-r")
    old = daemon.probe("KEPT")
    for _ in range(2):
        assert daemon.cli("restart").returncode == 0
        assert daemon.probe("KEPT") == old
    jail.ring("KEPT")
    assert bell.wait() == "rang"
    assert daemon.cli("restart").returncode == 0
    daemon.wait_new_probe("KEPT", old)
