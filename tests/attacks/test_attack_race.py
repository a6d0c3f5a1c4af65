# SPDX-License-Identifier: BSD-2-Clause
"""Attack 3, CVE-2016-9962: every new process in the jail is seized at once, in a loop."""

import os
import sys

import pytest

if sys.platform != "linux":
    pytest.skip("cannot: the Linux attacker", allow_module_level=True)
assert sys.platform == "linux"

from tests.attacks.cage import PLANS, UNPRIVILEGED, Cage
from tests.attacks.linux_fixtures import Make, MakeNaive
from tests.attacks.rig import Daemon
from tests.attacks.tally import Tally

TARGETS = {"docker": 2000, "user-namespace": 500}
"""How many probes the attacker must have seen; the others prove less with the same."""
FEWER = 64
AT_ONCE = 48
NAIVE = 60


LOOKS = 10_000
"""How often a counter is looked at, at most."""


def wait_counts(cage: Cage, name: str, wanted: int) -> None:
    """Return when the attacker has counted so far; each look lets it run."""
    for _ in range(LOOKS):
        if int(cage.counts()[name]) >= wanted:
            return
        os.sched_yield()


def raced(cage_counts: dict[str, str]) -> tuple[int, int, int]:
    return int(cage_counts["attempts"]), int(cage_counts["seen"]), int(cage_counts["wins"])


@pytest.mark.parametrize("kind", UNPRIVILEGED)
def test_racing_the_entry_gains_nothing(
    kind: str, make_cage: Make, make_naive: MakeNaive, daemon: Daemon, tally: Tally
) -> None:
    cage = make_cage(PLANS[kind])
    naive = make_naive(cage)
    cage.ask("start race")
    for _ in range(NAIVE):
        naive.arm()
    wait_counts(cage, "wins", 1)
    control = cage.counts("stop")
    tally.control(f"race {kind}", int(control["wins"]), control["won"])

    wanted = TARGETS.get(kind, FEWER)
    cage.ask("start race")
    armed = 0
    for _ in range(3 * wanted // AT_ONCE + 3):
        armed += len(daemon.attach_many(cage.init, AT_ONCE))
        if int(cage.counts()["seen"]) >= wanted:
            break
        daemon.detach_all()
    found = cage.counts("stop")
    attempts, seen, wins = raced(found)
    assert seen >= wanted
    tally.attack(f"race {kind}", attempts, wins, found["won"])
    tally.note(
        f"race {kind}: {wins} of {attempts} attempts on {seen} of {armed} probes; naive: "
        f"{control['wins']} of {control['attempts']} on {control['seen']} ({control['won']})"
    )
    assert daemon.triggers() == 0
