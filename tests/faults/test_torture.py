# SPDX-License-Identifier: BSD-2-Clause
"""bench/soak.py, briefly: torture, and an account that balances."""

import argparse
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from bench import soak
from tests.faults.world import World

SOAK = Path(__file__).resolve().parent.parent.parent / "bench" / "soak.py"
SECONDS = os.environ.get("JAILDAEMON_TORTURE_SECONDS") or ("60" if os.environ.get("CI") else "20")


def test_the_account_balances(world: World) -> None:
    done = subprocess.run(
        [sys.executable, SOAK, "--seconds", SECONDS],
        capture_output=True,
        text=True,
        timeout=float(SECONDS) + 300,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing lost, nothing run twice, nothing left over" in done.stdout


LEAK = """
import sys
import jaildaemon.daemon.runner as runner
from jaildaemon.cli.main import main
start, kept = runner.Runner.start, []
def leaking(self, run):
    kept.append(b"x" * 65536)
    return start(self, run)
runner.Runner.start = leaking
sys.exit(main())
"""


def test_a_leak_is_found(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    # Shorter, for a leak that is larger than the smallest that would be found.
    monkeypatch.setattr(soak, "WINDOW_ROUNDS", 3)
    monkeypatch.setattr(soak, "MOST_WINDOWS", 3)
    wish = argparse.Namespace(seed=1, jails=4, rules=40)
    leaking = soak.Soak(world, wish, [sys.executable, "-c", LEAK])
    with closing(leaking), pytest.raises(soak.Unbalanced, match="it grows"):
        leaking.calm()


@pytest.mark.parametrize(
    ("rounds", "leaks"),
    [
        # What Python 3.13 showed of a daemon that leaks nothing, in KiB.
        ([24800, 26000, 27500, 29824, 25264, 26500, 28000, 31200, 32000, 25600], False),
        ([24800, 26000, 29800, 29824, 29900, 31000, 32000, 33900, 34000, 27100], True),
    ],
)
def test_what_waits_for_the_collector_is_no_leak(
    *, rounds: list[int], leaks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = iter(rounds)
    half = len(rounds) // 2
    monkeypatch.setattr(soak, "WINDOW_ROUNDS", half)
    stub = object.__new__(soak.Soak)
    monkeypatch.setattr(stub, "round", lambda _: None)
    monkeypatch.setattr(stub, "memory", lambda: next(left))
    assert soak.grown([stub.window(), stub.window()]) == leaks
