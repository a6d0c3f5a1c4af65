# SPDX-License-Identifier: BSD-2-Clause
"""What a daemon takes up from the one before it, out of the journal.

A rule comes back if its very jail still runs, a command that goes on is waited
for, and a run whose start is in the journal is never started again.
"""

import signal
from collections.abc import Mapping

from jaildaemon.backends.base import EndedJail, Jail
from jaildaemon.core import config
from jaildaemon.core.fleet import Act, Do, Member, Now, Run, Stage
from jaildaemon.core.journal import KnownRule, OpenRun, may_replay
from jaildaemon.core.lifecycle import Phase
from jaildaemon.core.rules import TRANSIENT, Respawn, Rule
from jaildaemon.daemon import schema
from jaildaemon.daemon.accounts import OURS
from jaildaemon.daemon.hub import Hub
from jaildaemon.daemon.logs import Known
from jaildaemon.daemon.roster import CHANGED
from jaildaemon.errors import JaildaemonError


def recover(hub: Hub, probes: dict[str, int], children: list[int]) -> None:
    """Take up everything.  After an exec we still have `probes`, by rule, and other `children`."""
    journal, history = hub.journal, hub.journal.history
    boot = hub.backend.boot_id()
    rebooted = history.boot is not None and history.boot != boot
    hub.fleet.last_id = history.last_id
    if rebooted:
        for known in list(history.rules.values()):
            for run in list(known.runs.values()):
                _close_run(hub, known, run, "the host has rebooted", boot)
                if run.started:
                    _note_break(hub, known, run)
        journal.sync()
    journal.keep(journal.record("boot", boot=boot))
    waiting: list[Run] = []
    steady = hub.now().steady
    for known in list(history.rules.values()):
        known.no_later(steady)
        probe_pid = probes.get(str(known.record["rule"]))
        waiting += _Recovery(hub, known, children).take_up(probe_pid)
    hub.roster.start()
    # Every command that goes on has its place by now, and who came first is first again.
    for early in sorted(waiting, key=lambda run: run.triggered.steady):
        hub.perform([hub.fleet.again(early)])
    watched = hub.backend.watcher.children()
    for pid in [*probes.values(), *children]:
        if pid not in watched:  # a reader of output, or the probe of a rule that is gone
            hub.backend.watcher.watch_process(pid, lambda _: None)
            if pid in probes.values():
                hub.backend.watcher.signal_process(pid, signal.SIGKILL)
    hub.runner.sweep()


def subject(record: Mapping[str, object]) -> Known:
    """Return what the log says of a rule that only the journal knows."""
    title = record.get("title")
    title = None if title is None else str(title)
    return Known(str(record["rule"]), str(record.get("jail", "")), title)


def _user(known: KnownRule) -> str:
    policy = known.record.get("policy")
    return str(policy.get("run_as", OURS)) if isinstance(policy, dict) else OURS


def users(hub: Hub) -> set[str]:
    """Return whom the commands run as that may have outlived an earlier daemon."""
    return {_user(known) for known in hub.journal.history.rules.values() if known.runs}


def _close_run(hub: Hub, known: KnownRule, run: OpenRun, why: str, boot: str | None = None) -> None:
    kind = "interrupted" if run.started else "expired"
    rule = str(known.record["rule"])
    about = subject(known.record)
    if run.started:
        hub.log.warning(f"run {run.run} {kind}: {why}", rule=about, run=run.run)
    else:
        hub.log.info(f"run {run.run} {kind}: {why}", rule=about, run=run.run)
    hub.journal.keep(hub.journal.record(kind, rule=rule, run=run.run, reason=why, boot=boot))


def _note_break(hub: Hub, known: KnownRule, run: OpenRun) -> None:
    hub.journal.keep(hub.journal.record("break", rule=known.breaker_key, began=run.t))


class _Recovery:
    """The recovery of one rule."""

    def __init__(self, hub: Hub, known: KnownRule, children: list[int]) -> None:
        self._hub, self._known, self._children = hub, known, children
        self._id = str(known.record["rule"])
        self._why = ""

    def take_up(self, probe_pid: int | None) -> list[Run]:
        """Bring the rule back, or say why not; return its runs that are still to begin."""
        hub, known = self._hub, self._known
        try:
            rule = self._rule()
        except (JaildaemonError, schema.BadParameter, KeyError) as error:
            self._drop(f"its record cannot be used: {error}")
            return []
        jail = self._jail(probe_pid)
        if rule.lasting:
            expected = hub.roster.expected(rule.id, rule.jail)
            if expected is not None and not known.gone:
                return self._take_up_lasting(rule, expected, jail, probe_pid)
            self._why = CHANGED
            if known.held is not None and not known.gone:
                hub.roster.carry(rule.id, known.held)
            known.gone = True
        gone = known.gone or jail is None
        if rule.policy.respawn is Respawn.NO and known.runs:
            gone = True  # its one shot is spent
        alive = self._sort_runs(can_start=jail is not None and not (rule.lasting and gone))
        if gone and not alive:
            self._drop(self._why or "its one run is over")
            if jail is not None:
                hub.forget_jail(jail.key)
            return []
        jail = jail or hub.share(EndedJail(rule.jail, f"ended before {self._id}"))
        member = hub.fleet.restore(
            rule, jail.key, phase=Phase.GONE, times=known.times, last_end=known.last_end
        )
        member.triggers, member.refused = known.triggers, known.refused
        member.last_trigger = known.last_trigger
        hub.keep(member, jail)
        waiting = self._restore_runs(member, alive, jail)
        if gone:
            member.reason = self._why or None
        else:
            self._set_phase(member, probe_pid)
        return waiting

    def _take_up_lasting(
        self, rule: Rule, expected: Rule, jail: Jail | None, probe_pid: int | None
    ) -> list[Run]:
        """Bring a rule in a file back, as it is in the files now."""
        hub, known = self._hub, self._known
        unchanged = config.same(rule, expected)
        if not unchanged:
            self._why = CHANGED
        alive = self._sort_runs(can_start=jail is not None and unchanged)
        same_limit = rule.policy.limit == expected.policy.limit
        member = hub.fleet.restore(
            expected,
            "",
            phase=Phase.WAITING,
            times=known.times if same_limit else (),
            last_end=known.last_end,
        )
        member.triggers, member.refused = known.triggers, known.refused
        member.last_trigger = known.last_trigger
        keeper = hub.keep(member, None)
        run_jail = jail
        if alive and jail is None:
            run_jail = hub.share(EndedJail(rule.jail, f"ended before {self._id}"))
        waiting = self._restore_runs(member, alive, run_jail)
        if known.held is not None:
            hub.fleet.set_phase(member, Phase.HELD, hub.now())
            member.reason = known.held
        hub.roster.adopt(member)
        if jail is None or not unchanged:
            hub.note_jail(member)
            if jail is not None:
                hub.forget_jail(jail.key)
            return waiting
        # The very jail: what was is again, until somebody says that it has another name.
        hub.fleet.move(member, jail.key)
        keeper.jail = jail
        hub.roster.seen(rule.jail, jail)
        if member.life.phase is Phase.WAITING and not known.spent:
            self._set_phase(member, probe_pid)
        return waiting

    def _rule(self) -> Rule:
        record = self._known.record
        policy = schema.structure(record["policy"], schema.PolicyWish).policy()
        title = record.get("title")
        return Rule(
            self._id,
            str(record["jail"]),
            None if title is None else str(title),
            str(record["command"]),
            policy,
            str(record.get("source", TRANSIENT)),
        )

    def _jail(self, probe_pid: int | None) -> Jail | None:
        identity = self._known.record.get("identity")
        try:
            return self._hub.share(
                self._hub.backend.recover(identity if isinstance(identity, dict) else {}, probe_pid)
            )
        except JaildaemonError as error:
            self._why = str(error)
            return None

    def _sort_runs(self, *, can_start: bool) -> list[tuple[OpenRun, int | None]]:
        """Return the runs that go on, with their pid, and those to be started now, without."""
        hub, now = self._hub, self._hub.now()
        alive: list[tuple[OpenRun, int | None]] = []
        for run in list(self._known.runs.values()):
            if run.started:
                # After an exec it is our child still: one that has ended has its status.
                child = run.pid in self._children
                pid = run.pid if child else self._find(run)
                if pid is None:
                    why = "the daemon died, and its command is not there any more"
                    _close_run(hub, self._known, run, why)
                else:
                    alive.append((run, pid))
                continue
            why_not = may_replay(run, now.wall, now.steady)
            if not can_start:
                why_not = self._why or "its rule is gone"
            elif self._known.held is not None:
                why_not = "its rule is held"
            if why_not:
                _close_run(hub, self._known, run, why_not)
            else:
                alive.append((run, None))
        return alive

    def _find(self, run: OpenRun) -> int | None:
        uid = self._hub.accounts.uid_at_start(_user(self._known))
        return self._hub.backend.find_run(run.run, run.pid, uid=uid, start_time=run.start_time)

    def _restore_runs(
        self, member: Member, alive: list[tuple[OpenRun, int | None]], jail: Jail | None
    ) -> list[Run]:
        fleet, waiting = self._hub.fleet, []
        for run, pid in alive:
            stage = Stage.SETTLING if pid is None else Stage.RUNNING
            key = member.jail_key if jail is None else jail.key
            restored = fleet.restore_run(member, run.run, stage, Now(run.t, run.s), key)
            if pid is None:
                self._hub.runner.recorded(restored)
                waiting.append(restored)
            else:
                self._hub.runner.adopt(restored, pid, child=pid in self._children)
        return waiting

    def _set_phase(self, member: Member, probe_pid: int | None) -> None:
        hub, keeper = self._hub, self._hub.keepers[member.rule.id]
        if probe_pid is not None:
            hub.fleet.set_phase(member, Phase.ARMED, hub.now())
            keeper.adopt(probe_pid)
        elif self._known.held is not None:
            hub.fleet.set_phase(member, Phase.HELD, hub.now())
            member.reason = self._known.held
        elif member.full:
            hub.fleet.set_phase(member, Phase.RUNNING, hub.now())
        elif member.wait(hub.now()):
            hub.fleet.set_phase(member, Phase.RESTING, hub.now())
            hub.perform([Do(Act.REST, member)])
        else:
            hub.fleet.set_phase(member, Phase.ARMING, hub.now())
            hub.perform([Do(Act.ARM, member)])

    def _drop(self, why: str) -> None:
        self._hub.log.info(f"gone: {why}", rule=subject(self._known.record))
        self._hub.journal.keep(self._hub.journal.record("unrule", rule=self._id, reason=why))
