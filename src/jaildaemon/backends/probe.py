# SPDX-License-Identifier: BSD-2-Clause
"""One probe, from the helper's start to its own reaping, on either kernel."""

import contextlib
import os
import signal

from jaildaemon.backends.base import (
    ARMING_SECONDS,
    RECORD,
    RECORD_ERROR,
    RECORD_PID,
    RECORD_READY,
    STEPS,
    Again,
    ArmingError,
    Backend,
    Death,
    Jail,
    JailLost,
    ProbeOwner,
)
from jaildaemon.errors import JaildaemonError, NotPermitted

_ATTACH = "attach"
RETRY_SECONDS = 1.0
LOOK_SECONDS = 0.25
"""So often an arming that is not done is looked at.  It takes some milliseconds."""
HELD_SECONDS = 1.0
"""When the helper has said nothing for so long, it is asked what holds it up."""
MOST_TRIES = 3
MOST_STRAYS = 64
"""So many are reaped at once: each takes a descriptor until it is."""
_KILLED = "the probe was killed while arming"


class Probe:
    """One probe.  The daemon never waits here: everything is told by the watcher.

    Every byte that comes up the status pipe is hostile until checked: whoever
    may trace in the jail could write there between the probe's birth and "go".
    """

    __slots__ = (
        "_alive",
        "_armed",
        "_backend",
        "_buffer",
        "_deadline",
        "_death",
        "_error",
        "_go_fd",
        "_helper",
        "_jail",
        "_looks",
        "_owner",
        "_ready",
        "_settled",
        "_status_fd",
        "_tries",
        "_wish",
        "pid",
    )

    def __init__(self, backend: Backend, jail: Jail, owner: ProbeOwner) -> None:
        self._backend, self._jail, self._owner = backend, jail, owner
        self._error: JaildaemonError | None = None
        self._buffer = b""
        self._alive: set[int] = set()
        self._death: Death | None = None
        self._ready = self._armed = self._settled = False
        self._status_fd = self._go_fd = -1
        self._deadline: int | None = None
        self._helper: int | None = None
        self._looks = self._tries = 0
        self._wish = ("", 0, 0)
        self.pid: int | None = None

    def arm(self, title: str, uid: int, gid: int) -> None:
        """Start arming.  The owner hears of it later, never within this call."""
        if self._error is not None:
            return  # withdrawn before its turn came
        self._wish = (title, uid, gid)
        self._try()

    def _try(self) -> None:
        self._tries += 1
        self._looks = 0
        try:
            spawned = self._backend.spawn(self._jail, *self._wish)
        except OSError as error:
            why = f"the helper cannot be started: {error.strerror}"
            self.fail(ArmingError(_ATTACH, self._jail.name, why))
            return
        except JaildaemonError as error:
            self.fail(error)
            return
        self._helper = spawned.helper_pid
        self._status_fd, self._go_fd = spawned.status_fd, spawned.go_fd
        self.pid = spawned.probe_pid
        self._watch(spawned.helper_pid)
        try:
            self._backend.watcher.watch_fd(self._status_fd, self._read_status)
        except OSError as error:
            why = f"the helper cannot be listened to: {error.strerror}"
            self.fail(ArmingError(_ATTACH, self._jail.name, why))
            return
        self._deadline = self._backend.watcher.call_in(LOOK_SECONDS, self._look)

    @property
    def armed(self) -> bool:
        """Whether it sleeps in the jail, or did until a moment ago."""
        return self._armed

    def adopt(self, pid: int) -> None:
        """Take up a probe that was armed before the daemon replaced itself by exec."""
        self.pid, self._armed = pid, True
        self._backend.adopt(self._jail, pid)  # before its end may be told
        self._watch(pid)

    def kill(self) -> None:
        """End it, armed or not; the owner hears `ended` or `failed` when it is reaped."""
        self.fail(ArmingError(_ATTACH, self._jail.name, "withdrawn before it was armed"))

    def ring(self, signum: int) -> None:
        """Signal the armed probe, as anybody in its jail might."""
        if self.pid is not None and self.pid in self._alive:
            try:
                self._backend.watcher.signal_process(self.pid, signum)
            except PermissionError:
                why = "a security module of the kernel forbids to signal its probe"
                raise NotPermitted("fire", self._jail.name, why) from None

    def fail(self, error: JaildaemonError) -> None:
        """End what there is, and keep the first reason; but a wish to try again is none."""
        if self._error is None or isinstance(self._error, Again):
            self._error = error
        self._close_pipes()
        for pid in self._alive:
            self._end(pid)
        if not self._alive:
            self._backend.watcher.call_in(0, self._settle)

    def _end(self, pid: int) -> None:
        """Kill a child, now or as soon as we may.

        A security module may forbid it, by a policy that a jail made for itself
        (AppArmor's namespaces): then it is the jail's end, or ours, that ends the probe.
        """
        try:
            if pid in self._alive:
                self._backend.watcher.signal_process(pid, signal.SIGKILL)
        except PermissionError:
            self._backend.watcher.call_in(RETRY_SECONDS, lambda: self._end(pid))

    def _look(self) -> None:
        """Look at an arming that is not done."""
        self._deadline = None
        self._looks += 1
        seconds = self._looks * LOOK_SECONDS
        assert self._helper is not None
        if seconds >= ARMING_SECONDS:
            why = f"the helper was not done after {ARMING_SECONDS:.0f} s"
            self.fail(ArmingError(_ATTACH, self._jail.name, why))
            return
        held = None
        if self.pid is None and not self._ready and seconds >= HELD_SECONDS:
            held = self._backend.held_up(self._jail, self._helper)
        elif self.pid is not None and self._backend.strays(self._helper):
            # Before it is ready, a probe is alone.
            held = ArmingError(_ATTACH, self._jail.name, "somebody in the jail makes it clone")
        if held is not None:
            self.fail(held)
        else:
            self._deadline = self._backend.watcher.call_in(LOOK_SECONDS, self._look)

    def _watch(self, pid: int) -> None:
        self._alive.add(pid)
        self._backend.watcher.watch_process(pid, lambda death: self._reaped(pid, death))

    def _read_status(self) -> None:
        try:
            untrusted = os.read(self._status_fd, 8 * RECORD.size)
        except BlockingIOError:
            return  # the event was of an earlier descriptor with this number
        self._buffer += untrusted
        try:
            while len(self._buffer) >= RECORD.size:
                record, self._buffer = self._buffer[: RECORD.size], self._buffer[RECORD.size :]
                self._take_record(*RECORD.unpack(record))
            if self._ready and self.pid is not None:
                if self.pid not in self._alive:
                    # Reaped before READY was read: its number may be another's by now.
                    raise ArmingError(_ATTACH, self._jail.name, _KILLED)
                self._backend.verify(self._jail, self.pid)
                self._let_go()
            elif not untrusted:
                raise ArmingError(_ATTACH, self._jail.name, "the helper ended without a report")
        except JaildaemonError as error:
            self.fail(error)
        except OSError as error:
            # We are short of something; the next try may find it.
            why = f"the probe cannot be examined: {error.strerror}"
            self.fail(ArmingError(_ATTACH, self._jail.name, why))

    def _take_record(self, kind: int, step: int, _zero: int, value: int) -> None:
        if kind == RECORD_PID and self.pid is None:
            assert self._helper is not None
            self.pid = self._backend.probe_reported(self._jail, value, self._helper)
            self._watch(self.pid)
        elif kind == RECORD_READY and not self._ready:
            # The probe may be faster than its parent, which reports the pid.
            self._ready = True
        elif kind == RECORD_ERROR and step in STEPS:
            raise self._backend.explain(self._jail, STEPS[step], value)
        else:
            raise ArmingError(_ATTACH, self._jail.name, "the helper's report is not one")

    def _let_go(self) -> None:
        """Tell the probe to sleep; from here on its death by the signal counts."""
        try:
            os.write(self._go_fd, b"G")
        except BrokenPipeError:
            raise ArmingError(_ATTACH, self._jail.name, _KILLED) from None
        self._armed = True
        self._close_pipes()
        assert self._helper is not None
        self._backend.over(self._helper)
        self._owner.armed()

    def _close_pipes(self) -> None:
        if self._deadline is not None:
            self._backend.watcher.cancel(self._deadline)
            self._deadline = None
        if self._status_fd >= 0:
            self._backend.watcher.unwatch_fd(self._status_fd)
            os.close(self._status_fd)
            # What waits for "go" reads the end of the file now, and ends.
            os.close(self._go_fd)
            self._status_fd = self._go_fd = -1

    def _reaped(self, pid: int, death: Death) -> None:
        self._alive.discard(pid)
        if pid == self.pid:
            self._death = death
        self._settle()

    def _settle(self) -> None:
        """Tell the owner, once, when nothing is left."""
        if self._settled or self._alive or self._status_fd >= 0:
            return
        if self._armed and self._death is not None:
            self._settled = True
            self._owner.ended(self._death)
            return
        if self._error is None:
            return
        if self._helper is not None:
            try:
                strays = self._backend.strays(self._helper)
            except OSError:
                # A probe may be left that nobody knows: no other try before that is seen.
                self._backend.watcher.call_in(RETRY_SECONDS, self._settle)
                return
            for stray in strays[:MOST_STRAYS]:
                self._watch(stray)
                self._end(stray)
            if self._alive:
                return
            self._backend.over(self._helper)
            self._helper = None
        if isinstance(self._error, Again) and self._tries < MOST_TRIES:
            self._error, self._buffer, self.pid, self._ready = None, b"", None, False
            self._try()
            return
        self._settled = True
        with contextlib.suppress(OSError):  # it cannot be asked now: the next try will
            if not self._jail.alive():
                self._error = JailLost(_ATTACH, self._jail.name, "the jail has ended")
        self._owner.failed(self._error)
