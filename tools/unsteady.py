# SPDX-License-Identifier: BSD-2-Clause
"""Tells an unsteady test from a failure, in .ci/run: what failed is run alone three times more.

It must never excuse a failure of what a race decides once in four: docs/unsteady.md
says which tests are final, and lists the known unsteady ones.
"""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

from tools import outcomes
from tools.outcomes import Failure, Outcomes

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "unsteady.md"
MOST = 20
"""So many failures are no weather: nothing is run again."""

FINAL = (
    "tests/attacks/",
    "tests/fuzz/",
    "tests/core/",
    "tests/faults/test_torture.py",
    "tests/faults/test_crash_points.py",
    "tests/faults/test_recovery.py",
    "tests/faults/test_restart.py",
    "tests/faults/test_settle.py",
    "tests/contract/test_recovery_contract.py",
    "tests/daemon/test_runs.py",
    "tests/kernel/test_core.py::test_a_hangup_from_inside_runs_the_command_once",
)
"""Attacks, fuzzing, decisions, the soak's account, and that a trigger is at most one run."""


def is_final(failure: Failure) -> bool:
    """Say whether one failure of this test fails the run."""
    return failure.is_property or failure.test.startswith(FINAL)


def listed(page: str) -> set[str]:
    """Return the tests in the table of docs/unsteady.md, without their parameters."""
    return set(re.findall(r"^\| `(tests/[^`\[]+)", page, re.MULTILINE))


def again(tests: list[str], report: Path) -> Outcomes:
    """Run these tests alone."""
    argv = [sys.executable, "-m", "pytest", *tests, *outcomes.options(report)]
    return outcomes.read([report], [subprocess.run(argv, check=False, cwd=ROOT).returncode])


def judge(
    found: Outcomes, times: int, directory: Path, counts: Counter[str], page: Path = PAGE
) -> int:
    """Return 0 where all that failed is unsteady and not listed; correct the counts."""
    failures = found.failures
    final = [test for test, failure in failures.items() if is_final(failure)]
    if found.broken or final or len(failures) > MOST:
        for test in final:
            print(f"FINAL: {test}: {failures[test].why}")
        return 1
    failed = set()
    for turn in range(times):
        print(f"Running alone what failed, {turn + 1} of {times}", flush=True)
        after = again([*failures], directory / f"again{turn}")
        if after.broken:
            return 1
        failed |= {test for test in failures if after.kinds.get(test) != "passed"}
    known = listed(page.read_text(encoding="utf-8"))
    status = int(bool(failed))
    for test in failures:
        if test not in failed:
            print(f"UNSTEADY: {test}: {failures[test].why}")
            counts["failed"] -= 1
            counts["passed"] += 1
            if test.partition("[")[0] in known:
                print(f"{test} is in docs/unsteady.md: what was done there did not mend it")
                status = 1
    return status
