# SPDX-License-Identifier: BSD-2-Clause
"""First figures, each with its floor measured in the same run.

    python bench/figures.py [--rounds N] [--json FILE]

Ratios are what counts: machines differ, and noise hits floor and product alike,
because they run in alternating pairs.  Needs root, Linux and unshare(1).
"""

import argparse
import json
import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from jaildaemon.backends import throwaway_jail
from jaildaemon.cli import client

HERE = Path(__file__).parent
JAILDAEMON = Path(os.environ.get("JAILDAEMON") or Path(sys.executable).parent / "jaildaemon")
PROBES = 100
PATIENCE_SECONDS = 10.0


class Bell:
    """Something with a sleeping process, whose death runs a command that writes a byte."""

    def __init__(self, ran_fd: int) -> None:
        self._ran_fd = ran_fd

    def pid(self) -> int:
        """Return the pid that sleeps now."""
        raise NotImplementedError

    def ring(self) -> float:
        """Send the signal; return the seconds until the command's first instruction."""
        pid = self.pid()
        began = time.perf_counter()
        os.kill(pid, signal.SIGHUP)
        if not select.select([self._ran_fd], [], [], PATIENCE_SECONDS)[0]:
            msg = f"nothing ran after the signal to {pid}"
            raise TimeoutError(msg)
        seconds = time.perf_counter() - began
        os.read(self._ran_fd, 64)
        return seconds


class Floor(Bell):
    """bench/floor.c."""

    def __init__(self, ran_fd: int, process: subprocess.Popen[str]) -> None:
        super().__init__(ran_fd)
        self._process = process

    def pid(self) -> int:
        """Return the pid that the floor printed last."""
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


class Product(Bell):
    """A jaildaemon -D -F with one -r rule."""

    def __init__(self, ran_fd: int, daemon: subprocess.Popen[str]) -> None:
        super().__init__(ran_fd)
        self._daemon = daemon

    def pid(self) -> int:
        """Return the pid of the probe that the daemon logged last."""
        assert self._daemon.stderr is not None
        line = ""
        while "armed in jail" not in line:
            line = self._daemon.stderr.readline()
        return int(line.split(" as pid ")[1].split(":")[0])


@contextmanager
def running(arguments: list[str], **kwargs: object) -> Iterator[subprocess.Popen[str]]:
    """Run a process and end it."""
    process = subprocess.Popen(arguments, text=True, **kwargs)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def fifo(directory: Path, name: str) -> tuple[Path, int]:
    """Return a new FIFO and a descriptor that reads it."""
    path = directory / name
    os.mkfifo(path)
    return path, os.open(path, os.O_RDWR)


def daemon(stack: ExitStack, directory: Path) -> tuple[subprocess.Popen[str], str]:
    """Run a private daemon; return it and its socket."""
    socket = str(directory / "pipe")
    arguments = [str(JAILDAEMON), "-D", "-F", "-f", socket, "-p", str(directory / "pid")]
    arguments += ["--state-dir", str(directory / "state")]
    process = stack.enter_context(running(arguments, stderr=subprocess.PIPE))
    assert process.stderr is not None
    while " serves " not in process.stderr.readline():
        continue
    return process, socket


def attach(socket: str, jail: str, command: str, title: str, respawn: str) -> int:
    """Arm a probe; return its pid."""
    wish = {
        "command": command,
        "jail": jail,
        "title": title,
        "policy": {"respawn": respawn, "limit": "none"},
    }
    pid = client.call(socket, "Attach", dict(wish))["probe_pid"]
    assert isinstance(pid, int)
    return pid


def latency(rounds: int) -> dict[str, float]:
    """Measure signal to first instruction, floor and product in turn; seconds."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        binary = directory / "floor"
        subprocess.run(["cc", "-O2", "-o", binary, HERE / "floor.c"], check=True)
        floor_path, floor_fd = fifo(directory, "floor.ran")
        path, product_fd = fifo(directory, "ran")
        command = f"echo x > {floor_path}"
        process = stack.enter_context(running([str(binary), command], stdout=subprocess.PIPE))
        jail = throwaway_jail()
        stack.callback(jail.close)
        served, socket = daemon(stack, directory)
        attach(socket, jail.jail, f"echo x > {path}", "BENCH", "after")
        bells: tuple[Bell, Bell] = (Floor(floor_fd, process), Product(product_fd, served))
        times: tuple[list[float], list[float]] = ([], [])
        for number in range(rounds + 10):
            for which in (0, 1) if number % 2 else (1, 0):
                seconds = bells[which].ring()
                if number >= 10:  # the first ones warm the caches
                    times[which].append(seconds)
    floor, product = (statistics.median(t) for t in times)
    p99 = [sorted(t)[int(len(t) * 0.99)] for t in times]
    return {
        "floor_p50_us": floor * 1e6,
        "product_p50_us": product * 1e6,
        "floor_p99_us": p99[0] * 1e6,
        "product_p99_us": p99[1] * 1e6,
        "ratio": product / floor,
    }


def memory() -> dict[str, float]:
    """Measure the memory of one of PROBES idle probes; kB."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        jail = throwaway_jail()
        stack.callback(jail.close)
        process, socket = daemon(stack, directory)
        before = _kilobytes(Path("/proc/meminfo"), "MemAvailable")
        pids = [attach(socket, jail.jail, ":", f"BENCH{n}", "no") for n in range(PROBES)]
        after = _kilobytes(Path("/proc/meminfo"), "MemAvailable")
        figures = {
            name.lower() + "_kb": statistics.mean(
                _kilobytes(Path(f"/proc/{pid}/smaps_rollup"), name) for pid in pids
            )
            for name in ("Pss", "Rss", "Private_Dirty")
        }
        figures["available_kb"] = (before - after) / PROBES
        figures["daemon_rss_kb"] = _kilobytes(Path(f"/proc/{process.pid}/status"), "VmRSS")
        return figures


def _kilobytes(path: Path, name: str) -> float:
    for line in path.read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return float(line.split()[1])
    msg = f"{path} has no {name}"
    raise ValueError(msg)


def client_time(rounds: int) -> dict[str, float]:
    """Measure a whole -c, arming included, against the same Python doing nothing."""
    floor: list[float] = []
    product: list[float] = []
    nothing = [sys.executable, "-I", "-c", "import json, socket"]
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        jail = throwaway_jail()
        stack.callback(jail.close)
        _, socket = daemon(stack, directory)
        arm = [str(JAILDAEMON), "-c", ":", "-j", jail.jail, "-f", socket]
        for number in range(rounds + 2):
            for arguments, times in ((nothing, floor), (arm, product)):
                began = time.perf_counter()
                subprocess.run(arguments, check=True)
                if number >= 2:
                    times.append(time.perf_counter() - began)
    one, other = statistics.median(floor), statistics.median(product)
    return {"floor_ms": one * 1e3, "product_ms": other * 1e3, "ratio": other / one}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--json", type=Path)
    wish = parser.parse_args()
    if os.geteuid() != 0:
        sys.stderr.write("bench: needs root\n")
        return 1
    figures = {
        "latency": latency(wish.rounds),
        "memory": memory(),
        "client": client_time(max(20, wish.rounds // 10)),
    }
    lat, mem, cli = figures["latency"], figures["memory"], figures["client"]
    more = lat["product_p50_us"] - lat["floor_p50_us"]
    sys.stdout.write(
        f"signal to the command's first instruction, p50: {lat['product_p50_us']:.0f} us, "
        f"floor {lat['floor_p50_us']:.0f} us: {lat['ratio']:.2f} x (budget 1.25), {more:+.0f} us\n"
        f"  p99: {lat['product_p99_us']:.0f} us, floor {lat['floor_p99_us']:.0f} us\n"
        f"memory of an idle probe, {PROBES} probes: PSS {mem['pss_kb']:.1f} kB (budget 8), "
        f"RSS {mem['rss_kb']:.1f} kB, Private_Dirty {mem['private_dirty_kb']:.1f} kB, "
        f"MemAvailable {mem['available_kb']:.1f} kB\n"
        f"  the daemon with them: RSS {mem['daemon_rss_kb'] / 1024:.1f} MB\n"
        f"jaildaemon -c, whole process: {cli['product_ms']:.1f} ms, "
        f"floor {cli['floor_ms']:.1f} ms: {cli['ratio']:.2f} x (budget 1.5)\n"
    )
    if wish.json:
        wish.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="ascii")
    return 0


if __name__ == "__main__":
    sys.exit(main())
