# SPDX-License-Identifier: BSD-2-Clause
"""Every life that there can be, walked to its end.

A rule's whole world is small: its life, what became of its probe, and which
wait is under way.  So all of it can be walked, for each kind of policy, with a
limit that may say no at any moment.
"""

from collections.abc import Iterator

import pytest

from jaildaemon.core.lifecycle import Action, Event, Life, Phase, sort_trigger, step
from jaildaemon.core.rules import Policy, Respawn

World = tuple[Life, str, str]
"""The life; the probe ("none", "arming", "armed", and "-killed" behind them); the wait
under way ("", "retry", "rest")."""


def possible(world: World, policy: Policy) -> Iterator[tuple[Event, World]]:
    """Give every event that the effects may report, and the world before the actions."""
    life, probe, due = world
    if probe == "arming":
        yield Event.ARMED, (life, "armed", due)
    if probe.startswith("arming"):
        yield Event.FAILED, (life, "none", due)
        yield Event.LOST, (life, "none", due)
    if probe.startswith("armed"):
        for wait in (0.0, 1.0):
            yield sort_trigger(policy, life.runs, wait), (life, "none", due)
        yield Event.DIED, (life, "none", due)
    if life.runs:
        yield Event.RUN_ENDED, world
        yield Event.RUN_ENDED_REST, world
    if due:
        yield Event.RETRY if due == "retry" else Event.RESTED, (life, probe, "")
    if life.phase not in (Phase.NEW, Phase.WITHDRAWING, Phase.GONE):
        yield Event.HOLD, (life, probe, "")
    if life.phase is Phase.HELD:
        full = life.runs >= policy.at_once
        for event in [Event.RELEASE_WAIT] if full else [Event.RELEASE, Event.RELEASE_REST]:
            yield event, world
    yield Event.DETACH, (life, probe, "")


def carried_out(world: World, event: Event) -> World:
    """Do what the product says must be done; a second probe is an error."""
    life, probe, due = world
    life, actions = step(Life(life.phase, life.runs), event)
    for action in actions:
        if action is Action.ARM:
            assert probe == "none", "two probes of one rule"
            probe = "arming"
        elif action is Action.KILL:
            assert probe in ("arming", "armed"), "nothing to kill"
            probe += "-killed"
        elif action in (Action.BACKOFF, Action.REST):
            assert (probe, due) == ("none", ""), "a wait beside a probe or another wait"
            due = "retry" if action is Action.BACKOFF else "rest"
    # Failures do not steer anything: without them the world is finite.
    return Life(life.phase, life.runs), probe, due


def walk(policy: Policy) -> dict[World, dict[Event, World]]:
    """Return every world that can be reached, with its ways out."""
    first: World = (Life(), "arming", "")
    found: dict[World, dict[Event, World]] = {}
    ahead = [first]
    while ahead:
        world = ahead.pop()
        if world not in found:
            events = possible(world, policy)
            found[world] = {event: carried_out(before, event) for event, before in events}
            ahead += found[world].values()
    return found


POLICIES = {
    "no": Policy(Respawn.NO),
    "after": Policy(Respawn.AFTER),
    "now": Policy(Respawn.NOW, concurrency=8),
    "now, two": Policy(Respawn.NOW, concurrency=2),
    "now, one": Policy(Respawn.NOW),
    "now, cooldown": Policy(Respawn.NOW, concurrency=8, cooldown=1.0),
}


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_no_life_ends_in_a_corner(policy: Policy) -> None:
    administrators = {Event.DETACH, Event.HOLD}
    for (life, probe, due), ways in walk(policy).items():
        if life.phase is not Phase.GONE:
            # Something besides the administrator moves it on, but for what he holds.
            assert set(ways) - administrators, f"stuck in {life.phase.name}"
        if probe in ("arming", "armed"):
            assert life.runs < policy.at_once, "a probe whose trigger would be one too many"
        assert life.runs <= policy.at_once
        assert (probe == "armed") == (life.phase is Phase.ARMED)
        assert (due == "retry") == (life.phase is Phase.FAILING)
        assert (due == "rest") == (life.phase is Phase.RESTING)
        assert bool(life.runs) >= (life.phase is Phase.RUNNING)
        if life.over:
            assert (probe, due) == ("none", "")


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_every_life_can_come_to_its_end(policy: Policy) -> None:
    found = walk(policy)
    ends = {world for world in found if world[0].over}
    before = -1
    while before != len(ends):
        before = len(ends)
        ends |= {world for world, ways in found.items() if ends & set(ways.values())}
    assert ends == set(found)


NO = {
    Phase.NEW,
    Phase.ARMED,
    Phase.WITHDRAWING,
    Phase.GONE,
    # Only by an administrator.
    Phase.HOLDING,
    Phase.HELD,
    Phase.ARMING,
    Phase.RESTING,
    Phase.FAILING,
}


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_the_walk_comes_through_these_phases(policy: Policy) -> None:
    phases = {life.phase for life, _, _ in walk(policy)}
    all_phases = set(Phase) - {Phase.WAITING, Phase.LEAVING}  # of rules in files only
    assert phases == (NO if policy.respawn is Respawn.NO else all_phases)
