# SPDX-License-Identifier: BSD-2-Clause
"""What a later daemon finds again: the boot, the very jail, a run, a probe it armed."""

import json
import os
import signal
from pathlib import PurePosixPath
from typing import Any

import pytest

from jaildaemon.backends.base import Death, EndedJail, Jail
from jaildaemon.backends.probe import Probe
from jaildaemon.errors import NoSuchJail
from tests.contract.worlds import Owner, World

# --- this machine -----------------------------------------------------------------


def test_the_boot_has_one_id_of_one_line(world: World) -> None:
    boot = world.backend.boot_id()
    assert boot.isprintable()
    assert len(boot) >= 8
    assert world.backend.boot_id() == boot


def test_the_state_has_an_absolute_place_of_its_own(world: World) -> None:
    place = PurePosixPath(world.backend.state_directory)
    assert place.is_absolute()
    assert place.name.startswith("jaildaemon")


def test_every_signal_that_a_rule_may_have_kills_a_probe_and_is_told_by_its_number(
    world: World,
) -> None:
    signals = world.backend.signals
    assert set(signals) == {"HUP", "USR1"}
    jail = world.backend.resolve(world.jail())
    deaths = {}
    for name, number in signals.items():
        owner = Owner()
        probe = Probe(world.backend, jail, owner)
        probe.arm("jaildaemon", 0, 0)
        world.run_until(lambda owner=owner: bool(owner.told))  # type: ignore[misc]
        world.kill(probe.pid or 0, number)
        world.run_until(lambda owner=owner: len(owner.told) == 2)  # type: ignore[misc]
        deaths[name] = owner.death
    jail.close()
    assert deaths == {name: Death(number, None) for name, number in signals.items()}


# --- the very same jail -------------------------------------------------------------


def written(jail: Jail) -> dict[str, Any]:
    """Return a jail's identity as it comes out of the journal."""
    identity: dict[str, Any] = json.loads(json.dumps(jail.identity()))
    return identity


def test_a_jail_that_runs_is_recovered_as_the_very_same(world: World) -> None:
    jail = world.backend.resolve(world.inhabited_jail())
    found = world.backend.recover(written(jail))
    assert (found.key, found.name, found.number) == (jail.key, jail.name, jail.number)
    assert found.alive()
    assert written(found) == written(jail)
    found.close()
    jail.close()


def test_of_two_jails_each_is_recovered_as_itself(world: World) -> None:
    jails = [world.backend.resolve(world.inhabited_jail()) for _ in range(2)]
    found = [world.backend.recover(written(jail)) for jail in jails]
    assert [jail.key for jail in found] == [jail.key for jail in jails]
    for jail in (*jails, *found):
        jail.close()


def test_a_jail_that_has_ended_is_not_recovered_also_when_another_took_its_place(
    world: World,
) -> None:
    name = world.inhabited_jail()
    jail = world.backend.resolve(name)
    identity = written(jail)
    world.end_jail(name)
    world.wait_jail_ended(name)
    jail.close()
    with pytest.raises(NoSuchJail):
        world.backend.recover(identity)
    new = world.backend.resolve(world.successor(name))
    assert (new.name, new.number) == (jail.name, jail.number)  # as far as numbers go
    with pytest.raises(NoSuchJail):
        world.backend.recover(identity)
    found = world.backend.recover(written(new))
    assert found.key == new.key != jail.key
    new.close()
    found.close()


@pytest.mark.parametrize("value", [None, "", "x", -1, 0, True, 2**31, 2**70, 1.5, [], [[]], {}])
def test_what_no_jail_ever_had_is_no_jail(world: World, value: object) -> None:
    jail = world.backend.resolve(world.inhabited_jail())
    identity = written(jail)
    for key in identity:
        with pytest.raises(NoSuchJail):
            world.backend.recover({**identity, key: value})
        with pytest.raises(NoSuchJail):
            world.backend.recover({k: v for k, v in identity.items() if k != key})
    jail.close()


def test_an_ended_jails_stand_in_is_never_recovered(world: World) -> None:
    jail = EndedJail("web", "ended before t1")
    assert (jail.alive(), jail.unsettled()) == (False, "the jail has ended")
    with pytest.raises(NoSuchJail):
        world.backend.recover(written(jail))
    jail.close()


def test_a_jail_is_unsettled_when_it_has_ended(world: World) -> None:
    name = world.inhabited_jail()
    jail = world.backend.resolve(name)
    assert jail.unsettled() is None
    world.end_jail(name)
    world.wait_jail_ended(name)
    assert jail.unsettled()
    jail.close()


# --- a run --------------------------------------------------------------------------

ROOT = os.geteuid()
LIFE = f"life{os.getpid()}"
"""Not of these tests as another tree runs them at the same time."""


def test_a_run_is_found_by_its_id_with_its_pid_and_without(world: World) -> None:
    pids = [world.stranger(f"{LIFE}.1"), world.stranger(f"{LIFE}.10")]
    for run, pid in ((f"{LIFE}.1", pids[0]), (f"{LIFE}.10", pids[1])):
        assert world.backend.find_run(run, None, uid=ROOT) == pid
        assert world.backend.find_run(run, pid, uid=ROOT) == pid
    # What is not this run: the id is another, or the pid is another's by now.
    for run, of in ((f"{LIFE}.2", None), (LIFE, None), ("", None), (f"{LIFE}.1", pids[1])):
        assert world.backend.find_run(run, of, uid=ROOT) is None
    for pid in pids:
        world.end_stranger(pid)


def test_each_of_many_runs_is_found(world: World) -> None:
    """Of one process in forty FreeBSD 15.1 shows the beginning of the environment only."""
    for number in range(64):
        pid = world.stranger(f"{LIFE}.many{number}")
        assert world.backend.find_run(f"{LIFE}.many{number}", pid, uid=ROOT) == pid
        world.end_stranger(pid)


def test_what_is_no_session_leader_is_a_child_of_the_run_not_the_run(world: World) -> None:
    pid = world.stranger(f"{LIFE}.2", leader=False)
    assert world.backend.find_run(f"{LIFE}.2", None, uid=ROOT) is None
    assert world.backend.find_run(f"{LIFE}.2", pid, uid=ROOT) is None
    world.end_stranger(pid)


def test_what_looks_like_a_run_in_a_jail_is_none(world: World) -> None:
    jail = world.inhabited_jail()
    pid = world.forger(jail, f"{LIFE}.5")
    assert world.backend.find_run(f"{LIFE}.5", None, uid=ROOT) is None
    assert world.backend.find_run(f"{LIFE}.5", pid, uid=ROOT) is None
    world.end_stranger(pid)


def test_a_run_that_has_ended_is_not_found(world: World) -> None:
    pid = world.stranger(f"{LIFE}.3")
    told: list[Death] = []
    world.backend.watcher.watch_other(pid, told.append)
    world.end_stranger(pid)
    world.run_until(lambda: bool(told))
    assert world.backend.find_run(f"{LIFE}.3", None, uid=ROOT) is None
    assert world.backend.find_run(f"{LIFE}.3", pid, uid=ROOT) is None


def test_a_process_without_any_run_is_none(world: World) -> None:
    pid = world.stranger(None)
    assert world.backend.find_run(f"{LIFE}.4", pid, uid=ROOT) is None
    assert world.backend.find_run(f"{LIFE}.4", os.getpid(), uid=ROOT) is None
    assert world.backend.find_run(f"{LIFE}.4", 2**22 + 1, uid=ROOT) is None
    world.end_stranger(pid)


def test_a_run_is_proven_by_its_pid_and_when_it_was_started_whatever_its_environment(
    world: World,
) -> None:
    find = world.backend.find_run
    pid = world.stranger(None)  # a command that has made its environment anew
    began = world.backend.start_time(pid)
    assert world.backend.start_time(pid) == began > 0
    assert find(f"{LIFE}.6", pid, uid=ROOT) is None
    assert find(f"{LIFE}.6", pid, uid=ROOT, start_time=began) == pid
    assert find(f"{LIFE}.6", pid, uid=1234, start_time=began) == pid
    for other in (began + 1, began - 1, 1):
        assert find(f"{LIFE}.6", pid, uid=ROOT, start_time=other) is None
    assert find(f"{LIFE}.6", 2**22 + 1, uid=ROOT, start_time=began) is None
    world.end_stranger(pid)


def test_what_has_the_number_of_a_run_and_its_name_but_was_started_later_is_none(
    world: World,
) -> None:
    pid = world.stranger(f"{LIFE}.7")
    later = world.backend.start_time(pid) - 1
    assert world.backend.find_run(f"{LIFE}.7", pid, uid=ROOT, start_time=later) is None
    world.end_stranger(pid)


@pytest.mark.skipif(ROOT != 0, reason="cannot: only root may be somebody else")
@pytest.mark.parametrize("uids", [(1234, 1234, 1234), (1234, 0, 0), (0, 1234, 1234)], ids=str)
def test_what_another_user_calls_a_run_is_none_nor_what_changed_its_user(
    world: World, uids: tuple[int, int, int]
) -> None:
    """The naive way, by the environment alone, took any of them for root's run."""
    pid = world.stranger(f"{LIFE}.8", uids=uids)
    for of in (None, pid):
        assert world.backend.find_run(f"{LIFE}.8", of, uid=0) is None
    # It may be a run of that user's, of a command with run_as.
    found = world.backend.find_run(f"{LIFE}.8", pid, uid=1234)
    assert found == (pid if {*uids} == {1234} else None)
    world.end_stranger(pid)


# --- a probe that was armed before the daemon replaced itself -----------------------


@pytest.mark.parametrize("death", [Death(signal.SIGHUP, None), Death(None, 1)], ids=str)
def test_an_adopted_probes_end_is_told_and_nothing_else(world: World, death: Death) -> None:
    jail = world.backend.resolve(world.jail())
    owner = Owner()
    pid = world.child()
    probe = Probe(world.backend, jail, owner)
    probe.adopt(pid)
    assert probe.pid == pid
    world.end_child(pid, death)
    assert owner.told == []
    world.run_until(lambda: bool(owner.told))
    jail.close()
    assert (owner.told, owner.death) == (["ended"], death)


def test_a_probe_that_died_during_the_exchange_is_told_when_it_is_adopted(world: World) -> None:
    jail = world.backend.resolve(world.jail())
    owner = Owner()
    pid = world.child()
    world.end_child(pid, Death(signal.SIGHUP, None))
    Probe(world.backend, jail, owner).adopt(pid)
    world.run_until(lambda: bool(owner.told))
    jail.close()
    assert (owner.told, owner.death) == (["ended"], Death(signal.SIGHUP, None))


def test_an_adopted_probe_can_be_killed(world: World) -> None:
    jail = world.backend.resolve(world.jail())
    owner = Owner()
    probe = Probe(world.backend, jail, owner)
    probe.adopt(world.child())
    probe.kill()
    assert owner.told == []
    world.run_until(lambda: bool(owner.told))
    jail.close()
    assert (owner.told, owner.death) == (["ended"], Death(signal.SIGKILL, None))
