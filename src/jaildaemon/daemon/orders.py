# SPDX-License-Identifier: BSD-2-Clause
"""Hold, Release and Fire: what the host's administrator does to a rule that is there."""

from collections.abc import Callable
from typing import Protocol

from jaildaemon.core import wire
from jaildaemon.core.fleet import Member
from jaildaemon.core.lifecycle import TABLE, Event, Phase
from jaildaemon.daemon import schema
from jaildaemon.daemon.call import Call, Parameters
from jaildaemon.daemon.hub import Hub
from jaildaemon.daemon.logs import log_all
from jaildaemon.errors import JaildaemonError, NoSuchRule, Refused

FIRE_SECONDS = 5.0
"""How long a probe may take to die of its signal.  It sleeps: it needs microseconds."""


class Waiting(Protocol):
    """What gives answers later."""

    def wait_for(self, given: Callable[[], bool]) -> None:
        """Call `given` now and after every change, until it says that it has answered."""


class Orders:
    """The methods; `table` is for the table of all methods."""

    def __init__(self, methods: Waiting, hub: Hub) -> None:
        self._methods, self._hub = methods, hub
        self.table: dict[str, tuple[type, Callable[..., None]]] = {
            f"{wire.INTERFACE}.Hold": (schema.Which, self.hold),
            f"{wire.INTERFACE}.Release": (schema.Which, self.release),
            f"{wire.INTERFACE}.Fire": (schema.Fire, self.fire),
        }

    def hold(self, wish: schema.Which, call: Call) -> None:
        """Hold rules; the answer comes when none of them has a probe."""
        members = self._which(wish, "hold")
        if not wish.all and TABLE[members[0].life.phase][Event.HOLD] is None:
            self._refuse_young_or_gone("hold", members[0])
        members = [m for m in members if TABLE[m.life.phase][Event.HOLD] is not None]
        why = f"held {call.who}"
        for member in members:
            if member.life.phase not in (Phase.HOLDING, Phase.HELD):
                self._write("hold", member, self._hub.hold, why)
        log_all(self._hub.log, [member.rule for member in members], why)
        ids = [member.rule.id for member in members]
        self._answer_without(Phase.HOLDING, members, call, {"ids": ids})

    def release(self, wish: schema.Which, call: Call) -> None:
        """Release held rules; the answer comes at once, their probes in a moment."""
        members = self._which(wish, "release")
        if wish.all:
            members = [m for m in members if m.life.phase in (Phase.HOLDING, Phase.HELD)]
        why = f"released {call.who}"

        def released() -> bool:
            # One that is being held is held first: its probe is on its way out.
            if any(member.life.phase is Phase.HOLDING for member in members):
                return False
            try:
                for member in members:
                    self._write("release", member, self._hub.release, why)
            except JaildaemonError as error:
                call.answer(error)
                return True
            log_all(self._hub.log, [member.rule for member in members], why)
            call.answer({"ids": [member.rule.id for member in members]})
            return True

        self._methods.wait_for(released)

    def fire(self, wish: schema.Fire, call: Call) -> None:
        """Ring a rule's probe from the host; the answer comes when its run has its id."""
        member = self._hub.fleet.find(wish.rule, "fire")
        refused = self._why_not_fire(member)
        reply: Parameters = {"would_run": member.rule.command}
        if wish.dry_run:
            call.answer(reply if refused is None else {**reply, "refused": refused})
            return
        if refused is not None:
            raise Refused("fire", member.rule.id, refused)
        keeper, triggers = self._hub.keepers[member.rule.id], member.triggers
        self._hub.log.notice(f"fired {call.who}", rule=member.rule)
        keeper.fire(call.who)

        answered = False

        def too_late() -> None:
            nonlocal answered
            answered = True
            why = f"its probe has not taken the signal after {FIRE_SECONDS:.0f} s"
            hint = "it is stopped, or its jail is; it will ring when it goes on"
            call.answer(Refused("fire", member.rule.id, why, hint))

        deadline = self._hub.backend.watcher.call_in(FIRE_SECONDS, too_late)

        def fired() -> bool:
            if answered:
                return True
            if member.triggers == triggers and member.life.phase is Phase.ARMED:
                return False
            self._hub.backend.watcher.cancel(deadline)
            if member.triggers > triggers:
                call.answer({**reply, "run": member.last_run})
            else:
                why = self._hub.why_not_armed(member) or "its probe died"
                call.answer(Refused("fire", member.rule.id, why))
            return True

        self._methods.wait_for(fired)

    def _why_not_fire(self, member: Member) -> str | None:
        try:
            self._hub.journal.check()
        except OSError as error:
            return f"the journal cannot be written: {error.strerror}"
        if self._hub.keepers[member.rule.id].fired:
            return "it has just been fired"
        return self._hub.why_not_armed(member)

    def _which(self, wish: schema.Which, what: str) -> list[Member]:
        if wish.all:
            return list(self._hub.fleet.members.values())
        if wish.rule is None:
            raise Refused(what, "", "name a rule, or all")
        return [self._hub.fleet.find(wish.rule, what)]

    def _refuse_young_or_gone(self, what: str, member: Member) -> None:
        if member.life.phase is Phase.NEW:
            raise Refused(what, member.rule.id, "its first probe is on its way", "try again")
        raise NoSuchRule(what, member.rule.id, "it is gone, and only its run goes on")

    def _write(
        self, what: str, member: Member, do: Callable[[Member, str], None], why: str
    ) -> None:
        try:
            do(member, why)
        except OSError as error:
            reason = f"the journal cannot be written: {error.strerror}"
            raise Refused(what, member.rule.id, reason) from error

    def _answer_without(
        self, phase: Phase, members: list[Member], call: Call, reply: Parameters
    ) -> None:
        def given() -> bool:
            if any(member.life.phase is phase for member in members):
                return False
            call.answer(reply)
            return True

        self._methods.wait_for(given)
