# SPDX-License-Identifier: BSD-2-Clause
"""Whether a process is the container's that an engine says: pid and id must belong together.

An engine may be another machine's, or in another PID namespace, and its pids with
it.  The kernel says in which control group a process is, the runtime's own state
file which process it started and when.
"""

import json
import os
import re
import stat
from typing import Protocol

Cgroups = list[tuple[str, str]]
"""Of a process: controllers and path, as in /proc/PID/cgroup (cgroups(7))."""

# docker-ID.scope and libpod-ID.scope of systemd's driver, ID and libpod-ID of cgroupfs'.
_OCI = re.compile(r"(?:[A-Za-z]+-)*([0-9a-f]{64})(?:\.scope)?")
_LXC = re.compile(r"lxc\.payload\.(.+)")
_MACHINE = re.compile(r"machine-(.+)\.scope")
_FORMS = (_OCI, _LXC, _MACHINE)
MAX_STATE_BYTES = 1 << 20
"""Of a runtime's state file: 10 to 50 KB as a rule."""


class Init(Protocol):
    """The process that is held, and was named as a container's first one."""

    number: int

    def cgroups(self) -> Cgroups:
        """Return its control groups; OSError."""

    def started(self) -> int | None:
        """Return when it was started, in clock ticks since the boot."""

    def parent(self) -> str:
        """Return the title of its parent, if that is a process of this host's root; OSError."""


def outermost(path: str) -> str | None:
    """Return the id or name of the outermost container in a control group's path.

    What is below is made in the container, by whoever is root there: anything.
    """
    for part in path.split("/"):
        for form in _FORMS:
            found = form.fullmatch(part)
            if found:
                return found[1]
    return None


def in_cgroup_of(container: str, init: Init) -> bool:
    """Say whether the control groups are a container's of this id: all that are any container's."""
    found = {outermost(path) for _, path in init.cgroups()} - {None}
    return found == {container}


def unit(init: Init) -> str | None:
    """Return the systemd unit of the process, as systemd sees it: below all slices."""
    for controllers, path in init.cgroups():
        if controllers in ("", "name=systemd"):
            parts = [part for part in path.split("/") if part and not part.endswith(".slice")]
            if parts:
                return parts[0]
    return None


def in_state_file(path: str, init: Init) -> bool:
    """Say whether a runtime's state file, which only root can write, names this very process."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            found = os.fstat(fd)
            ours = found.st_uid == os.geteuid() and not found.st_mode & 0o022
            data = file.read(MAX_STATE_BYTES) if ours and stat.S_ISREG(found.st_mode) else b""
        state = json.loads(data)
    except (OSError, ValueError, RecursionError):
        return False
    if not isinstance(state, dict):
        return False
    said = [(state.get(pid), state.get(start)) for pid, start in _STATE_FIELDS]
    return (init.number, init.started()) in said


_STATE_FIELDS = (
    ("init_process_pid", "init_process_start"),  # runc
    ("pid", "process-start-time"),  # crun
)
