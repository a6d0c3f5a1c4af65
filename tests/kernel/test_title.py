# SPDX-License-Identifier: BSD-2-Clause
"""-t: what ps shows inside, and how the probe is found by it."""

import pytest

from tests.kernel.events import Bell
from tests.kernel.jails.base import Jail
from tests.kernel.product import Daemon

TITLES = ["RESTART_EXAMPLE", "restart example.com: takes 5 s", "a (b) [c] {d} 100% #1 \\ 'x' \"y\""]


@pytest.mark.manpage("t", "t-visible")
def test_ps_inside_shows_the_title(jail: Jail, daemon: Daemon) -> None:
    for title in (*TITLES, "x" * 180):
        daemon.arm("true", jail, title)
    shown = list(jail.ps().values())
    for title in (*TITLES, "x" * 180):
        assert jail.shown(title).startswith(f"jaildaemon: {title}")
        assert shown.count(jail.shown(title)) == 1


@pytest.mark.manpage("t")
def test_without_a_title_ps_inside_shows_the_name_alone(
    jail: Jail, daemon: Daemon, bell: Bell
) -> None:
    daemon.arm(bell.command(), jail, None)
    assert jail.shown(None).split()[0] == "jaildaemon"
    assert len(jail.find(None)) == 1
    jail.ring(None)
    assert bell.wait() == "rang"


@pytest.mark.manpage("t-pkill")
def test_pkill_with_the_title_finds_exactly_that_probe(
    jail: Jail, daemon: Daemon, bell: Bell
) -> None:
    for title in ("ALPHA", "BRAVO", "CHARLIE"):
        daemon.arm(bell.command(title), jail, title)
    others = {title: daemon.probe(title) for title in ("ALPHA", "CHARLIE")}
    (pid,) = jail.find("BRAVO")
    assert jail.inside("pgrep", "-f", "^jaildaemon: BRAVO").stdout.split() == [str(pid)]

    done = jail.inside("pkill", "-HUP", "-f", "^jaildaemon: BRAVO")

    assert done.returncode == 0, done.stderr
    assert bell.wait() == "BRAVO"
    daemon.wait_rule_gone("BRAVO")
    assert {title: daemon.probe(title) for title in others} == others
    assert bell.lines() == []
    assert jail.inside("pkill", "-HUP", "-f", "^jaildaemon: BRAVO").returncode == 1


@pytest.mark.manpage("t-pkill")
def test_pkill_with_the_bare_title_finds_it_too(jail: Jail, daemon: Daemon, bell: Bell) -> None:
    daemon.arm(bell.command("one"), jail, "RESTART_ONE")
    daemon.arm(bell.command("two"), jail, "RESTART_TWO")
    assert jail.inside("pkill", "-HUP", "-f", "RESTART_TWO").returncode == 0
    assert bell.wait() == "two"
    daemon.wait_rule_gone("RESTART_TWO")
    assert daemon.titles() == {"RESTART_ONE"}
    assert bell.lines() == []


def test_pkill_without_f_finds_no_probe_by_the_daemons_name(jail: Jail, daemon: Daemon) -> None:
    daemon.arm("true", jail, "QUIET")
    assert jail.inside("pkill", "-HUP", "jaildaemon").returncode == 1
    assert len(jail.find("QUIET")) == 1


@pytest.mark.every_kind
@pytest.mark.manpage("purpose")
def test_plain_sh_rings_where_there_is_no_pkill(jail: Jail, daemon: Daemon, bell: Bell) -> None:
    daemon.arm(bell.command("other"), jail, "OTHER")
    daemon.arm(bell.command("this"), jail, "THIS ONE")
    done = jail.inside_sh(jail.plain_sh_ring.replace("TITLE", "THIS ONE"))
    print(done)
    assert bell.wait() == "this"
    daemon.wait_rule_gone("THIS ONE")
    assert daemon.titles() == {"OTHER"}
    assert bell.lines() == []


def test_titles_that_overlap_are_armed_with_a_warning(jail: Jail, daemon: Daemon) -> None:
    daemon.arm("true", jail, "SNAPSHOT")
    daemon.arm("true", jail, "SNAPSHOT_HOME")
    ids = {rule["id"] for rule in daemon.rules()}
    for title in ("SNAPSHOT", "SNAPSHOT_HOME"):
        rule = daemon.rule(title)
        (other,) = ids - {rule["id"]}
        assert other in rule["reason"]


def test_two_rules_with_one_title_make_two_probes_and_replace_makes_one(
    jail: Jail, daemon: Daemon, bell: Bell
) -> None:
    daemon.arm(bell.command("first"), jail, "SAME")
    daemon.arm(bell.command("second"), jail, "SAME")
    assert len(jail.find("SAME")) == 2
    daemon.arm(bell.command("third"), jail, "SAME", "--replace")
    assert len(jail.find("SAME")) == 1
    jail.ring("SAME")
    assert bell.wait() == "third"
