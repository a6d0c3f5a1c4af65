# SPDX-License-Identifier: BSD-2-Clause
"""Why a rule has no probe now, in words for people."""

from jaildaemon.core.fleet import MAX_RUNS, Member, Now, Shown

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
