# SPDX-License-Identifier: BSD-2-Clause
"""Linux: a jail is a PID namespace, known by its init, which a pidfd holds.

Sources: pidfd_open(2), setns(2), pid_namespaces(7), waitid(2), unix(7), proc(5).
"""

import errno
import os
import re
import resource
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from jaildaemon.backends.base import (
    FD_GO,
    FD_IMAGE,
    FD_JAIL,
    FD_STATUS,
    FLAG_KEEP_GROUPS,
    LABEL_APPARMOR,
    LABEL_MAX,
    LABEL_NONE,
    LABEL_SELINUX,
    ArmingError,
    Backend,
    Jail,
    JailLost,
    Peer,
    Spawned,
    pack_params,
    reserve_helper_descriptors,
)
from jaildaemon.errors import JaildaemonError, NoSuchJail, NotPermitted, Refused

assert sys.platform == "linux"

from jaildaemon.backends.linux_image import sealed_image
from jaildaemon.backends.linux_watcher import LinuxWatcher

# linux/sched.h.  The user namespace must be left out where it is the same one:
# joining it again is an error (user_namespaces(7)).
NAMESPACES = {
    "mnt": 0x00020000,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
    "time": 0x00000080,
}
MAX_PID = 2**22  # PID_MAX_LIMIT, linux/threads.h
SO_PEERPIDFD = 77  # include/uapi/asm-generic/socket.h, 6.5 and later
PID_HINT = "-j takes the host's pid of any process in the container"

# security/apparmor/label.c, policy.c: aa_profile_mode_names, and "mixed" of a stack
MODE = re.compile(rb" \((enforce|complain|kill|unconfined|user|mixed)\)\Z")
CAP_SYS_ADMIN = 1 << 21  # linux/capability.h

Namespace = tuple[int, int]


def _namespace(pid: int | str, kind: str) -> Namespace | None:
    """Return what tells one namespace from another (namespaces(7)), or None without one."""
    try:
        found = os.stat(f"/proc/{pid}/ns/{kind}")
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _start_time(pid: int) -> int:
    """Return when `pid` was started, in clock ticks since the boot (proc(5), stat, field 22)."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        # The name, in parentheses, may hold anything; its end is the last ")".
        return int(file.read().rpartition(b")")[2].split()[19])


def _status(pid: int, *fields: str) -> list[str]:
    """Return fields of /proc/PID/status, "" for one that is missing."""
    found = dict.fromkeys(fields, "")
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name in found:
                found[name] = value.strip()
    return list(found.values())


def _is_init(pid: int) -> bool:
    """Say whether `pid` is number 1 in the innermost PID namespace it is in."""
    return _status(pid, "NSpid")[0].split()[-1:] == ["1"]


def _candidates(pid: int) -> Iterator[int]:
    """Give processes that may be the init of `pid`'s namespace, likely ones first."""
    parent = pid
    while parent > 1:
        yield parent
        parent = int(_status(parent, "PPid")[0])
    for name in os.listdir("/proc"):
        if name.isdecimal():
            yield int(name)


def _find_init(pid: int, space: Namespace) -> int | None:
    """Return the init of PID namespace `space`, of which `pid` is a member."""
    denied: PermissionError | None = None
    for candidate in _candidates(pid):
        try:
            if _namespace(candidate, "pid") == space and _is_init(candidate):
                return candidate
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended between the listing and the look
        except PermissionError as error:
            denied = error  # a stranger with a capability that even our root lacks
    if denied:
        raise denied
    return None


class LinuxJail(Jail):
    """A container, by the pidfd of its init."""

    def __init__(self, pid: int, pidfd: int, space: Namespace) -> None:
        self.number, self.name = pid, str(pid)
        self.pidfd, self.space = pidfd, space
        # The start time has the grain of a clock tick, in which a number may come back.
        # A pidfd's inode (6.9, pidfs) never does; before, it is the same for all.
        self.key = f"{pid}@{_start_time(pid)}.{os.fstat(pidfd).st_ino}"
        self.join = 0
        for kind, flag in NAMESPACES.items():
            theirs = _namespace(pid, kind)
            if theirs is not None and theirs != _namespace("self", kind):
                self.join |= flag
        self.label_kind, self.label = _label(pid)
        # Read after the pidfd was opened: if the init is alive now, what was
        # read was its, not that of a later process with the same number.
        if not self.alive():
            raise NoSuchJail("attach", self.name, "the container has ended")

    def alive(self) -> bool:
        """Say whether the container's init still runs (signal 0 through the pidfd)."""
        try:
            signal.pidfd_send_signal(self.pidfd, 0)
            state = _status(self.number, "State")[0]
        except (ProcessLookupError, FileNotFoundError):
            return False
        return not state.startswith(("Z", "X"))

    def close(self) -> None:
        """Close the pidfd."""
        os.close(self.pidfd)


def parse_label(text: bytes) -> bytes:
    """Return an AppArmor label without its mode: "docker-default (enforce)" and the like."""
    # Once: what stands before the mode is the name, and may look like one.
    return MODE.sub(b"", text.rstrip(b"\n\0"))


def _label(pid: int) -> tuple[int, bytes]:
    """Return the LSM label that a member of the container must carry to be signalled."""
    if Path("/sys/module/apparmor/parameters/enabled").exists():
        for name in ("attr/apparmor/current", "attr/current"):
            path = Path(f"/proc/{pid}/{name}")
            if path.exists():
                label = parse_label(path.read_bytes())
                if len(label) > LABEL_MAX:
                    raise Refused("attach", str(pid), "its AppArmor label is too long")
                return (LABEL_NONE, b"") if label == b"unconfined" else (LABEL_APPARMOR, label)
    if Path("/sys/fs/selinux/enforce").exists():
        label = Path(f"/proc/{pid}/attr/current").read_bytes().rstrip(b"\n\0")
        if len(label) > LABEL_MAX:
            raise Refused("attach", str(pid), "its SELinux context is too long")
        return LABEL_SELINUX, label
    return LABEL_NONE, b""


class LinuxBackend(Backend):
    """Probes in PID namespaces.  `helper` is the path of the helper's image."""

    watcher: LinuxWatcher

    def __init__(self, helper: Path) -> None:
        reserve_helper_descriptors()
        self.watcher = LinuxWatcher()
        try:
            self._image = sealed_image(helper)
        except OSError as error:
            why = f"the helper cannot be used: {error.strerror or error}"
            # No fallback to a file: it could not be sealed (docs/architecture.md).
            noexec = "sysctl vm.memfd_noexec=2 forbids what the helper needs; set it to 1 or 0"
            hint = noexec if error.errno == errno.EACCES else None
            raise Refused("start", str(helper), why, hint) from error
        self._own_space = _namespace("self", "pid")
        denied = Path("/proc/self/setgroups").read_text(encoding="ascii").strip() == "deny"
        self._flags = FLAG_KEEP_GROUPS if denied else 0
        # A pidfd a probe: the usual 1,024 would be too few.
        self._open_files = resource.getrlimit(resource.RLIMIT_NOFILE)
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
        space = _namespace(pid, "pid")
        if space is None:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        if space == self._own_space:
            why = "shares the host's PID namespace, so it is in no container"
            raise Refused("attach", str(pid), why, PID_HINT)
        init = _find_init(pid, space)
        signal.pidfd_send_signal(member, 0)  # what was read was this process's
        if init is None:
            raise NoSuchJail("attach", str(pid), "its PID namespace has no init left")
        pidfd = os.pidfd_open(init)
        try:
            # Again, now that the pidfd holds it: the number may have been reused.
            if _namespace(init, "pid") != space or not _is_init(init):
                raise NoSuchJail("attach", str(pid), "the container has ended")
            return LinuxJail(init, pidfd, space)
        except BaseException:
            os.close(pidfd)
            raise

    def spawn(self, jail: Jail, title: str, uid: int, gid: int) -> Spawned:
        """Start stage 1 of helper_linux.c, its parameters already in the pipe."""
        assert isinstance(jail, LinuxJail)
        status_fd, their_status = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        their_go, go_fd = os.pipe()
        try:
            params = pack_params(
                flags=self._flags,
                target=jail.join,
                uid=uid,
                gid=gid,
                label_kind=jail.label_kind,
                label=jail.label,
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
                # HUP is blocked from the first instruction on.
                setsigmask=signal.valid_signals(),
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

    def verify(self, jail: Jail, pid: int) -> None:
        """Check that the probe is in the jail's PID namespace, and the jail is alive."""
        assert isinstance(jail, LinuxJail)
        if not jail.alive():
            raise JailLost("attach", jail.name, "the container has ended")
        # An unreaped child keeps its pid, so this is its own entry.
        if _namespace(pid, "pid") != jail.space:
            raise ArmingError("attach", jail.name, "the probe is not in the container")

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
        return [pid for pid in unwatched if _namespace(pid, "pid") == jail.space]

    def restore_limits(self, pid: int) -> None:
        """Give a command the limit of open files that we were started with (prlimit(2))."""
        try:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, self._open_files)
        except ProcessLookupError:
            return  # so short a command that it has ended

    def peer(self, fd: int) -> Peer:
        """Say who called; anybody not in our own namespaces and root is outside."""
        with socket.socket(fileno=os.dup(fd)) as sock:
            cred = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            pid, uid, _ = struct.unpack("iII", cred)
            try:
                pidfd = sock.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
            except OSError:
                pidfd = -1  # before 6.5
        try:
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
            if _namespace(pid, kind) != _namespace("self", kind):
                return f"it is in {words}"
        ours, theirs = os.stat("/proc/self/root"), os.stat(f"/proc/{pid}/root")
        if (ours.st_dev, ours.st_ino) != (theirs.st_dev, theirs.st_ino):
            return "it has another root directory"
        # A container with the host's PID namespace and file system may chroot to
        # our very root.  Its uid 0 is no root: it lacks what it takes to do as we do.
        caps = int(_status(pid, "CapEff")[0], 16)
        signal.pidfd_send_signal(pidfd, 0)  # still the same: what was read was its
        if uid == 0 and not caps & CAP_SYS_ADMIN:
            return "it is root without CAP_SYS_ADMIN, as in a container"
        return None
