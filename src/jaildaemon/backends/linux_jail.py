# SPDX-License-Identifier: BSD-2-Clause
"""Which container it is, read from /proc: its init, its namespaces, its label.

Sources: proc(5), namespaces(7), pid_namespaces(7), pidfd_open(2).
"""

import copy
import errno
import os
import re
import select
import sys
from collections.abc import Iterator
from pathlib import Path

from jaildaemon.backends.base import (
    LABEL_APPARMOR,
    LABEL_MAX,
    LABEL_NONE,
    LABEL_SELINUX,
    Jail,
)
from jaildaemon.errors import NoSuchJail, Refused

assert sys.platform == "linux"

from jaildaemon.backends.linux_image import JailImage

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
Namespace = tuple[int, int]
PF_EXITING = 0x4  # linux/sched.h

APPARMOR = Path("/sys/module/apparmor/parameters/enabled")

# security/apparmor/label.c, policy.c: aa_profile_mode_names, and "mixed" of a stack
MODE = re.compile(rb" \((enforce|complain|kill|unconfined|user|mixed)\)\Z")


def namespace(pid: int | str, kind: str) -> Namespace | None:
    """Return what tells one namespace from another (namespaces(7)), or None without one."""
    try:
        found = os.stat(f"/proc/{pid}/ns/{kind}")
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def namespaces(path: int | str) -> dict[str, Namespace | None]:
    """Return all of them, of a process or of PID/task/TID."""
    return {kind: namespace(path, kind) for kind in NAMESPACES}


def living_thread(pid: int) -> int | None:
    """Return a thread of `pid` that has not begun to exit: its first, if that lives.

    The first may have ended while others go on: then it has no namespaces any more.
    """
    try:
        threads = sorted(int(name) for name in os.listdir(f"/proc/{pid}/task"))
    except (FileNotFoundError, ProcessLookupError):
        return None
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/stat", "rb") as file:
                flags = int(file.read().rpartition(b")")[2].split()[6])
        except (FileNotFoundError, ProcessLookupError):
            continue
        if not flags & PF_EXITING:
            return thread
    return None


def readable(fd: int) -> bool:
    """Say whether `fd` can be read now; of a pidfd, whether the process has ended (poll(2))."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def _stat(pid: int) -> list[bytes]:
    """Return the fields of /proc/PID/stat from the third on (proc(5))."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        # The name, in parentheses, may hold anything; its end is the last ")".
        return file.read().rpartition(b")")[2].split()


def start_time(pid: int) -> int:
    """Return when `pid` was started, in clock ticks since the boot (proc(5), stat, field 22)."""
    return int(_stat(pid)[19])


def is_process(pid: int, start: int) -> bool:
    """Say whether `pid` is the very process that was started then, and has not ended."""
    try:
        found = _stat(pid)
        return int(found[19]) == start and found[0] not in (b"Z", b"X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def is_exiting(pid: int) -> bool:
    """Say whether a process is in exit(2), by its flags (proc(5), stat, field 9)."""
    try:
        return bool(int(_stat(pid)[6]) & PF_EXITING)
    except (FileNotFoundError, ProcessLookupError):
        return True


def status(pid: int | str, *fields: str) -> list[str]:
    """Return fields of /proc/PID/status, "" for one that is missing."""
    found = dict.fromkeys(fields, "")
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name in found:
                found[name] = value.strip()
    return list(found.values())


def is_init(pid: int) -> bool:
    """Say whether `pid` is number 1 in the innermost PID namespace it is in."""
    return status(pid, "NSpid")[0].split()[-1:] == ["1"]


def _candidates(pid: int) -> Iterator[int]:
    """Give processes that may be the init of `pid`'s namespace, likely ones first."""
    parent = pid
    while parent > 1:
        yield parent
        parent = int(status(parent, "PPid")[0])
    for name in os.listdir("/proc"):
        if name.isdecimal():
            yield int(name)


def find_init(pid: int, space: Namespace) -> int | None:
    """Return the init of PID namespace `space`, of which `pid` is a member."""
    denied: PermissionError | None = None
    for candidate in _candidates(pid):
        try:
            if namespace(candidate, "pid") == space and is_init(candidate):
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

    def __init__(self, pid: int, pidfd: int, space: Namespace, image: JailImage) -> None:
        self.number, self.name = pid, str(pid)
        self.pidfd, self.space = pidfd, space
        self.start = start_time(pid)
        # The start time has the grain of a clock tick, in which a number may come back.
        # A pidfd's inode (6.9, pidfs) never does; before, it is the same for all.
        self.key = f"{pid}@{self.start}.{os.fstat(pidfd).st_ino}"
        # Read after the pidfd was opened: if the init is alive now, what was
        # read was its, not that of a later process with the same number.
        if not self.alive():
            raise NoSuchJail("attach", self.name, "the container has ended")
        self.image = image.hold()

    def twin(self) -> "LinuxJail":
        """Return another handle of the same container, without reading it all again."""
        twin = copy.copy(self)
        twin.pidfd = os.dup(self.pidfd)
        self.image.hold()
        return twin

    def alive(self) -> bool:
        """Say whether the container's init still runs: a pidfd is readable when it has ended."""
        return not readable(self.pidfd)

    def identity(self) -> dict[str, object]:
        """Return init's pid and start time: together unique within a boot."""
        return {"pid": self.number, "start": self.start}

    def cgroups(self) -> list[tuple[str, str]]:
        """Return init's control groups, below those that our own first process is in.

        A host that is a container itself may see the name of that one in every path.
        """
        above = cgroups_of(1)
        found = cgroups_of(self.number)
        return [(key, _below(path, above.get(key, "/"))) for key, path in found.items()]

    def started(self) -> int:
        """Return when init was started."""
        return self.start

    def parent(self) -> str:
        """Return the title of init's parent; "" for one that is not root's in our namespaces."""
        parent = int(status(self.number, "PPid")[0])
        ours = all(namespace(parent, k) == namespace("self", k) for k in ("pid", "user"))
        if not ours or status(parent, "Uid")[0].split() != 4 * [str(os.geteuid())]:
            return ""
        return Path(f"/proc/{parent}/cmdline").read_text(errors="replace").strip("\0 ")

    def label(self) -> tuple[int, bytes]:
        """Return the LSM label that a process must carry to be signalled by its members.

        That of init, now: it gets its own by an exec, when everybody knows it already.
        """
        return label_of(self.number)

    def unsettled(self) -> str | None:
        """Say why it ends or has ended: a PID namespace lives as long as its init.

        An init that exits first kills all others, and then waits until each is reaped.
        """
        if not self.alive():
            return "the container has ended"
        return "the container is ending" if is_exiting(self.number) else None

    def close(self) -> None:
        """Close the pidfd, and the image if no other handle needs it."""
        os.close(self.pidfd)
        self.pidfd = -1
        self.image.release()


def cgroups_of(pid: int) -> dict[str, str]:
    """Return a process's path in each hierarchy of control groups, by controllers (cgroups(7))."""
    with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        lines = [line.rstrip("\n").split(":", 2) for line in file]
    return {controllers: path for _, controllers, path in lines}


def _below(path: str, above: str) -> str:
    above = above.removesuffix("/init.scope")  # where systemd puts itself
    return path[len(above) :] if path.startswith(f"{above}/") else path


def parse_label(text: bytes) -> bytes:
    """Return an AppArmor label without its mode: "docker-default (enforce)" and the like."""
    # Once: what stands before the mode is the name, and may look like one.
    return MODE.sub(b"", text.rstrip(b"\n\0"))


def label_of(pid: int) -> tuple[int, bytes]:
    """Return which LSM has given a process a label, and that label; Refused where it is none.

    AppArmor may be in the kernel without being in use, and its files are there nevertheless.
    """
    kind, label = LABEL_NONE, b""
    if apparmor_is_in_use():
        kind = LABEL_APPARMOR
        own = Path(f"/proc/{pid}/attr/apparmor")  # since 5.8
        label = parse_label(_shown((own if own.exists() else own.parent) / "current"))
        if label == b"unconfined":
            return LABEL_NONE, b""
    elif Path("/sys/fs/selinux/enforce").exists():
        kind = LABEL_SELINUX
        label = _shown(Path(f"/proc/{pid}/attr/current")).rstrip(b"\n\0")
    if len(label) > LABEL_MAX:
        raise Refused("attach", str(pid), f"its security label is longer than {LABEL_MAX} bytes")
    return kind, label


def apparmor_is_in_use() -> bool:
    """Say whether AppArmor labels processes here."""
    try:
        return APPARMOR.read_bytes().startswith(b"Y")
    except FileNotFoundError:
        return False


def _shown(path: Path) -> bytes:
    """Return what /proc shows of a label; fail closed where it shows none."""
    try:
        return path.read_bytes()
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # The file is of another module than the one that is on.
        raise Refused("attach", str(path), "the kernel shows no security label there") from error
