# SPDX-License-Identifier: BSD-2-Clause
"""How fast one connection gets rules armed, against the helper's bare start and end."""

import statistics
from dataclasses import dataclass, field

from bench.floor import Floor
from bench.latency import halves
from bench.population import Population
from bench.rig import WINDOW, rig

COUNT = 100
AT_ONCE = 8
"""Helpers in flight of the floor where calls are pipelined: with more, two processors gain
nothing."""


@dataclass
class Rates:
    """Each a list of rates, one for each round."""

    product: list[float] = field(default_factory=list)
    floor: list[float] = field(default_factory=list)
    why: str = ""
    """There are none: what the daemon refused, as when helpers in flight take too long each."""

    @property
    def noise(self) -> float:
        return halves(self.floor)

    def medians(self) -> tuple[float, float]:
        return statistics.median(self.product), statistics.median(self.floor)


@dataclass
class Arming:
    """Each call awaited before the next; calls pipelined; and by the helper alone, from C."""

    awaited: Rates = field(default_factory=Rates)
    pipelined: Rates = field(default_factory=Rates)
    helper: list[float] = field(default_factory=list)


def measure(floor: Floor, rounds: int) -> Arming:
    """Return the rates, each taken between two of the floor's."""
    found = Arming()
    with rig() as it:
        population = Population(it, COUNT)

        def once(rates: Rates, window: int, at_once: int, *, count: bool) -> None:
            one = floor.spawns_per_second(5 * COUNT, at_once)
            seconds = population.attach(range(COUNT), window)
            population.close()
            other = floor.spawns_per_second(5 * COUNT, at_once)
            if count:
                rates.product.append(COUNT / seconds)
                rates.floor.append((one + other) / 2)

        for number in range(rounds + 1):  # the first warms the caches
            once(found.awaited, 1, 1, count=number > 0)
            helper = floor.arms_per_second(COUNT, population.jails[0])
            found.helper += [helper] if number else []
        try:
            for number in range(rounds + 1):
                once(found.pipelined, WINDOW, AT_ONCE, count=number > 0)
        except RuntimeError as error:
            found.pipelined.why = f"it failed: {error}"
    return found
