# SPDX-License-Identifier: BSD-2-Clause
"""What FreeBSD's backend lists to know who lives in a jail, and when it lists nothing."""

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

if not sys.platform.startswith("freebsd"):
    pytest.skip("cannot: Linux has an identity for each of its containers", allow_module_level=True)
assert sys.platform.startswith("freebsd")

from jaildaemon.backends import freebsd_census
from jaildaemon.backends.freebsd_census import LONGEST_PAUSE, SPARING, Census, lives
from tests.contract.worlds import World


@pytest.fixture
def jid(_machine: World) -> Iterator[int]:
    """Give a jail with one process, which was left to init."""
    name = _machine.inhabited_jail()
    jail = _machine.backend.resolve(name)
    yield jail.number
    jail.close()
    _machine.end_jail(name)


def _kill_all(jid: int) -> None:
    # Again, as long as there is one: a shell may have forked since the list was made.
    kill = ["pkill", "-KILL", "-j", str(jid)]
    while subprocess.run(kill, check=False).returncode == 0:
        continue


@pytest.mark.parametrize("residents", [False, True])
def test_nobody_is_listed_while_who_was_known_lives(jid: int, *, residents: bool) -> None:
    census = Census()
    found = census.seen(jid, time.monotonic(), residents=residents)
    assert len(found) == 1
    for _ in range(3):
        assert not census.must_list(jid, time.monotonic())
        assert census.seen(jid, time.monotonic(), residents=residents) == found
    assert census.lists == 1
    _kill_all(jid)
    assert census.must_list(jid, time.monotonic())
    assert census.seen(jid, time.monotonic(), residents=residents) == {}
    assert census.lists == 2


def test_a_visitor_is_no_resident(jid: int) -> None:
    census = Census()
    (resident,) = census.seen(jid, time.monotonic())
    command = ["jexec", str(jid), "sh", "-c", "echo here; sleep 1000; :"]
    # Not a child of ours, which would be left out.
    with subprocess.Popen(["sh", "-c", '"$@"; :', "sh", *command], stdout=subprocess.PIPE) as shell:
        assert shell.stdout is not None
        assert shell.stdout.readline() == b"here\n"
        census = Census()
        everybody = census.seen(jid, time.monotonic())
        assert resident in everybody
        assert len(everybody) >= 2
        assert list(census.seen(jid, time.monotonic(), residents=True)) == [resident]
        _kill_all(jid)


def test_a_list_is_followed_by_a_pause_for_who_can_wait(
    jid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    census = Census()
    assert census.pause() == 0
    used = time.process_time()
    census.seen(jid, time.monotonic())
    used = time.process_time() - used
    assert census.pause() <= SPARING * used
    # Its own pause is some milliseconds: we may not come to the next line in time.
    monkeypatch.setattr(freebsd_census, "SPARING", 1e9)
    assert 0 < census.pause() <= LONGEST_PAUSE
    # Who is content with an old list has none made meanwhile.
    census.seen(0, census.sparing())
    assert census.lists == 1


def test_a_process_is_itself_by_pid_start_and_jail(jid: int) -> None:
    ((pid, start),) = Census().seen(jid, time.monotonic()).items()
    assert lives(pid, start, jid)
    assert not lives(pid, start, jid + 1)
    assert not lives(pid, (start[0], start[1] ^ 1), jid)
    _kill_all(jid)
    assert not lives(pid, start, jid)
