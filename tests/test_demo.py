# SPDX-License-Identifier: BSD-2-Clause
"""The newcomer's first command, as a newcomer runs it."""

import subprocess
import sys
from pathlib import Path

JAILDAEMON = Path(sys.executable).parent / "jaildaemon"


def test_demo_ends_with_the_line_that_says_it_works() -> None:
    done = subprocess.run(
        [JAILDAEMON, "demo"], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stderr == ""
    assert done.returncode == 0
    last = done.stdout.splitlines()[-1]
    assert last.startswith("ok: a signal inside the jail ran the command on the host in ")
