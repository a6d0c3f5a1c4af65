# SPDX-License-Identifier: BSD-2-Clause
"""Rules for the tests of the fleet, and instants."""

from jaildaemon.core.fleet import Act, Do, Fleet, Member, Now, Run
from jaildaemon.core.lifecycle import Event
from jaildaemon.core.rules import Policy, Respawn

ONE_SHOT = Policy()
AFTER = Policy(Respawn.AFTER)
NOW = Policy(Respawn.NOW, concurrency=8)


def at(steady: float) -> Now:
    """Return an instant; on the wall it is 5,000 seconds later."""
    return Now(5000.0 + steady, steady)


def add(
    fleet: Fleet, title: str | None = None, jail: str = "web", policy: Policy = ONE_SHOT
) -> Member:
    """Add a rule; a jail's key is its name with an @ before it."""
    return fleet.add(jail, f"@{jail}", title, "true", policy)


def armed(
    fleet: Fleet, title: str | None = None, jail: str = "web", policy: Policy = ONE_SHOT
) -> Member:
    """Add a rule and arm it, at time 100."""
    member = add(fleet, title, jail, policy)
    fleet.apply(member, Event.ARMED, at(100.0))
    return member


def acts(todo: list[Do]) -> list[Act]:
    return [do.act for do in todo]


def ring(fleet: Fleet, member: Member, now: Now) -> Run:
    """Let the rule ring; return the run that came of it."""
    first, *_ = fleet.trigger(member, now)
    assert first.run is not None
    return first.run
