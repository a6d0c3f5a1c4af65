# SPDX-License-Identifier: BSD-2-Clause
"""Which process of the host is a run that an earlier daemon began."""

import os
import sys
from pathlib import Path

assert sys.platform == "linux"

from jaildaemon.backends.linux_jail import is_process, namespace, status


def find_run(run: str, pid: int | None, *, uid: int | None, start_time: int | None) -> int | None:
    """Look for that very process, or for JAILDAEMON_RUN in environments (proc(5)).

    Only in our own PID namespace: whoever is in a container may call itself a run.
    """
    if pid is not None and start_time is not None:
        return pid if is_process(pid, start_time) else None
    wanted = f"JAILDAEMON_RUN={run}".encode()
    own_space = namespace("self", "pid")
    pids = [pid] if pid else [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    for candidate in pids:
        try:
            if namespace(candidate, "pid") != own_space:
                continue
            words = Path(f"/proc/{candidate}/environ").read_bytes().split(b"\0")
            if wanted not in words or os.getsid(candidate) != candidate:
                continue
            # All four: a program that changes its user keeps its caller's environment.
            if set(status(candidate, "Uid")[0].split()) == {str(uid)}:
                return candidate
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it ended between the listing and the look, or is none of ours
    return None
