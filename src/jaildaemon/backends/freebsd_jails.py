# SPDX-License-Identifier: BSD-2-Clause
"""Which jail it is: found once by jid or name, and from then on this very one.

A jid, even a fixed one with its name and path, comes back when a jail is
restarted.  FreeBSD 15 has descriptors of jails, which never mean another one.
13 and 14 have no generation, so there it is proved that a jail is the same: it
cannot have ended while a probe that was found in it is not reaped (its
credentials hold the jid, kern_jail.c), nor while a process that lived in it
then lives in it now.
"""

import errno
import os
import signal
import sys
import time
from typing import TypeGuard

from jaildaemon.backends import freebsd_libc as libc
from jaildaemon.backends.base import Jail, JailLost
from jaildaemon.core.text import utf8
from jaildaemon.errors import NoSuchJail, Refused

assert sys.platform.startswith("freebsd")

from jaildaemon.backends.freebsd_census import Census, Start, lives
from jaildaemon.backends.freebsd_watcher import FreeBSDWatcher

JAIL_HINT = "-j takes the jid or the name of a running jail, see jls(8)"
JAIL_MAX = 999_999  # sys/jail.h
SNAPSHOT_SECONDS = 1.0
"""How old a list of all processes may be: a burst of triggers must not make one each."""
GRACE_SECONDS = 2.0
"""Until we look who else is in a jail, and before we believe that it is nobody."""


class Prison:
    """One jail of the kernel, for as long as we speak of it.  All its handles share this."""

    def __init__(self, facts: libc.JailFacts, serial: int) -> None:
        self.jid, self.name, self.path, self.desc = facts.jid, facts.name, facts.path, facts.desc
        self.key = f"{facts.jid}:{facts.name}:{serial}"
        self.handles = 0
        self.probes: set[int] = set()
        """Verified to be in it, and not reaped."""
        self.verified = False
        """Whether there ever was such a probe."""
        self.found = self.pinned_since = time.monotonic()
        self.witnesses: dict[int, Start] = {}
        """Pid and start time of residents, the last ones seen."""
        self.lived_in = False
        """Whether there ever were some, or may have been."""
        self.companion = 0
        """The process whose end we wait for, or 0."""
        self.look_due = False

    def look(self) -> libc.JailFacts | None:
        """Return what stands in its place now; None if nothing does that we know it by."""
        try:
            if self.desc >= 0:
                return libc.jail_get(desc=self.desc, flags=libc.JAIL_USE_DESC)
            facts = libc.jail_get(jid=self.jid)
        except OSError:
            # ENOENT: none, or it is dying.  Whatever else it may be, the jail is not shown.
            return None
        return facts if (facts.name, facts.path) == (self.name, self.path) else None


class FreeBSDJail(Jail):
    """A handle of a jail."""

    def __init__(self, jails: "Jails", prison: Prison) -> None:
        self._jails, self.prison = jails, prison
        self.key, self.name, self.number = prison.key, prison.name, prison.jid
        prison.handles += 1

    def alive(self) -> bool:
        """Say whether the jail runs; on 13 and 14, whether one of its jid, name and path does."""
        return self.prison.look() is not None

    def identity(self) -> dict[str, object]:
        """Return jid, name, path, and the oldest processes of the jail that are not ours."""
        prison = self.prison
        witnesses = [[pid, *start] for pid, start in self._jails.witnesses(prison).items()]
        return {
            "jid": prison.jid,
            "name": prison.name,
            "path": prison.path,
            "witnesses": witnesses,
        }

    def unsettled(self) -> str | None:
        """Say why it is ending or has ended: dying, or nobody but our probes is left in it."""
        facts = self.prison.look()
        if facts is None:
            return "the jail has ended, or is dying"
        try:
            alone = not facts.persist and not self._jails.others(self.prison)
        except OSError as error:
            return f"its processes cannot be listed: {error.strerror or error}"
        return "no process is left in the jail" if alone else None

    def close(self) -> None:
        """Give back the handle; with the last one the jail is forgotten."""
        self.prison.handles -= 1
        if self.prison.handles == 0:
            self._jails.forget(self.prison)


def _are_witnesses(value: object) -> TypeGuard[list[list[int]]]:
    """Say whether this, out of the journal, is a list of pids with their start times."""
    return isinstance(value, list) and all(
        isinstance(each, list) and [type(number) for number in each] == [int] * 3 for each in value
    )


class Jails:
    """Every jail that we speak of, and the probes that stand in them."""

    def __init__(self, watcher: FreeBSDWatcher) -> None:
        self._watcher = watcher
        watcher.before_reap = self._before_reap
        self._pid = os.getpid()
        self._prisons: dict[int, Prison] = {}
        self._homes: dict[int, Prison] = {}
        """Where each verified probe is."""
        self._serial = 0
        self._descriptors = True
        """Until this kernel has been found to have none (before 15)."""
        self.census = Census()

    # --- finding -----------------------------------------------------------------

    def resolve(self, text: str) -> FreeBSDJail:
        """Find a jail by its jid or its name, as jls(8) of the host shows them."""
        facts = self._find(text)
        prison = self._prisons.get(facts.jid)
        if prison is not None and self._is(prison, facts):
            if facts.desc >= 0:
                os.close(facts.desc)
        else:
            self._serial += 1
            prison = self._prisons[facts.jid] = Prison(facts, self._serial)
        return FreeBSDJail(self, prison)

    def _find(self, text: str) -> libc.JailFacts:
        jid, name = 0, text
        if text.isascii() and text.isdecimal():
            # No long ones: int() of a million digits takes its time.
            jid, name = int(text) if len(text) <= len(str(JAIL_MAX)) else JAIL_MAX + 1, ""
            if jid == 0:
                raise NoSuchJail("attach", text, "is the host itself, not a jail", JAIL_HINT)
        try:
            size = len(utf8(name))
        except UnicodeEncodeError:
            size = libc.NAME_SIZE
        if not text or jid > JAIL_MAX or size >= libc.NAME_SIZE or "\0" in name:
            raise NoSuchJail(
                "attach", text[:80] or "''", "neither a jid nor a jail's name", JAIL_HINT
            )
        try:
            return self._get(jid, name)
        except OSError as error:
            why = error.strerror or str(error)
            if error.errno == errno.ENOENT:
                raise NoSuchJail("attach", text, why, JAIL_HINT) from error
            raise Refused("attach", text, f"the jail cannot be examined: {why}") from error

    def _get(self, jid: int, name: str) -> libc.JailFacts:
        """Call jail_get(2), with a descriptor of the jail where the kernel has them."""
        if self._descriptors:
            try:
                facts = libc.jail_get(jid=jid, name=name, flags=libc.JAIL_GET_DESC)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                self._descriptors = False
            else:
                # It is made without (kern_jaildesc.c), and in a jail it would be a way out.
                os.set_inheritable(facts.desc, False)
                return facts
        return libc.jail_get(jid=jid, name=name)

    def _is(self, prison: Prison, facts: libc.JailFacts) -> bool:
        """Say whether the jail just found is `prison`, which has the same jid."""
        now = prison.look()
        if now is None or now.jid != facts.jid:
            return False
        # A descriptor is proof.  Without one, what was never verified is what we
        # find: nothing has been built on it yet.
        return prison.desc >= 0 or not prison.verified or self._proven(prison)

    def forget(self, prison: Prison) -> None:
        """Take note that nobody speaks of `prison` any more."""
        if self._prisons.get(prison.jid) is prison:
            del self._prisons[prison.jid]
        self._watcher.unwatch_stranger(prison.companion, prison)
        if prison.desc >= 0:
            os.close(prison.desc)

    def witnesses(self, prison: Prison) -> dict[int, Start]:
        """Return some of the jail's processes, by which a later daemon can know it again."""
        try:
            return self.census.seen(prison.jid, max(prison.found, self.census.sparing()))
        except OSError:
            return {}  # then a later daemon will not know it again

    def recover(self, identity: dict[str, object], probe: int | None = None) -> FreeBSDJail:
        """Find the very jail of this identity, in this boot; NoSuchJail says why not."""
        jid, witnesses = identity.get("jid"), identity.get("witnesses")
        if not (isinstance(jid, int) and 0 < jid <= JAIL_MAX and _are_witnesses(witnesses)):
            raise NoSuchJail("attach", str(jid), "no jail was recorded")
        jail = self.resolve(str(jid))
        prison = jail.prison
        same = (prison.name, prison.path) == (identity.get("name"), identity.get("path"))
        if same and probe is not None and self._is_home(prison, probe):
            return jail
        if same and any(lives(pid, (sec, usec), prison.jid) for pid, sec, usec in witnesses):
            return jail
        jail.close()
        why = "no process of it is left to tell it from a later jail of the same jid"
        raise NoSuchJail("attach", str(identity.get("name")), why if same else "it has ended")

    def names(self) -> list[str]:
        """Return the names of our own jail's children, by one walk of jail_get(2)."""
        found: list[str] = []
        jid = 0
        while True:
            try:
                facts = libc.jail_get(after=jid)
            except OSError:
                return found  # ENOENT: that was the last
            jid = facts.jid
            if facts.parent == 0:
                found.append(facts.name)

    # --- proving -----------------------------------------------------------------

    def moved_in(self, jail: FreeBSDJail, pid: int) -> None:
        """Take note that our probe `pid` is in the jail; JailLost unless it is this very one."""
        prison = jail.prison
        probe, facts = libc.process(pid), prison.look()
        # 13, 14: the probe's credentials hold the jail that it has entered, so
        # its jid cannot mean another one now.  15: a living jail keeps its jid,
        # so where the descriptor's jail lives with the probe's, it is that one.
        if facts is None or probe.jid != facts.jid:
            raise JailLost("attach", jail.name, "the jail has ended")
        if prison.desc < 0 and prison.verified and not self._proven(prison):
            why = "no process of it is left to tell it from a later jail of the same jid"
            raise JailLost("attach", jail.name, why, "if it is the same, ask for the rule again")
        self.house(prison, pid)

    def _is_home(self, prison: Prison, pid: int) -> bool:
        """Say whether our child `pid` is in the jail of this jid, which it then has held."""
        try:
            process = libc.process(pid)
        except OSError:
            return False
        return process.ppid == self._pid and process.jid == prison.jid

    def house(self, prison: Prison, pid: int) -> None:
        """Take note that our probe `pid`, which is proven to be in the jail, holds it."""
        if not prison.probes:
            prison.pinned_since = time.monotonic()
        prison.verified = True
        prison.probes.add(pid)
        self._homes[pid] = prison
        if not prison.companion and not prison.look_due:
            self._look_later(prison)

    def _proven(self, prison: Prison) -> bool:
        """Say whether the jail of this jid, name and path is still `prison` (13 and 14)."""
        if any(self._watcher.watches(pid) for pid in prison.probes):
            return True
        if not prison.lived_in:
            # A jail in which nobody was ever seen to live.  It could only be
            # taken for one that the host's administrator has made with the same
            # jid, name and path; to refuse would make -r useless in it.
            return True
        return self._witnessed(prison)

    def _witnessed(self, prison: Prison) -> bool:
        return any(lives(pid, start, prison.jid) for pid, start in prison.witnesses.items())

    def _before_reap(self, pid: int) -> None:
        """Take note of who lives in the jail while a dead probe of ours still holds its jid."""
        prison = self._homes.pop(pid, None)
        if prison is None:
            return
        if prison.desc < 0 and not self._witnessed(prison) and prison.look() is not None:
            try:
                since = self._recently(prison)
                found = self.census.seen(prison.jid, since, residents=True)
                prison.witnesses = found or prison.witnesses
                prison.lived_in |= bool(found)
            except OSError:
                prison.lived_in = True  # unknown: the old ones, if any, are dead and prove nothing
        prison.probes.discard(pid)

    @staticmethod
    def _recently(prison: Prison) -> float:
        """Return the time that a list of all processes must be of, to be believed by itself."""
        # Before it was pinned, a jail of its jid may have been another.
        return max(prison.pinned_since, time.monotonic() - SNAPSHOT_SECONDS)

    # --- the end of a jail that does not persist -----------------------------------

    def _watch_end(self, prison: Prison, *, looked: bool = False) -> None:
        """See to it that our probes are not what keeps a jail alive.

        One that does not persist ends with its last process (jail(8)), and a
        probe is one (kern_jail.c, do_jail_attach takes pr_uref).  jail(8) takes
        the persistence of a jail with a command= away when that has ended.
        """
        prison.look_due = False
        if not (prison.handles and prison.probes):
            return  # nothing of ours keeps it; the next probe begins anew
        pause = self.census.pause()
        if pause and self.census.must_list(prison.jid, self._recently(prison)):
            self._look_later(prison, looked=looked, seconds=pause)
            return
        try:
            others = self.others(prison)
        except OSError:
            self._look_later(prison)
            return
        # The oldest is the likeliest to last.  When it ends, there may be others.
        for pid in others:
            try:
                self._watcher.watch_stranger(pid, prison, lambda _: self._look_later(prison))
            except OSError:
                continue  # ESRCH: it has ended in this instant
            prison.companion = pid
            return
        if others:
            self._look_later(prison)  # there may be more than were remembered
            return
        facts = prison.look()
        if facts is None or facts.persist:
            return
        if not looked:
            # The list is not made in one instant: who forks meanwhile may be missed.
            self._look_later(prison, looked=True)
            return
        for pid in prison.probes:
            self._watcher.signal_process(pid, signal.SIGKILL)

    def _look_later(
        self, prison: Prison, *, looked: bool = False, seconds: float = GRACE_SECONDS
    ) -> None:
        prison.companion, prison.look_due = 0, True
        self._watcher.call_in(seconds, lambda: self._watch_end(prison, looked=looked))

    def others(self, prison: Prison) -> dict[int, Start]:
        """Return some living processes of the jail that are not our children; OSError."""
        return self.census.seen(prison.jid, self._recently(prison))
