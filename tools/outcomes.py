# SPDX-License-Identifier: BSD-2-Clause
"""What came of each test: written by a plugin of pytest, line by line, and read by tools/test.py.

Line by line, so that what a pytest wrote before it was killed is known.
"""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pytest

KINDS = ("passed", "failed", "skipped")
PROPERTY = "property"
"""Of a report: the test is one of Hypothesis."""


@dataclass(frozen=True)
class Failure:
    """A test that failed: its id, why, and whether it is a property of Hypothesis."""

    test: str
    why: str
    is_property: bool = False


@dataclass
class Outcomes:
    """What came of all tests."""

    kinds: dict[str, str] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)
    seconds: Counter[str] = field(default_factory=Counter)
    """How long the tests of each file took, setup and teardown included."""
    broken: list[int] = field(default_factory=list)
    """The exit statuses of pytests that failed and said of no test that it did."""

    def counts(self) -> Counter[str]:
        """Return how many tests passed, failed and were skipped."""
        return Counter(self.kinds.values())


def options(report: Path) -> list[str]:
    """Return what has a pytest write its outcomes to the end of `report`."""
    return ["-p", "tools.outcomes", f"--outcomes={report}"]


def read(reports: list[Path], codes: list[int]) -> Outcomes:
    """Return what was written, by pytests that ended with these statuses."""
    found = Outcomes()
    ends: list[int] = []
    for report in reports:
        failed = False
        for line in report.read_text(encoding="utf-8").splitlines() if report.exists() else ():
            words: dict[str, Any] = json.loads(line)
            if "end" in words:
                ends.append(words["end"])
                # 1 is "tests failed": here is which.
                if words["end"] != 0 and not (words["end"] == 1 and failed):
                    found.broken.append(words["end"])
                failed = False
                continue
            test, kind = words["test"], words["kind"]
            found.seconds[test.partition("::")[0]] += words["seconds"]
            if kind == "":
                continue
            failed = failed or kind == "failed"
            # A test that passed may fail in its teardown, and is one failure.
            if found.kinds.get(test) != "failed":
                found.kinds[test] = kind
            if kind == "failed" and test not in found.failures:
                found.failures[test] = Failure(test, words["why"], words[PROPERTY])
    # What was killed has not written its end.
    found.broken += sorted((Counter(codes) - Counter(ends)).elements())
    return found


# --- the plugin ---------------------------------------------------------------------------


class Writer:
    """Writes the outcomes."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def _write(self, **words: object) -> None:
        self._file.write(json.dumps(words) + "\n")
        self._file.flush()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write what came of one phase; a setup or teardown that passed says nothing yet."""
        self._outcome(report, nothing=report.when != "call" and report.outcome == "passed")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Write that a file could not be read, or was skipped whole."""
        if report.outcome != "passed":
            self._outcome(report)

    def _outcome(
        self, report: pytest.TestReport | pytest.CollectReport, *, nothing: bool = False
    ) -> None:
        crash = getattr(report.longrepr, "reprcrash", None)
        why = crash.message if crash else report.longreprtext
        first = next((line for line in why.splitlines() if line.strip()), "")
        is_property = (PROPERTY, True) in getattr(report, "user_properties", [])
        kind = "" if nothing else report.outcome
        seconds = round(getattr(report, "duration", 0.0), 3)
        words = {"test": report.nodeid, "kind": kind, "why": first[:300], "seconds": seconds}
        self._write(**words, **{PROPERTY: is_property})

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Mark the tests of Hypothesis, state machines among them."""
        if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
            item.user_properties.append((PROPERTY, True))

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Write the end."""
        self._write(end=int(exitstatus))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --outcomes."""
    parser.addoption("--outcomes", help="append what came of each test to this file, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    """Begin."""
    path = config.getoption("--outcomes")
    if path:
        file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - closed by pytest's own end
        config.add_cleanup(file.close)
        config.pluginmanager.register(Writer(file))
