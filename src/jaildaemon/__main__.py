# SPDX-License-Identifier: BSD-2-Clause
"""python -m jaildaemon."""

import sys

from jaildaemon.cli.main import main

sys.exit(main())
