# SPDX-License-Identifier: BSD-2-Clause
"""`jaildaemon restart`: the daemon replaces itself by exec, for an upgrade.

The pid stays, and so do the children: probes stand, commands keep their
parent, a death in between waits as a zombie.  Everything else is in the journal
already; what is handed over is a file of descriptors and pids.  A child of the
new version first loads all of it, so that a broken one is found out in time.
"""

import json
import os
import re
import signal
import stat
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import attrs

from jaildaemon.backends import unnamed_file
from jaildaemon.backends.base import Backend, Death
from jaildaemon.core.journal import BadRecord, History, decode
from jaildaemon.daemon import program
from jaildaemon.daemon.journal import NAME
from jaildaemon.daemon.schema import BadParameter, structure
from jaildaemon.errors import JaildaemonError, Refused

VARIABLE = "JAILDAEMON_HANDOVER"
"""In the environment of the exec: "FD" or, for the rehearsal, "rehearse FD"."""
REHEARSAL_SECONDS = 120.0
"""The daemon works on meanwhile: it only ends a new version that hangs.  A busy machine, or a
journal of ten thousand rules, may take many seconds."""
STAYS = "the old one runs on"
UNSET = f"unset {VARIABLE}"
MAX_COMPLAINT = 4096
"""Bytes of what the rehearsal said: a wrong file may have hundreds of lines."""
OURS = "jaildaemon: "
"""How each of our own lines begins."""
QUIET_SECONDS = 0.01
"""Between two looks for a moment with no arming in flight."""


@attrs.frozen
class Handover:
    """What the old program leaves to the new one."""

    format: int
    pidfile: str
    socket: str
    state: str
    foreground: bool
    listener_fd: int
    socket_lock_fd: int
    pidfile_fd: int
    state_fd: int
    probes: dict[str, int]
    """Of each armed rule, its probe's pid."""
    children: list[int]
    """Every other child: commands, and the readers of their output."""
    config: str | None = None
    """The file with rules that was named, if one was."""
    outputs: dict[str, int] = attrs.field(factory=dict)
    """Of each run whose output no reader has, our end of its pipe."""

    def descriptors(self) -> list[int]:
        """Return the descriptors that must survive the exec."""
        held = [self.listener_fd, self.socket_lock_fd, self.pidfile_fd, self.state_fd]
        return [*held, *self.outputs.values()]


FORMAT = 1


def _write(handover: Handover) -> int:
    """Return a descriptor of a file without a name, with the handover in it; OSError."""
    left = attrs.asdict(handover)
    if not left["outputs"]:
        del left["outputs"]  # which 0.1.0 does not know
    with os.fdopen(unnamed_file(Path(handover.state)), "wb") as file:
        file.write(json.dumps(left).encode("ascii"))
        file.flush()
        fd = os.dup(file.fileno())
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def read(fd: int) -> Handover:
    """Return the handover that `fd` holds; Refused where it is none of ours."""
    try:
        found = os.fstat(fd)
        if found.st_uid != os.geteuid() or found.st_nlink or not stat.S_ISREG(found.st_mode):
            raise Refused("restart", "handover", "is not a file of ours", UNSET)
        with os.fdopen(os.dup(fd), "rb") as file:
            file.seek(0)
            handover = structure(json.load(file), Handover)
    except OSError as error:
        raise Refused("restart", "handover", error.strerror or str(error), UNSET) from error
    except (ValueError, RecursionError, BadParameter) as error:
        raise Refused("restart", "handover", f"cannot be read: {error}", UNSET) from error
    if handover.format != FORMAT:
        raise Refused("restart", "handover", f"has format {handover.format}, not {FORMAT}")
    return handover


def check_descriptors(handover: Handover) -> None:
    """Refuse a handover without what it names: only after the exec are its descriptors ours."""
    try:
        for kept in handover.descriptors():
            os.fstat(kept)
    except OSError as error:
        why = f"names a descriptor that is not open: {error.strerror}"
        raise Refused("restart", "handover", why, UNSET) from error


def inherited() -> tuple[int, bool] | None:
    """Return the handover's descriptor, and whether this is only the rehearsal; else None."""
    left = os.environ.pop(VARIABLE, "")
    if not left:
        return None
    found = re.fullmatch(r"(rehearse )?([0-9]{1,9})", left, re.ASCII)
    if found is None:
        raise Refused("start", VARIABLE, "is not what a restart leaves there", UNSET)
    return int(found[2]), found[1] is not None


class Restart:
    """One restart under way: the rehearsal, the quiet moment, the exec."""

    def __init__(
        self,
        backend: Backend,
        describe: Callable[[], Handover | None],
        answer: Callable[[JaildaemonError | None], None],
    ) -> None:
        """`describe` gives the handover, or None while an arming is in flight.

        `answer` is told why not, or None in the moment before the exec.
        """
        self._backend, self._describe = backend, describe
        self._tell = answer
        self._errors_fd = -1
        try:
            program.check(STAYS)
        except Refused as error:
            answer(error)
        else:
            self._when_quiet(self._rehearse)

    def _answer(self, error: JaildaemonError | None) -> None:
        if self._errors_fd >= 0:
            os.close(self._errors_fd)
            self._errors_fd = -1
        self._tell(error)

    def _when_quiet(self, act: Callable[[Handover], None]) -> None:
        handover = self._describe()
        if handover is None:
            self._backend.watcher.call_in(QUIET_SECONDS, lambda: self._when_quiet(act))
            return
        try:
            act(handover)
        except OSError as error:  # no memory, no descriptor, a full disk
            why = f"cannot be prepared: {error.strerror or error}"
            self._answer(Refused("restart", "the daemon", why, STAYS))

    def _rehearse(self, handover: Handover) -> None:
        self._errors_fd = unnamed_file(Path(handover.state))
        fd = _write(handover)
        command = program.command()
        try:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors_fd,
                pass_fds=[fd],
                env={**os.environ, VARIABLE: f"rehearse {fd}"},
                cwd="/",
            )
        except OSError as error:
            why = f"the new version cannot be started: {error.strerror}"
            self._answer(Refused("restart", command[0], why, STAYS))
            return
        finally:
            os.close(fd)

        def end() -> None:
            os.write(self._errors_fd, f"not done after {REHEARSAL_SECONDS:.0f} s\n".encode("ascii"))
            os.kill(child.pid, signal.SIGKILL)

        late = self._backend.watcher.call_in(REHEARSAL_SECONDS, end)

        def ended(death: Death) -> None:
            child.returncode = death.status if death.signal is None else -death.signal
            self._backend.watcher.cancel(late)
            if death.status == 0:
                self._when_quiet(self._exec)
                return
            why = f"the rehearsal failed ({death}): {self._complaint()}"
            self._answer(Refused("restart", "the new version", why, STAYS))

        self._backend.watcher.watch_process(child.pid, ended)

    def _complaint(self) -> str:
        """Return what the rehearsal complained of: our own lines, else the last one."""
        size = os.fstat(self._errors_fd).st_size
        text = os.pread(self._errors_fd, MAX_COMPLAINT, max(0, size - MAX_COMPLAINT))
        lines = text.decode(errors="replace").strip().splitlines()
        ours = [x.removeprefix(OURS) for x in lines if x.startswith(OURS)]
        if lines and not lines[-1].startswith(OURS):
            ours = lines[-1:]
        return "; ".join(ours) or "it said nothing"

    def _exec(self, handover: Handover) -> None:
        fd, command = _write(handover), program.command()
        # Blocked signals stay pending through the exec: none is lost, none kills us.
        signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
        for keep in (fd, *handover.descriptors()):
            os.set_inheritable(keep, True)
        self._answer(None)
        try:
            with self._backend.first_limits():  # which our successor takes for its own
                os.execve(command[0], command, {**os.environ, VARIABLE: str(fd)})  # noqa: S606
        except OSError as error:
            for keep in handover.descriptors():
                os.set_inheritable(keep, False)
            os.close(fd)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            why = f"cannot be executed: {error.strerror}"
            self._answer(Refused("restart", command[0], why, STAYS))


def load_journal(state: Path, rules: Iterable[str]) -> None:
    """Read the journal as the new version would, and change nothing: the rehearsal's part.

    A line that is no record is skipped, as at any start; but every rule whose probe
    stands must be known from it, or that probe would be nobody's.
    """
    history = History()
    for line in (state / NAME).read_bytes().splitlines():
        try:
            history.read(decode(line))
        except BadRecord:
            history.skip()
    for rule in rules:
        if rule not in history.rules:
            raise Refused("restart", str(state / NAME), f"has no rule {rule}")
