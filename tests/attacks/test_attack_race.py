# SPDX-License-Identifier: BSD-2-Clause
"""Attack 3, CVE-2016-9962: every new process in the jail is seized at once, in a loop."""

import sys

import pytest

if sys.platform != "linux":
    pytest.skip("cannot: the Linux attacker", allow_module_level=True)
assert sys.platform == "linux"

from tests.attacks.cage import PLANS, UNPRIVILEGED
from tests.attacks.linux_fixtures import Make, MakeNaive
from tests.attacks.rig import Daemon, arm_under, wait_counts
from tests.attacks.tally import Tally

TARGETS = {"docker": 2000, "user-namespace": 500}
"""How many probes the attacker must have seen; the others prove less with the same."""
FEWER = 64
AT_ONCE = 48
NAIVE = 60


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
    armed = arm_under(cage, daemon, cage.init, wanted, AT_ONCE)
    found = cage.counts("stop")
    attempts, seen, wins = raced(found)
    assert seen >= wanted
    tally.attack(f"race {kind}", attempts, wins, found["won"])
    tally.note(
        f"race {kind}: {wins} of {attempts} attempts on {seen} of {armed} probes; naive: "
        f"{control['wins']} of {control['attempts']} on {control['seen']} ({control['won']})"
    )
    assert daemon.triggers() == 0
