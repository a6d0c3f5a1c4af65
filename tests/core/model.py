# SPDX-License-Identifier: BSD-2-Clause
"""A model of the effects of a fleet.

It knows what really happens (a probe is on its way, sleeps, dies; a run
settles, waits, goes on, ends) and nothing of phases.  It does what the fleet
says, and checks the promises of architecture.md at every step.  Time stands
still but where a rule moves it.
"""

from dataclasses import dataclass, field

from jaildaemon.core.fleet import Act, Do, Fleet, Member, Now, Run
from jaildaemon.core.lifecycle import Event
from jaildaemon.core.rules import Policy

ROOM = 2
"""Runs at once in the model, instead of MAX_RUNS: so the queue is used."""
TRIGGERS = {
    Event.TRIGGER_LAST,
    Event.TRIGGER_WAIT,
    Event.TRIGGER_NEXT,
    Event.TRIGGER_REST,
    Event.TRIGGER_SPENT,
}
RELEASES = {Event.RELEASE, Event.RELEASE_WAIT, Event.RELEASE_REST, Event.RELEASE_ABSENT}
JAILS = {Event.JAIL, Event.JAIL_WAIT, Event.JAIL_REST}


@dataclass(eq=False)
class World:
    """What is really there of one rule."""

    member: Member
    probe: str | None = "arming"
    """None, "arming" (not visible in the jail, or not let go) or "armed"."""
    killed: bool = False
    """The probe was killed by us; how it ended is still to be reported."""
    new: bool = True
    """Never armed yet."""
    held: bool = False
    withdrawn: bool = False
    ended: bool = False
    """No probe is to follow any more."""
    retry_due: bool = False
    rest_due: float | None = None
    runs: dict[str, Run] = field(default_factory=dict)
    times: list[float] = field(default_factory=list)
    """Of the triggers that count, steady."""
    last_end: float | None = None
    signals: int = 0
    refused: int = 0
    lasting: bool = False
    """In a file: it outlives its jail."""
    jail: str | None = None
    """Of a lasting one: the jail that it has."""
    leaving: bool = False
    """That jail has ended, and the probe in it is still to be reported."""
    spent: bool = False
    """Its one shot was fired in that jail."""

    @property
    def policy(self) -> Policy:
        return self.member.rule.policy

    @property
    def visible(self) -> bool:
        """Whether a probe stands or will, for all that the rule wants."""
        return self.probe is not None and not self.killed

    @property
    def waits(self) -> bool:
        """Whether only the start of a jail leads on."""
        idle = self.probe is None and not self.held and not self.ended
        return self.lasting and idle and (self.jail is None or self.spent)

    def wait(self, now: float) -> float:
        """Say, as the design does, how long no probe may stand."""
        limit, wait = self.policy.limit, 0.0
        if limit is not None and len(self.times) >= limit.count:
            wait = self.times[-limit.count] + limit.seconds - now
        if self.last_end is not None:
            wait = max(wait, self.last_end + self.policy.cooldown - now)
        return max(0.0, wait)

    def impossible(self) -> set[Event]:  # noqa: PLR0912 - one question a kind of event
        """Return what cannot happen, by what is there: not by the product's table."""
        events: set[Event] = set()
        if self.probe != "arming" or self.killed:
            events |= {Event.ARMED}
        if self.probe is None:
            events |= {Event.FAILED, Event.LOST, Event.DIED, Event.FELL, Event.MISSED} | TRIGGERS
        elif self.probe == "arming" and not self.killed:
            events |= {Event.DIED, Event.FELL} | TRIGGERS
        elif not self.killed:
            events |= {Event.FAILED, Event.LOST}
        if self.new and not self.killed:
            events |= {Event.MISSED, Event.LEFT}
        if self.waits or (self.ended and self.probe is None):
            events |= {Event.LEFT}
        if not self.waits:
            events |= JAILS
        if self.leaving and not self.held and not self.ended:
            events |= {Event.LOST, Event.DIED}
        if not self.retry_due:
            events |= {Event.RETRY}
        if self.rest_due is None:
            events |= {Event.RESTED}
        if not self.runs:
            events |= {Event.RUN_ENDED, Event.RUN_ENDED_REST}
        if self.new or self.ended:
            events |= {Event.HOLD}
        if not self.held or self.ended or self.probe is not None:
            events |= RELEASES
        return events


class Effects:
    """Carries out what a fleet says, and keeps what is there."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.worlds: list[World] = []
        self.run_ids: set[str] = set()
        self.started: set[str] = set()
        self.refused: set[str] = set()
        self.queue: list[Run] = []
        self.running: list[Run] = []
        self.settling: list[Run] = []
        self.steady = 1000.0

    @property
    def now(self) -> Now:
        # The clock on the wall goes the other way: nothing may depend on it.
        return Now(2_000_000.0 - self.steady, self.steady)

    def of(self, member: Member) -> World:
        return next(w for w in self.worlds if w.member is member)

    def report(self, world: World, event: Event) -> None:
        """Report an event, and do what is said."""
        self.perform(self.fleet.apply(world.member, event, self.now))

    def perform(self, todo: list[Do]) -> None:
        for do in todo:
            self.carry_out(self.of(do.member), do)

    def carry_out(self, world: World, do: Do) -> None:
        match do.act:
            case Act.ARM:
                assert world.probe is None, "a second probe of one rule"
                assert world.jail or not world.lasting, "a probe for no jail"
                world.probe, world.killed = "arming", False
            case Act.KILL:
                assert world.visible, "nothing is there to be killed"
                world.killed = True
            case Act.BACKOFF:
                assert world.probe is None, "a retry beside a probe"
                assert not world.retry_due, "two retries"
                world.retry_due = True
            case Act.REST:
                assert world.probe is None, "a rest beside a probe"
                assert world.rest_due is None, "two rests"
                wait = world.wait(self.steady)
                assert world.member.wait(self.now) == wait > 0, "a rest of another length"
                assert world.member.next_arming == self.now.wall + wait
                world.rest_due = self.steady + wait
            case Act.IGNORE:
                assert world.held or world.ended, "a good trigger was ignored"
                world.refused += 1
            case _:
                assert do.run is not None
                self.take(world, do.act, do.run)

    def take(self, world: World, act: Act, run: Run) -> None:
        """Settle, queue or start a run."""
        assert run.id not in self.refused, "a refused run goes on"
        assert not world.withdrawn, "a run goes on after DETACH"
        if run.id not in world.runs:
            assert run.id not in self.run_ids, "a run's id was used again"
            self.run_ids.add(run.id)
            world.runs[run.id] = run
        was_settling = run in self.settling
        if was_settling:
            self.settling.remove(run)
        if act is Act.SETTLE:
            assert world.policy.settle, "settles for nothing"
            assert not was_settling, "settles twice"
            self.settling.append(run)
            return
        assert was_settling == bool(world.policy.settle) or run in self.queue, "never settled"
        if act is Act.QUEUE:
            assert len(self.running) == ROOM, "waits although there is room"
            self.queue.append(run)
            return
        assert act is Act.START
        assert not world.held, "started after HOLD"
        assert run.id not in self.started, "a run was started twice"
        if self.queue:
            assert self.queue.pop(0) is run, "somebody else was first"
        self.started.add(run.id)
        self.running.append(run)

    def end(self, run: Run) -> None:
        """Report the end of a run, or that it will never start."""
        world = self.of(run.member)
        del world.runs[run.id]
        for stage in (self.settling, self.queue, self.running):
            if run in stage:
                stage.remove(run)
        if run.id in self.started:
            world.last_end = self.steady
        self.perform(self.fleet.run_ended(run, self.now))

    def refuse_waiting(self, world: World) -> None:
        """Let no run begin that has not, as the hub does when a rule is withdrawn or held."""
        for run in list(world.runs.values()):
            if run.id not in self.started:
                self.refuse(run)

    def refuse(self, run: Run) -> None:
        world = self.of(run.member)
        self.refused.add(run.id)
        world.refused += 1
        self.fleet.refuse(run.member)
        self.end(run)

    def depart(self, world: World) -> None:
        """Give up the jail that ended, when no probe is left in it, as the roster does."""
        if world.leaving and world.probe is None:
            world.leaving, world.jail, world.spent = False, None, False
            if not world.ended:
                self.fleet.move(world.member, "")

    def state(self) -> list[object]:
        """Return everything that can be seen of the fleet."""
        fleet = self.fleet
        counts = [fleet.triggers, fleet.refused, fleet.running, fleet.queued, fleet.last_id]
        seen: list[object] = [*counts, list(fleet.members)]
        for member in (world.member for world in self.worlds):
            runs = [(run.id, run.stage) for run in member.runs]
            seen += [member.life, runs, member.wait(self.now), member.reason, member.refused]
            seen += [member.jail_key, member.armed_since]
            seen += [member.armed_at, member.last_trigger, member.next_arming, member.triggers]
        return seen
