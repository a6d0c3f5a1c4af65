# SPDX-License-Identifier: BSD-2-Clause
"""The daemon's middle: the fleet decides, the keepers and the runner do, the journal keeps."""

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from jaildaemon.backends.base import Backend, Jail
from jaildaemon.core.fleet import Act, Do, Fleet, Member, Now, Run
from jaildaemon.core.lifecycle import Event, Phase
from jaildaemon.core.reasons import why_not_armed
from jaildaemon.core.rules import Rule
from jaildaemon.daemon.accounts import OURS, Accounts, Found
from jaildaemon.daemon.gate import Gate, Pace
from jaildaemon.daemon.journal import Journal
from jaildaemon.daemon.keeper import Keeper
from jaildaemon.daemon.logs import Logger
from jaildaemon.daemon.roster import Roster
from jaildaemon.daemon.runner import Runner
from jaildaemon.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaildaemon.errors import JaildaemonError


def now() -> Now:
    """Return this instant."""
    return Now(time.time(), time.monotonic())


class Hub:
    """Everything that a daemon keeps, but its socket."""

    def __init__(
        self, backend: Backend, state: Path, log: Logger, *, engines: bool = False
    ) -> None:
        self.backend, self.log = backend, log
        backend.tell = log
        self.started = now()
        self.journal = Journal(state, log, now)
        self.fleet = Fleet(f"{int(self.started.wall * 1000):x}-{os.getpid()}")
        self.runner = Runner(self, state)
        self.gate, self.pace = Gate(backend.watcher), Pace(backend.watcher)
        self.accounts = Accounts(backend.watcher)
        self.readers_trouble: str | None = None
        """Why the group of readers has no access to the socket."""
        self.keepers: dict[str, Keeper] = {}
        self.jails: dict[str, Jail] = {}
        self.roster = Roster(self, engines=engines)
        self.ending = False
        """Set at the end of the daemon: nothing is armed or started, no rule is forgotten."""
        self.changed: Callable[[Member], None] = lambda _: None
        """Called after every event, with the rule that it was of."""
        self.upkeep: Callable[[], list[str]] = list
        """Says which of our files are no longer ours, for Status."""

    def now(self) -> Now:
        """Return this instant."""
        return now()

    # --- events --------------------------------------------------------------------

    def event(self, member: Member, event: Event) -> None:
        """Report what happened to a rule."""
        new = member.life.phase is Phase.NEW
        if event is Event.ARMED and new and not self._record(member):
            return
        if member.life.phase in (Phase.RESTING, Phase.FAILING):
            self.keepers[member.rule.id].settle_down()
        if event is Event.DIED and member.life.phase is Phase.ARMED:
            self._keep("died", member, reason=member.reason)
        if event is Event.ARMED and member.rule.lasting:
            self.note_jail(member)  # who lives in it may have come since
        self.perform(self.fleet.apply(member, event, now()))
        if event is Event.ARMED and not new:
            self._keep("armed", member)
        self._after(member)

    def trigger(self, member: Member, by: str | None = None) -> None:
        """Report that a rule's probe died of its signal; `by` whom, if not from inside."""
        todo = self.fleet.trigger(member, now())
        if member.life.phase is Phase.GONE and member.reason is None:
            member.reason = "it was to ring once, and has rung"
        for do in todo:
            if do.run is not None:
                do.run.by = by
                account = self.keepers[member.rule.id].account
                do.run.account = None if account is None else account.numbers
        self.perform(todo)
        self._after(member)

    def hold(self, member: Member, why: str) -> None:
        """Hold a rule, until its release; OSError where that cannot be written down.

        What has not started never will: it was to run under a rule that now is held.
        """
        self.journal.write(self.journal.record("hold", rule=member.rule.id, reason=why))
        member.reason = why
        self.event(member, Event.HOLD)
        self._refuse_waiting(member, "the rule was held")

    def release(self, member: Member, why: str) -> None:
        """Release a held rule; OSError where that cannot be written down, Refused."""
        if member.life.phase is Phase.HELD:
            self.journal.write(self.journal.record("release", rule=member.rule.id, reason=why))
        self.perform(self.fleet.release(member, now()))
        self._after(member)

    def lost(self, member: Member, event: Event) -> None:
        """Report that the jail of a rule in a file was found ended."""
        key = member.jail_key  # it may have its next one when the event has been taken
        self.event(member, event)
        self.roster.lost(member, key)

    def appear(self, member: Member, jail: Jail) -> None:
        """Give a rule in a file, which waits or is held, its jail."""
        self.keepers[member.rule.id].jail = jail
        if member.life.phase is not Phase.HELD:
            member.reason = None
        todo = self.fleet.appear(member, jail.key, now())
        self.note_jail(member)
        self.perform(todo)
        self._after(member)

    def leave(self, member: Member) -> None:
        """Take its jail from a rule in a file, which waits or is held."""
        key, keeper = member.jail_key, self.keepers[member.rule.id]
        why, keeper.left = keeper.left or "its jail ended", None
        self._keep("left", member, reason=why)
        self.log.info(why, rule=member.rule)
        self.fleet.move(member, "")
        keeper.jail = None
        if member.life.phase is not Phase.HELD:
            member.reason = None
        self.forget_jail(key)

    def ended(self, run: Run) -> None:
        """Report that a run has ended, or will never start."""
        self.perform(self.fleet.run_ended(run, now()))
        if run.jail_key != run.member.jail_key:
            self.forget_jail(run.jail_key)
        self._after(run.member)  # the last run of a rule that is gone leaves nothing to do

    def detach(self, member: Member) -> None:
        """Withdraw a rule.  Its running commands go on; what has not started never will."""
        keeper = self.keepers.get(member.rule.id)
        if keeper is None or keeper.member is not member:
            return
        # First of all: the end of a run must not arm what is being withdrawn.
        self.event(member, Event.DETACH)
        if not self.ending:
            self._refuse_waiting(member, "the rule was withdrawn")

    def _refuse_waiting(self, member: Member, why: str) -> None:
        for run in list(member.runs):
            if self.runner.waits(run):
                self.runner.refuse(run, "refused", why)

    def _keep(self, kind: str, member: Member, **values: object) -> None:
        self.journal.keep(self.journal.record(kind, rule=member.rule.id, **values))

    def perform(self, todo: list[Do]) -> None:
        """Carry out what the fleet decided."""
        for do in todo:
            if self.ending and do.act in (Act.ARM, Act.START, Act.SETTLE, Act.QUEUE):
                continue
            match do.act:
                case Act.START:
                    assert do.run is not None
                    self.runner.start(do.run)
                case Act.SETTLE:
                    assert do.run is not None
                    self.runner.settle(do.run)
                case Act.QUEUE:
                    assert do.run is not None
                    self.runner.queue(do.run)
                case _:
                    self.keepers[do.member.rule.id].do(do.act)
            self._after(do.member)

    def _record(self, member: Member) -> bool:
        """Write down a rule that is armed for the first time; else withdraw it."""
        keeper, rule = self.keepers[member.rule.id], member.rule
        assert keeper.jail is not None
        try:
            self.journal.write(
                self.journal.record(
                    "rule",
                    **_shape(rule),
                    identity=keeper.jail.identity(),
                    reason=keeper.asked,
                ),
                self.journal.record("armed", rule=rule.id),
            )
        except OSError as error:
            why = f"the journal cannot be written: {error.strerror}"
            keeper.error = Refused("attach", rule.jail, why)
            self.perform(self.fleet.apply(member, Event.ARMED, now()))
            self.event(member, Event.DETACH)
            return False
        return True

    def why_not_armed(self, member: Member) -> str | None:
        """Say why no probe of the rule stands; None if one does."""
        if member.life.phase is Phase.WAITING and member.reason is None:
            return self.roster.why(member)
        return why_not_armed(member, now())

    def note_jail(self, member: Member) -> None:
        """Write down what a rule in a file is now, and which jail it has, if that is new.

        What cannot be written keeps it from being armed (Keeper.arm).
        """
        rule, journal = member.rule, self.journal
        jail = self.keepers[rule.id].jail
        identity = {} if jail is None else jail.identity()
        known = journal.history.rules.get(rule.id)
        shape = _shape(rule)
        if known is None or known.gone or any(known.record.get(k) != shape[k] for k in shape):
            journal.keep(journal.record("rule", **shape, identity=identity))
        elif jail is not None and known.record.get("identity") != identity:
            journal.keep(journal.record("jail", rule=rule.id, identity=identity))

    def _after(self, member: Member) -> None:
        rule = member.rule.id
        keeper = self.keepers.get(rule)
        # A rule in a file may be there again by now, under the same id.
        ours = keeper is not None and keeper.member is member
        if ours and member.life.phase is Phase.GONE and not self.ending:
            known = self.journal.history.rules.get(rule)
            if known is not None and not known.gone:
                self._keep("unrule", member, reason=member.reason or "detached")
        if ours and member.life.over:
            del self.keepers[rule]
            self.forget_jail(member.jail_key)
        if member.rule.lasting:
            self.roster.settle(member)
        self.changed(member)

    @property
    def quiet(self) -> bool:
        """Whether nothing is in flight that an exec would break: no arming, no reader to start."""
        settled = (Phase.NEW, Phase.ARMING, Phase.HOLDING, Phase.WITHDRAWING, Phase.LEAVING)
        arming = any(m.life.phase in settled for m in self.fleet.members.values())
        return not arming and self.runner.quiet and not self.accounts.busy

    @property
    def probes(self) -> dict[str, int]:
        """The pid of each armed rule's probe."""
        pids = {rule: keeper.probe_pid for rule, keeper in self.keepers.items()}
        return {rule: pid for rule, pid in pids.items() if pid is not None}

    # --- users and groups --------------------------------------------------------------

    def look_up(
        self, users: Iterable[str], groups: Iterable[str], answer: "Callable[[Found], None]"
    ) -> None:
        """Look up these, and the users of all rules; `looked_up` is to follow."""
        ours = {member.rule.policy.run_as for member in self.fleet.members.values()}
        self.accounts.ask((ours | set(users)) - {OURS}, groups, answer)

    def looked_up(self, found: Found) -> None:
        """Tell the rules what the host says now of their users."""
        for keeper in list(self.keepers.values()):
            keeper.looked_up(found)

    def distrust(self, member: Member, why: str) -> None:
        """Have no probe of a rule until its user has been looked up anew."""
        keeper = self.keepers.get(member.rule.id)
        if keeper is not None and keeper.member is member:
            keeper.distrust(why)

    # --- jails -----------------------------------------------------------------------

    def keep(self, member: Member, jail: Jail | None) -> Keeper:
        """Make the keeper of a rule that the fleet has."""
        keeper = Keeper(self, member, jail)
        self.keepers[member.rule.id] = keeper
        return keeper

    def find(self, text: str, found: "Callable[[Jail | JaildaemonError], None]") -> None:
        """Give the jail that -j `text` means, one handle for all its rules; at once or later."""

        def answer(result: "Jail | JaildaemonError") -> None:
            found(self.share(result) if isinstance(result, Jail) else result)

        self.roster.names.find(text, answer)

    def share(self, fresh: Jail) -> Jail:
        """Return the handle in use for the same jail, or `fresh`."""
        jail = self.jails.setdefault(fresh.key, fresh)
        if jail is not fresh:
            fresh.close()
        return jail

    def forget_jail(self, key: str) -> None:
        """Close a jail's handle when no rule is left that needs it."""
        if not self.fleet.uses(key) and key not in self.roster.pinned:
            jail = self.jails.pop(key, None)
            if jail is not None:
                jail.close()

    def jail_of(self, run: Run) -> Jail:
        """Return the jail that began a run."""
        return self.jails[run.jail_key]


def _shape(rule: Rule) -> dict[str, object]:
    """Return what the journal says of a rule, but for its jail's identity."""
    return {
        "rule": rule.id,
        "jail": rule.jail,
        "title": rule.title,
        "command": rule.command,
        "policy": rule.policy.texts(),
        "source": rule.source if rule.lasting else None,
    }
