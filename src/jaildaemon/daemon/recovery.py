# SPDX-License-Identifier: BSD-2-Clause
"""What a daemon takes up from the one before it, out of the journal.

A rule comes back if its very jail still runs, a command that goes on is waited
for, and a run whose start is in the journal is never started again.
"""

from jaildaemon.backends.base import EndedJail, Jail
from jaildaemon.core import breaker
from jaildaemon.core.fleet import Act, Do, Member, Now, Run, Stage
from jaildaemon.core.journal import KnownRule, OpenRun, may_replay
from jaildaemon.core.lifecycle import Phase
from jaildaemon.core.rules import Respawn, Rule, make_policy
from jaildaemon.daemon.hub import Hub
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
                _close_run(hub, known, run, "the host has rebooted")
                if run.started:
                    _note_break(hub, known, run)
        journal.sync()
    journal.keep(journal.record("boot", boot=boot))
    waiting: list[Run] = []
    for known in list(history.rules.values()):
        probe_pid = probes.get(str(known.record["rule"]))
        waiting += _Recovery(hub, known, children).take_up(probe_pid)
    # Every command that goes on has its place by now, and who came first is first again.
    for early in sorted(waiting, key=lambda run: run.triggered.steady):
        hub.perform([hub.fleet.again(early)])
    watched = hub.backend.watcher.children()
    for pid in [*probes.values(), *children]:
        if pid not in watched:  # a reader of output, or the probe of a rule that is gone
            hub.backend.watcher.watch_process(pid, lambda _: None)
    hub.runner.sweep()


def _close_run(hub: Hub, known: KnownRule, run: OpenRun, why: str) -> None:
    kind = "interrupted" if run.started else "expired"
    rule = str(known.record["rule"])
    hub.log(f"{rule}: run {run.run} {kind}: {why}")
    hub.journal.keep(hub.journal.record(kind, rule=rule, run=run.run, reason=why))


def _note_break(hub: Hub, known: KnownRule, run: OpenRun) -> None:
    title = known.record.get("title")
    key = breaker.key(None if title is None else str(title), str(known.record.get("command")))
    hub.journal.keep(hub.journal.record("break", rule=key, began=run.t))


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
        except (JaildaemonError, TypeError, KeyError) as error:
            self._drop(f"its record cannot be used: {error}")
            return []
        jail = self._jail()
        gone = known.gone or jail is None
        if rule.policy.respawn is Respawn.NO and known.runs:
            gone = True  # its one shot is spent
        alive = self._sort_runs(can_start=jail is not None)
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
        waiting = self._restore_runs(member, alive)
        if gone:
            member.reason = self._why or None
        else:
            self._set_phase(member, probe_pid)
        return waiting

    def _rule(self) -> Rule:
        record = self._known.record
        policy = record["policy"]
        if not isinstance(policy, dict):
            raise TypeError("policy")
        title = record.get("title")
        return Rule(
            self._id,
            str(record["jail"]),
            None if title is None else str(title),
            str(record["command"]),
            make_policy(**policy),
        )

    def _jail(self) -> Jail | None:
        identity = self._known.record.get("identity")
        try:
            return self._hub.share(
                self._hub.backend.recover(identity if isinstance(identity, dict) else {})
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
                pid = run.pid if child else hub.backend.find_run(run.run, run.pid)
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

    def _restore_runs(self, member: Member, alive: list[tuple[OpenRun, int | None]]) -> list[Run]:
        fleet, waiting = self._hub.fleet, []
        for run, pid in alive:
            stage = Stage.SETTLING if pid is None else Stage.RUNNING
            restored = fleet.restore_run(member, run.run, stage, Now(run.t, run.s))
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
        self._hub.log(f"{self._id}: gone: {why}")
        self._hub.journal.keep(self._hub.journal.record("unrule", rule=self._id, reason=why))
