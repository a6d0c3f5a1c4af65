# SPDX-License-Identifier: BSD-2-Clause
"""The same daemon with 10, 100, 1,000 and more probes: what grows, and what stays."""

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import latency, machine
from bench.floor import Floor, FloorBell
from bench.population import Population, RandomBell
from bench.rig import Rig, Unmeasured, rig

OWN = 10
"""The size that the others are compared with, in the same run."""
PARTS = 4
FLOOR_RUNS = 1000
"""Of the floor's burst, before and after the product's."""


def refuse_what_cannot_be(size: int) -> None:
    """Unmeasured, where this system has no room for so many."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if files != resource.RLIM_INFINITY and files < size + 300:
        raise Unmeasured(f"the hard limit of open files is {files}: a pidfd for each probe")
    if machine.LINUX:
        pids = int(Path("/proc/sys/kernel/pid_max").read_text(encoding="ascii"))
        if pids < 2 * size + 1000:
            raise Unmeasured(f"kernel.pid_max is {pids}")


class Scale:
    """What is measured of one size."""

    def __init__(
        self, floor: Floor | None, *, rounds: int, idle_seconds: float, most_deaths: int
    ) -> None:
        self._floor = floor
        self._rounds, self._idle_seconds = rounds, idle_seconds
        self._most_deaths = most_deaths

    def measure(self, size: int, found: dict[str, Any], save: Callable[[], None]) -> None:
        """Put every figure of a size into `found`; `why` has what could not be had.

        `save` is called before what might take long, or the machine down.
        """
        refuse_what_cannot_be(size)
        why = found["why"]
        with rig() as it:
            population = Population(it, size)
            found["jails"] = len(population.jails)
            found["arming"] = self._fill(population)
            found["memory"] = population.memory()
            if "probe_pss_kb" not in found["memory"]:
                why["a probe's PSS"] = "this system counts a page in full for each who maps it"
            save()
            found["latency"] = self._latency(it, population)
            try:
                found["idle"] = population.idle(self._idle_seconds)
            except Unmeasured as error:
                why["idle"] = str(error)
            seconds, same = population.restart()
            found["restart"] = {"seconds": seconds, "same_probes": same}
            save()
            try:
                found["recovery"] = {"seconds": population.recover(self._most_deaths)}
            except Unmeasured as error:
                why["recovery"] = str(error)
            save()
            found["burst"] = self._burst(it, population)
            save()
            found["rss_after_kb"] = machine.memory_kb(population.daemon.pid)["Rss"]
            population.close()

    def _fill(self, population: Population) -> dict[str, float]:
        """Arm all, in parts, the processor's time for each counted."""
        pid, size = population.daemon.pid, population.size
        before = machine.cpu_seconds(pid)
        seconds = sum(population.attach(range(part, size, PARTS)) for part in range(PARTS))
        cpu = machine.cpu_seconds(pid) - before
        return {"per_second": size / seconds, "cpu_ms": cpu / size * 1e3}

    def _latency(self, it: Rig, population: Population) -> dict[str, Any]:
        """Ring a random one in turn with the floor and with another daemon's ten."""
        many = RandomBell(population)
        bells: dict[str, latency.Bell] = {"many": many}
        own = None
        if population.size != OWN:
            ten = Population(it, OWN)
            ten.attach(range(OWN))
            bells["ten"] = own = RandomBell(ten)
        if self._floor is not None:
            bells["floor"] = FloorBell(it, self._floor)
        times = latency.in_turn(list(bells.values()), self._rounds)
        many.close()
        if own is not None:
            ten.close()
        return {name: latency.summary(t) for name, t in zip(bells, times, strict=True)}

    def _burst(self, it: Rig, population: Population) -> dict[str, Any]:
        """Ring all at once, between two bursts of the floor."""
        fifo, count = it.fifo(), min(FLOOR_RUNS, max(100, population.size))
        rates: list[float] = []
        bare: list[float] = []

        def floors(floor: Floor) -> None:
            at_once = found["at_once"] if found else 32
            rates.append(floor.burst(fifo, count, at_once, reader=True))
            bare.append(floor.burst(fifo, count, at_once, reader=False))

        found: dict[str, Any] = {}
        if self._floor is not None:
            floors(self._floor)
        found = population.burst()
        if self._floor is not None:
            floors(self._floor)
            found["floor_runs_per_second"] = sum(rates) / 2
            found["floor_noise"] = abs(rates[0] - rates[1]) / min(rates)
            found["bare_floor_runs_per_second"] = sum(bare) / 2
        return found
