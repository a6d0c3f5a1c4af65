# SPDX-License-Identifier: BSD-2-Clause
"""A skip is honest or it is a failure.

On a laptop a test that lacks something is skipped and the summary says why.
With CI set it fails, unless its reason begins with "cannot: ": the machine can
never have the thing, so no installation step was forgotten.
"""

import os
import shutil
import tempfile
from collections.abc import Generator

import pytest

CANNOT = "cannot: "

STATE = tempfile.mkdtemp(prefix="jaildaemon-state.")
"""No daemon of a test keeps its state where the machine's own would."""
os.environ["JAILDAEMON_STATE_DIR"] = STATE
# Whoever's tests these are: what a group can write is refused, in the directories of tests too.
os.umask(0o022)


def pytest_unconfigure() -> None:
    """Remove what the daemons kept."""
    shutil.rmtree(STATE, ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip that CI could have avoided into a failure."""
    report = yield
    if report.skipped and os.environ.get("CI") and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not reason.startswith(CANNOT):
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} was skipped, and CI must not: {reason}"
    return report
