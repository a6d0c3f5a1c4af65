# SPDX-License-Identifier: BSD-2-Clause
"""Log, Entries and Explain, and the warnings of Status: what was, what would be, and why."""

from collections import deque
from typing import TYPE_CHECKING, Protocol

from jaildaemon.backends.base import Jail
from jaildaemon.core import breaker, wire
from jaildaemon.core.entries import Entries, Entry
from jaildaemon.core.fleet import Member, Shown
from jaildaemon.core.lifecycle import Phase
from jaildaemon.core.reasons import ringing_others
from jaildaemon.core.text import shown, shown_number
from jaildaemon.daemon import schema
from jaildaemon.daemon.call import Call, Parameters
from jaildaemon.daemon.hub import Hub
from jaildaemon.errors import Ambiguous, JaildaemonError, NoSuchJail, NoSuchRule, Refused

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_FOLLOWERS = 16
"""Who may read the log at a time."""
MAX_LAST = 1000
"""Of `last`: so many entries are kept while the journal is read, 2 KB each at most."""
MAX_WARNINGS = 20


class Rules(Protocol):
    """What tells of rules."""

    def of_jail(self, jail: str, title: str | None = None) -> list[Member]:
        """Return the rules of a jail."""

    def describe(self, member: Member) -> Parameters:
        """Return a Rule of the interface."""


class Inquiry:
    """The methods; `table` is for the table of all methods."""

    def __init__(self, rules: Rules, hub: Hub) -> None:
        self._rules, self._hub = rules, hub
        self._followers: set[Follower] = set()
        hub.journal.written = self._written
        self.table: dict[str, tuple[type, Callable[..., None]]] = {
            f"{wire.INTERFACE}.Log": (schema.Log, self.log),
            f"{wire.INTERFACE}.Entries": (schema.Log, self.entries),
            f"{wire.INTERFACE}.Explain": (schema.Explain, self.explain),
        }

    def log(self, wish: schema.Log, call: Call) -> None:
        """Stream the entries asked for, and then each new one, until the client hangs up."""
        self._follow(wish, call, ends=False)

    def entries(self, wish: schema.Log, call: Call) -> None:
        """Stream the entries asked for; the last answer has none."""
        self._follow(wish, call, ends=True)

    def _follow(self, wish: schema.Log, call: Call, *, ends: bool) -> None:
        if call.stream is None:
            raise Refused("log", wish.rule or "", 'the answer is long: call it with "more"')
        if wish.last is not None and not 0 <= wish.last <= MAX_LAST:
            raise Refused("log", f"last {shown_number(wish.last)}", f"is not from 0 to {MAX_LAST}")
        if len(self._followers) >= MAX_FOLLOWERS:
            raise Refused("log", "the log", f"{MAX_FOLLOWERS} clients read it already")
        try:
            self._hub.journal.stay()
            follower = Follower(self._hub, call, wish, ends=ends)
        except OSError as error:
            why = f"the journal cannot be read: {error.strerror}"
            raise Refused("log", "the log", why) from error
        self._followers.add(follower)
        call.hung_up = follower.over = lambda: self._over(follower)
        follower.wake = call.stream(follower.pull)

    def _over(self, follower: "Follower") -> None:
        self._followers.discard(follower)
        follower.close()

    def _written(self) -> None:
        for follower in self._followers:
            follower.wake_soon()

    def explain(self, wish: schema.Explain, call: Call) -> None:
        """Answer with the rules of a jail that a title rings, whatever it was called at -j."""
        members = self._rules.of_jail(wish.jail)
        if members:
            keys = sorted({member.jail_key for member in members} - {""})
            same = [member for key in keys for member in self._hub.fleet.of_jail(key)]
            more = [member for member in same if member not in members]
            self._answer_with(members + more, wish, call)
            return

        def found(jail: Jail | JaildaemonError) -> None:
            if isinstance(jail, JaildaemonError):
                jail.what = "explain"
                if isinstance(jail, NoSuchJail):
                    jail.hint = "call it as jaildaemon list does"
                call.answer(jail)
                return
            of_it = self._hub.fleet.of_jail(jail.key)
            self._hub.forget_jail(jail.key)
            self._answer_with(of_it, wish, call)

        self._hub.find(wish.jail, found)

    def _answer_with(self, members: list[Member], wish: schema.Explain, call: Call) -> None:
        rules = [
            self._rules.describe(member)
            for member in members
            if wish.title is None or member.rule.title == wish.title
        ]
        on = wish.jail if wish.title is None else f"{wish.jail}/{wish.title}"
        none = NoSuchRule("explain", shown(on), "no rule is for it", "see jaildaemon list")
        call.answer({"rules": rules} if rules else none)


class Follower:
    """One client that reads the log: at its own pace, from the journal itself."""

    def __init__(self, hub: Hub, call: Call, wish: schema.Log, *, ends: bool) -> None:
        self._watcher, self._call, self._wish = hub.backend.watcher, call, wish
        self._known = wish.rule is not None and _is_known(hub, wish.rule)
        self._reader = hub.journal.reader()
        self._entries = Entries(wish.rule)
        self._ends = ends
        self._ready: deque[Entry] = deque(maxlen=wish.last)
        self._at_end = self._any = self._woken = self._closed = False
        self.wake: Callable[[], None] = lambda: None
        self.over: Callable[[], None] = lambda: None

    def close(self) -> None:
        """Read no more."""
        if not self._closed:
            self._closed = True
            self._reader.close()

    def wake_soon(self) -> None:
        """Go on, when others have had their turn."""
        if not self._woken:
            self._woken = True
            self._watcher.call_in(0, self._wake)

    def _wake(self) -> None:
        self._woken = False
        self.wake()

    def pull(self) -> Parameters | None:
        """Return one entry; or none, after some reading."""
        if self._closed:
            return None
        gathering = self._wish.last is not None and not self._at_end
        if gathering or not self._ready:
            self._read()
        if self._ready and (self._at_end or self._wish.last is None):
            self._any = True
            return {"entry": self._ready.popleft()}
        if self._at_end and self._ends:
            self.over()
            self._call.answer(self._end())
        return None

    def _read(self) -> None:
        try:
            records = self._reader.read()
        except OSError as error:
            self.over()
            why = f"the journal cannot be read: {error.strerror}"
            self._call.answer(Refused("log", "the log", why))
            return
        if records is None:
            if not self._at_end:
                self._at_end = True
                # From here on nothing is forgotten: what comes is as much as is read at once.
                self._ready = deque(self._ready)
            return
        found = (self._entries.read(record) for record in records)
        self._ready.extend(entry for entry in found if entry is not None)
        if not (self._ready and self._at_end):
            self.wake_soon()

    def _end(self) -> Parameters | NoSuchRule:
        if self._wish.rule is None or self._any or self._known:
            return {}
        return NoSuchRule("log", self._wish.rule, "nothing is known of such a rule")


def _is_known(hub: Hub, rule: str) -> bool:
    try:
        hub.fleet.find(rule, "log")
    except NoSuchRule:
        return False
    except Ambiguous:
        pass
    return True


def warnings(hub: Hub, *, commands: bool) -> list[str]:
    """Return what an administrator should look at, the gravest first.

    Without `commands` nothing is in it that only root may see.
    """
    now, found = hub.now(), hub.upkeep()
    if hub.journal.unwritten:
        found.append(f"the journal cannot be written: {hub.journal.unwritten} records wait")
    if hub.runner.trouble is not None:
        found.append(f"what commands write is not kept: {hub.runner.trouble}")
    if (trouble := hub.log.trouble()) is not None:
        found.append(trouble)
    names = hub.roster.names
    found += [why for why in names.engines().values() if why is not None]
    found += [f"{shown(name)}: {why}" for name, why in sorted(names.refused().items())]
    if hub.readers_trouble is not None:
        found.append(hub.readers_trouble)
    most, probes = hub.backend.most_probes, hub.fleet.count(Phase.ARMED)
    if most is not None and probes > most:
        found.append(f"{probes} probes: see jaildaemon(1), BUGS, of more than {most}")
    for key in hub.journal.history.breaks:
        seconds = breaker.broken(hub.journal.history.breaks, key, now.wall)
        if seconds is not None:
            title, _, command = key.partition("\0")
            what = shown(title or (command if commands else "a rule without a title"))
            found.append(f"{what}: taken for a loop, and refused for {seconds / 60:.0f} min")
    if hub.fleet.queued:
        found.append(f"{hub.fleet.queued} runs wait for a place")
    told = (Shown.LIMITED, Shown.FAILING)
    found += [
        f"{member.rule.id}: {hub.why_not_armed(member)}"
        for member in hub.fleet.members.values()
        if member.shown(now) in told
    ]
    found += [
        f"{member.rule.id}: its title rings others of its jail too"
        for member in ringing_others(hub.fleet.members.values())
    ]
    more = len(found) - MAX_WARNINGS
    return found[:MAX_WARNINGS] + ([f"and {more} more"] if more > 0 else [])
