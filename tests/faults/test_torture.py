# SPDX-License-Identifier: BSD-2-Clause
"""bench/soak.py, briefly: torture, and an account that balances."""

import os
import subprocess
import sys
from pathlib import Path

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
