# SPDX-License-Identifier: BSD-2-Clause
"""The machine that drives a fleet and the model of its effects, and compares them."""

from collections.abc import Callable, Iterable
from typing import TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from jaildaemon.core import fleet as fleet_module
from jaildaemon.core.fleet import Fleet, Shown
from jaildaemon.core.lifecycle import Event, IllegalEvent, Phase
from jaildaemon.core.limits import Limit
from jaildaemon.core.rules import Policy, Respawn, Rule
from jaildaemon.errors import Refused
from tests.core.model import ROOM, TRIGGERS, Effects, World

T = TypeVar("T")
SPARE = 2
POLICIES = st.builds(
    Policy,
    respawn=st.sampled_from([Respawn.NOW, Respawn.NOW, Respawn.AFTER, Respawn.AFTER, Respawn.NO]),
    # Times are multiples of a half: exact, so that no promise is kept but for a rounding.
    limit=st.sampled_from([None, Limit(1, 10.0), Limit(2, 10.0), Limit(3, 60.0)]),
    cooldown=st.sampled_from([0.0, 0.0, 5.0]),
    settle=st.sampled_from([0.0, 0.0, 2.0]),
    concurrency=st.sampled_from([1, 2, 3, 8]),
)


class FleetMachine(Effects, RuleBasedStateMachine):
    """Any number of rules, anything that can happen to them, in any order."""

    def __init__(self) -> None:
        RuleBasedStateMachine.__init__(self)
        Effects.__init__(self, self.new_fleet())
        self.usual_room, fleet_module.MAX_RUNS = fleet_module.MAX_RUNS, ROOM
        self.rule_ids: set[str] = set()

    def teardown(self) -> None:
        fleet_module.MAX_RUNS = self.usual_room

    def new_fleet(self) -> Fleet:
        """Return the fleet to be examined."""
        return Fleet("life")

    def some(self, data: st.DataObject, things: Iterable[T], label: str = "rule") -> T:
        found = list(things)
        return found[data.draw(st.integers(0, len(found) - 1), label=label)]

    def those(self, test: Callable[[World], object]) -> list[World]:
        return [world for world in self.worlds if test(world)]

    @property
    def spare(self) -> bool:
        """Whether a rule may be lost: with none left nothing happens any more."""
        return len(self.those(lambda w: not w.ended)) > SPARE

    # --- what can happen ----------------------------------------------------------

    @initialize(policies=st.lists(POLICIES, min_size=2, max_size=5))
    def begin(self, policies: list[Policy]) -> None:
        for policy in policies:
            self.attach(policy, "web", None)
            self.arm(self.worlds[-1])
        self.write_in_a_file(policies[0])
        self.jail_begins_of(self.worlds[-1])

    @rule(policy=POLICIES)
    def write_in_a_file(self, policy: Policy) -> None:
        name = f"rule {len(self.worlds)}"
        made = Rule(name, "web", name, "true", policy, "/etc/jaildaemon.toml")
        member = self.fleet.restore(made, "", phase=Phase.WAITING)
        self.worlds.append(World(member, probe=None, new=False, lasting=True))

    @precondition(lambda self: self.those(self.may_begin))
    @rule(data=st.data())
    def jail_begins(self, data: st.DataObject) -> None:
        self.jail_begins_of(self.some(data, self.those(self.may_begin)))

    @staticmethod
    def may_begin(world: World) -> bool:
        return world.lasting and not world.ended and world.jail is None

    def jail_begins_of(self, world: World) -> None:
        world.jail = "@web"
        self.perform(self.fleet.appear(world.member, "@web", self.now))

    @precondition(lambda self: self.those(lambda w: w.lasting and w.visible))
    @rule(data=st.data())
    def jail_rings_on_its_way_out(self, data: st.DataObject) -> None:
        # The steps that lead to it, at once.
        world = self.some(data, self.those(lambda w: w.lasting and w.visible))
        if world.probe == "arming":
            self.arm(world)
        world.leaving = True
        self.report(world, Event.LEFT)
        self.ring(world)

    @precondition(lambda self: self.those(lambda w: w.jail and not w.leaving and not w.ended))
    @rule(data=st.data())
    def jail_ends(self, data: st.DataObject) -> None:
        world = self.some(data, self.those(lambda w: w.jail and not w.leaving and not w.ended))
        world.leaving, world.retry_due, world.rest_due = True, False, None
        if not world.waits:
            self.report(world, Event.LEFT)
        self.depart(world)

    @rule(
        policy=POLICIES,
        jail=st.sampled_from(["web", "db"]),
        title=st.sampled_from([None, "BELL", "DOORBELL"]),
    )
    def attach(self, policy: Policy, jail: str, title: str | None) -> None:
        member = self.fleet.add(jail, f"@{jail}", title, "true", policy)
        assert member.rule.id not in self.rule_ids, "a rule's id was used again"
        self.rule_ids.add(member.rule.id)
        self.worlds.append(World(member))

    @rule(title=st.sampled_from(["", "a\nb", "x" * 181]))
    def attach_with_a_bad_title(self, title: str) -> None:
        before = self.state()
        with pytest.raises(Refused):
            self.fleet.add("web", "@web", title, "true", Policy())
        assert self.state() == before

    @rule(seconds=st.sampled_from([0.5, 2.0, 5.0, 10.0, 60.0]))
    def time_passes(self, seconds: float) -> None:
        self.steady += seconds

    @precondition(lambda self: self.those(lambda w: w.probe == "arming" and not w.killed))
    @rule(data=st.data())
    def probe_is_armed(self, data: st.DataObject) -> None:
        self.arm(self.some(data, self.those(lambda w: w.probe == "arming" and not w.killed)))

    def arm(self, world: World) -> None:
        world.probe, world.new = "armed", False
        self.report(world, Event.ARMED)

    @precondition(lambda self: self.spare and self.those(lambda w: w.probe == "arming"))
    @rule(data=st.data(), event=st.sampled_from([Event.FAILED, Event.LOST]))
    def arming_fails(self, data: st.DataObject, event: Event) -> None:
        world = self.some(data, self.those(lambda w: w.probe == "arming"))
        world.probe = None
        if world.lasting:
            # Found ended before anybody said so.
            world.leaving |= event is Event.LOST
            event = Event.MISSED if event is Event.LOST else event
        else:
            world.ended |= world.new or event is Event.LOST
        self.report(world, event)
        self.depart(world)

    @precondition(lambda self: self.those(lambda w: w.probe == "armed"))
    @rule(data=st.data())
    def probe_dies_by_its_signal(self, data: st.DataObject) -> None:
        # One that we killed, too: the signal may have been a moment faster.
        self.ring(self.some(data, self.those(lambda w: w.probe == "armed")))

    @precondition(lambda self: self.those(lambda w: w.visible))
    @rule(data=st.data())
    def a_rule_rings(self, data: st.DataObject) -> None:
        # The two steps that lead on, at once.
        world = self.some(data, self.those(lambda w: w.visible))
        if world.probe == "arming":
            self.arm(world)
        self.ring(world)

    @rule()
    def everybody_rings(self) -> None:
        for world in self.those(lambda w: w.visible and not w.new):
            if world.probe == "arming":
                self.arm(world)
            self.ring(world)

    def ring(self, world: World) -> None:
        # A jail's end does not take away what was rung before.
        last = world.leaving and not world.held and not world.ended
        counts, world.probe = not world.killed or last, None
        world.signals += 1
        runs, refused = len(self.run_ids), world.refused
        if counts:
            world.times.append(self.steady)
            one_shot = world.policy.respawn is Respawn.NO
            world.ended |= one_shot and not world.lasting
            world.spent |= one_shot and world.lasting
        self.perform(self.fleet.trigger(world.member, self.now))
        self.depart(world)
        assert len(self.run_ids) == runs + counts, "a trigger is one run"
        assert world.refused == refused + (not counts)

    @precondition(lambda self: self.spare and self.those(lambda w: w.probe == "armed"))
    @rule(data=st.data())
    def probe_dies_of_something_else(self, data: st.DataObject) -> None:
        world = self.some(data, self.those(lambda w: w.probe == "armed"))
        world.probe = None
        if world.lasting:
            self.report(world, Event.FELL)
            self.depart(world)
            return
        world.ended |= not world.killed
        self.report(world, Event.DIED)

    @precondition(lambda self: self.settling)
    @rule(data=st.data(), lives=st.booleans())
    def settle_is_over(self, data: st.DataObject, lives: bool) -> None:
        run = self.some(data, self.settling, "run")
        if lives:
            self.perform(self.fleet.settled(run))
        else:
            self.refuse(run)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def run_ends(self, data: st.DataObject) -> None:
        self.end(self.some(data, self.running, "run"))

    @precondition(lambda self: self.queue)
    @rule()
    def all_runs_end(self) -> None:
        while self.running:
            self.end(self.running[0])
        assert self.queue == [], "waits for ever"

    @precondition(lambda self: self.those(lambda w: w.retry_due))
    @rule(data=st.data())
    def wait_is_over(self, data: st.DataObject) -> None:
        world = self.some(data, self.those(lambda w: w.retry_due))
        world.retry_due = False
        self.report(world, Event.RETRY)

    @precondition(lambda self: self.those(lambda w: w.rest_due is not None))
    @rule(data=st.data())
    def rest_is_over(self, data: st.DataObject) -> None:
        world = self.some(data, self.those(lambda w: w.rest_due is not None))
        self.steady = max(self.steady, world.rest_due or 0.0)
        world.rest_due = None
        self.report(world, Event.RESTED)

    @precondition(lambda self: self.those(lambda w: not w.new and not w.ended))
    @rule(data=st.data())
    def hold(self, data: st.DataObject) -> None:
        world = self.some(data, self.those(lambda w: not w.new and not w.ended))
        world.held, world.retry_due, world.rest_due = True, False, None
        self.report(world, Event.HOLD)
        self.refuse_waiting(world)

    @precondition(lambda self: self.worlds)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        world = self.some(data, self.those(lambda w: w.held) or self.worlds)
        if Event.RELEASE in world.impossible():
            before = self.state()
            with pytest.raises(Refused, match="is not held"):
                self.fleet.release(world.member, self.now)
            assert self.state() == before
            return
        world.held = world.spent = False
        self.perform(self.fleet.release(world.member, self.now))

    @precondition(lambda self: self.spare)
    @rule(data=st.data())
    def detach(self, data: st.DataObject) -> None:
        # A forgotten rule, too: two administrators may withdraw it at once.
        self.withdraw(self.some(data, self.worlds))

    @precondition(lambda self: self.spare)
    @rule(sure=st.integers(0, 7))
    def detach_all(self, sure: int) -> None:
        for world in self.worlds if sure == 7 else ():
            self.withdraw(world)

    def withdraw(self, world: World) -> None:
        world.ended, world.retry_due, world.rest_due = True, False, None
        self.report(world, Event.DETACH)
        self.refuse_waiting(world)
        world.withdrawn = True

    @precondition(lambda self: self.worlds)
    @rule(data=st.data())
    def the_impossible_is_refused(self, data: st.DataObject) -> None:
        world = self.some(data, self.worlds)
        event = data.draw(st.sampled_from(sorted(world.impossible(), key=str)), label="event")
        before = self.state()
        with pytest.raises(IllegalEvent):
            self.fleet.apply(world.member, event, self.now)
        if event in TRIGGERS:
            with pytest.raises(IllegalEvent):
                self.fleet.trigger(world.member, self.now)
        assert self.state() == before, "a refused event changed something"

    # --- what must be true at every moment -------------------------------------------

    @invariant()
    def a_probe_stands_only_while_its_trigger_would_be_accepted(self) -> None:
        for world in self.those(lambda w: w.visible):
            assert not world.held, "a probe of a held rule"
            assert not world.leaving, "a probe in a jail that ended"
            assert not world.spent, "a second shot"
            assert not world.ended, "a probe of a rule that is gone"
            assert len(world.runs) < world.policy.concurrency, "a probe beside enough runs"
            assert world.wait(self.steady) == 0, "a probe over the limit"

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        for world in self.those(lambda w: not (w.ended or w.held or w.waits)):
            way_out = world.probe, world.runs, world.retry_due, world.rest_due is not None
            assert any(way_out), "nothing will ever arm it again"

    @invariant()
    def runs_never_exceed_triggers(self) -> None:
        for world in self.worlds:
            assert world.member.triggers == len(world.times)
            assert world.member.refused == world.refused
            assert len(world.times) <= world.signals
        assert self.fleet.triggers == sum(len(w.times) for w in self.worlds) == len(self.run_ids)
        assert self.fleet.refused == sum(w.refused for w in self.worlds)
        assert self.started <= self.run_ids

    @invariant()
    def the_host_is_never_full(self) -> None:
        assert len(self.running) <= ROOM, "too many commands"
        assert not self.queue or len(self.running) == ROOM, "waits although there is room"
        counts = self.fleet.running, self.fleet.queued
        assert counts == (len(self.running), len(self.queue)), "miscounted"

    @invariant()
    def concurrency_is_never_exceeded(self) -> None:
        for world in self.worlds:
            assert {run.id for run in world.member.runs} == set(world.runs)
            assert len(world.runs) == world.member.life.runs <= world.policy.concurrency

    @invariant()
    def a_forgotten_rule_has_left_nothing(self) -> None:
        for world in self.worlds:
            left = world.probe or world.runs or not world.ended
            if world.member.rule.id in self.fleet.members:
                assert left, "remembered for nothing"
            else:
                assert not left, "forgotten too early"
                assert world.member not in self.fleet.of_jail(world.member.jail_key)

    @invariant()
    def what_is_shown_is_what_is_there(self) -> None:
        asleep = self.those(lambda w: w.probe == "armed" and w.visible)
        assert self.fleet.count(Phase.ARMED) == len(asleep)
        for world in self.worlds:
            shown = world.member.shown(self.now)
            assert (shown is Shown.ARMED) == (world in asleep)
            assert (world.member.armed_at is not None) == (world in asleep)
            # Both are waits with a known end, when that is known to who asks.
            resting = shown in (Shown.LIMITED, Shown.COOLING)
            assert resting == (world.rest_due is not None), "RESTING without a way out"
            assert (shown is Shown.FAILING) == world.retry_due
