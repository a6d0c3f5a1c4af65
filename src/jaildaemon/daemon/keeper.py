# SPDX-License-Identifier: BSD-2-Clause
"""One rule's probe: armed, killed, and armed again, as the fleet decides."""

import random
import signal
from typing import Protocol

from jaildaemon.backends.base import ArmingError, Backend, Death, Jail, ProbeOwner
from jaildaemon.backends.probe import Probe
from jaildaemon.core.fleet import Act, Fleet, Member, Now
from jaildaemon.core.lifecycle import Event, Phase, backoff_seconds
from jaildaemon.core.text import process_title
from jaildaemon.daemon.accounts import OURS, Account, Accounts, Found
from jaildaemon.daemon.gate import Gate, Pace
from jaildaemon.daemon.journal import Journal
from jaildaemon.daemon.logs import Logger
from jaildaemon.errors import JaildaemonError

JITTER = 0.2


class Hub(Protocol):
    """What a keeper needs of the daemon."""

    backend: Backend
    fleet: Fleet
    journal: Journal
    log: Logger
    gate: Gate
    pace: Pace
    accounts: Accounts

    def now(self) -> Now:
        """Return this instant."""

    def event(self, member: Member, event: Event) -> None:
        """Report what happened to the rule."""

    def trigger(self, member: Member, by: str | None) -> None:
        """Report that the probe died of the signal; `by` whom, if not from inside."""

    def lost(self, member: Member, event: Event) -> None:
        """Report that the jail of a rule in a file was found ended."""


class Keeper(ProbeOwner):
    """Keeps the probe of one rule."""

    __slots__ = (
        "_distrust",
        "_fired",
        "_hub",
        "_probe",
        "_timer",
        "account",
        "asked",
        "error",
        "jail",
        "left",
        "member",
    )

    def __init__(self, hub: Hub, member: Member, jail: Jail | None) -> None:
        self._hub = hub
        self.member, self.jail = member, jail  # a rule in a file may have none for now
        self.error: JaildaemonError | None = None
        """Why the latest arming failed."""
        self.account: Account | None = None
        """Whom the command would run as: looked up when the probe was armed, or since."""
        self._distrust: JaildaemonError | None = None
        """Why no probe may stand before the account has been looked up anew."""
        self.asked: str | None = None
        """Who asked for the rule."""
        self.left: str | None = None
        """Why a rule in a file loses its jail."""
        self._fired: str | None = None
        """Who had the standing probe signalled, on the host."""
        self._probe: Probe | None = None
        self._timer: int | None = None

    @property
    def probe_pid(self) -> int | None:
        """The standing probe's pid."""
        if self.member.life.phase is not Phase.ARMED or self._probe is None:
            return None
        return self._probe.pid

    @property
    def fired(self) -> bool:
        """Whether the standing probe has been signalled on the host, and is not dead yet."""
        return self._fired is not None

    def do(self, act: Act) -> None:
        """Carry out one act of the fleet that is about the probe."""
        match act:
            case Act.ARM:
                self.arm()
            case Act.KILL:
                self._kill()
            case Act.BACKOFF:
                self._back_off()
            case Act.REST:
                now = self._hub.now()
                seconds = self.member.wait(now)
                self.member.next_arming = now.wall + seconds
                self._hub.log.info(
                    f"no probe for {seconds:.1f} s: {self._why_resting()}", rule=self.member.rule
                )
                self._call_in(seconds, Event.RESTED)
            case Act.IGNORE:
                why = "the rule was being withdrawn or held"
                self._hub.log.notice(f"refused a signal: {why}", rule=self.member.rule)
                journal, rule = self._hub.journal, self.member.rule.id
                journal.keep(journal.record("refused", rule=rule, reason=why))

    def settle_down(self) -> None:
        """Cancel the timer of a wait that is over or no longer wanted."""
        if self._timer is not None:
            self._hub.backend.watcher.cancel(self._timer)
            self._timer = None

    def arm(self) -> None:
        """Start arming a probe.  The fleet hears ARMED, FAILED or LOST, later."""
        rule = self.member.rule
        assert self.jail is not None
        self._probe = probe = Probe(self._hub.backend, self.jail, self)
        try:
            self._hub.journal.check()
        except OSError as error:
            # A trigger could not be recorded: better no bell than a dead one.
            why = f"the journal cannot be written: {error.strerror}"
            probe.fail(ArmingError("attach", self.jail.name, why))
            return
        distrust, self._distrust = self._distrust, None
        name = rule.policy.run_as
        if distrust is not None:
            probe.fail(distrust)
        elif name == OURS:
            self._arm_for(probe, self._hub.accounts.ours)
        else:
            self._hub.accounts.ask([name], [], lambda found: self._arm_for(probe, found.user(name)))

    def _arm_for(self, probe: Probe, account: Account | str) -> None:
        if self._probe is not probe:
            return  # withdrawn meanwhile
        if isinstance(account, str):
            probe.fail(self._no_account(account))
            return
        self.account, policy = account, self.member.rule.policy
        title = process_title(self.member.rule.title)
        self._hub.gate.enter(probe, lambda: probe.arm(title, policy.uid, policy.gid))

    def _no_account(self, why: str) -> JaildaemonError:
        return ArmingError("attach", f"run_as {self.member.rule.policy.run_as}", why)

    def looked_up(self, found: Found) -> None:
        """Take what the host says now of the rule's user; no answer changes nothing."""
        name, phase = self.member.rule.policy.run_as, self.member.life.phase
        if name not in found.asked or found.trouble is not None:
            return
        account = found.user(name)
        if isinstance(account, Account):
            self.account = account
            if phase is Phase.FAILING:
                self._hub.event(self.member, Event.RETRY)  # perhaps for the want of it
        elif phase is Phase.ARMED:
            self.distrust(account)

    def distrust(self, why: str) -> None:
        """Let the rule fail: its user is another, or none.  Each arming looks it up anew."""
        phase = self.member.life.phase
        if phase in (Phase.ARMED, Phase.RUNNING, Phase.RESTING):
            self._distrust = self._no_account(why)
        if phase is Phase.ARMED:
            self._kill()

    @property
    def distrusted(self) -> bool:
        """Whether its probe stands, and is being killed for its user."""
        return self._distrust is not None and self.member.life.phase is Phase.ARMED

    def _kill(self) -> None:
        probe = self._probe
        if probe is None:
            return
        if probe.armed:
            self._hub.pace.call(probe.kill)
        else:
            probe.kill()

    def adopt(self, pid: int) -> None:
        """Take up a probe that was armed before the daemon replaced itself."""
        assert self.jail is not None
        self._probe = Probe(self._hub.backend, self.jail, self)
        self._probe.adopt(pid)

    def fire(self, by: str) -> None:
        """Ring the standing probe: whatever follows is as if somebody in the jail had."""
        assert self._probe is not None
        self._probe.ring(self._hub.backend.signals[self.member.rule.policy.signal])
        self._fired = by

    def _why_resting(self) -> str:
        limited = self.member.window.wait(self._hub.now().steady)
        return f"the limit of {self.member.rule.policy.limit} is reached" if limited else "cooldown"

    def _back_off(self) -> None:
        seconds = backoff_seconds(self.member.life.failures)
        seconds *= 1 + random.uniform(-JITTER, JITTER)  # noqa: S311 - not a secret
        self.member.next_arming = self._hub.now().wall + seconds
        why = f"not armed, another try in {seconds:.1f} s: {self.member.reason}"
        self._hub.log.warning(why, rule=self.member.rule)
        self._call_in(seconds, Event.RETRY)

    def _call_in(self, seconds: float, event: Event) -> None:
        def call() -> None:
            self._timer = None
            self._hub.event(self.member, event)

        self._timer = self._hub.backend.watcher.call_in(seconds, call)

    # --- what the probe tells ---------------------------------------------------

    def armed(self) -> None:
        """Take note that the probe sleeps in the jail."""
        rule, log = self.member.rule, self._hub.log
        assert self._probe is not None
        assert self.jail is not None
        self._hub.gate.leave(self._probe)
        title = process_title(rule.title)
        log.info(f"armed in jail {self.jail.name} as pid {self._probe.pid}: {title}", rule=rule)
        for other in self._hub.fleet.overlapping(self.member):
            what = f"warning: pkill -f may ring {other.rule.id} too, their titles overlap"
            log.warning(what, rule=rule)
        self._hub.event(self.member, Event.ARMED)

    def failed(self, error: JaildaemonError) -> None:
        """Take note that no probe came of it."""
        self._hub.gate.leave(self._probe)
        self._probe, self.error = None, error
        if self.member.life.phase is not Phase.HOLDING:  # what is held has its reason
            self.member.reason = str(error)
        lost = bool(getattr(error, "lost", False))
        if lost and self.member.rule.lasting:
            self._hub.lost(self.member, Event.MISSED)
            return
        if lost and self.member.life.phase is not Phase.NEW:
            self._hub.log.info(f"gone: {error.why}", rule=self.member.rule)
        self._hub.event(self.member, Event.LOST if lost else Event.FAILED)

    def ended(self, death: Death) -> None:
        """Take the armed probe's end: the signal is the one bit, anything else is not."""
        self._probe, fired, self._fired = None, self._fired, None
        signals = self._hub.backend.signals
        if death.signal == signals[self.member.rule.policy.signal]:
            self._hub.trigger(self.member, fired)
            return
        armed = self.member.life.phase is Phase.ARMED
        distrust, self._distrust = self._distrust, None
        lasting = self.member.rule.lasting
        if armed:
            self.member.reason = str(distrust or f"the probe died of {death}")
            if not lasting and distrust is None:
                # Of an init that exits the kernel kills all others first.
                ending = self._ending() if death.signal == signal.SIGKILL else None
                if ending is not None:
                    self.member.reason = f"{ending}; a rule in a file would follow its next start"
                self._hub.log.warning(f"gone: {self.member.reason}", rule=self.member.rule)
        if lasting and armed and self._has_ended():
            self._hub.lost(self.member, Event.MISSED)
        else:
            # What we ended for its user is armed again, though it be in no file.
            fell = lasting or distrust is not None
            self._hub.event(self.member, Event.FELL if fell else Event.DIED)

    def _ending(self) -> str | None:
        try:
            return None if self.jail is None else self.jail.unsettled()
        except OSError:
            return None  # it cannot be asked now

    def _has_ended(self) -> bool:
        try:
            return self.jail is None or not self.jail.alive()
        except OSError:
            return False  # it cannot be asked now: the next arming will find out
