# SPDX-License-Identifier: BSD-2-Clause
"""Users and groups by name, looked up anew each time, in a child that has a deadline.

The host's account database may be a directory server that does not answer.  It
must never be asked in the daemon itself, nor be believed for longer than once.
"""

import contextlib
import errno
import grp
import json
import os
import pwd
import select
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from jaildaemon.backends.base import Watcher

SECONDS = 5.0
"""How long a look-up may take."""
MAX_BYTES = 1 << 22
"""Of what a look-up says: a user may be in 65,536 groups."""
NO_USER, NO_GROUP = "the host has no such user", "the host has no such group"
NO_ANSWER = "the host's account database does not answer"
OURS = "root"
"""The user that the daemon runs as: never looked up, so that a run as root waits for nobody."""


class Account(NamedTuple):
    """A user of the host, as a command needs it."""

    uid: int
    gid: int
    home: str
    groups: tuple[int, ...] = ()

    @property
    def numbers(self) -> str:
        """The numbers that tell whether it is still the same."""
        return f"uid {self.uid} gid {self.gid}"


def our_account(home: str = "/root") -> Account:
    """Return the account that the daemon itself has."""
    return Account(os.geteuid(), os.getegid(), home)


@dataclass(frozen=True, slots=True)
class Found:
    """What a look-up found; `trouble` says why it could not look."""

    users: dict[str, Account] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)
    trouble: str | None = None
    asked: frozenset[str] = frozenset()
    """The users that were asked for."""

    def user(self, name: str) -> Account | str:
        """Return the user, or why there is none."""
        return self.users.get(name) or self.trouble or NO_USER

    def group(self, name: str) -> int | str:
        """Return the number of the group, or why there is none."""
        return self.groups.get(name, self.trouble or NO_GROUP)


def look_up(users: Iterable[str], groups: Iterable[str] = ()) -> Found:
    """Look names up, and wait for it, until the deadline: not for a daemon."""
    try:
        pid, fd = _start(users, groups)
    except OSError as error:
        return Found(trouble=_cannot(error))
    data, end = b"", time.monotonic() + SECONDS
    trouble: str | None = NO_ANSWER
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while poll.poll(max(0.0, end - time.monotonic()) * 1000):
        more = os.read(fd, 65536)
        data += more
        if not more or len(data) > MAX_BYTES:
            trouble = None
            break
    os.close(fd)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    # One that hangs in the kernel is left to whoever reaps us: we shall not wait for it.
    os.waitpid(pid, 0 if trouble is None else os.WNOHANG)
    return _read(data) if trouble is None else Found(trouble=trouble)


class Accounts:
    """Look-ups of a running daemon: one child at a time, for all who have asked meanwhile."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self.ours = our_account()
        self._at_start = Found()
        self._asked: list[_Question] = []
        self._under_way: list[_Question] = []

    @property
    def busy(self) -> bool:
        """Whether somebody waits for an answer."""
        return bool(self._asked or self._under_way)

    def ask(
        self, users: Iterable[str], groups: Iterable[str], answer: "Callable[[Found], None]"
    ) -> None:
        """Look names up; `answer` is called later, never within this call."""
        self._asked.append(_Question(frozenset(users), frozenset(groups), answer))
        if not self._under_way:
            self._watcher.call_in(0, self._next)

    def wait(self, users: Iterable[str], groups: Iterable[str]) -> Found:
        """Look names up, ours too, before anything is served; no longer than the deadline."""
        answers: list[Found] = []
        self.ask({OURS, *users}, groups, answers.append)
        while not answers:
            self._watcher.wait()
        self._at_start = answers[0]
        us = self._at_start.user(OURS)
        if isinstance(us, Account):
            self.ours = our_account(us.home)
        return self._at_start

    def uid_at_start(self, name: str) -> int | None:
        """Return the uid that a user had at our start, None for one that was not found."""
        account = self.ours if name == OURS else self._at_start.user(name)
        return account.uid if isinstance(account, Account) else None

    def _next(self) -> None:
        if self._under_way or not self._asked:
            return
        # Never with what a look-up has found that began before the question.
        self._under_way, self._asked = self._asked, []
        users = frozenset[str]().union(*(question.users for question in self._under_way))
        groups = frozenset[str]().union(*(question.groups for question in self._under_way))
        if not users and not groups:
            self._found(Found())
            return
        try:
            _LookUp(self._watcher, users, groups, self._found)
        except OSError as error:
            self._found(Found(trouble=_cannot(error)))

    def _found(self, found: Found) -> None:
        answered, self._under_way = self._under_way, []
        if self._asked:
            self._watcher.call_in(0, self._next)
        for question in answered:
            question.answer(replace(found, asked=question.users))


class _Question(NamedTuple):
    users: frozenset[str]
    groups: frozenset[str]
    answer: Callable[[Found], None]


class _LookUp:
    """One child; OSError where it cannot be started."""

    def __init__(
        self,
        watcher: Watcher,
        users: Iterable[str],
        groups: Iterable[str],
        found: Callable[[Found], None],
    ) -> None:
        self._watcher, self._found = watcher, found
        self._data = b""
        self._pid, self._fd = _start(users, groups)
        watcher.watch_process(self._pid, lambda _: None)
        self._deadline = watcher.call_in(SECONDS, self._too_late)
        try:
            watcher.watch_fd(self._fd, self._readable)
        except BaseException:
            watcher.cancel(self._deadline)
            os.close(self._fd)
            raise

    def _readable(self) -> None:
        data = os.read(self._fd, 65536)
        self._data += data
        if not data or len(self._data) > MAX_BYTES:
            self._over(_read(self._data))

    def _too_late(self) -> None:
        self._watcher.signal_process(self._pid, signal.SIGKILL)
        self._over(Found(trouble=NO_ANSWER))

    def _over(self, found: Found) -> None:
        self._watcher.cancel(self._deadline)
        self._watcher.unwatch_fd(self._fd)
        os.close(self._fd)
        self._found(found)


def _cannot(error: OSError) -> str:
    return f"the host's account database cannot be asked: {error.strerror}"


def _start(users: Iterable[str], groups: Iterable[str]) -> tuple[int, int]:
    """Start a child that looks up; return its pid, and what it writes to.

    By fork, not a program: none of an older installation is needed.  We have one
    thread.  Signals are blocked, or the child would tell our loop of them.
    """
    read_fd, write_fd = os.pipe()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            _be_the_child(write_fd, users, groups)
    except BaseException:
        os.close(read_fd)
        raise
    finally:
        os.close(write_fd)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid, read_fd


def _be_the_child(write_fd: int, users: Iterable[str], groups: Iterable[str]) -> None:
    """Look up, write, and end: whatever happens, this never returns."""
    try:
        # First of all: a go pipe or a client's connection must not live on in us.
        if write_fd != 0:
            os.dup2(write_fd, 0)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        # Should the daemon die, and we hang.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(round(SECONDS) + 1)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
        data = json.dumps(_names(users, groups)).encode("ascii")
        while data:
            data = data[os.write(0, data) :]
    finally:
        os._exit(0)


def _names(users: Iterable[str], groups: Iterable[str]) -> dict[str, dict[str, object]]:
    """Ask the host's database, which may never answer."""
    found: dict[str, dict[str, object]] = {"users": {}, "groups": {}}
    for name in users:
        with contextlib.suppress(KeyError, ValueError):  # ValueError: a NUL
            entry = pwd.getpwnam(name)
            more = os.getgrouplist(name, entry.pw_gid)
            found["users"][name] = (entry.pw_uid, entry.pw_gid, entry.pw_dir, more)
    for name in groups:
        with contextlib.suppress(KeyError, ValueError):
            found["groups"][name] = grp.getgrnam(name).gr_gid
    return found


def _read(data: bytes) -> Found:
    """Return what a child has written, all of it."""
    try:
        found = json.loads(data)
        users = {
            name: Account(uid, gid, home, tuple(groups))
            for name, (uid, gid, home, groups) in found["users"].items()
        }
        return Found(users, found["groups"])
    except (ValueError, KeyError, TypeError):  # it was killed, or the machine has no memory
        return Found(trouble=_cannot(OSError(errno.EIO, "the look-up was ended")))
