# SPDX-License-Identifier: BSD-2-Clause
"""Who lives in which jail, and what it may cost to find that out.

The kernel lists no jail's processes, only everybody's, and a fork bomb in one
jail makes that dear.  So the last list is kept.  It is believed for as long as
its caller allows; after that it only says whom to ask for, one by one: a process
that lived in a jail of this jid and lives in one now has never left it.
"""

import os
import sys
import time

from jaildaemon.backends import freebsd_libc as libc

assert sys.platform.startswith("freebsd")

INIT_PID = 1
WITNESSES = 8
"""How many of a jail's oldest processes are remembered.  One that lives on is enough."""
SPARING = 100
"""What a list took of the processor, so many times over: the pause after it, where we may wait."""
LONGEST_PAUSE = 60.0

Start = tuple[int, int]


def start_since_boot(process: libc.ProcessFacts) -> Start:
    """Return when a process was started, in seconds and microseconds after the boot."""
    # The kernel adds the boot time, which moves when the clock is set.
    return _since(libc.boot_time(), process)


def _since(boot: tuple[int, int], process: libc.ProcessFacts) -> Start:
    seconds, microseconds = process.start[0] - boot[0], process.start[1] - boot[1]
    # As one number: how it is carried would depend on the clock.
    return divmod(seconds * 1_000_000 + microseconds, 1_000_000)


def lives(pid: int, start: Start, jid: int) -> bool:
    """Say whether that very process still lives in jail `jid`."""
    try:
        process = libc.process(pid)
    except OSError:
        return False
    return not process.zombie and process.jid == jid and start_since_boot(process) == start


class Census:
    """The last list of all processes, without our children, the dead, and who is in no jail."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self.lists = 0
        """How many were made."""
        self._began = self._ended = float("-inf")
        self._cost = 0.0
        self._boot = (0, 0)
        self._jails: dict[int, list[libc.ProcessFacts]] = {}
        self._oldest: dict[tuple[int, bool], dict[int, Start]] = {}
        """By jid, and whether visitors are left out."""

    def pause(self) -> float:
        """Return the seconds until the next list, if it can wait."""
        pause = min(self._cost * SPARING, LONGEST_PAUSE)
        return max(0.0, self._ended + pause - time.monotonic())

    def sparing(self) -> float:
        """Return the earliest time of which a list may be now, where an old one does."""
        return self._began if self.pause() else time.monotonic()

    def must_list(self, jid: int, since: float) -> bool:
        """Say whether `seen` has to list, for nobody of the last list is left."""
        return self._began < since and not self._living(jid, residents=False)

    def seen(self, jid: int, since: float, *, residents: bool = False) -> dict[int, Start]:
        """Return a jail's oldest processes, of those that are remembered the living; OSError.

        Where none is left it is as a list begun after `since` has it, so nobody
        is returned only if such a list has nobody.
        """
        known = self._known(jid, residents=residents)
        living = self._living(jid, residents=residents)
        if len(living) < len(known) and not self.pause():
            since = time.monotonic()
        elif living:
            return living
        if self._began < since:
            self._list()
        return self._known(jid, residents=residents)

    def _living(self, jid: int, *, residents: bool) -> dict[int, Start]:
        known = self._known(jid, residents=residents)
        return {pid: start for pid, start in known.items() if lives(pid, start, jid)}

    def _list(self) -> None:
        began, used = time.monotonic(), time.process_time()
        boot, jails = libc.boot_time(), dict[int, list[libc.ProcessFacts]]()
        for process in libc.processes():
            if process.jid and not process.zombie and process.ppid != self._pid:
                jails.setdefault(process.jid, []).append(process)
        self._began, self._boot, self._jails = began, boot, jails
        self._oldest.clear()
        self._cost, self._ended = time.process_time() - used, time.monotonic()
        self.lists += 1

    def _known(self, jid: int, *, residents: bool) -> dict[int, Start]:
        found = self._oldest.get((jid, residents))
        if found is None:
            inside = self._jails.get(jid, [])
            chosen = _residents(inside) if residents else inside
            oldest = sorted(chosen, key=lambda p: p.start)[:WITNESSES]
            found = {p.pid: _since(self._boot, p) for p in oldest}
            self._oldest[jid, residents] = found
        return found


def _residents(inside: list[libc.ProcessFacts]) -> list[libc.ProcessFacts]:
    """Return a jail's processes without its visitors.

    Who came by jexec(8) has an ancestor outside, and goes again; who lives
    there was left to init.
    """
    everybody = {process.pid: process for process in inside}
    known = {INIT_PID: True}

    def lives_there(process: libc.ProcessFacts) -> bool:
        # Each is asked once: a jail may have thousands, each the child of another.
        pid, path = process.pid, []
        while pid not in known:
            # A circle ends here, too: the list is not made in one instant.
            known[pid] = False
            asked = everybody.get(pid)
            if asked is None:
                break
            path.append(pid)
            pid = asked.ppid
        known.update(dict.fromkeys(path, known[pid]))
        return known[process.pid]

    return list(filter(lives_there, inside))
