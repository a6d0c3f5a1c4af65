# SPDX-License-Identifier: BSD-2-Clause
"""Linux: a jail is a PID namespace, known by its init, which a pidfd holds.

Sources: pidfd_open(2), setns(2), pid_namespaces(7), waitid(2), unix(7), proc(5).
"""

import contextlib
import errno
import os
import resource
import signal
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar
from weakref import WeakValueDictionary

from jaildaemon.backends.base import (
    EVERY_SIGNAL,
    FD_GO,
    FD_IMAGE,
    FD_JAIL,
    FD_STATUS,
    FLAG_KEEP_GROUPS,
    LABEL_NONE,
    ArmingError,
    Backend,
    Jail,
    JailLost,
    OursToo,
    Peer,
    Spawned,
    pack_params,
    reserve_helper_descriptors,
)
from jaildaemon.errors import JaildaemonError, NoSuchJail, NotPermitted, Refused

assert sys.platform == "linux"

from jaildaemon.backends.linux_image import sealed_image, unusable
from jaildaemon.backends.linux_jail import (
    LinuxJail,
    Namespace,
    find_init,
    is_init,
    label_of,
    namespace,
    start_time,
    status,
)
from jaildaemon.backends.linux_watcher import LinuxWatcher

PIPE_ENDS = 2
MAX_PID = 2**22  # PID_MAX_LIMIT, linux/threads.h
SO_PEERPIDFD = 77  # include/uapi/asm-generic/socket.h, 6.5 and later
PID_HINT = "-j takes the host's pid of any process in the container, or ENGINE:NAME"

CAP_SYS_ADMIN = 1 << 21  # linux/capability.h


class LinuxBackend(Backend):
    """Probes in PID namespaces.  `helper` is the path of the helper's image."""

    watcher: LinuxWatcher
    signals: ClassVar[dict[str, int]] = {"HUP": signal.SIGHUP, "USR1": signal.SIGUSR1}
    state_directory = "/var/lib/jaildaemon"
    spawns_sessions = True
    most_probes = 3000  # each has two filters to give back, in one queue (docs/performance.md)

    def __init__(self, helper: Path) -> None:
        reserve_helper_descriptors()
        self.watcher = LinuxWatcher()
        try:
            self._image = sealed_image(helper)
        except OSError as error:
            raise unusable("helper", helper, error) from error
        self._own_space = namespace("self", "pid")
        self._jails: WeakValueDictionary[Namespace, LinuxJail] = WeakValueDictionary()
        """The handles in use: who asks for a container again need not read it all again."""
        denied = Path("/proc/self/setgroups").read_text(encoding="ascii").strip() == "deny"
        self._flags = FLAG_KEEP_GROUPS if denied else 0
        # A pidfd a probe: the usual 1,024 would be too few.
        self._open_files = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._reserve: list[int] = []
        self._keep_reserve()
        resource.setrlimit(resource.RLIMIT_NOFILE, (self._open_files[1], self._open_files[1]))

    def resolve(self, text: str) -> LinuxJail:
        """Find the container that host process `text` is in."""
        # No long ones: of more than 4,300 digits int() makes an error of its own.
        number = text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_PID))
        pid = int(text) if number else 0
        if not 0 < pid <= MAX_PID:
            raise NoSuchJail("attach", text[:80] or "''", "not a process id", PID_HINT)
        try:
            member = os.pidfd_open(pid)
        except OSError as error:
            # EINVAL: a thread's id, not a process's.
            raise NoSuchJail("attach", text, "no such process", PID_HINT) from error
        try:
            return self._resolve_member(pid, member)
        except (FileNotFoundError, ProcessLookupError) as error:
            raise NoSuchJail("attach", text, "the process has ended", PID_HINT) from error
        except PermissionError as error:
            why = f"its namespaces cannot be read: {error.strerror}"
            raise NotPermitted("attach", text, why, "the daemon must be root") from error
        finally:
            os.close(member)

    def _resolve_member(self, pid: int, member: int) -> LinuxJail:
        space = namespace(pid, "pid")
        if space is None:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        if space == self._own_space:
            why = "shares the host's PID namespace, so it is in no container"
            raise OursToo("attach", str(pid), why, PID_HINT)
        known = self._jails.get(space)
        if known is not None and known.pidfd >= 0 and known.alive():
            # It was alive all along, so the namespace that `pid` is in was its.
            signal.pidfd_send_signal(member, 0)
            return known.twin()
        init = find_init(pid, space)
        signal.pidfd_send_signal(member, 0)  # what was read was this process's
        if init is None:
            raise NoSuchJail("attach", str(pid), "its PID namespace has no init left")
        pidfd = os.pidfd_open(init)
        try:
            # Again, now that the pidfd holds it: the number may have been reused.
            if namespace(init, "pid") != space or not is_init(init):
                raise NoSuchJail("attach", str(pid), "the container has ended")
            jail = LinuxJail(init, pidfd, space)
        except BaseException:
            os.close(pidfd)
            raise
        self._jails[space] = jail
        return jail

    def boot_id(self) -> str:
        """Return /proc/sys/kernel/random/boot_id (random(4))."""
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()

    def recover(self, identity: dict[str, object], probe: int | None = None) -> LinuxJail:
        """Find the init with that pid and that start time."""
        del probe  # the two are proof enough
        pid, start = identity.get("pid"), identity.get("start")
        try:
            if not isinstance(pid, int) or not 0 < pid <= MAX_PID or start_time(pid) != start:
                raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
            jail = self.resolve(str(pid))
        except (FileNotFoundError, ProcessLookupError) as error:
            raise NoSuchJail("attach", str(pid), "the container has ended") from error
        if (jail.number, jail.start) != (pid, start):
            jail.close()
            raise NoSuchJail("attach", str(pid), "the container has ended")
        return jail

    def watch_end(self, jail: Jail, ended: Callable[[], None]) -> Callable[[], None]:
        """Wait for the pidfd of its init to be readable."""
        assert isinstance(jail, LinuxJail)
        # One of our own: the handle's may be closed before, and two may wait.
        fd = os.dup(jail.pidfd)
        told = False

        def stop() -> None:
            nonlocal told
            if not told:
                told = True
                self.watcher.unwatch_fd(fd)
                os.close(fd)

        def readable() -> None:
            if not told:
                stop()
                ended()

        self.watcher.watch_fd(fd, readable)
        return stop

    def find_run(self, run: str, pid: int | None) -> int | None:
        """Look for the session leader with JAILDAEMON_RUN in its environment (proc(5)).

        It is in our own PID namespace: whoever is in a container may call itself a run.
        """
        wanted = f"JAILDAEMON_RUN={run}".encode()
        pids = [pid] if pid else [int(name) for name in os.listdir("/proc") if name.isdecimal()]
        for candidate in pids:
            try:
                if namespace(candidate, "pid") != self._own_space:
                    continue
                words = Path(f"/proc/{candidate}/environ").read_bytes().split(b"\0")
                if wanted in words and os.getsid(candidate) == candidate:
                    return candidate
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue  # it ended between the listing and the look, or is none of ours
        return None

    def spawn(self, jail: Jail, title: str, uid: int, gid: int) -> Spawned:
        """Start stage 1 of helper_linux.c, its parameters already in the pipe."""
        assert isinstance(jail, LinuxJail)
        status_fd, their_status = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        their_go, go_fd = os.pipe()
        try:
            label_kind, label = jail.label()
            params = pack_params(
                flags=self._flags,
                target=jail.join,
                uid=uid,
                gid=gid,
                label_kind=label_kind,
                label=label,
            )
            os.write(go_fd, params)
            pid = os.posix_spawn(
                # /proc/self is the child's own by then, and the image the sealed one.
                f"/proc/self/fd/{self._image}",
                ["jailprobe", title],
                {},
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, their_status, FD_STATUS),
                    (os.POSIX_SPAWN_DUP2, their_go, FD_GO),
                    (os.POSIX_SPAWN_DUP2, jail.pidfd, FD_JAIL),
                    (os.POSIX_SPAWN_DUP2, self._image, FD_IMAGE),
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
        return Spawned(pid, None, status_fd, go_fd)

    def probe_reported(self, jail: Jail, untrusted_pid: int) -> int:
        """Accept a pid only if it is a child of ours that nobody watches yet."""
        if not 0 < untrusted_pid <= MAX_PID or self.watcher.watches(untrusted_pid):
            raise ArmingError("attach", jail.name, "the helper reported a pid that is not its own")
        try:
            os.waitid(os.P_PID, untrusted_pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            why = "the helper reported a process that is not ours"
            raise ArmingError("attach", jail.name, why) from None
        return untrusted_pid

    def adopt(self, jail: Jail, pid: int) -> None:
        """Do nothing: nothing is kept of a jail's probes."""

    def verify(self, jail: Jail, pid: int) -> None:
        """Check that the probe is in the living jail's PID namespace and carries its label."""
        assert isinstance(jail, LinuxJail)
        if not jail.alive():
            raise JailLost("attach", jail.name, "the container has ended")
        # An unreaped child keeps its pid, so this is its own entry.
        if namespace(pid, "pid") != jail.space:
            raise ArmingError("attach", jail.name, "the probe is not in the container")
        kind, label = jail.label()
        if kind != LABEL_NONE and label_of(pid) != (kind, label):
            why = "the container's LSM label became another meanwhile"
            raise ArmingError("attach", jail.name, why, "ask again when the container has started")

    def explain(self, jail: Jail, step: str, error: int) -> JaildaemonError:
        """Say what a failed step of helper_linux.c means."""
        why = f"step {step} of the helper failed: {os.strerror(error)}"
        match step, error:
            case ("enter", errno.ESRCH) | ("clone", errno.ENOMEM):
                return JailLost("attach", jail.name, "the container has ended")
            case (("enter" | "caps" | "groups" | "deathsig"), errno.EPERM):
                return NotPermitted("attach", jail.name, why, "the daemon must be root")
            case (("uid" | "gid"), errno.EINVAL):
                why = f"the container's user namespace has no such {step}"
                return Refused("attach", jail.name, why, "see /proc/PID/uid_map and gid_map")
            # exec: the limit of a user is looked at only then (execve(2), EAGAIN).
            case (("clone" | "exec"), errno.EAGAIN):
                hint = "a limit on processes is reached: pids.max, ulimit -u or kernel.pid_max"
                return ArmingError("attach", jail.name, why, hint)
            case "label", _:
                hint = "the container's LSM label must be one that the daemon may change to"
                return ArmingError("attach", jail.name, why, hint)
        return ArmingError("attach", jail.name, why)

    def strays(self, jail: Jail) -> list[int]:
        """Return unwatched children: a probe whose stage 2 died before it could report it.

        Of this jail only: otherwise a jail whose arming fails, which its root
        can bring about, would kill the probes that are being armed in others.
        """
        assert isinstance(jail, LinuxJail)
        path = f"/proc/self/task/{os.getpid()}/children"
        try:
            pids = [int(pid) for pid in Path(path).read_text(encoding="ascii").split()]
        except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
            return []
        unwatched = [pid for pid in pids if not self.watcher.watches(pid)]
        return [pid for pid in unwatched if namespace(pid, "pid") == jail.space]

    @contextlib.contextmanager
    def first_limits(self, *, room: bool = False) -> Iterator[None]:
        """Have the limit of open files that we were started with (setrlimit(2)).

        We may have more files open than that: of two low descriptors that are kept,
        `room` is made for who needs some, as subprocess does for the errors of exec.
        """
        while room and self._reserve:
            os.close(self._reserve.pop())
        _, most = self._open_files
        resource.setrlimit(resource.RLIMIT_NOFILE, self._open_files)
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
            self._keep_reserve()

    def _keep_reserve(self) -> None:
        # ENFILE: the host is short of files.  The next time finds fewer here, and may
        # then not start what it is asked to, which is told.
        with contextlib.suppress(OSError):
            while len(self._reserve) < PIPE_ENDS:
                self._reserve.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def peer(self, fd: int) -> Peer:
        """Say who called; anybody not in our own namespaces and root is outside."""
        pidfd, pid, uid = -1, 0, -1
        try:
            with socket.socket(fileno=os.dup(fd)) as sock:
                cred = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
                pid, uid, _ = struct.unpack("iII", cred)
                with contextlib.suppress(OSError):  # before 6.5
                    pidfd = sock.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
            if pidfd < 0:
                pidfd = os.pidfd_open(pid)
            return Peer(uid, pid, self._outside(uid, pid, pidfd))
        except (OSError, ValueError) as error:
            return Peer(uid, pid, f"its process cannot be examined: {error}")
        finally:
            if pidfd >= 0:
                os.close(pidfd)

    def _outside(self, uid: int, pid: int, pidfd: int) -> str | None:
        for kind, words in (("pid", "another PID namespace"), ("user", "another user namespace")):
            if namespace(pid, kind) != namespace("self", kind):
                return f"it is in {words}"
        # A container with the host's PID namespace and file system may chroot to
        # our very root.  Its uid 0 is no root: it lacks what it takes to do as we do.
        caps = int(status(pid, "CapEff")[0], 16)
        signal.pidfd_send_signal(pidfd, 0)  # still the same: what was read was its
        if uid == 0 and not caps & CAP_SYS_ADMIN:
            return "it is root without CAP_SYS_ADMIN, as in a container"
        # Last, for a file system of the caller's own (FUSE) may never answer.
        ours, theirs = os.stat("/proc/self/root"), os.stat(f"/proc/{pid}/root")
        signal.pidfd_send_signal(pidfd, 0)
        if (ours.st_dev, ours.st_ino) != (theirs.st_dev, theirs.st_ino):
            return "it has another root directory"
        return None
