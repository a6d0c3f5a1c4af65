# SPDX-License-Identifier: BSD-2-Clause
"""The account: what was tried, what the naive probe lost, and what came of it against ours."""

import os
import sys

import pytest

from tests.attacks.tally import Tally

if sys.platform == "linux":
    from tests.attacks.docked import dockerd, make_docked
    from tests.attacks.linux_fixtures import (
        attacker,
        daemon,
        freezer,
        jail,
        make_cage,
        make_careless,
        make_naive,
        other,
    )

    __all__ = ["attacker", "daemon", "freezer", "jail", "make_cage", "make_naive", "other"]
    __all__ += ["dockerd", "make_careless", "make_docked"]
else:
    from tests.attacks.freebsd_rig import attacker, daemon, inside, jail, jid, naive, other

    __all__ = ["attacker", "daemon", "inside", "jail", "jid", "naive", "other"]


TALLY = pytest.StashKey[Tally]()


def pytest_configure(config: pytest.Config) -> None:
    """Begin the account."""
    config.stash[TALLY] = Tally()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the account."""
    tally = config.stash[TALLY]
    if not tally.attempts:
        return
    system = os.uname()
    terminalreporter.section(f"attacks on {system.sysname} {system.release} {system.machine}")
    for note in tally.notes:
        terminalreporter.write_line(note)
    terminalreporter.write_line(
        f"{len(tally.attempts)} attacks tried ({sum(tally.attempts.values())} attempts), "
        f"{len(tally.controls)} negative controls succeeded, "
        f"{len(tally.wins)} attacks succeeded against us"
    )
    for name, how in tally.wins.items():
        terminalreporter.write_line(f"SUCCEEDED: {name}: {how}")


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """Give the account."""
    return request.config.stash[TALLY]
