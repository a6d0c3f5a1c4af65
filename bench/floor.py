# SPDX-License-Identifier: BSD-2-Clause
"""The driver of floor.c and floor_arm.c, which are built anew for each run."""

import shutil
import subprocess
import sys
from pathlib import Path

from bench.latency import Bell
from bench.machine import output
from bench.rig import LIBEXEC, Fifo, Rig, Unmeasured, readable

HERE = Path(__file__).resolve().parent
READER = str(LIBEXEC / "jailoutput")
HELPER = str(LIBEXEC / "jailprobe")
NO_READER = "-"


def target(jail: str) -> list[str]:
    """Return what floor_arm takes for a throwaway jail."""
    if sys.platform == "linux":
        from jaildaemon.backends.linux_jail import NAMESPACES, namespace

        pid = int(jail)
        theirs = (f for k, f in NAMESPACES.items() if namespace(pid, k) != namespace("self", k))
        return [str(sum(theirs)), jail]
    return [output("jls", "-j", jail, "jid")]


class Floor:
    """The built floor."""

    def __init__(self, directory: Path) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            raise Unmeasured("no C compiler; install the package gcc or clang")
        self._ring = str(directory / "ring")
        flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", f"-I{HERE.parent / 'helper'}"]
        for name in ("floor", "floor_arm"):
            words = [compiler, *flags, "-o", str(directory / name), str(HERE / f"{name}.c")]
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise Unmeasured(f"{name}.c cannot be compiled: {done.stderr.strip()[:300]}")
        self._program, self._arm = str(directory / "floor"), str(directory / "floor_arm")

    def bell(self, rig: Rig, command: str) -> subprocess.Popen[bytes]:
        """Start the one that runs `command` for each child that is killed."""
        words = [self._program, "bell", READER, self._ring, command]
        return rig.process(words, stdout=subprocess.PIPE)

    def spawns_per_second(self, count: int, at_once: int) -> float:
        """Start and reap the helper alone, which finds no daemon and ends."""
        words = [self._program, "spawn", str(count), str(at_once), HELPER]
        done = subprocess.run(words, stdout=subprocess.PIPE, check=True)
        return count / float(done.stdout)

    def arms_per_second(self, count: int, jail: str) -> float:
        """Arm probes by the helper, from C, and end them: the helper's own share."""
        words = [self._arm, str(count), HELPER, *target(jail)]
        done = subprocess.run(words, stdout=subprocess.PIPE, check=True)
        return count / float(done.stdout)

    def burst(self, fifo: Fifo, count: int, at_once: int, *, reader: bool) -> float:
        """Run a command that writes a line, `count` times; return runs a second."""
        command = f"echo $JAILDAEMON_RULE > {fifo.path}"
        words = [self._program, "burst", str(count), str(at_once)]
        words += [READER if reader else NO_READER, self._ring, command]
        process = subprocess.Popen(words, stdout=subprocess.PIPE)
        assert process.stdout is not None
        seen: set[str] = set()
        while len(seen) < count:
            readable([fifo.fd], "the floor's commands write nothing")
            seen.update(fifo.lines())
        seconds = float(process.stdout.read())
        process.wait()
        process.stdout.close()
        return count / seconds


class FloorBell(Bell):
    """A sleeping child of the floor."""

    def __init__(self, rig: Rig, floor: Floor) -> None:
        super().__init__(rig.fifo())
        self._process = floor.bell(rig, f"echo $JAILDAEMON_RULE > {self.fifo.path}")

    def ready(self) -> int:
        """Return the child that the floor printed last: its command before has ended."""
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())
