# SPDX-License-Identifier: BSD-2-Clause
"""What backends/base.py promises, asked of every backend by the same tests."""

import contextlib
import os
import signal
import socket
from collections.abc import Iterator

import pytest

from jaildaemon.backends.base import Death, Jail
from jaildaemon.backends.probe import Probe
from jaildaemon.errors import NoSuchJail, Refused
from tests.contract.worlds import Owner, World

KILLED = Death(signal.SIGKILL, None)
RUNG = Death(signal.SIGHUP, None)


@contextlib.contextmanager
def new_jail(world: World) -> Iterator[Jail]:
    """Give a handle of a fresh jail."""
    jail = world.backend.resolve(world.jail())
    try:
        yield jail
    finally:
        jail.close()


def armed(world: World, jail: Jail, title: str, uid: int = 0, gid: int = 0) -> tuple[Probe, Owner]:
    """Arm a probe."""
    owner = Owner()
    probe = Probe(world.backend, jail, owner)
    probe.arm(title, uid, gid)
    assert owner.told == []  # never within the call
    world.run_until(lambda: owner.told != [])
    assert owner.told == ["armed"], owner.error
    return probe, owner


def test_a_probe_is_armed_and_its_death_by_the_signal_is_told(world: World) -> None:
    with new_jail(world) as jail:
        probe, owner = armed(world, jail, "jaildaemon: BELL")
        assert probe.pid is not None
        assert world.title(probe.pid) == "jaildaemon: BELL"
        assert world.ids(probe.pid) == (0, 0)
        world.kill(probe.pid, signal.SIGHUP)
        world.run_until(lambda: len(owner.told) == 2)
    assert (owner.told, owner.death) == (["armed", "ended"], RUNG)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL, signal.SIGQUIT])
def test_a_death_by_another_signal_is_told_as_what_it_was(world: World, signum: int) -> None:
    with new_jail(world) as jail:
        probe, owner = armed(world, jail, "jaildaemon")
        assert probe.pid is not None
        world.kill(probe.pid, signum)
        world.run_until(lambda: len(owner.told) == 2)
    assert owner.death == Death(signum, None)


def test_a_probe_has_exactly_the_uid_and_gid_that_were_asked_for(world: World) -> None:
    with new_jail(world) as jail:
        probe, owner = armed(world, jail, "jaildaemon", 1234, 5678)
        assert probe.pid is not None
        assert world.ids(probe.pid) == (1234, 5678)
        probe.kill()
        world.run_until(lambda: len(owner.told) == 2)
    assert (owner.told, owner.death) == (["armed", "ended"], KILLED)


def test_two_probes_of_one_jail_are_armed_at_once_and_told_apart(world: World) -> None:
    with new_jail(world) as jail:
        owners = [Owner(), Owner()]
        probes = [Probe(world.backend, jail, owner) for owner in owners]
        for number, probe in enumerate(probes):
            probe.arm(f"jaildaemon: B{number}", number, 0)
        world.run_until(lambda: all(owner.told for owner in owners))
        assert [owner.told for owner in owners] == [["armed"], ["armed"]]
        pids = [probe.pid for probe in probes]
        assert None not in pids
        assert [world.ids(pid) for pid in pids if pid] == [(0, 0), (1, 0)]
        world.kill(pids[1] or 0, signal.SIGHUP)
        world.run_until(lambda: len(owners[1].told) == 2)
        assert owners[1].death == RUNG
        assert owners[0].told == ["armed"]
        probes[0].kill()
        world.run_until(lambda: len(owners[0].told) == 2)
        assert owners[0].death == KILLED


def test_killed_before_it_is_armed_it_fails_and_leaves_nothing(world: World) -> None:
    before = world.children()
    with new_jail(world) as jail:
        owner = Owner()
        probe = Probe(world.backend, jail, owner)
        probe.arm("jaildaemon", 0, 0)
        probe.kill()
        world.run_until(lambda: owner.told != [])
        assert world.children() == before
        assert (owner.told, str(owner.error)) == (
            ["failed"],
            f"attach: {jail.name}: withdrawn before it was armed",
        )


def test_a_helper_that_dies_without_a_word_fails_and_leaves_nothing(world: World) -> None:
    before = world.children()
    with new_jail(world) as jail, world.silent():
        owner = Owner()
        Probe(world.backend, jail, owner).arm("jaildaemon", 0, 0)
        world.run_until(lambda: owner.told != [])
        assert world.children() == before
        assert (owner.told, str(owner.error)) == (
            ["failed"],
            f"attach: {jail.name}: the helper ended without a report",
        )


def test_arming_in_a_jail_that_has_ended_is_lost_not_failing(world: World) -> None:
    name = world.jail()
    jail = world.backend.resolve(name)
    assert jail.alive()
    world.end_jail(name)
    world.wait_jail_ended(name)
    assert not jail.alive()
    owner = Owner()
    Probe(world.backend, jail, owner).arm("jaildaemon", 0, 0)
    world.run_until(lambda: owner.told != [])
    jail.close()
    assert owner.told == ["failed"]
    assert getattr(owner.error, "lost", False) is True
    with pytest.raises(NoSuchJail):
        world.backend.resolve(name)


def test_the_end_of_the_jail_ends_its_probe_and_is_no_trigger(world: World) -> None:
    name = world.jail()
    jail = world.backend.resolve(name)
    _, owner = armed(world, jail, "jaildaemon")
    world.end_jail(name)
    world.run_until(lambda: len(owner.told) == 2)
    world.wait_jail_ended(name)
    jail.close()
    assert owner.told == ["armed", "ended"]
    assert owner.death is not None
    assert owner.death.signal in (signal.SIGKILL, signal.SIGTERM)


def test_two_handles_of_one_jail_have_one_key_and_another_jail_has_another(world: World) -> None:
    name = world.jail()
    handles = [world.backend.resolve(text) for text in (name, name, world.jail())]
    assert handles[0].key == handles[1].key != handles[2].key
    for handle in handles:
        handle.close()


def test_a_name_that_is_no_jail_is_refused_as_such(world: World) -> None:
    for text in ("", "no-such-jail", "0", "-1", "4194305", "99999999999999999999"):
        with pytest.raises((NoSuchJail, Refused)):  # FreeBSD's jid 0 is the host itself
            world.backend.resolve(text)


def test_whoever_is_in_our_own_namespaces_is_inside(world: World) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        peer = world.backend.peer(ours.fileno())
    assert (peer.uid, peer.pid, peer.outside) == (os.geteuid(), os.getpid(), None)
