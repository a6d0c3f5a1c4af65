# SPDX-License-Identifier: BSD-2-Clause
"""One rule's effects: carries out the actions of its life, and reports events."""

import random
import time
from collections.abc import Callable
from typing import Protocol

from jaildaemon.backends.base import Backend, Death, Jail, ProbeOwner
from jaildaemon.backends.probe import Probe
from jaildaemon.core.fleet import Fleet, Member
from jaildaemon.core.lifecycle import Action, Event, Phase, backoff_seconds
from jaildaemon.core.text import process_title, shown
from jaildaemon.daemon import runs
from jaildaemon.errors import JaildaemonError

TRIGGER_SIGNAL = 1  # SIGHUP, on both systems
JITTER = 0.2


class Log(Protocol):
    """Where decisions are told, one line each."""

    def __call__(self, line: str) -> None:
        """Take one line."""


class Keeper(ProbeOwner):
    """Keeps one rule.  `changed` is called after each event, with the keeper."""

    def __init__(
        self,
        backend: Backend,
        fleet: Fleet,
        member: Member,
        jail: Jail,
        log: Log,
        changed: Callable[["Keeper"], None],
    ) -> None:
        self._backend, self._fleet, self._log, self._changed = backend, fleet, log, changed
        self.member, self.jail = member, jail
        self.error: JaildaemonError | None = None
        """Why the latest arming failed."""
        self._probe: Probe | None = None
        self._retry: int | None = None

    def start(self) -> None:
        """Arm the rule's first probe."""
        self._arm()

    def detach(self) -> None:
        """Withdraw the rule; its runs go on."""
        self._event(Event.DETACH)

    @property
    def probe_pid(self) -> int | None:
        """The standing probe's pid."""
        armed = self.member.life.phase is Phase.ARMED and self._probe is not None
        return self._probe.pid if armed and self._probe else None

    def _say(self, what: str) -> None:
        self._log(f"{self.member.rule.id}: {what}")

    def _event(self, event: Event) -> None:
        self._do(self._fleet.apply(self.member, event, time.time()))

    def _do(self, actions: tuple[Action, ...]) -> None:
        for action in actions:
            match action:
                case Action.START:
                    self._start_run()
                case Action.ARM:
                    self._arm()
                case Action.KILL:
                    if self._probe is not None:
                        self._probe.kill()
                case Action.BACKOFF:
                    self._back_off()
                case Action.IGNORE:
                    self._say("refused a signal: the rule was being withdrawn")
        if self._retry is not None and self.member.life.phase is not Phase.FAILING:
            self._backend.watcher.cancel(self._retry)
            self._retry = None
        self._changed(self)

    def _arm(self) -> None:
        rule = self.member.rule
        self._probe = Probe(self._backend, self.jail, self)
        self._probe.arm(process_title(rule.title), rule.policy.uid, rule.policy.gid)

    def _back_off(self) -> None:
        seconds = backoff_seconds(self.member.life.failures)
        seconds *= 1 + random.uniform(-JITTER, JITTER)  # noqa: S311 - not a secret
        self._retry = self._backend.watcher.call_in(seconds, lambda: self._event(Event.RETRY))
        self.member.retry_at = time.time() + seconds
        self._say(f"not armed, another try in {seconds:.1f} s: {self.error}")

    # --- what the probe tells ----------------------------------------------

    def armed(self) -> None:
        """Take note that the probe sleeps in the jail."""
        title = shown(process_title(self.member.rule.title))
        assert self._probe is not None
        self._say(f"armed in jail {self.jail.name} as pid {self._probe.pid}: {title}")
        for other in self._fleet.overlapping(self.member):
            self._say(f"warning: pkill -f may ring {other.rule.id} too, their titles overlap")
        self._event(Event.ARMED)

    def failed(self, error: JaildaemonError) -> None:
        """Take note that no probe came of it."""
        self._probe, self.error = None, error
        self.member.reason = str(error)
        lost = bool(getattr(error, "lost", False))
        if lost and self.member.life.phase is not Phase.NEW:
            self._say(f"gone: {error}")
        self._event(Event.LOST if lost else Event.FAILED)

    def ended(self, death: Death) -> None:
        """Take the armed probe's end: the signal is the one bit, anything else is not."""
        self._probe = None
        if death.signal == TRIGGER_SIGNAL:
            self._do(self._fleet.trigger(self.member, time.time()))
            return
        if self.member.life.phase is Phase.ARMED:
            self.member.reason = f"the probe died of {death}"
            self._say(f"gone: {self.member.reason}")
        self._event(Event.DIED)

    # --- the command ---------------------------------------------------------

    def _start_run(self) -> None:
        rule, run = self.member.rule, self._fleet.next_run()
        began = time.monotonic()
        values = {
            "JID": str(self.jail.number),
            "JAIL": self.jail.safe_name(),
            "TITLE": rule.title or "",
            "RULE": rule.id,
            "RUN": run,
        }

        def over(how: str) -> None:
            self._say(f"run {run} ended: {how} after {time.monotonic() - began:.3f} s")
            self._event(Event.RUN_ENDED)

        try:
            pid = runs.start(self._backend, rule.command, values, lambda death: over(str(death)))
        except OSError as error:
            why = f"/bin/sh cannot be started: {error.strerror}"
            self._say(f"run {run}: {why}")
            self._backend.watcher.call_in(0, lambda: over(why))
            return
        command = shown(rule.command)
        self._say(f"signal from jail {self.jail.name}; run {run} is pid {pid}: {command}")
