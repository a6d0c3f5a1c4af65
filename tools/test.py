# SPDX-License-Identifier: BSD-2-Clause
"""make test: the whole suite, then what was skipped and why."""

import subprocess
import sys

sys.exit(subprocess.run([sys.executable, "-m", "pytest", *sys.argv[1:]], check=False).returncode)
