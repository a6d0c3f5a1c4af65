# SPDX-License-Identifier: BSD-2-Clause
"""strace(1) on the daemon: which system calls it makes, and what if one fails or kills it."""

import os
import re
import signal
import subprocess
from collections import Counter

from tests.faults.world import World, wait_gone


class Strace:
    """strace(1) on a process that runs: from here on its calls are counted, or fail."""

    def __init__(self, pid: int, *arguments: str, log: str = os.devnull) -> None:
        command = ["strace", "-o", log, *arguments, "-p", str(pid)]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE)
        assert self._process.stderr is not None
        line = self._process.stderr.readline()
        assert b"attached" in line, line

    def close(self) -> None:
        """Let go of it; one that has ended is no error."""
        assert self._process.stderr is not None
        self._process.send_signal(signal.SIGINT)
        wait_gone(self._process.pid)
        self._process.stderr.close()
        self._process.wait()


CALL = re.compile(r"^(\w+)\(")


def hot_path(world: World) -> list[tuple[str, int, str]]:
    """Return the daemon's calls from a signal to the next probe: name, which of them, line."""
    daemon, log = world.daemon, world.directory / "trace"
    daemon.start()
    rule = daemon.attach(world.jail().jail, "true", respawn="after", limit="none")
    daemon.settled()
    strace = Strace(daemon.pid, log=str(log))
    daemon.run(rule)
    daemon.armed(rule)
    daemon.settled()
    strace.close()
    daemon.end()
    counts: Counter[str] = Counter()
    points = []
    for line in log.read_text(errors="replace").splitlines():
        if match := CALL.match(line):
            counts[match[1]] += 1
            points.append((match[1], counts[match[1]], line))
    return points
