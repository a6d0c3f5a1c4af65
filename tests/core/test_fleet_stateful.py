# SPDX-License-Identifier: BSD-2-Clause
"""The fleet under any order of events, held to a model of the effects.

The model knows what really happens (a probe is on its way, sleeps, dies; a run
goes on) and nothing of phases.  It does what the fleet says, and checks the
promises of architecture.md at every step.
"""

import copy
from dataclasses import dataclass, field

import pytest
from hypothesis import Phase as HypothesisPhase
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from jaildaemon.core.fleet import Fleet, Member, Shown
from jaildaemon.core.lifecycle import Action, Event, IllegalEvent, Phase
from jaildaemon.core.rules import Policy, Respawn

TRIGGERS = {Event.TRIGGER_LAST, Event.TRIGGER_WAIT, Event.TRIGGER_NEXT}


@dataclass
class World:
    """What is really there of one rule."""

    member: Member
    probe: str | None = "arming"
    """None, "arming" (not visible in the jail, or not let go) or "armed"."""
    killed: bool = False
    """The probe was killed by us; how it ended is still to be reported."""
    detached: bool = False
    retry_due: bool = False
    runs: set[str] = field(default_factory=set)
    signals: int = 0
    started: int = 0

    def impossible(self) -> set[Event]:
        """Return what cannot happen, by what is there: not by the product's table."""
        events = set()
        if self.probe is None or self.killed:
            events |= {Event.ARMED}
        if self.probe is None:
            events |= {Event.FAILED, Event.LOST, Event.DIED} | TRIGGERS
        elif self.probe == "arming" and not self.killed:
            events |= {Event.DIED} | TRIGGERS
        elif self.probe == "armed" and not self.killed:
            events |= {Event.FAILED, Event.LOST}
        if not self.retry_due:
            events |= {Event.RETRY}
        if not self.runs:
            events |= {Event.RUN_ENDED}
        return events


class FleetMachine(RuleBasedStateMachine):
    """Any number of rules, anything that can happen to them, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.fleet = self.new_fleet()
        self.worlds: list[World] = []
        self.rule_ids: set[str] = set()
        self.run_ids: set[str] = set()
        self.clock = 1000.0

    def new_fleet(self) -> Fleet:
        """Return the fleet to be examined."""
        return Fleet("life")

    # --- the model of the effects ------------------------------------------------

    def report(self, world: World, event: Event | None) -> None:
        """Report an event, None for the probe's death by its signal; do what is said."""
        self.clock += 1
        if event is None:
            actions = self.fleet.trigger(world.member, self.clock)
        else:
            actions = self.fleet.apply(world.member, event, self.clock)
        for action in actions:
            self.carry_out(world, action)
        if world.member.life.phase is not Phase.FAILING:
            world.retry_due = False  # as the keeper cancels its timer

    def carry_out(self, world: World, action: Action) -> None:
        match action:
            case Action.ARM:
                assert world.probe is None, "a second probe of one rule"
                assert not world.detached, "armed after DETACH"
                world.probe, world.killed = "arming", False
            case Action.START:
                assert not world.detached, "started after DETACH"
                run = self.fleet.next_run()
                assert run not in self.run_ids, "a run's id was used again"
                self.run_ids.add(run)
                world.runs.add(run)
                world.started += 1
            case Action.KILL:
                assert world.probe is not None, "nothing is there to be killed"
                world.killed = True
            case Action.BACKOFF:
                assert world.probe is None, "a retry beside a probe"
                assert not world.retry_due, "two retries"
                world.retry_due = True
            case Action.IGNORE:
                assert world.detached, "a good trigger was ignored"

    def some(self, data: st.DataObject, worlds: list[World]) -> World:
        return worlds[data.draw(st.integers(0, len(worlds) - 1), label="rule")]

    @property
    def arming(self) -> list[World]:
        return [w for w in self.worlds if w.probe == "arming"]

    @property
    def sleeping(self) -> list[World]:
        return [w for w in self.worlds if w.probe == "armed"]

    # --- what can happen ----------------------------------------------------------

    # A few at a time: many rules would each see little happen.
    @precondition(lambda self: len(self.fleet.members) < 4)
    @rule(
        respawn=st.sampled_from(Respawn),
        jail=st.sampled_from(["web", "db"]),
        title=st.sampled_from([None, "BELL", "DOORBELL"]),
    )
    def attach(self, respawn: Respawn, jail: str, title: str | None) -> None:
        member = self.fleet.add(jail, f"@{jail}", title, "true", Policy(respawn))
        assert member.rule.id not in self.rule_ids, "a rule's id was used again"
        self.rule_ids.add(member.rule.id)
        self.worlds.append(World(member))

    @precondition(lambda self: any(not w.killed for w in self.arming))
    @rule(data=st.data())
    def probe_is_armed(self, data: st.DataObject) -> None:
        world = self.some(data, [w for w in self.arming if not w.killed])
        world.probe = "armed"
        self.report(world, Event.ARMED)

    @precondition(lambda self: self.arming)
    @rule(data=st.data(), event=st.sampled_from([Event.FAILED, Event.LOST]))
    def arming_fails(self, data: st.DataObject, event: Event) -> None:
        world = self.some(data, self.arming)
        world.probe = None
        self.report(world, event)

    @precondition(lambda self: self.sleeping)
    @rule(data=st.data())
    def probe_dies_by_its_signal(self, data: st.DataObject) -> None:
        # One that we killed, too: the signal may have been a moment faster.
        world = self.some(data, self.sleeping)
        world.probe = None
        world.signals += 1
        started = world.started
        self.report(world, None)
        assert world.started == started + (not world.detached), "a trigger is one run"

    @precondition(lambda self: self.sleeping)
    @rule(data=st.data())
    def probe_dies_of_something_else(self, data: st.DataObject) -> None:
        world = self.some(data, self.sleeping)
        world.probe = None
        self.report(world, Event.DIED)
        assert world.member.life.phase is Phase.GONE

    @precondition(lambda self: any(w.runs for w in self.worlds))
    @rule(data=st.data())
    def run_ends(self, data: st.DataObject) -> None:
        world = self.some(data, [w for w in self.worlds if w.runs])
        world.runs.remove(data.draw(st.sampled_from(sorted(world.runs)), label="run"))
        self.report(world, Event.RUN_ENDED)

    @precondition(lambda self: any(w.retry_due for w in self.worlds))
    @rule(data=st.data())
    def wait_is_over(self, data: st.DataObject) -> None:
        world = self.some(data, [w for w in self.worlds if w.retry_due])
        world.retry_due = False
        self.report(world, Event.RETRY)

    @precondition(lambda self: self.worlds)
    @rule(data=st.data())
    def detach(self, data: st.DataObject) -> None:
        # A forgotten rule, too: two administrators may withdraw it at once.
        world = self.some(data, self.worlds)
        self.report(world, Event.DETACH)
        world.detached = True

    @precondition(lambda self: len(self.fleet.members) > 2)
    @rule()
    def detach_all(self) -> None:
        for world in self.worlds:
            self.report(world, Event.DETACH)
            world.detached = True

    @precondition(lambda self: self.worlds)
    @rule(data=st.data())
    def the_impossible_is_refused(self, data: st.DataObject) -> None:
        world = self.some(data, self.worlds)
        event = data.draw(st.sampled_from(sorted(world.impossible(), key=str)), label="event")
        member, life = copy.copy(world.member), world.member.life
        members, counts = dict(self.fleet.members), (self.fleet.triggers, self.fleet.refused)
        with pytest.raises(IllegalEvent):
            self.fleet.apply(world.member, event, self.clock)
        assert (world.member, world.member.life) == (member, life)
        assert self.fleet.members == members
        assert (self.fleet.triggers, self.fleet.refused) == counts

    # --- what must be true at every moment -------------------------------------------

    @invariant()
    def runs_never_exceed_triggers(self) -> None:
        for world in self.worlds:
            assert world.started <= world.signals
            assert world.member.triggers == world.started
            assert world.member.refused == world.signals - world.started
        assert self.fleet.triggers == sum(w.started for w in self.worlds)
        assert self.fleet.refused == sum(w.signals - w.started for w in self.worlds)

    @invariant()
    def concurrency_is_never_exceeded(self) -> None:
        for world in self.worlds:
            assert len(world.runs) == world.member.life.runs
            assert len(world.runs) <= world.member.rule.policy.concurrency
            if world.probe and not world.killed:
                # A probe stands only while its trigger would be accepted.
                assert len(world.runs) < world.member.rule.policy.concurrency
        assert self.fleet.runs == sum(len(w.runs) for w in self.worlds)

    @invariant()
    def a_forgotten_rule_has_left_nothing(self) -> None:
        for world in self.worlds:
            left = bool(world.probe or world.runs or world.retry_due)
            if world.member.rule.id in self.fleet.members:
                assert left, "remembered for nothing"
            else:
                assert not left, "forgotten too early"
                assert world.member not in self.fleet.of_jail(world.member.jail_key)

    @invariant()
    def armed_is_shown_exactly_while_a_probe_sleeps(self) -> None:
        asleep = [w for w in self.sleeping if not w.killed]
        assert self.fleet.count(Phase.ARMED) == len(asleep)
        for world in self.worlds:
            armed = world in asleep
            assert (world.member.shown is Shown.ARMED) == armed
            assert (world.member.armed_at is not None) == armed


TestFleet = FleetMachine.TestCase
TestFleet.settings = settings(max_examples=150, stateful_step_count=60)


# --- the machine can fail ---------------------------------------------------------------


class StartsAfterDetach(Fleet):
    """Runs the command of a trigger that came while the rule was withdrawn."""

    def trigger(self, member: Member, now: float) -> tuple[Action, ...]:
        withdrawing = member.life.phase is Phase.WITHDRAWING
        actions = super().trigger(member, now)
        return (Action.START,) if withdrawing else actions


class ArmsTwice(Fleet):
    """Lets a second probe in when a run ends beside a standing one."""

    def apply(self, member: Member, event: Event, now: float) -> tuple[Action, ...]:
        armed = member.life.phase is Phase.ARMED
        actions = super().apply(member, event, now)
        return (Action.ARM,) if armed and event is Event.RUN_ENDED else actions


class RingsTwice(Fleet):
    """Starts two runs for one trigger."""

    def trigger(self, member: Member, now: float) -> tuple[Action, ...]:
        actions = super().trigger(member, now)
        return (*actions, Action.START) if Action.START in actions else actions


class ReusesIds(Fleet):
    """Numbers rules by how many there are."""

    def add(
        self, jail: str, jail_key: str, title: str | None, command: str, policy: Policy
    ) -> Member:
        self._last_id = len(self.members)
        return super().add(jail, jail_key, title, command, policy)


class CountsBeforeRefusing(Fleet):
    """Counts an event that it then refuses."""

    def apply(self, member: Member, event: Event, now: float) -> tuple[Action, ...]:
        try:
            return super().apply(member, event, now)
        except IllegalEvent:
            member.refused += 1
            raise


class ForgetsTooEarly(Fleet):
    """Forgets a one-shot rule with its trigger, not with its run."""

    def apply(self, member: Member, event: Event, now: float) -> tuple[Action, ...]:
        actions = super().apply(member, event, now)
        if member.life.phase is Phase.GONE:
            self.members.pop(member.rule.id, None)
        return actions


class NeverFull(Fleet):
    """Arms again at once, however many runs are in progress."""

    def trigger(self, member: Member, now: float) -> tuple[Action, ...]:
        busy = member.life.phase is Phase.ARMED and member.rule.policy.respawn is Respawn.AFTER
        return self.apply(member, Event.TRIGGER_NEXT, now) if busy else super().trigger(member, now)


BROKEN = [
    (StartsAfterDetach, "started after DETACH"),
    (ArmsTwice, "a second probe of one rule"),
    (RingsTwice, "a trigger is one run"),
    (ReusesIds, "a rule's id was used again"),
    (CountsBeforeRefusing, "refused="),
    (ForgetsTooEarly, "forgotten too early"),
    (NeverFull, "concurrency"),
]


@pytest.mark.parametrize(("broken", "words"), BROKEN, ids=[b[0].__name__ for b in BROKEN])
def test_the_machine_finds_a_broken_fleet(broken: type[Fleet], words: str) -> None:
    class Machine(FleetMachine):
        def new_fleet(self) -> Fleet:
            return broken("life")

    quick = settings(
        max_examples=2000,
        stateful_step_count=60,
        derandomize=True,
        database=None,
        phases=[HypothesisPhase.generate],
        report_multiple_bugs=False,
    )
    with pytest.raises(AssertionError) as caught:
        run_state_machine_as_test(Machine, settings=quick)
    assert words in str(caught.value)
