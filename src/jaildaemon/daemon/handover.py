# SPDX-License-Identifier: BSD-2-Clause
"""`jaildaemon restart`: the daemon replaces itself by exec, for an upgrade.

The pid stays, and so do the children: probes stand, commands keep their
parent, a death in between waits as a zombie.  Everything else is in the journal
already; what is handed over is a file of descriptors and pids.  A child of the
new version first loads all of it, so that a broken one is found out in time.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import attrs

from jaildaemon.backends import trust
from jaildaemon.backends.base import Backend, Death
from jaildaemon.core.journal import BadRecord, History, decode
from jaildaemon.daemon.journal import NAME
from jaildaemon.daemon.schema import BadParameter, structure
from jaildaemon.errors import JaildaemonError, Refused

VARIABLE = "JAILDAEMON_HANDOVER"
"""In the environment of the exec: "FD" or, for the rehearsal, "rehearse FD"."""
REHEARSAL_SECONDS = 120.0
"""The daemon works on meanwhile: it only ends a new version that hangs.  A busy machine, or a
journal of ten thousand rules, may take many seconds."""
STAYS = "the old one runs on"
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

    def descriptors(self) -> list[int]:
        """Return the descriptors that must survive the exec."""
        return [self.listener_fd, self.socket_lock_fd, self.pidfile_fd, self.state_fd]


FORMAT = 1


def _write(handover: Handover) -> int:
    """Return a descriptor of an unlinked file with the handover in it."""
    with tempfile.TemporaryFile() as file:
        file.write(json.dumps(attrs.asdict(handover)).encode("ascii"))
        file.flush()
        fd = os.dup(file.fileno())
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def read(fd: int) -> Handover:
    """Return the handover that `fd` holds; Refused where it is none of ours."""
    found = os.fstat(fd)
    if found.st_uid != os.geteuid() or found.st_nlink:
        raise Refused("restart", "handover", "is not a file of ours")
    try:
        with os.fdopen(os.dup(fd), "rb") as file:
            file.seek(0)
            handover = structure(json.load(file), Handover)
    except (ValueError, BadParameter) as error:
        raise Refused("restart", "handover", f"cannot be read: {error}") from error
    if handover.format != FORMAT:
        raise Refused("restart", "handover", f"has format {handover.format}, not {FORMAT}")
    return handover


def inherited() -> tuple[int, bool] | None:
    """Return the handover's descriptor, and whether this is only the rehearsal; else None."""
    words = os.environ.pop(VARIABLE, "").split()
    if not words:
        return None
    rehearsal = words[0] == "rehearse"
    return int(words[-1]), rehearsal


_program: list[str] = []
_script: list[str] = []


def remember_program() -> None:
    """Keep how we were started, absolute: ps(1) and rc(8) shall see the same afterwards."""
    script = sys.argv[0]
    words = [str(Path(word).absolute()) if word == script else word for word in sys.orig_argv[1:]]
    _program[:] = [sys.executable, *words]
    _script[:] = [str(Path(script).absolute())]


def _check_program() -> None:
    """Refuse a program that others than root could have changed: we would become it."""
    for path in (sys.executable, *_script, __file__):
        try:
            trust.check_program(path)
        except OSError as error:
            raise Refused("restart", path, error.strerror or str(error), STAYS) from error
        except trust.Untrusted as error:
            hint = STAYS if error.hint is None else f"{error.hint}; {STAYS}"
            raise Refused("restart", path, error.why, hint) from error


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
        self._backend, self._describe, self._answer = backend, describe, answer
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - read when the child has ended
        try:
            _check_program()
        except Refused as error:
            answer(error)
        else:
            self._when_quiet(self._rehearse)

    def _when_quiet(self, act: Callable[[Handover], None]) -> None:
        handover = self._describe()
        if handover is None:
            self._backend.watcher.call_in(QUIET_SECONDS, lambda: self._when_quiet(act))
        else:
            act(handover)

    def _rehearse(self, handover: Handover) -> None:
        fd = _write(handover)
        try:
            child = subprocess.Popen(
                _program,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                pass_fds=[fd],
                env={**os.environ, VARIABLE: f"rehearse {fd}"},
                cwd="/",
            )
        except OSError as error:
            why = f"the new version cannot be started: {error.strerror}"
            self._answer(Refused("restart", _program[0], why))
            return
        finally:
            os.close(fd)

        def end() -> None:
            self._errors.write(f"not done after {REHEARSAL_SECONDS:.0f} s\n".encode("ascii"))
            os.kill(child.pid, signal.SIGKILL)

        late = self._backend.watcher.call_in(REHEARSAL_SECONDS, end)

        def ended(death: Death) -> None:
            child.returncode = death.status if death.signal is None else -death.signal
            self._backend.watcher.cancel(late)
            if death.status == 0:
                self._when_quiet(self._exec)
                return
            self._errors.seek(0)
            lines = self._errors.read().decode(errors="replace").strip().splitlines()
            why = f"the rehearsal failed ({death}): {lines[-1] if lines else 'it said nothing'}"
            self._answer(Refused("restart", "the new version", why, STAYS))

        self._backend.watcher.watch_process(child.pid, ended)

    def _exec(self, handover: Handover) -> None:
        fd = _write(handover)
        # Blocked signals stay pending through the exec: none is lost, none kills us.
        signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
        for keep in (fd, *handover.descriptors()):
            os.set_inheritable(keep, True)
        self._answer(None)
        try:
            with self._backend.first_limits():  # which our successor takes for its own
                os.execve(sys.executable, _program, {**os.environ, VARIABLE: str(fd)})  # noqa: S606
        except OSError as error:
            for keep in handover.descriptors():
                os.set_inheritable(keep, False)
            os.close(fd)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            why = f"cannot be executed: {error.strerror}"
            self._answer(Refused("restart", sys.executable, why, STAYS))


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
