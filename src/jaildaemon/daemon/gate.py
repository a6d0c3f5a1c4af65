# SPDX-License-Identifier: BSD-2-Clause
"""How many probes are made, and ended, at a time.

Neither is a limit that anybody meets with a few rules: they keep ten thousand from
taking the host, which is busy with the jails that the rules are for.
"""

import functools
from collections import deque
from collections.abc import Callable, Hashable

from jaildaemon.backends.base import Watcher

MAX_ARMING = 32
"""Helpers at work at a time: more would only wait for a processor."""
PLACE_SECONDS = 0.5
"""How long one of them keeps its place.  A jail that lets none be done, stopped or full,
holds up no other jail's for longer; its own take the seconds they are given."""
MAX_KILLED, KILL_SECONDS = 128, 0.02
"""Probes that are killed in how long.  Linux gives back two filters for each, in one
queue for all of the host: ten thousand at once keep it busy for seconds, or for good."""


class Gate:
    """Lets armings begin, in the order in which they were asked for."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._waiting: dict[Hashable, Callable[[], None]] = {}
        self._places: dict[Hashable, int] = {}
        """Who is at work, with the deadline of its place."""

    def enter(self, who: Hashable, begin: Callable[[], None]) -> None:
        """Call `begin`, now or when there is a place.  `leave` must follow."""
        self._waiting[who] = begin
        self._let_in()

    def leave(self, who: Hashable) -> None:
        """Take note that `who` is done, or does not want to begin any more."""
        self._waiting.pop(who, None)
        deadline = self._places.pop(who, None)
        if deadline is not None:
            self._watcher.cancel(deadline)
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and len(self._places) < MAX_ARMING:
            who = next(iter(self._waiting))
            begin = self._waiting.pop(who)
            expire = functools.partial(self._expire, who)
            self._places[who] = self._watcher.call_in(PLACE_SECONDS, expire)
            begin()

    def _expire(self, who: Hashable) -> None:
        del self._places[who]
        self._let_in()


class Pace:
    """Makes calls as they come, but only so many in any stretch of time."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._waiting: deque[Callable[[], None]] = deque()
        self._left = MAX_KILLED
        self._ticking = False

    def call(self, what: Callable[[], None]) -> None:
        """Call `what`, now or soon."""
        self._waiting.append(what)
        self._go_on()

    def _go_on(self) -> None:
        while self._waiting and self._left:
            self._left -= 1
            self._waiting.popleft()()
        if not self._ticking and self._left < MAX_KILLED:
            self._ticking = True
            self._watcher.call_in(KILL_SECONDS, self._tick)

    def _tick(self) -> None:
        self._ticking = False
        self._left = MAX_KILLED
        self._go_on()
