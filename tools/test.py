# SPDX-License-Identifier: BSD-2-Clause
"""make test: everything, in lanes side by side, for most of it waits for a kernel.

The first lane's output is shown as it comes, the others' when it has ended, each
with its own summary of what was skipped, and why.  Arguments go to pytest
instead: `python tools/test.py tests/kernel -k respawn`.
"""

import subprocess
import sys
import tempfile

PYTEST = [sys.executable, "-m", "pytest"]
CORE = ["tests/core", "--cov=jaildaemon.core", "--cov-branch", "--cov-fail-under=100", "-q"]
KERNEL = ["tests/kernel", "tests/helper"]
ATTACKS = ["tests/attacks", "tests/daemon", "tests/contract", "tests/engines", "tests/fuzz"]
REST = [f"--ignore={part}" for part in ("tests/core", *KERNEL, *ATTACKS)]


def run(words: list[str]) -> int:
    """Run pytest in the terminal; return its exit code."""
    return subprocess.run([*PYTEST, *words], check=False).returncode


def main(arguments: list[str]) -> int:
    """Run pytest; return the first failure's exit code, 0 without one."""
    if arguments:
        return run(arguments)
    others = []
    for words in (ATTACKS, REST):
        output = tempfile.TemporaryFile()  # noqa: SIM115 - read when the lane has ended
        argv = [*PYTEST, *words, "--durations=5"]
        others.append((subprocess.Popen(argv, stdout=output, stderr=output), output))
    codes = [run(CORE), run([*KERNEL, "--durations=5"])]
    for process, output in others:
        codes.append(process.wait())
        output.seek(0)
        sys.stdout.flush()
        sys.stdout.buffer.write(output.read())
        output.close()
    return next((code for code in codes if code), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
