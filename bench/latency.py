# SPDX-License-Identifier: BSD-2-Clause
"""From the signal in the jail to the first thing the command does.

Bells are rung in turn, each after the same wait; so noise hits all alike.
"""

import abc
import gc
import os
import signal
import statistics
import time
from collections.abc import Sequence
from typing import Any

from bench.rig import Daemon, Fifo, Rig, readable, wish

IDLE_SECONDS = 0.05
"""Before each shot: caches and processors have gone to other things by then."""
WARM_UP = 10
BLOCK = 10
"""Shots of one bell back to back, before it is the other's turn."""


class Bell(abc.ABC):
    """A sleeping process, whose death runs a command that writes a line to `fifo`."""

    def __init__(self, fifo: Fifo) -> None:
        self.fifo = fifo

    @abc.abstractmethod
    def ready(self) -> int:
        """Wait until all is over that a shot began; return the pid that sleeps now."""

    def ring(self) -> float:
        """Send the signal; return the seconds until the command wrote its line."""
        return self.shoot(self.ready())

    def shoot(self, pid: int) -> float:
        began = time.perf_counter()
        os.kill(pid, signal.SIGHUP)
        readable([self.fifo.fd], f"nothing ran after the signal to {pid} of {type(self).__name__}")
        seconds = time.perf_counter() - began
        self.fifo.lines()
        return seconds


class ProductBell(Bell):
    """One -r rule of a daemon: its log tells that the probe stands again."""

    def __init__(self, rig: Rig, daemon: Daemon) -> None:
        super().__init__(rig.fifo())
        self._daemon = daemon
        jail = rig.jail(daemon).jail
        daemon.drain()
        command = f"echo $JAILDAEMON_RULE > {self.fifo.path}"
        daemon.connection.call("Attach", **wish(jail, command, "BENCH", respawn="after"))

    def ready(self) -> int:
        """Return the probe that the log named last: the command before has ended."""
        line = self._daemon.wait(": armed in jail ")
        return int(line.split(" as pid ")[1].split(":")[0])


def in_turn(bells: Sequence[Bell], rounds: int) -> list[list[float]]:
    """Ring each in turn, after the same idle wait."""
    times: list[list[float]] = [[] for _ in bells]
    order = list(range(len(bells)))
    gc.disable()
    for number in range(rounds + WARM_UP):
        order.append(order.pop(0))  # nobody is always the first
        for which in order:
            pid = bells[which].ready()
            time.sleep(IDLE_SECONDS)
            seconds = bells[which].shoot(pid)
            if number >= WARM_UP:
                times[which].append(seconds)
    gc.enable()
    return times


def back_to_back(bells: Sequence[Bell], rounds: int) -> list[list[float]]:
    """Ring each in blocks without a wait; the first shot of a block does not count."""
    times: list[list[float]] = [[] for _ in bells]
    order = list(range(len(bells)))
    gc.disable()
    while len(times[0]) < rounds:
        order.append(order.pop(0))
        for which in order:
            shots = [bells[which].ring() for _ in range(BLOCK + 1)]
            times[which] += shots[1:]
    gc.enable()
    return times


def percentile(times: Sequence[float], share: float) -> float:
    return sorted(times)[min(len(times) - 1, int(len(times) * share))]


def halves(values: Sequence[float]) -> float:
    """Return how far the medians of the two halves are apart: what noise there was."""
    middle = len(values) // 2
    if not middle:
        return 0.0
    one, other = statistics.median(values[:middle]), statistics.median(values[middle:])
    return abs(one - other) / min(one, other)


def summary(times: Sequence[float]) -> dict[str, Any]:
    """Return the figures of one bell, in microseconds."""
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
    found: dict[str, Any] = {
        name: round(percentile(times, share) * 1e6, 1) for name, share in shares.items()
    }
    found["p50"] = round(statistics.median(times) * 1e6, 1)
    return {**found, "shots": len(times), "halves": round(halves(times), 4)}
