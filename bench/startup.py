# SPDX-License-Identifier: BSD-2-Clause
"""A whole `jaildaemon -c`, arming included, against the same Python doing nothing."""

import subprocess
import sys
import time

from bench.rig import JAILDAEMON, rig

NOTHING = [sys.executable, "-I", "-c", "import json, socket"]
WARM_UP = 3


def measure(rounds: int) -> tuple[list[float], list[float]]:
    """Return the seconds of the floor and of -c, taken in turn."""
    floor: list[float] = []
    product: list[float] = []
    with rig() as it:
        daemon = it.daemon()
        jail = it.jail(daemon).jail
        arm = [*JAILDAEMON, "-c", ":", "-t", "BENCH", "-j", jail, "-f", daemon.socket]
        for number in range(rounds + WARM_UP):
            turns = [(NOTHING, floor), (arm, product)]
            for words, times in turns if number % 2 else reversed(turns):
                began = time.perf_counter()
                subprocess.run(words, stdin=subprocess.DEVNULL, check=True)
                if number >= WARM_UP:
                    times.append(time.perf_counter() - began)
            daemon.detach(jail)
    return floor, product
