# SPDX-License-Identifier: BSD-2-Clause
"""The rules in files: which there are, and which jail each of them has now.

`settle` is the whole of it: it compares what a rule has with what it should
have, takes one step nearer, and is called again after every event.
"""

from collections import Counter
from typing import TYPE_CHECKING

from jaildaemon.backends.base import Jail
from jaildaemon.core import breaker, config
from jaildaemon.core.config import Configuration, FileRule
from jaildaemon.core.fleet import Member
from jaildaemon.core.lifecycle import Event, Phase
from jaildaemon.core.rules import Rule
from jaildaemon.daemon.engine_follower import ANOTHER, ENDED
from jaildaemon.daemon.followers import EngineNames
from jaildaemon.daemon.names import KernelNames, Names

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaildaemon.daemon.hub import Hub

ABSENT = "no such jail runs"
SPENT = "its one shot is spent until the jail starts anew"
CHANGED = "its rule changed"
BROKEN = f"the host went down {breaker.MAX_BREAKS} times within an hour while it ran: a loop?"
LOST_SECONDS = 1.0
"""Until it is looked again for a jail that was said to run, and could not be entered."""
_AT_REST = (Phase.WAITING, Phase.HELD)
_ENDING = (Phase.HOLDING, Phase.WITHDRAWING, Phase.LEAVING, Phase.GONE)


class Roster:
    """Every rule in a file.  `engines` says whether they, and not the kernel, name the jails."""

    def __init__(self, hub: "Hub", *, engines: bool) -> None:
        self._hub = hub
        self.configuration = Configuration()
        self._started = False
        """Until the journal has been taken up nothing is made or moved."""
        self._rules: dict[str, FileRule] = {}
        self._members: dict[str, Member] = {}
        self._successors: dict[str, Rule] = {}
        """Of a rule that changed, by id: what it will be when it has no probe any more."""
        self._holds: dict[str, str] = {}
        """Of a held rule that means another jail now, by id: why the new one is held."""
        self.present: dict[str, Jail] = {}
        self._ends: dict[str, Callable[[], None]] = {}
        self.pinned: Counter[str] = Counter()
        """The keys of the jails that are present."""
        self.names: Names
        if engines:
            self.names = EngineNames(hub.backend, self, hub.log)
        else:
            self.names = KernelNames(hub.backend, self)

    # --- the files ---------------------------------------------------------------

    def expected(self, rule_id: str, jail: str) -> Rule | None:
        """Return what the files say now of a rule of this id."""
        rule = self._rules.get(rule_id.partition("@")[0])
        made = rule.rule(jail) if rule is not None and rule.fits(jail) else None
        return made if made is not None and made.id == rule_id else None

    def take(self, configuration: Configuration) -> None:
        """Take the files of the start; `load` follows when the journal has been read."""
        self.configuration = configuration
        self._rules = {rule.name: rule for rule in configuration.rules}

    def load(self, configuration: Configuration) -> tuple[list[str], list[Member], int]:
        """Take new files; return the names that are added or changed, who is withdrawn, and kept.

        What is unchanged is not touched.
        """
        old = self._rules
        self.take(configuration)
        added = [
            name
            for name, rule in self._rules.items()
            if name not in old or not _alike(old[name], rule)
        ]
        removed = []
        for member in list(self._members.values()):
            rule = self.expected(member.rule.id, member.rule.jail)
            if rule is None:
                removed.append(member)
                if member.life.phase in (Phase.HELD, Phase.HOLDING):
                    self.carry(member.rule.id, member.reason or "")
            elif not config.same(rule, member.rule):
                self._successors[rule.id] = rule
            else:
                self._successors.pop(rule.id, None)
                self._hub.fleet.change(member, rule)  # from another file, perhaps
        for member in removed:
            self._members.pop(member.rule.id, None)
            self._successors.pop(member.rule.id, None)
            self._hub.detach(member)
        self.start()
        return added, removed, len(self._rules) - len(added)

    def removed_names(self, before: Configuration) -> list[str]:
        """Return the names that are not there any more, or mean something else."""
        return [
            rule.name
            for rule in before.rules
            if rule.name not in self._rules or not _alike(rule, self._rules[rule.name])
        ]

    def start(self) -> None:
        """Make what is missing, and watch for what it needs."""
        self._started = True
        self._fill()
        for name in [n for n in self.present if not self._fitting(n)]:
            self._drop(name)
        for member in list(self._members.values()):
            self.settle(member)
        self.names.want(self.configuration.rules, self.configuration.engines)

    def _fitting(self, name: str) -> list[FileRule]:
        return [rule for rule in self._rules.values() if rule.fits(name)]

    def _fill(self) -> None:
        for rule in self._rules.values():
            if not rule.is_pattern and rule.name not in self._hub.fleet.members:
                self._ensure(rule.rule(rule.jail))
        for name in self.present:
            for rule in self._fitting(name):
                self._ensure(rule.rule(name))

    def _ensure(self, rule: Rule) -> None:
        """Make the rule of the fleet, unless an earlier one of its id is still ending."""
        hub = self._hub
        if rule.id in hub.fleet.members:
            return
        member = hub.fleet.restore(rule, "", phase=Phase.WAITING)
        hub.keep(member, None)
        self.adopt(member)
        hub.note_jail(member)
        self.settle(member)

    def carry(self, rule_id: str, why: str) -> None:
        """Keep a hold for what the files call so now: an edit is no release."""
        if rule_id in self._rules:
            self._holds[rule_id] = why

    def adopt(self, member: Member) -> None:
        """Take a rule that is made; held if the host did not survive it too often."""
        hub, rule = self._hub, member.rule.id
        self._members[rule] = member
        key = breaker.key(member.rule.title, member.rule.command)
        broken = breaker.broken(hub.journal.history.breaks, key, hub.now().wall)
        why = self._holds.pop(rule, None if broken is None else BROKEN)
        if why is None or member.life.phase is not Phase.WAITING:
            return
        hub.note_jail(member)
        hub.fleet.set_phase(member, Phase.HELD, hub.now())
        member.reason = why
        hub.journal.keep(hub.journal.record("hold", rule=rule, reason=why))
        hub.journal.sync()  # a loop of reboots must not go faster than the disk
        hub.log.warning(f"held: {why}", rule=member.rule)

    # --- the jails ---------------------------------------------------------------

    def names_of(self, prefix: str) -> set[str]:
        """Return the present names that begin so."""
        return {name for name in self.present if name.startswith(prefix)}

    def is_absent(self, rule: FileRule) -> bool:
        """Say whether a jail that the rule means may still have to be found."""
        return rule.is_pattern or rule.jail not in self.present

    def seen(self, name: str, jail: Jail) -> None:
        """Take note that `jail`, a fresh handle, has this full name now."""
        hub = self._hub
        jail = hub.share(jail)
        if self.present.get(name) is jail:
            return
        if not self._fitting(name) or hub.ending:
            hub.forget_jail(jail.key)
            return
        if name in self.present:
            self._note_why(name, ANOTHER)
        self._drop(name)
        try:
            self._ends[name] = hub.backend.watch_end(jail, lambda: self._ended(name))
        except OSError as error:  # no descriptor is left: its end would be missed
            hub.log.error(f"{name}: cannot be watched now: {error.strerror}")
            hub.forget_jail(jail.key)
            self._settle_all(name)
            self.names.look(name, LOST_SECONDS)
            return
        self.present[name] = jail
        self.pinned[jail.key] += 1
        if self._started:
            self._fill()
            self._settle_all(name)

    def jail_of(self, name: str) -> Jail | None:
        """Return the jail that has this name."""
        return self.present.get(name)

    def gone(self, name: str, why: str) -> None:
        """Take note that what had this name has it no more."""
        if name in self.present:
            self._note_why(name, why)
            self._drop(name)
            self._settle_all(name)

    def _note_why(self, name: str, why: str) -> None:
        for member in self._members.values():
            if member.rule.jail == name:
                self._hub.keepers[member.rule.id].left = why

    def _ended(self, name: str) -> None:
        self.gone(name, ENDED)
        self.names.look(name, 0.0)

    def lost(self, member: Member, jail_key: str) -> None:
        """Take note that a rule found its jail ended, before anybody else did."""
        jail = self.present.get(member.rule.jail)
        if jail is not None and jail.key == jail_key:
            # Who says that it runs says so still: not at once again, and again.
            self.gone(member.rule.jail, ENDED)
            self.names.look(member.rule.jail, LOST_SECONDS)
        else:
            self.settle(member)

    def _drop(self, name: str) -> None:
        jail = self.present.pop(name, None)
        if jail is None:
            return
        self._ends.pop(name)()
        self.pinned[jail.key] -= 1
        if not self.pinned[jail.key]:
            del self.pinned[jail.key]
        self._hub.forget_jail(jail.key)

    def _settle_all(self, name: str) -> None:
        for member in list(self._members.values()):
            if member.rule.jail == name:
                self.settle(member)
        self._prune()

    def _prune(self) -> None:
        """Forget the rules of a pattern whose jail is gone, when nothing of them matters."""
        now = self._hub.now()
        for member in list(self._members.values()):
            limit = member.rule.policy.limit
            since = now.wall - (member.last_trigger or 0.0)
            forgotten = member.last_trigger is None or limit is None or since > limit.seconds
            if self.is_hidden(member) and forgotten and not member.wait(now):
                self._hub.detach(member)

    @staticmethod
    def is_hidden(member: Member) -> bool:
        """Say whether a pattern's rule has no jail any more: only its limit may still count."""
        idle = member.life.phase is Phase.WAITING and not member.runs and not member.jail_key
        return idle and "@" in member.rule.id

    # --- one rule ----------------------------------------------------------------

    def settle(self, member: Member) -> None:
        """Take the next step to what the rule should be."""
        hub = self._hub
        rule = member.rule
        if hub.ending or not self._started:
            return
        if member.life.over or self._members.get(rule.id) is not member:
            if self._members.get(rule.id) is member:
                del self._members[rule.id]
                self._successors.pop(rule.id, None)
            self._fill()
            return
        successor = self._successors.get(rule.id)
        jail = self.present.get(rule.jail)
        stale = bool(member.jail_key) and (jail is None or jail.key != member.jail_key)
        phase = member.life.phase
        if phase in _ENDING:
            return  # an event follows
        if phase not in _AT_REST:
            if stale or successor is not None:
                hub.event(member, Event.LEFT)
            return
        if successor is not None:
            self._change(member, successor)
            if not stale and phase is Phase.WAITING:
                stale, hub.keepers[rule.id].left = True, CHANGED
        if stale and member.jail_key:
            hub.leave(member)
        if jail is not None and not member.jail_key:
            hub.appear(member, jail)

    def _change(self, member: Member, successor: Rule) -> None:
        hub = self._hub
        del self._successors[member.rule.id]
        for run in list(member.runs):
            if hub.runner.waits(run):
                hub.runner.refuse(run, "expired", CHANGED)
        hub.fleet.change(member, successor)
        hub.note_jail(member)
        hub.log.info("changed", rule=member.rule)

    def why(self, member: Member) -> str | None:
        """Say why a rule that waits does."""
        if member.life.phase is not Phase.WAITING:
            return None
        if member.jail_key:
            return SPENT
        return self.names.trouble(member.rule.jail) or ABSENT

    def stop(self) -> None:
        """Watch nothing any more."""
        self.names.stop()
        for name in list(self.present):
            self._drop(name)


def _alike(one: FileRule, other: FileRule) -> bool:
    return config.same(one.rule(one.jail), other.rule(other.jail))
