# SPDX-License-Identifier: BSD-2-Clause
"""A daemon with very many probes, and what is done with all of them."""

import os
import random
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import machine
from bench.latency import Bell
from bench.rig import JAILDAEMON, PATIENCE_SECONDS, WINDOW, Rig, Unmeasured, wish
from jaildaemon.core.fleet import MAX_RUNS

JAILS = 100
MOST_DEATHS = 1000
"""On Linux, of probes at one instant, as when their daemon is killed: with more the kernel may
lock up for good (observed on 6.18: each has a seccomp filter, and all are freed at once)."""
SLICE, SLICE_SECONDS = 100, 0.02
"""How many probes a burst rings at a time, and until the next: 5,000 a second, several times
as fast as any floor runs commands, so the queue is never empty; and safe, see above."""
SAMPLE = 200
"""Probes whose memory is read: those of one size are alike."""
DRAIN_EACH = 64


class Population:
    """`size` rules of one shot each, in up to JAILS jails.  Whoever was rung is replaced."""

    def __init__(self, rig: Rig, size: int) -> None:
        self.size = size
        self.daemon = rig.daemon()
        self.fifo = rig.fifo()
        self.command = f"echo $JAILDAEMON_RULE > {self.fifo.path}"
        self.jails = [rig.jail(self.daemon).jail for _ in range(min(size, JAILS))]
        self.rules: list[str] = [""] * size
        self.probes = [0] * size
        self._available = machine.available_kb()

    def attach(self, numbers: Sequence[int], window: int = WINDOW) -> float:
        """Arm the rules of these numbers over one connection; return the seconds."""
        wishes = [
            wish(self.jails[n % len(self.jails)], self.command, f"BENCH{n:05}") for n in numbers
        ]
        self.daemon.drain()
        began = time.perf_counter()
        answers = self.daemon.connection.calls("Attach", wishes, window)
        seconds = time.perf_counter() - began
        for n, answer in zip(numbers, answers, strict=True):
            self.rules[n], self.probes[n] = str(answer["id"]), int(answer["probe_pid"])
        return seconds

    def patience(self) -> float:
        """Return until when all of them may take for something."""
        return time.monotonic() + PATIENCE_SECONDS * (1 + self.size / 3000)

    def close(self) -> None:
        """Withdraw what is left, a jail at a time."""
        for jail in self.jails:
            self.daemon.detach(jail)

    # --- what it costs to stand there ------------------------------------------------

    def memory(self) -> dict[str, float]:
        """Return kB for each probe, and of the daemon."""
        available = self._available - machine.available_kb()
        pids = random.sample(self.probes, min(SAMPLE, self.size))
        each = [machine.memory_kb(pid) for pid in pids]
        found = {f"probe_{k.lower()}_kb": statistics.mean(m[k] for m in each) for k in each[0]}
        daemon = machine.memory_kb(self.daemon.pid)
        found |= {f"daemon_{name.lower()}_kb": float(kb) for name, kb in daemon.items()}
        return {**found, "available_kb": available / self.size}

    def idle(self, seconds: float) -> dict[str, Any]:
        """Return the system calls of the daemon while nobody wants anything, and its wake-ups."""
        self.daemon.quiet()
        self.daemon.hang_up()
        self.daemon.drain()
        time.sleep(2.0)  # what it still has to do after the last command takes a second
        before = machine.switches(self.daemon.pid)
        time.sleep(seconds)
        found: dict[str, Any] = {
            "seconds": seconds,
            "wake_ups": machine.switches(self.daemon.pid) - before,
        }
        try:
            found["calls"] = calls_while(seconds, self.daemon.pid)
        except Unmeasured as error:
            found["calls_why"] = str(error)
        return found

    # --- what happens to it -------------------------------------------------------------

    def restart(self) -> tuple[float, int]:
        """Have it replaced by exec; return the seconds, and how many probes are the same."""
        before = set(self.probes)
        self.daemon.hang_up()
        began = time.perf_counter()
        subprocess.run([*JAILDAEMON, "restart", "-f", self.daemon.socket], check=True)
        self.daemon.until(self.patience(), probes=self.size)
        seconds = time.perf_counter() - began
        self._look()
        return seconds, len(before & set(self.probes))

    def recover(self, most_deaths: int) -> float:
        """Kill it, start it, and return the seconds until every rule is armed again."""
        if machine.LINUX and self.size > most_deaths:
            raise Unmeasured(f"the kernel may lock up when over {most_deaths} probes die at once")
        began = time.perf_counter()
        self.daemon.signal(signal.SIGKILL)
        self.daemon.start()
        self.daemon.until(self.patience(), probes=self.size)
        seconds = time.perf_counter() - began
        self._look()
        return seconds

    def _look(self) -> None:
        """Find the probes anew."""
        numbers = {rule: n for n, rule in enumerate(self.rules)}
        for rule in self.daemon.connection.call("List")["rules"]:
            self.probes[numbers[rule["id"]]] = rule.get("probe_pid", 0)

    def burst(self) -> dict[str, Any]:
        """Ring all of them; return how fast all commands ran, and whether each once."""
        daemon, left = self.daemon, list(range(self.size))
        random.shuffle(left)
        daemon.drain()
        before = machine.cpu_seconds(daemon.pid)
        ran: Counter[str] = Counter()
        read = 0
        end = self.patience()
        began = last = next_slice = time.perf_counter()
        while ran.total() < self.size:
            now = time.perf_counter()
            if left and now >= next_slice:
                for n in left[-SLICE:]:
                    os.kill(self.probes[n], signal.SIGHUP)
                del left[-SLICE:]
                next_slice += SLICE_SECONDS
            until = next_slice - now if left else end - time.monotonic()
            if select.select([self.fifo.fd], [], [], max(0.0, until))[0]:
                ran.update(self.fifo.lines())
                last = time.perf_counter()
            elif not left:
                break  # they never will: `lost` says how many
            if ran.total() - read > DRAIN_EACH:
                read = ran.total()
                daemon.drain()
        daemon.quiet()
        ran.update(self.fifo.lines())  # what ran twice
        cpu = machine.cpu_seconds(daemon.pid) - before
        return {
            "runs_per_second": self.size / (last - began),
            "lost": len(set(self.rules) - ran.keys()),
            "twice": sum(count > 1 for count in ran.values()),
            "strange": len(ran.keys() - set(self.rules)),
            "cpu_ms": cpu / self.size * 1e3,
            "at_once": MAX_RUNS,
        }


class RandomBell(Bell):
    """A random one of very many probes.  After its run another takes its place."""

    def __init__(self, population: Population) -> None:
        super().__init__(population.fifo)
        self._population = population
        self._rung: int | None = None

    def ready(self) -> int:
        """Wait until nothing runs and every probe stands; return the pid of one."""
        population = self._population
        if self._rung is not None:
            population.daemon.quiet()
            population.attach([self._rung])
        self._rung = random.randrange(population.size)
        return population.probes[self._rung]

    def close(self) -> None:
        """Have every probe stand again."""
        self.ready()


def calls_while(seconds: float, pid: int) -> int:
    """Return how many system calls a process makes, of which it sleeps in one when asked."""
    return (_under_strace if machine.LINUX else _under_ktrace)(seconds, pid)


def _under_ktrace(seconds: float, pid: int) -> int:
    with tempfile.TemporaryDirectory() as directory:
        account = str(Path(directory) / "calls")
        words = ["ktrace", "-t", "c", "-f", account, "-p", str(pid)]
        try:
            done = subprocess.run(words, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise Unmeasured("counted by wake-ups only: no ktrace(1)") from None
        if done.returncode:
            raise Unmeasured(f"ktrace cannot trace it: {done.stderr.strip()}")
        time.sleep(seconds)
        # A process that made no call leaves an empty account, and so does one not traced.
        points = machine.output("ps", "-o", "ktrace=", "-p", str(pid))
        subprocess.run(["ktrace", "-c", "-p", str(pid)], check=True)
        if not int(points or "0", 16):
            raise Unmeasured("ktrace was not at work to the end")
        words = ["kdump", "-f", account]
        lines = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        return sum(" CALL " in line for line in lines.splitlines())


def _under_strace(seconds: float, pid: int) -> int:
    with tempfile.TemporaryDirectory() as directory:
        account = Path(directory) / "calls"
        words = ["strace", "-f", "-qq", "-o", str(account), "-p", str(pid)]
        try:
            strace = subprocess.Popen(words, stderr=subprocess.PIPE, start_new_session=True)
        except FileNotFoundError:
            raise Unmeasured("counted by wake-ups only: install the package strace") from None
        time.sleep(seconds)
        if strace.poll() is None:
            strace.send_signal(signal.SIGINT)
        assert strace.stderr is not None
        words_of_it = strace.stderr.read().decode(errors="replace").strip()
        strace.stderr.close()
        strace.wait()
        lines = account.read_text(encoding="utf-8").splitlines() if account.exists() else []
        if not lines or "detached" not in lines[-1]:
            if not lines:
                raise Unmeasured(f"strace cannot trace it: {words_of_it}")
            sys.stderr.write(f"bench: strace was not at work to the end: {words_of_it}\n")
        # Asleep all the time it prints one line: the call it was found in, never completed.
        return sum("<detached" not in line for line in lines)
