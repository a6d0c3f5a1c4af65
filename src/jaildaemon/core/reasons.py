# SPDX-License-Identifier: BSD-2-Clause
"""Why a rule has no probe now, in words for people; and which titles ring others too."""

from collections.abc import Iterable

from jaildaemon.core.fleet import MAX_RUNS, Member, Now, Shown
from jaildaemon.core.text import NAME, process_title

_WORDS = {
    Shown.WAITING: "a probe is on its way",
    Shown.QUEUED: f"its run waits: {MAX_RUNS} commands run already",
    Shown.FAILING: "arming failed",
    Shown.HELD: "it is held",
    Shown.GONE: "it is being withdrawn",
}


def why_not_armed(member: Member, now: Now) -> str | None:
    """Say why no probe of the rule stands in its jail; None if one does."""
    state, policy = member.shown(now), member.rule.policy.texts()
    if state is Shown.ARMED:
        return None
    if member.reason is not None:
        return member.reason
    if state is Shown.LIMITED:
        return f"the limit of {policy['limit']} is reached"
    if state is Shown.COOLING:
        return f"the cooldown of {policy['cooldown']} is not over"
    if state is Shown.SETTLING:
        return f"its run starts if its jail still lives after {policy['settle']}"
    if state is Shown.RUNNING:
        runs = len(member.runs)
        return "its command runs" if runs == 1 else f"{runs} runs of it are under way"
    return _WORDS[state]


MANY = 500
"""Rules of one jail; of more the titles are not compared here, which would take seconds."""


def ringing_others(members: Iterable[Member]) -> list[Member]:
    """Return the rules whose title rings the probe of another in their jail too."""
    jails: dict[str, list[Member]] = {}
    for member in members:
        if member.jail_key:  # a rule in a file that waits has none
            jails.setdefault(member.jail_key, []).append(member)
    found = []
    for neighbours in jails.values():
        if len(neighbours) > MANY:
            continue
        # One search in all names at once: a status is asked for every few seconds.
        names = [process_title(member.rule.title) for member in neighbours]
        text = "\n".join(names)
        for member, name in zip(neighbours, names, strict=True):
            title = member.rule.title or NAME
            found += [member] * (text.count(title) > name.count(title))
    return found
