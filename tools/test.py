# SPDX-License-Identifier: BSD-2-Clause
"""make test: the core with its coverage, then everything that touches a system.

What was skipped, and why, stands in the second summary.  Arguments go to pytest
instead: `python tools/test.py tests/kernel -k respawn`.
"""

import subprocess
import sys

CORE = ["tests/core", "--cov=jaildaemon.core", "--cov-branch", "--cov-fail-under=100", "-q"]
REST = ["--ignore=tests/core", "--durations=5"]


def main(arguments: list[str]) -> int:
    """Run pytest once for each part; return the first failure's exit code."""
    for part in [arguments] if arguments else [CORE, REST]:
        code = subprocess.run([sys.executable, "-m", "pytest", *part], check=False).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
