# SPDX-License-Identifier: BSD-2-Clause
"""Users and groups are looked up by a child, whatever the host's database does."""

import grp
import os
import pwd
import sys
from collections.abc import Iterable, Iterator

import pytest

from jaildaemon.daemon import accounts
from jaildaemon.daemon.accounts import NO_ANSWER, NO_GROUP, NO_USER, Account, Accounts

if sys.platform == "linux":
    from jaildaemon.backends.linux_watcher import LinuxWatcher as SystemWatcher
else:
    from jaildaemon.backends.freebsd_watcher import FreeBSDWatcher as SystemWatcher

Names = dict[str, dict[str, object]]


@pytest.fixture
def watcher() -> Iterator[SystemWatcher]:
    """Give this system's loop; no child may be left in it."""
    made = SystemWatcher()
    yield made
    while made.children():
        made.wait()
    made.close()


def stuck(_users: Iterable[str], _groups: Iterable[str]) -> Names:
    """Stand for a database that never answers."""
    read_fd, _ = os.pipe()
    os.read(read_fd, 1)
    raise AssertionError


def test_a_user_is_found_with_numbers_home_and_groups() -> None:
    entry = pwd.getpwuid(os.geteuid())
    group = grp.getgrgid(0).gr_name
    found = accounts.look_up([entry.pw_name, "no-such-user", "a\0b"], [group, "no-such-group"])
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    account = Account(entry.pw_uid, entry.pw_gid, entry.pw_dir, groups)
    assert found.user(entry.pw_name) == account
    assert found.user("no-such-user") == found.user("a\0b") == NO_USER
    assert (found.group(group), found.group("no-such-group")) == (0, NO_GROUP)


def test_a_database_that_hangs_is_not_waited_for(
    watcher: SystemWatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "_names", stuck)
    monkeypatch.setattr(accounts, "SECONDS", 0.1)
    asked = Accounts(watcher)
    turns: list[int] = []
    watcher.call_in(0.01, lambda: turns.append(len(watcher.children())))
    found = asked.wait(["x"], ["g"])
    assert (found.user("x"), found.group("g")) == (NO_ANSWER, NO_ANSWER)
    assert turns == [1], "the loop stood still"
    assert not asked.busy
    assert accounts.look_up(["x"]).user("x") == NO_ANSWER


def test_who_asks_is_never_answered_by_an_earlier_look_up(
    watcher: SystemWatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = [1]

    def names(users: Iterable[str], _groups: Iterable[str]) -> Names:
        return {"users": dict.fromkeys(users, (number[0], 0, "/", ())), "groups": {}}

    monkeypatch.setattr(accounts, "_names", names)
    asked, found = Accounts(watcher), list[tuple[str, Account | str]]()
    asked.ask(["a"], [], lambda f: found.append(("a", f.user("a"))))
    watcher.wait()  # its child is under way
    assert watcher.children()
    number[0] = 2
    for name in ("b", "c"):
        asked.ask([name], [], lambda f, n=name: found.append((n, f.user(n))))  # type: ignore[misc]
    while asked.busy:
        watcher.wait()
    assert found == [(n, Account(u, 0, "/")) for n, u in (("a", 1), ("b", 2), ("c", 2))]


def test_a_child_that_dies_is_no_user_and_no_end(
    watcher: SystemWatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "_names", lambda *_: os._exit(1))
    found = Accounts(watcher).wait(["x"], [])
    assert "cannot be asked" in str(found.user("x"))


def test_without_a_process_it_is_said(
    watcher: SystemWatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_fork() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", no_fork)
    before = len(os.listdir("/dev/fd"))
    found = Accounts(watcher).wait(["x"], [])
    assert "cannot be asked: Resource" in str(found.user("x"))
    assert len(os.listdir("/dev/fd")) == before


def test_the_child_holds_nothing_of_ours(
    watcher: SystemWatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def names(_users: Iterable[str], _groups: Iterable[str]) -> Names:
        held = [fd for fd in range(3, 256) if _is_open(fd)]
        return {"users": {}, "groups": {"held": len(held)}}

    monkeypatch.setattr(accounts, "_names", names)
    ends = os.pipe()  # such as a go pipe, whose closing must mean something
    assert Accounts(watcher).wait([], ["held"]).groups == {"held": 0}
    for end in ends:
        os.close(end)


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
