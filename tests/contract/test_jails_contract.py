# SPDX-License-Identifier: BSD-2-Clause
"""What a backend tells of jails that begin and end, asked of every backend."""

import sys

import pytest

from tests.contract.worlds import World


def need_events(world: World) -> None:
    """Skip on a kernel that tells of no end: FreeBSD before 15."""
    stop = world.backend.watch_jails(lambda: None)
    if stop is not None:
        stop()
    elif sys.platform.startswith("freebsd"):
        pytest.skip("cannot: this kernel does not tell when a jail ends")


def test_the_end_of_a_jail_is_told_once_and_not_before(world: World) -> None:
    need_events(world)
    name = world.jail()
    jail = world.backend.resolve(name)
    told: list[str] = []
    world.backend.watch_end(jail, lambda: told.append("ended"))
    other = world.backend.watch_end(jail, lambda: told.append("never"))
    other()
    assert told == []
    world.end_jail(name)
    world.run_until(lambda: told != [])
    assert told == ["ended"]
    jail.close()


def test_the_end_of_a_jail_that_has_ended_is_told_later_not_at_once(world: World) -> None:
    need_events(world)
    name = world.jail()
    jail = world.backend.resolve(name)
    world.end_jail(name)
    world.wait_jail_ended(name)
    told: list[str] = []
    world.backend.watch_end(jail, lambda: told.append("ended"))
    assert told == []
    world.run_until(lambda: told != [])
    jail.close()


def test_what_is_watched_no_more_is_not_told(world: World) -> None:
    need_events(world)
    name = world.jail()
    jail = world.backend.resolve(name)
    told: list[str] = []
    stop = world.backend.watch_end(jail, lambda: told.append("stopped"))
    kept = world.backend.watch_end(jail, lambda: told.append("kept"))
    stop()
    stop()
    world.end_jail(name)
    world.run_until(lambda: told != [])
    kept()
    assert told == ["kept"]
    jail.close()


def test_a_jail_that_begins_is_told_where_the_kernel_names_jails(world: World) -> None:
    told: list[str] = []
    stop = world.backend.watch_jails(lambda: told.append("begun"))
    if stop is None:
        pytest.skip("cannot: this kernel does not tell of jails")
    name = world.jail()  # others' jails may begin and end meanwhile
    world.run_until(lambda: told != [])
    assert name in world.backend.jail_names()
    stop()


def test_the_names_of_jails_are_those_that_can_be_found(world: World) -> None:
    name = world.jail()
    names = world.backend.jail_names()
    if not names:
        pytest.skip("cannot: this kernel names no jails")
    made = world.backend.resolve(name)
    assert made.name in names
    found = world.backend.resolve(made.name)
    assert found.number == made.number
    found.close()
    made.close()
