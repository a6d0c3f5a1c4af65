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
    FD_USERNS,
    FLAG_KEEP_GROUPS,
    LABEL_NONE,
    Again,
    ArmingError,
    Backend,
    Jail,
    JailLost,
    OursToo,
    Peer,
    Spawned,
    reserve_helper_descriptors,
)
from jaildaemon.core.text import utf8
from jaildaemon.errors import JaildaemonError, NoSuchJail, NotPermitted, Refused

assert sys.platform == "linux"

from jaildaemon.backends.linux_entry import (
    Way,
    explained,
    stands_where_its_init_does,
    way_into,
)
from jaildaemon.backends.linux_image import JailImage, read_image, seal, unusable
from jaildaemon.backends.linux_jail import (
    LinuxJail,
    Namespace,
    find_init,
    is_init,
    label_of,
    living_thread,
    namespace,
    namespaces,
    readable,
    start_time,
    status,
)
from jaildaemon.backends.linux_runs import find_run
from jaildaemon.backends.linux_strays import Strays
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
        if not os.path.exists("/proc/self/fd"):
            raise Refused("start", "/proc", "proc(5) is not mounted there")
        reserve_helper_descriptors()
        self.watcher = LinuxWatcher()
        self._strays = Strays(self.watcher, self._tell)
        try:
            self._program = read_image(helper)
            # Stage 1 runs from it, and no jail ever sees it: the daemon waits for its exec.
            self._image = seal(self._program)
        except OSError as error:
            raise unusable("helper", helper, error) from error
        self._ours = namespaces("self")
        self._own_space = self._ours["pid"]
        self._jails: WeakValueDictionary[Namespace, LinuxJail] = WeakValueDictionary()
        """The handles in use: who asks for a container again need not read it all again."""
        self._images: WeakValueDictionary[Namespace, JailImage] = WeakValueDictionary()
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
            # A process that is ending refuses it too, before its pidfd tells of the end.
            if readable(member) or living_thread(pid) is None:
                raise NoSuchJail("attach", text, "the process has ended", PID_HINT) from error
            why = f"its namespaces cannot be read: {error.strerror}"
            hint = "the daemon must be root"
            if os.geteuid() == 0:
                hint = "the daemon is root, and may not look into that process all the same"
            raise NotPermitted("attach", text, why, hint) from error
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
            jail = LinuxJail(init, pidfd, space, self._image_of(space))
        except BaseException:
            os.close(pidfd)
            raise
        self._jails[space] = jail
        return jail

    def _tell(self, text: str) -> None:
        self.tell(text)

    def _image_of(self, space: Namespace) -> JailImage:
        image = self._images.get(space)
        if image is None:
            image = self._images[space] = JailImage(self._program)
        return image

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

        def at_end() -> None:
            if not told:
                stop()
                ended()

        self.watcher.watch_fd(fd, at_end)
        return stop

    def start_time(self, pid: int) -> int:
        """Return field 22 of its stat (proc(5))."""
        return start_time(pid)

    def find_run(
        self, run: str, pid: int | None, *, uid: int | None, start_time: int | None = None
    ) -> int | None:
        """Look for it in our own PID namespace."""
        return find_run(run, pid, uid=uid, start_time=start_time)

    def spawn(self, jail: Jail, title: str, uid: int, gid: int) -> Spawned:
        """Start stage 1 of helper_linux.c, its parameters already in the pipe."""
        assert isinstance(jail, LinuxJail)
        status_fd, their_status = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        their_go, go_fd = os.pipe()
        try:
            with way_into(jail, self._ours) as way:
                os.write(go_fd, way.params(jail, self._flags, uid, gid))
                pid = self._start(jail, way, title, their_status, their_go)
        except BaseException:
            os.close(status_fd)
            os.close(go_fd)
            raise
        finally:
            os.close(their_status)
            os.close(their_go)
        self._strays.begin(pid)
        return Spawned(pid, None, status_fd, go_fd)

    def _start(self, jail: LinuxJail, way: Way, title: str, status: int, go: int) -> int:
        user = [] if way.user_fd is None else [(os.POSIX_SPAWN_DUP2, way.user_fd, FD_USERNS)]
        return os.posix_spawn(
            # /proc/self is the child's own by then, and the image the sealed one.
            f"/proc/self/fd/{self._image}",
            [b"jailprobe", utf8(title)],
            {},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, status, FD_STATUS),
                (os.POSIX_SPAWN_DUP2, go, FD_GO),
                (os.POSIX_SPAWN_DUP2, way.jail_fd, FD_JAIL),
                (os.POSIX_SPAWN_DUP2, jail.image.fd(), FD_IMAGE),
                *user,
            ],
            setsigmask=EVERY_SIGNAL,
        )

    def probe_reported(self, jail: Jail, untrusted_pid: int, helper: int) -> int:
        """Accept a pid only if it is a child of ours that nobody watches, and came of `helper`."""
        if not 0 < untrusted_pid <= MAX_PID or self.watcher.watches(untrusted_pid):
            raise ArmingError("attach", jail.name, "the helper reported a pid that is not its own")
        try:
            os.waitid(os.P_PID, untrusted_pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            why = "the helper reported a process that is not ours"
            raise ArmingError("attach", jail.name, why) from None
        if not self._strays.belongs(untrusted_pid, helper):
            raise ArmingError("attach", jail.name, "the helper reported another helper's probe")
        return untrusted_pid

    def held_up(self, jail: Jail, helper: int) -> ArmingError | None:
        """Look whether stage 1 sleeps: all it can wait for is the exec of the jail's image.

        Then somebody in the jail has a lease on it (fcntl(2), F_SETLEASE).
        """
        assert isinstance(jail, LinuxJail)
        try:
            asleep = status(helper, "State")[0].startswith("S")
        except (FileNotFoundError, ProcessLookupError):
            return None
        if not asleep:
            return None
        jail.image.renew()
        return Again("attach", jail.name, "something in the container holds the probe's image")

    def adopt(self, jail: Jail, pid: int) -> None:
        """Do nothing: nothing is kept of a jail's probes."""

    def verify(self, jail: Jail, pid: int) -> None:
        """Check that the probe is in the living jail's PID namespace and carries its label."""
        assert isinstance(jail, LinuxJail)
        # An unreaped child keeps its pid, so this is its own entry.
        placed = namespace(pid, "pid") == jail.space
        settled = stands_where_its_init_does(jail, pid, self._ours)
        # After what was read of the init by its number.
        if not jail.alive():
            raise JailLost("attach", jail.name, "the container has ended")
        if not placed:
            raise ArmingError("attach", jail.name, "the probe is not in the container")
        if not settled:
            why = "the container's namespaces became others meanwhile"
            raise ArmingError("attach", jail.name, why, "ask again when the container has started")
        kind, label = jail.label()
        if kind != LABEL_NONE and label_of(pid) != (kind, label):
            why = "the container's LSM label became another meanwhile"
            raise ArmingError("attach", jail.name, why, "ask again when the container has started")

    def explain(self, jail: Jail, step: str, error: int) -> JaildaemonError:
        """Say what a failed step of helper_linux.c means."""
        assert isinstance(jail, LinuxJail)
        return explained(jail, step, error)

    def strays(self, helper: int) -> list[int]:
        """Kill and return what came of this helper and nobody watches.

        Nobody else's: otherwise an arming that fails, which a jail's root can
        bring about, would kill the probes that are being armed for other rules.
        """
        return self._strays.of(helper)

    def over(self, helper: int) -> None:
        """Look soon for what else came of it."""
        self._strays.over(helper)

    def reap_orphans(self) -> None:
        """Reap what is left to us as PID 1."""
        self._strays.reap_orphans()

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
