# SPDX-License-Identifier: BSD-2-Clause
"""The machine: of what kind it is, how busy others keep it, and what it tells of a process."""

import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.rig import Unmeasured

LINUX = sys.platform == "linux"
LOOK_SECONDS = 0.5
BUSY = 0.05
"""Of all processors, while we sleep: above it somebody else works here."""
STOLEN = 0.02
"""Of all processors, taken by the host of this virtual machine during the run."""
_SYSCTL_CPU = 5
"""kern.cp_time: user, nice, system, interrupt, idle."""


def output(*words: str) -> str:
    """Return what a command prints, "" where it cannot be had."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


# --- which --------------------------------------------------------------------------


def kind() -> str:
    """Return the machine's kind, for a file's name."""
    return f"{platform.system().lower()}-{platform.machine()}-{os.cpu_count()}cpu".replace("_", "-")


def emulated() -> bool:
    """Say whether the processor is software: qemu without KVM says so in CPUID or its model."""
    if LINUX:
        words = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    else:
        words = output("sysctl", "-n", "hw.hv_vendor") + output("sysctl", "-n", "hw.model")
    return bool(re.search(r"TCGTCG|QEMU Virtual CPU|QEMU TCG", words))


def describe() -> dict[str, Any]:
    """Return what a reader of the figures must know."""
    if LINUX:
        cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        model = re.search(r"^model name\s*: (.*)$", cpuinfo, re.MULTILINE)
        processor = model[1] if model else platform.machine()
        virtual = "hypervisor" in cpuinfo
        memory = kilobytes(Path("/proc/meminfo"), "MemTotal")
    else:
        processor = output("sysctl", "-n", "hw.model")
        virtual = output("sysctl", "-n", "kern.vm_guest") not in ("", "none")
        memory = int(output("sysctl", "-n", "hw.physmem")) // 1024
    return {
        "kind": kind(),
        "system": f"{platform.system()} {platform.release()}",
        "processor": processor,
        "cpus": os.cpu_count(),
        "memory_kb": memory,
        "virtual": virtual,
        "python": platform.python_version(),
    }


def commit() -> tuple[str, bool]:
    """Return the commit of this tree, and whether it was changed since."""
    git = ("git", "-c", "safe.directory=*", "-C", str(Path(__file__).resolve().parent))
    found = output(*git, "rev-parse", "--short=10", "HEAD") or "unknown"
    return found, bool(output(*git, "status", "--porcelain", "--untracked-files=no"))


# --- how quiet ------------------------------------------------------------------------


def _ticks() -> tuple[int, int, int]:
    """Return the ticks of all processors: busy, stolen, in all."""
    if LINUX:
        with open("/proc/stat", encoding="ascii") as file:
            numbers = [int(word) for word in file.readline().split()[1:9]]
        idle, iowait, steal = numbers[3], numbers[4], numbers[7]
        return sum(numbers) - idle - iowait - steal, steal, sum(numbers)
    numbers = [int(word) for word in output("sysctl", "-n", "kern.cp_time").split()]
    if len(numbers) != _SYSCTL_CPU:
        return 0, 0, 1
    return sum(numbers[:4]), 0, sum(numbers)


class Noise:
    """How busy others kept the machine."""

    def __init__(self) -> None:
        self._began = _ticks()
        self.load = [os.getloadavg()[0]]
        self.busy: list[float] = []
        """The share of all processors that others used, at each look."""

    def look(self) -> None:
        """Sleep a little, and see who does not."""
        before = _ticks()
        time.sleep(LOOK_SECONDS)
        after = _ticks()
        self.busy.append((after[0] - before[0]) / max(1, after[2] - before[2]))

    def verdict(self) -> dict[str, Any]:
        """Return the account; `noisy` says why nothing can be told, if so."""
        now = _ticks()
        stolen = (now[1] - self._began[1]) / max(1, now[2] - self._began[2])
        busy = sorted(self.busy)[len(self.busy) // 2] if self.busy else 0.0
        why = []
        if busy > BUSY:
            why.append(f"others used {busy:.0%} of the processors while this slept")
        if stolen > STOLEN:
            why.append(f"its own host took {stolen:.0%} of the processors away")
        return {
            "load_average": [*self.load, os.getloadavg()[0]],
            "busy_at_rest": [round(share, 3) for share in self.busy],
            "stolen": round(stolen, 4),
            "at_rest": round(busy, 3),
            "noisy": why,
        }


# --- one process ------------------------------------------------------------------------


def kilobytes(path: Path, name: str) -> int:
    """Return a figure of /proc/meminfo and its like."""
    for line in path.read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise ValueError(f"{path} has no {name}")


def available_kb() -> int:
    """Return how much memory the system could still give."""
    if LINUX:
        return kilobytes(Path("/proc/meminfo"), "MemAvailable")
    names = [f"vm.stats.vm.v_{what}_count" for what in ("free", "inactive", "laundry")]
    pages = sum(int(word) for word in output("sysctl", "-n", *names).split())
    return pages * os.sysconf("SC_PAGESIZE") // 1024


def memory_kb(pid: int) -> dict[str, int]:
    """Return a process's memory: Rss, and on Linux Pss and Private_Dirty."""
    if LINUX:
        path = Path(f"/proc/{pid}/smaps_rollup")
        return {name: kilobytes(path, name) for name in ("Pss", "Rss", "Private_Dirty")}
    return {"Rss": int(output("ps", "-o", "rss=", "-p", str(pid)) or 0)}


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process of one thread, without its children."""
    if LINUX:
        # sched-stats.txt: nanoseconds on a processor; /proc/PID/stat counts in hundredths.
        path = Path(f"/proc/{pid}/schedstat")
        if not path.exists():
            raise Unmeasured("the kernel has no /proc/PID/schedstat")
        return int(path.read_text(encoding="ascii").split()[0]) / 1e9
    minutes, _, seconds = output("ps", "-o", "time=", "-p", str(pid)).rpartition(":")
    return 60 * int(minutes) + float(seconds)


def switches(pid: int) -> int:
    """Return how often a process has slept: what makes no system call never wakes to one."""
    if LINUX:
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return sum(kilobytes(task / "status", "voluntary_ctxt_switches") for task in tasks)
    found = re.search(
        r"(?<!in)voluntary context switches +(\d+)", output("procstat", "-r", str(pid))
    )
    if found is None:
        raise Unmeasured("procstat(1) does not say")
    return int(found[1])


def descendants(pid: int) -> list[int]:
    """Return a process and all that came of it."""
    table = [line.split() for line in output("ps", "-ax", "-o", "pid=", "-o", "ppid=").splitlines()]
    found, fresh = [pid], {pid}
    while fresh:
        fresh = {int(child) for child, parent in table if int(parent) in fresh}
        found += fresh
    return found
