# SPDX-License-Identifier: BSD-2-Clause
"""The fleet under any order of events, held to a model of the effects; and broken ones."""

from collections import deque

import pytest
from hypothesis import Phase as HypothesisPhase
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from jaildaemon.core.fleet import Act, Do, Fleet, Member, Now, Run, Stage
from jaildaemon.core.lifecycle import Event, IllegalEvent, Phase
from jaildaemon.core.rules import Policy, Respawn
from tests.core.machine import FleetMachine

TestFleet = FleetMachine.TestCase
TestFleet.settings = settings(max_examples=120, stateful_step_count=50)


# --- the machine can fail ---------------------------------------------------------------


class StartsAfterDetach(Fleet):
    """Runs the command of a trigger that came while the rule was withdrawn."""

    def trigger(self, member: Member, now: Now) -> list[Do]:
        withdrawing = member.life.phase is Phase.WITHDRAWING
        todo = super().trigger(member, now)
        run = Run("late", member, Stage.RUNNING, now, member.jail_key)
        return [Do(Act.START, member, run)] if withdrawing else todo


class ArmsTwice(Fleet):
    """Lets a second probe in when a run ends beside one, or beside one on its way."""

    def run_ended(self, run: Run, now: Now) -> list[Do]:
        stands = run.member.life.phase in (Phase.ARMING, Phase.ARMED)
        todo = super().run_ended(run, now)
        return [*todo, Do(Act.ARM, run.member)] if stands else todo


class RingsTwice(Fleet):
    """Starts a run twice."""

    def trigger(self, member: Member, now: Now) -> list[Do]:
        todo = super().trigger(member, now)
        return todo + [do for do in todo if do.act is Act.START]


class TakesTwo(Fleet):
    """Makes two runs of one trigger."""

    def trigger(self, member: Member, now: Now) -> list[Do]:
        todo = super().trigger(member, now)
        again = [self._take_trigger(member, now) for do in todo if do.act is Act.START]
        return todo + again


class ReusesIds(Fleet):
    """Numbers rules by how many there are."""

    def add(
        self, jail: str, jail_key: str, title: str | None, command: str, policy: Policy
    ) -> Member:
        self.last_id = len(self.members)
        return super().add(jail, jail_key, title, command, policy)


class ReusesRunIds(Fleet):
    """Numbers runs by how many there are."""

    def trigger(self, member: Member, now: Now) -> list[Do]:
        self._last_run = sum(len(m.runs) for m in self.members.values())
        return super().trigger(member, now)


class CountsBeforeRefusing(Fleet):
    """Counts an event that it then refuses."""

    def apply(self, member: Member, event: Event, now: Now) -> list[Do]:
        try:
            return super().apply(member, event, now)
        except IllegalEvent:
            member.refused += 1
            raise


class NotesBeforeRefusing(Fleet):
    """Puts a trigger into the window that it then refuses."""

    def trigger(self, member: Member, now: Now) -> list[Do]:
        if member.life.phase is not Phase.ARMED:
            member.window.note(now.steady)
        return super().trigger(member, now)


class ForgetsTooEarly(Fleet):
    """Forgets a one-shot rule with its trigger, not with its run."""

    def apply(self, member: Member, event: Event, now: Now) -> list[Do]:
        todo = super().apply(member, event, now)
        if member.life.phase is Phase.GONE:
            self.members.pop(member.rule.id, None)
        return todo


class NeverFull(Fleet):
    """Arms again at once, however many runs are in progress."""

    def trigger(self, member: Member, now: Now) -> list[Do]:
        if member.life.phase is Phase.ARMED and member.rule.policy.respawn is Respawn.AFTER:
            member.window.note(now.steady)
            return self.apply(member, Event.TRIGGER_NEXT, now)
        return super().trigger(member, now)


class ForgetsTheLimit(Fleet):
    """Arms again at the end of a run, whatever the window says."""

    def apply(self, member: Member, event: Event, now: Now) -> list[Do]:
        ended = event is Event.RUN_ENDED_REST
        return super().apply(member, Event.RUN_ENDED if ended else event, now)


class ReleasesAtOnce(Fleet):
    """Arms a released rule, whatever its limit and its runs say."""

    def release(self, member: Member, now: Now) -> list[Do]:
        if member.life.phase is Phase.HELD:
            return self.apply(member, Event.RELEASE, now)
        return super().release(member, now)


class NeverRests(Fleet):
    """Forgets to say when a rest is over."""

    def apply(self, member: Member, event: Event, now: Now) -> list[Do]:
        return [do for do in super().apply(member, event, now) if do.act is not Act.REST]


class LastInFirstOut(Fleet):
    """Takes the youngest of those that wait."""

    def run_ended(self, run: Run, now: Now) -> list[Do]:
        self._queue.reverse()
        try:
            return super().run_ended(run, now)
        finally:
            self._queue.reverse()


class NeverDrains(Fleet):
    """Leaves the others waiting when a command ends."""

    def run_ended(self, run: Run, now: Now) -> list[Do]:
        waiting = self._queue
        if run.stage is Stage.RUNNING:
            self._queue = deque()
        todo = super().run_ended(run, now)
        self._queue = waiting
        return todo


class HasNoCap(Fleet):
    """Starts whatever comes."""

    def _submit(self, run: Run) -> Do:
        run.stage = Stage.RUNNING
        self._running += 1
        return Do(Act.START, run.member, run)


class KeepsTheRefused(Fleet):
    """Leaves a refused run in the queue."""

    def run_ended(self, run: Run, now: Now) -> list[Do]:
        if run.stage is Stage.QUEUED:
            self._queue.append(run)
        return super().run_ended(run, now)


class NeverSettles(Fleet):
    """Starts at once what should settle first."""

    def _take_trigger(self, member: Member, now: Now) -> Do:
        do = super()._take_trigger(member, now)
        return self._submit(member.runs[-1]) if do.act is Act.SETTLE else do


class LosesTheLastRing(Fleet):
    """Takes what was rung just before the jail's end for the end alone."""

    def trigger(self, member: Member, now: Now) -> list[Do]:
        if member.life.phase is Phase.LEAVING:
            return self.apply(member, Event.FELL, now)
        return super().trigger(member, now)


class ArmsForNobody(Fleet):
    """Arms a released rule whose jail does not run."""

    def release(self, member: Member, now: Now) -> list[Do]:
        if member.life.phase is Phase.HELD and not member.jail_key:
            return self.apply(member, Event.RELEASE, now)
        return super().release(member, now)


BROKEN = [
    (StartsAfterDetach, "a run goes on after DETACH"),
    (ArmsTwice, "a second probe of one rule"),
    (RingsTwice, "a run was started twice"),
    (TakesTwo, "a trigger is one run"),
    (ReusesIds, "a rule's id was used again"),
    (ReusesRunIds, "a run's id was used again"),
    (CountsBeforeRefusing, "a refused event changed something"),
    (NotesBeforeRefusing, "a refused event changed something"),
    (ForgetsTooEarly, "forgotten too early"),
    (NeverFull, "a probe beside enough runs"),
    (ForgetsTheLimit, "a probe over the limit"),
    (ReleasesAtOnce, "a probe "),
    (NeverRests, "nothing will ever arm it again"),
    (LastInFirstOut, "somebody else was first"),
    (NeverDrains, "waits "),
    (HasNoCap, "too many commands"),
    (KeepsTheRefused, "miscounted"),
    (NeverSettles, "never settled"),
    (LosesTheLastRing, "a trigger is one run"),
    (ArmsForNobody, "a probe for no jail"),
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
