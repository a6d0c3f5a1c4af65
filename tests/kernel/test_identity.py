# SPDX-License-Identifier: BSD-2-Clause
"""-u and -g: who the probe is, and so who may ring it."""

import pytest

from tests.kernel.events import Bell
from tests.kernel.jails.base import Jail
from tests.kernel.processes import look
from tests.kernel.product import Daemon

CASES = {
    (): (0, 0),
    ("-u", "33"): (33, 0),
    ("-g", "44"): (0, 44),
    ("-u", "33", "-g", "44"): (33, 44),
    ("-u", "007", "-g", "0"): (7, 0),
}


@pytest.mark.manpage("u", "g")
def test_ids_are_numbers_of_the_jail_and_0_where_none_is_given(jail: Jail, daemon: Daemon) -> None:
    for number, (options, (uid, gid)) in enumerate(CASES.items()):
        daemon.arm("true", jail, f"ID {number}", *options)
        seen = look(daemon.probe(f"ID {number}"))
        assert seen.uids == (jail.first_id + uid,) * 3, options
        assert seen.gids == (jail.first_id + gid,) * 3, options
        assert seen.groups == (), options


@pytest.mark.manpage("u")
def test_root_inside_may_ring_the_probe_of_any_user(jail: Jail, daemon: Daemon, bell: Bell) -> None:
    daemon.arm(bell.command(), jail, "THEIRS", "-u", "1234", "-g", "1234")
    jail.ring("THEIRS")
    assert bell.wait() == "rang"


@pytest.mark.manpage("u", "purpose")
def test_a_user_inside_may_ring_its_own_probe_by_pkill(
    jail: Jail, daemon: Daemon, bell: Bell
) -> None:
    daemon.arm(bell.command("own"), jail, "OWN", "-u", "1234", "-g", "1234")
    daemon.arm(bell.command("roots"), jail, "ROOTS")
    other = jail.inside("pkill", "-HUP", "-f", "^jaildaemon: ROOTS", uid=1234)
    assert other.returncode != 0
    own = jail.inside("pkill", "-HUP", "-f", "^jaildaemon: OWN", uid=1234)
    assert own.returncode == 0, own.stderr
    assert bell.wait() == "own"
    daemon.wait_rule_gone("OWN")
    assert daemon.titles() == {"ROOTS"}
    assert bell.lines() == []
