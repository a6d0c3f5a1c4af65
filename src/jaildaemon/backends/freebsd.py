# SPDX-License-Identifier: BSD-2-Clause
"""FreeBSD: probes in jails, by a helper that enters the jail and becomes the probe.

Sources: jail_attach(2), posix_spawn(3), procctl(2), unix(4), kern_jail.c, kern_proc.c.
"""

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from jaildaemon.backends import freebsd_libc as libc
from jaildaemon.backends.base import (
    EVERY_SIGNAL,
    FD_GO,
    FD_STATUS,
    ArmingError,
    Backend,
    Jail,
    JailLost,
    Peer,
    Spawned,
    pack_params,
    reserve_helper_descriptors,
)
from jaildaemon.errors import JaildaemonError, NotPermitted

assert sys.platform.startswith("freebsd")

from jaildaemon.backends.freebsd_census import INIT_PID, start_since_boot
from jaildaemon.backends.freebsd_jails import FreeBSDJail, Jails
from jaildaemon.backends.freebsd_program import Program
from jaildaemon.backends.freebsd_watcher import FreeBSDWatcher

NO_UID = 2**32 - 1  # what no process has


class FreeBSDBackend(Backend):
    """Probes in jails.  `helper` is the path of the helper, which becomes the probe."""

    signals: ClassVar[dict[str, int]] = {"HUP": signal.SIGHUP, "USR1": signal.SIGUSR1}
    state_directory = "/var/db/jaildaemon"
    spawns_sessions = False

    def __init__(self, helper: Path) -> None:
        reserve_helper_descriptors()
        self._helper = Program("helper", helper)
        self._pid = os.getpid()
        self.watcher: FreeBSDWatcher = FreeBSDWatcher()
        self._jails = Jails(self.watcher)

    def resolve(self, text: str) -> FreeBSDJail:
        """Find a jail by its jid or its name, as jls(8) of the host shows them."""
        return self._jails.resolve(text)

    def boot_id(self) -> str:
        """Return kern.boot_id; on 13, which has none, when init was started after the boot.

        That is a number of microseconds, which differs from boot to boot; and a
        jail is only known again if a process of it started at the same one too.
        """
        random = libc.boot_id()
        if random is not None:
            return random.hex()
        seconds, microseconds = start_since_boot(libc.process(INIT_PID))
        return f"init+{seconds}.{microseconds}"

    def recover(self, identity: dict[str, object], probe: int | None = None) -> FreeBSDJail:
        """Find the jail of this jid, name and path that still has one of its processes."""
        return self._jails.recover(identity, probe)

    def jail_names(self) -> list[str]:
        """Return what jls(8) shows, without the children of jails."""
        return self._jails.names()

    def watch_jails(self, begun: Callable[[], None]) -> Callable[[], None] | None:
        """Wait for EVFILT_JAIL's NOTE_JAIL_CHILD of our own jail (15)."""
        who = object()
        if not self.watcher.watch_jail(0, who, begun):
            return None
        return lambda: self.watcher.unwatch_jail(0, who)

    def watch_end(self, jail: Jail, ended: Callable[[], None]) -> Callable[[], None]:
        """Wait for EVFILT_JAIL's NOTE_JAIL_REMOVE (15); before, nobody tells."""
        who = object()
        try:
            self.watcher.watch_jail(jail.number, who, ended)
        except FileNotFoundError:
            handle = self.watcher.call_in(0, ended)
            return lambda: self.watcher.cancel(handle)
        return lambda: self.watcher.unwatch_jail(jail.number, who)

    def start_time(self, pid: int) -> int:
        """Return ki_start in microseconds after the boot: so no set clock moves it."""
        seconds, microseconds = start_since_boot(libc.process(pid))
        return seconds * 1_000_000 + microseconds

    def find_run(
        self, run: str, pid: int | None, *, uid: int | None, start_time: int | None = None
    ) -> int | None:
        """Look for that very process, or for JAILDAEMON_RUN in environments (kern.proc.env).

        It is in no jail: whoever is in one may call itself a run.
        """
        if pid is not None and start_time is not None:
            try:
                same = self.start_time(pid) == start_time
                return pid if same and not libc.process(pid).zombie else None
            except OSError:
                return None
        wanted = f"JAILDAEMON_RUN={run}".encode()
        for candidate in [pid] if pid else [process.pid for process in libc.processes()]:
            try:
                process = libc.process(candidate)
                # All three: a program that changes its user keeps its caller's environment.
                if process.jid != 0 or set(process.uids) != {uid}:
                    continue
                if wanted in libc.environment(candidate) and os.getsid(candidate) == candidate:
                    return candidate
            except OSError:
                continue  # it ended between the listing and the look, or has no memory (kernel)
        return None

    def spawn(self, jail: Jail, title: str, uid: int, gid: int) -> Spawned:
        """Start the helper, its parameters already in the pipe."""
        assert isinstance(jail, FreeBSDJail)
        status_fd, their_status = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        their_go, go_fd = os.pipe()
        try:
            os.write(go_fd, pack_params(flags=0, target=jail.number, uid=uid, gid=gid))
            pid = self._helper.start(
                [title],
                [
                    (os.POSIX_SPAWN_DUP2, their_status, FD_STATUS),
                    (os.POSIX_SPAWN_DUP2, their_go, FD_GO),
                ],
                setsigmask=EVERY_SIGNAL,
            )
        except BaseException:
            os.close(status_fd)
            os.close(go_fd)
            raise
        finally:
            os.close(their_status)
            os.close(their_go)
        return Spawned(pid, pid, status_fd, go_fd)

    def probe_reported(self, jail: Jail, untrusted_pid: int, helper: int) -> int:  # noqa: ARG002 - none is right
        """Refuse: the helper is the probe, and reports no pid."""
        raise ArmingError("attach", jail.name, "the helper reported a pid, and has none to report")

    def adopt(self, jail: Jail, pid: int) -> None:
        """Know the probe as one that moved in."""
        assert isinstance(jail, FreeBSDJail)
        self._jails.house(jail.prison, pid)

    def verify(self, jail: Jail, pid: int) -> None:
        """Check that the probe is our child, in the jail, and that it is the very same jail."""
        assert isinstance(jail, FreeBSDJail)
        try:
            if libc.process(pid).ppid != self._pid:
                raise ArmingError("attach", jail.name, "the probe is not our child")
            self._jails.moved_in(jail, pid)
        except OSError as error:
            why = f"the probe cannot be examined: {error.strerror or error}"
            raise ArmingError("attach", jail.name, why) from error

    def explain(self, jail: Jail, step: str, error: int) -> JaildaemonError:
        """Say what a failed step of helper_freebsd.c means."""
        why = f"step {step} of the helper failed: {os.strerror(error)}"
        match step, error:
            case "enter", errno.EINVAL:  # no such jid, or dying
                return JailLost("attach", jail.name, "the jail has ended")
            case "enter", errno.EPERM:
                hint = "the daemon must be root, and no MAC policy may forbid it to enter jails"
                return NotPermitted("attach", jail.name, why, hint)
            case "enter", errno.ENOTDIR:
                hint = "the file system of the jail's path is no longer mounted"
                return ArmingError("attach", jail.name, why, hint)
            case "enter", errno.EDEADLK:
                return ArmingError("attach", jail.name, why, "the jail's cpuset leaves us no CPU")
            case (("session" | "groups" | "gid" | "uid"), errno.EPERM):
                return NotPermitted("attach", jail.name, why, "the daemon must be root")
            case "untrace", errno.EBUSY:
                why = "the probe is being traced, and would be in the jail too"
                hint = "end the daemon's truss(1), ktrace(1) or debugger (ktrace -C)"
                return ArmingError("attach", jail.name, why, hint)
            case "params", errno.EINVAL:
                why = "the helper is of another version than the daemon"
                return ArmingError("attach", jail.name, why, "restart the daemon")
        return ArmingError("attach", jail.name, why)

    def strays(self, helper: int) -> list[int]:  # noqa: ARG002 - whatever helper
        """Return none: the helper is the probe, so its pid is known from the start."""
        return []

    def first_limits(self, *, room: bool = False) -> contextlib.AbstractContextManager[None]:  # noqa: ARG002 - always
        """Do nothing: we raise no limit of our own, for an armed probe costs no descriptor."""
        return contextlib.nullcontext()

    def peer(self, fd: int) -> Peer:
        """Say who called; anybody in a jail is outside, as is who cannot be examined."""
        uid, pid = NO_UID, 0
        try:
            uid, pid = libc.peer_credentials(fd)
            return Peer(uid, pid, self._outside(pid))
        except OSError as error:
            return Peer(uid, pid, f"its process cannot be examined: {error.strerror or error}")

    def _outside(self, pid: int) -> str | None:
        if pid <= 0:
            return "the kernel does not say which process it is"
        first, again = libc.process(pid), libc.process(pid)
        # Of a process that is in no jail but our own, it reads 0 (kern_proc.c).
        if first.jid != 0 or again.jid != 0:
            return f"it is in jail {first.jid or again.jid}"
        if again.zombie or first.start != again.start:
            return "its process has ended"
        return None
