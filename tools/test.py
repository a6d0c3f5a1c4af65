# SPDX-License-Identifier: BSD-2-Clause
"""make test: everything, in two lanes side by side, for most of it waits for a kernel.

The first lane's output is shown as it comes, the second's when it has ended, each
with its own summary of what was skipped, and why.  Arguments go to pytest
instead: `python tools/test.py tests/kernel -k respawn`.
"""

import subprocess
import sys
import tempfile

PYTEST = [sys.executable, "-m", "pytest"]
FIRST = ["tests/kernel", "tests/attacks"]
CORE = ["tests/core", "--cov=jaildaemon.core", "--cov-branch", "--cov-fail-under=100", "-q"]
SECOND = [f"--ignore={part}" for part in (*FIRST, "tests/core")]


def run_lane(words: list[str], output: int | None = None) -> "subprocess.Popen[bytes]":
    """Start pytest; its output goes to the terminal, or to `output`."""
    return subprocess.Popen([*PYTEST, *words], stdout=output, stderr=output)


def main(arguments: list[str]) -> int:
    """Run pytest; return the first failure's exit code, 0 without one."""
    if arguments:
        return run_lane(arguments).wait()
    with tempfile.TemporaryFile() as kept:
        second = run_lane([*SECOND, "--durations=5"], kept.fileno())
        codes = [run_lane(CORE).wait(), run_lane([*FIRST, "--durations=5"]).wait(), second.wait()]
        kept.seek(0)
        sys.stdout.flush()
        sys.stdout.buffer.write(kept.read())
    return next((code for code in codes if code), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
