# SPDX-License-Identifier: BSD-2-Clause
"""The way into a container, as it is at the moment of an arming.

Which namespaces to join, by which descriptors, is read anew each time: an init may give
itself others at any time.  Nothing is read of an init that a pidfd does not hold.
"""

import contextlib
import errno
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from jaildaemon.backends.base import (
    FLAG_AT_ONCE,
    LABEL_NONE,
    Again,
    ArmingError,
    JailLost,
    pack_params,
)
from jaildaemon.errors import JaildaemonError, NotPermitted, Refused

assert sys.platform == "linux"

from jaildaemon.backends.linux_image import NOBODYS
from jaildaemon.backends.linux_jail import (
    NAMESPACES,
    LinuxJail,
    Namespace,
    living_thread,
    namespaces,
)

PIDFD_THREAD = os.O_EXCL  # linux/pidfd.h, 6.9 and later
BINFMT_IN_USER_NAMESPACES = (6, 7)  # fs/binfmt_misc.c
Spaces = Mapping[str, Namespace | None]


@dataclass(frozen=True, slots=True)
class Way:
    """What stage 1 of the helper is told."""

    flags: int
    """CLONE_NEW* of the namespaces that differ from ours."""
    jail_fd: int
    """A pidfd of the init, or of one of its threads."""
    user_fd: int | None
    """Its user namespace, where that is another than ours."""

    def params(self, jail: LinuxJail, flags: int, uid: int, gid: int) -> bytes:
        """Return a record for each stage; the second has no need of the label."""
        flags |= FLAG_AT_ONCE if jail.image.at_once else 0
        kind, label = jail.label()
        first = pack_params(
            flags=flags, target=self.flags, uid=uid, gid=gid, label_kind=kind, label=label
        )
        return first + pack_params(flags=flags, target=self.flags, uid=uid, gid=gid)


@contextlib.contextmanager
def way_into(jail: LinuxJail, ours: Spaces) -> Iterator[Way]:
    """Find the way; JailLost, ArmingError.  The descriptors are closed at the end."""
    with contextlib.ExitStack() as stack:
        try:
            way = _look(jail, ours, stack)
        except OSError as error:
            raise lost_or(jail, f"its namespaces cannot be read: {error.strerror}") from error
        # Read by its number, which was the init's all along if it lives now.
        if not jail.alive():
            raise JailLost("attach", jail.name, "the container has ended")
        yield way


def _look(jail: LinuxJail, ours: Spaces, stack: contextlib.ExitStack) -> Way:
    path, fd = str(jail.number), jail.pidfd
    theirs = namespaces(path)
    if _incomplete(theirs, ours):
        thread = living_thread(jail.number)
        if thread is None:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        path, fd = f"{jail.number}/task/{thread}", _hold(jail, thread)
        stack.callback(os.close, fd)
        theirs = namespaces(path)
        if _incomplete(theirs, ours):
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
    flags = sum(flag for kind, flag in NAMESPACES.items() if theirs[kind] != ours[kind])
    if not flags & NAMESPACES["user"]:
        return Way(flags, fd, None)
    user_fd = os.open(f"/proc/{path}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, user_fd)
    found = os.fstat(user_fd)
    if (found.st_dev, found.st_ino) != theirs["user"]:
        raise ArmingError("attach", jail.name, "its namespaces change just now")
    return Way(flags, fd, user_fd)


def _hold(jail: LinuxJail, thread: int) -> int:
    try:
        return os.pidfd_open(thread, PIDFD_THREAD)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        why = "its first thread has ended, and before Linux 6.9 no other can be joined"
        raise ArmingError("attach", jail.name, why) from error


def _incomplete(theirs: Spaces, ours: Spaces) -> bool:
    """Say whether one is not shown that this kernel has: of a thread that has ended."""
    return any(theirs[kind] is None and ours[kind] is not None for kind in NAMESPACES)


def stands_where_its_init_does(jail: LinuxJail, pid: int, ours: Spaces) -> bool:
    """Say whether a probe is in every namespace of the init, as that is now."""
    theirs = namespaces(jail.number)
    if _incomplete(theirs, ours):
        thread = living_thread(jail.number)
        theirs = namespaces(f"{jail.number}/task/{thread}")
    return not _incomplete(theirs, ours) and namespaces(pid) == theirs


def lost_or(jail: LinuxJail, why: str, hint: str | None = None) -> ArmingError:
    """Return what it means that the init cannot be examined: its end, or why not."""
    if not jail.alive() or living_thread(jail.number) is None:
        return JailLost("attach", jail.name, "the container has ended")
    return ArmingError("attach", jail.name, why, hint)


def may_join_at_once(jail: LinuxJail) -> bool:
    """Say whether the probe is safe if it joins the user namespace before its exec.

    What may trace it is then asked of the nearest user namespace that has the owner of the
    image (fs/exec.c, would_dump), which must be ours.  And from 6.7 on a user namespace has
    binary formats of its own, so that its root could choose what is executed.
    """
    shown = Path("/proc/sys/kernel/osrelease").read_text(encoding="ascii")
    release = re.match(r"(\d+)\.(\d+)", shown)
    if release is None or tuple(map(int, release.groups())) >= BINFMT_IN_USER_NAMESPACES:
        return False
    return not any(
        first <= NOBODYS < first + count
        for kind in ("uid_map", "gid_map")
        for _, first, count in _map(jail.number, kind)
    )


def _map(pid: int, kind: str) -> list[tuple[int, int, int]]:
    lines = Path(f"/proc/{pid}/{kind}").read_text(encoding="ascii").splitlines()
    return [(int(a), int(b), int(c)) for a, b, c in (line.split() for line in lines)]


# --- what a failed step means -----------------------------------------------------

CONFINED = (
    "the container's security profile must allow the probe sys_admin, setpcap, setgid and setuid"
    " in its own user namespace (docs/architecture.md)"
)


def explained(jail: LinuxJail, step: str, error: int) -> JaildaemonError:
    """Say what a failed step of helper_linux.c means, and what can be done."""
    why = f"step {step} of the helper failed: {os.strerror(error)}"
    match step, error:
        case "enter", errno.ESRCH:
            return lost_or(jail, "its first process is ending")
        case "clone", errno.ENOMEM:
            return JailLost("attach", jail.name, "the container has ended")
        case (("userns" | "caps" | "gid" | "uid"), (errno.EPERM | errno.EACCES)):
            return _denied(jail, step, why)
        case (("enter" | "groups" | "deathsig"), errno.EPERM):
            return NotPermitted("attach", jail.name, why, "the daemon must be root")
        case (("uid" | "gid"), errno.EINVAL):
            why = f"the container's user namespace has no such {step}"
            return Refused("attach", jail.name, why, "see /proc/PID/uid_map and gid_map")
        case "exec", (errno.ETXTBSY | errno.EACCES | errno.EPERM):
            # Somebody in the jail may have reached the image: held it open, changed its mode.
            jail.image.renew()
            return Again("attach", jail.name, why)
    return ArmingError("attach", jail.name, why, _hint(step, error))


def _hint(step: str, error: int) -> str | None:
    # exec: the limit of a user is looked at only then (execve(2), EAGAIN).
    if step in ("clone", "exec") and error == errno.EAGAIN:
        return "a limit on processes is reached: pids.max, ulimit -u or kernel.pid_max"
    if step == "label":
        return "the container's LSM label must be one that the daemon may change to"
    return None


def _denied(jail: LinuxJail, step: str, why: str) -> JaildaemonError:
    kind, _ = jail.label()
    if kind == LABEL_NONE:
        return NotPermitted("attach", jail.name, why, "the daemon must be root")
    if step == "userns" and not jail.image.at_once and may_join_at_once(jail):
        jail.image.at_once = True
        return Again("attach", jail.name, why)
    return NotPermitted("attach", jail.name, why, CONFINED)
