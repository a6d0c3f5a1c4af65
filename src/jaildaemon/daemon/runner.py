# SPDX-License-Identifier: BSD-2-Clause
"""What becomes of a trigger: settle, queue, start, timeout, end, each in the journal."""

import os
import signal
from pathlib import Path
from typing import Protocol

from jaildaemon.backends import OUTPUT_READER, Program
from jaildaemon.backends.base import Backend, Death, Jail
from jaildaemon.core.fleet import Do, Fleet, Member, Now, Run, Stage
from jaildaemon.core.journal import Record
from jaildaemon.daemon.accounts import OURS, Account, Accounts
from jaildaemon.daemon.commands import Command
from jaildaemon.daemon.journal import Journal
from jaildaemon.daemon.logs import Logger
from jaildaemon.daemon.output import Readers, take_ring

KILL_SECONDS = 10.0
"""After the timeout's TERM to the command's process group comes KILL."""
TAIL_BYTES = 2000
"""Of a run's output, for its record."""


class Hub(Protocol):
    """What the runner needs of the daemon."""

    backend: Backend
    fleet: Fleet
    journal: Journal
    log: Logger
    accounts: Accounts
    ending: bool

    def now(self) -> Now:
        """Return this instant."""

    def perform(self, todo: list[Do]) -> None:
        """Carry out what the fleet decided."""

    def ended(self, run: Run) -> None:
        """Report that a run has ended, or will never start."""

    def jail_of(self, run: Run) -> Jail:
        """Return the jail of a run's rule."""

    def distrust(self, member: Member, why: str) -> None:
        """Have no probe of a rule until its user has been looked up anew."""


class Runner:
    """Every run of the daemon.  `rings` is the directory of their output."""

    def __init__(self, hub: Hub, rings: Path) -> None:
        self._hub, self._rings = hub, rings
        self._readers = Readers(hub.backend, Program("output reader", OUTPUT_READER))
        self._commands: dict[str, Command] = {}
        self._timeouts: dict[str, int] = {}
        self._recorded: set[str] = set()
        """Runs whose trigger is in the journal."""
        self._doomed: set[str] = set()
        """Runs that are about to be refused, and so must not be started meanwhile."""
        self._looked_for: set[str] = set()
        """Runs that start when their user has been looked up."""
        self.inherited: dict[str, int] = {}
        """The pipes of commands whose output had no reader before a restart."""

    def _ring(self, run: Run) -> str:
        return f"{self._rings}/{run.id}.output"

    def settle(self, run: Run) -> None:
        """Wait, then see whether the jail still lives: its shutdown may have rung."""
        if run.id not in self._recorded and not self._record_trigger(run):
            return
        seconds = run.member.rule.policy.settle
        what = f"run {run.id} settles: it starts if its jail lives in {seconds:g} s"
        self._hub.log.notice(what, rule=run.member.rule, run=run.id)

        def settled() -> None:
            if run not in run.member.runs:
                return  # refused meanwhile
            try:
                why = self._hub.jail_of(run).unsettled()
            except OSError as error:
                why = f"it cannot be seen whether its jail lives: {error.strerror}"
            if why is None:
                self._hub.perform(self._hub.fleet.settled(run))
            else:
                self.refuse(run, "refused", f"did not settle: {why}")

        self._hub.backend.watcher.call_in(seconds, settled)

    @property
    def quiet(self) -> bool:
        """Whether no command's output is on its way to a reader."""
        return not any(command.output.given for command in self._commands.values())

    @property
    def pipes(self) -> dict[str, int]:
        """Our end of the pipe of each command whose output has no reader, by its run."""
        outputs = {run: command.output for run, command in self._commands.items()}
        return {run: output.pipe_fd for run, output in outputs.items() if not output.has_reader}

    @property
    def trouble(self) -> str | None:
        """Why output is not kept now."""
        return self._readers.trouble

    def recorded(self, run: Run) -> None:
        """Take note that the run's trigger is in the journal already."""
        self._recorded.add(run.id)

    def queue(self, run: Run) -> None:
        """Record the trigger; `start` follows when a place is free."""
        if run.id not in self._recorded and self._record_trigger(run):
            self._say(run, f"waits: {self._hub.fleet.running} commands run already")

    def refuse(self, run: Run, kind: str, why: str) -> None:
        """Let a run end that never started."""
        self._recorded.discard(run.id)
        self._doomed.discard(run.id)
        self._looked_for.discard(run.id)
        if run not in run.member.runs:
            return  # refused already: its rule was withdrawn in the same instant
        self._hub.fleet.refuse(run.member)
        what = f"run {run.id} {kind}: {why}"
        self._hub.log.warning(what, rule=run.member.rule, run=run.id)
        self._keep(run, kind, reason=why)
        self._hub.ended(run)

    def waits(self, run: Run) -> bool:
        """Whether a run has not started, and may still be refused."""
        return run.stage is not Stage.RUNNING or run.id in self._looked_for

    def start(self, run: Run) -> None:
        """Start the command, as whoever its user is now."""
        name = run.member.rule.policy.run_as
        if run.id in self._doomed:
            return
        if name == OURS:
            self._start(run, self._hub.accounts.ours)
        elif run.id in self._recorded or self._record_trigger(run):
            # Whatever becomes of us meanwhile: it is known that it rang.
            self._looked_for.add(run.id)
            self._hub.accounts.ask([name], [], lambda found: self._looked_up(run, found.user(name)))

    def _looked_up(self, run: Run, account: Account | str) -> None:
        self._looked_for.discard(run.id)
        if run not in run.member.runs or self._hub.ending:
            return  # refused meanwhile; or the next daemon begins with it
        why = account if isinstance(account, str) else None
        if isinstance(account, Account) and run.account not in (None, account.numbers):
            why = f"it is {account.numbers} now, and was {run.account} when the rule was armed"
        if isinstance(account, Account) and why is None:
            self._start(run, account)
            return
        self._hub.distrust(run.member, str(why))
        self.refuse(run, "refused", f"run_as {run.member.rule.policy.run_as}: {why}")

    def _start(self, run: Run, account: Account) -> None:
        """Start it.  Its intent is in the journal first: at most once, always."""
        journal, rule = self._hub.journal, run.member.rule
        jail = self._hub.jail_of(run)
        values = {
            "RUN": run.id,  # by which it is found again (Backend.find_run)
            "JID": str(jail.number),
            # An engine's name is root's, and plain; a jail's own is the kernel's.
            "JAIL": rule.jail_name or jail.safe_name(),
            "TITLE": rule.title or "",
            "RULE": rule.id,
        }
        command = Command(self._hub.backend, self._ring(run))
        records = [journal.record("start", rule=rule.id, run=run.id)]
        if run.id not in self._recorded:
            records.insert(0, self._trigger(run))
        try:
            journal.append(*records)
        except OSError as error:
            self._refuse_soon(run, f"the journal cannot be written: {error.strerror}")
            return
        self._recorded.add(run.id)
        began = self._hub.now()
        try:
            command.start(
                rule.command,
                account,
                values,
                lambda death: self._ended(run, death, began),
            )
        except OSError as error:
            why = error.strerror or str(error)
            self._refuse_soon(run, f"/bin/sh cannot be started: {why}")
            return
        finally:
            journal.learn(*records)  # only now: whoever rang waits for the start
        self._commands[run.id] = command
        self._watch_timeout(run, command)
        self._keep(run, "pid", pid=command.pid, start_time=self._start_time(command.pid))
        self._readers.take(command.output)
        who = f"signal from jail {jail.name}"
        if run.by is not None:
            who = f"fired {run.by} for jail {jail.name}"
        what = f"run {run.id} is pid {command.pid} as {rule.policy.run_as}"
        # Not the command itself: who may read the log is not to read what is in it.
        self._hub.log.notice(f"{who}; {what}", rule=rule, run=run.id)

    def _start_time(self, pid: int) -> int | None:
        try:
            return self._hub.backend.start_time(pid)  # it is not reaped yet, if it has ended
        except OSError:
            return None  # then it is found by its environment

    def adopt(self, run: Run, pid: int, *, child: bool) -> None:
        """Take up a command that outlived the daemon that started it, or (`child`) its program."""
        command = Command(self._hub.backend, self._ring(run), pid=pid)
        command.output.pipe_fd = self.inherited.pop(run.id, -1)
        self._readers.take(command.output)
        self._recorded.add(run.id)
        self._commands[run.id] = command
        began = run.triggered
        watcher = self._hub.backend.watcher
        watch = watcher.watch_process if child else watcher.watch_other
        watch(pid, lambda death: self._ended(run, death, began))
        self._watch_timeout(run, command)
        self._say(run, f"goes on as pid {pid}")

    def _watch_timeout(self, run: Run, command: Command) -> None:
        seconds = run.member.rule.policy.timeout
        if seconds is None:
            return
        watcher = self._hub.backend.watcher

        def terminate() -> None:
            late = f"run {run.id} has not ended after {seconds:g} s: SIGTERM"
            self._hub.log.warning(late, rule=run.member.rule, run=run.id)
            command.signal(signal.SIGTERM)
            kill = watcher.call_in(KILL_SECONDS, command.kill)
            self._timeouts[run.id] = kill

        # Of an adopted command some of the time is over.
        elapsed = max(0.0, self._hub.now().steady - run.triggered.steady)
        self._timeouts[run.id] = watcher.call_in(max(0.0, seconds - elapsed), terminate)

    def _ended(self, run: Run, death: Death, began: Now) -> None:
        command = self._commands.pop(run.id)
        command.ended()
        timeout = self._timeouts.pop(run.id, None)
        # The shell may die of the TERM that others in its group ignore: KILL still follows.
        if timeout is not None and not command.outlived:
            self._hub.backend.watcher.cancel(timeout)
        seconds = round(max(0.0, self._hub.now().steady - began.steady), 3)
        what, why = f"run {run.id} ended: {death} after {seconds:.3f} s", None
        if command.told:
            why = f"its timeout of {run.member.rule.policy.texts()['timeout']} was over"
            what += f": {why}"
        log = self._hub.log.info if death.status == 0 else self._hub.log.warning
        log(what, rule=run.member.rule, run=run.id, exit_status=death.status)
        self._keep(
            run,
            "end",
            exit_status=death.status,
            signal=death.signal,
            duration_seconds=seconds,
            reason=why,
        )
        command.output.when_read(lambda ring: self._keep_output(run.member.rule.id, Path(ring)))
        self._recorded.discard(run.id)
        self._hub.ended(run)

    def _keep_output(self, rule: str, ring: Path) -> None:
        run = ring.stem
        try:
            data = take_ring(ring)
        except OSError as error:
            # The next daemon's sweep finds it.
            what = f"the output of run {run} cannot be read now: {error.strerror}"
            self._hub.log.warning(what, run=run)
            return
        if data:
            tail = data[-TAIL_BYTES:].decode(errors="replace")
            journal = self._hub.journal
            journal.keep(journal.record("output", rule=rule, run=run, output_tail=tail))

    def sweep(self) -> None:
        """Take the output of runs that another life of the daemon began and we do not wait for."""
        while self.inherited:
            os.close(self.inherited.popitem()[1])
        for ring in self._rings.glob("*.output"):
            if ring.stem not in self._commands:
                self._keep_output("", ring)

    def _refuse_soon(self, run: Run, why: str) -> None:
        # Not from within the act: the fleet is still deciding.
        self._doomed.add(run.id)
        self._hub.backend.watcher.call_in(0, lambda: self.refuse(run, "refused", why))

    def _record_trigger(self, run: Run) -> bool:
        journal = self._hub.journal
        try:
            journal.write(self._trigger(run))
        except OSError as error:
            self._refuse_soon(run, f"the journal cannot be written: {error.strerror}")
            return False
        self._recorded.add(run.id)
        return True

    def _trigger(self, run: Run) -> Record:
        by = None if run.by is None else f"fired {run.by}"
        return self._hub.journal.record("trigger", rule=run.member.rule.id, run=run.id, reason=by)

    def _keep(self, run: Run, kind: str, **values: object) -> None:
        journal = self._hub.journal
        journal.keep(journal.record(kind, rule=run.member.rule.id, run=run.id, **values))

    def _say(self, run: Run, what: str) -> None:
        self._hub.log.info(f"run {run.id} {what}", rule=run.member.rule, run=run.id)
