# SPDX-License-Identifier: BSD-2-Clause
"""Which container it is, read from /proc: its init, its namespaces, its label.

Sources: proc(5), namespaces(7), pid_namespaces(7), pidfd_open(2).
"""

import copy
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


# security/apparmor/label.c, policy.c: aa_profile_mode_names, and "mixed" of a stack
MODE = re.compile(rb" \((enforce|complain|kill|unconfined|user|mixed)\)\Z")


def namespace(pid: int | str, kind: str) -> Namespace | None:
    """Return what tells one namespace from another (namespaces(7)), or None without one."""
    try:
        found = os.stat(f"/proc/{pid}/ns/{kind}")
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def readable(fd: int) -> bool:
    """Say whether `fd` can be read now; of a pidfd, whether the process has ended (poll(2))."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def start_time(pid: int) -> int:
    """Return when `pid` was started, in clock ticks since the boot (proc(5), stat, field 22)."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        # The name, in parentheses, may hold anything; its end is the last ")".
        return int(file.read().rpartition(b")")[2].split()[19])


def status(pid: int, *fields: str) -> list[str]:
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

    def __init__(self, pid: int, pidfd: int, space: Namespace) -> None:
        self.number, self.name = pid, str(pid)
        self.pidfd, self.space = pidfd, space
        self.start = start_time(pid)
        # The start time has the grain of a clock tick, in which a number may come back.
        # A pidfd's inode (6.9, pidfs) never does; before, it is the same for all.
        self.key = f"{pid}@{self.start}.{os.fstat(pidfd).st_ino}"
        self.join = 0
        for kind, flag in NAMESPACES.items():
            theirs = namespace(pid, kind)
            if theirs is not None and theirs != namespace("self", kind):
                self.join |= flag
        self.label_kind, self.label = _label(pid)
        # Read after the pidfd was opened: if the init is alive now, what was
        # read was its, not that of a later process with the same number.
        if not self.alive():
            raise NoSuchJail("attach", self.name, "the container has ended")

    def twin(self) -> "LinuxJail":
        """Return another handle of the same container, without reading it all again."""
        twin = copy.copy(self)
        twin.pidfd = os.dup(self.pidfd)
        return twin

    def alive(self) -> bool:
        """Say whether the container's init still runs: a pidfd is readable when it has ended."""
        return not readable(self.pidfd)

    def identity(self) -> dict[str, object]:
        """Return init's pid and start time: together unique within a boot."""
        return {"pid": self.number, "start": self.start}

    def unsettled(self) -> str | None:
        """Say why it has ended: a PID namespace lives as long as its init."""
        return None if self.alive() else "the container has ended"

    def close(self) -> None:
        """Close the pidfd."""
        os.close(self.pidfd)
        self.pidfd = -1


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
