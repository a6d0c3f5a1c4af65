# SPDX-License-Identifier: BSD-2-Clause
"""What needs systemd as the first process is run by another pytest, in a machine of its own.

That one sends its reports through a pipe, and they are logged here as if they were ours.
"""

import json
import os
import subprocess
import sys
from collections import defaultdict

import pytest

from tests.engines.machine import Machine
from tests.engines.machined import NspawnMaker
from tests.kernel.jails.base import NoSuchKind
from tests.kernel.place import Place

REPORTS = "JAILDAEMON_TEST_REPORTS"
"""The descriptor for the reports, in the environment of who is inside."""
PYTEST = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]


def needs_systemd(item: pytest.Item) -> bool:
    """Say whether a test is of nspawn, or of a unit."""
    call = getattr(item, "callspec", None)
    maker = call.params.get("maker") if call else None
    return maker is NspawnMaker or "beside_systemd" in getattr(item, "fixturenames", ())


class Inside:
    """Sends the reports."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._file = os.fdopen(int(os.environ[REPORTS]), "w")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Send one, in a line."""
        hook = self._config.hook.pytest_report_to_serializable
        print(json.dumps(hook(config=self._config, report=report)), file=self._file, flush=True)


class Session:
    """A machine, and a pytest in it."""

    def __init__(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        self._config = config
        self._reports: dict[str, list[pytest.TestReport]] = defaultdict(list)
        self._place = Place()
        # Processes have other numbers there: what is left of a session here is not for it to see.
        directory = self._place.new_directory("t")
        self._log = directory.with_suffix(".log")
        try:
            self._machine = Machine(self._place)
        except NoSuchKind:
            self._place.close()
            raise
        reading, writing = os.pipe()
        there = ["env", f"--chdir={config.rootpath}", f"TMPDIR={directory}", f"{REPORTS}={writing}"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*self._machine.prefix, *there, *PYTEST, *(item.nodeid for item in items)],
                pass_fds=[writing],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        os.close(writing)
        self._stream = os.fdopen(reading)

    def _next(self) -> bool:
        """Take a report; False when there are no more."""
        line = self._stream.readline()
        if line:
            hook = self._config.hook.pytest_report_from_serializable
            report = hook(config=self._config, data=json.loads(line))
            if isinstance(report.longrepr, list):
                report.longrepr = tuple(report.longrepr)  # of a skip; JSON has no tuples
            self._reports[report.nodeid].append(report)
        return bool(line)

    def reports(self, item: pytest.Item) -> list[pytest.TestReport]:
        """Wait for the end of a test; return its reports."""
        found = self._reports[item.nodeid]
        while not (found and found[-1].when == "teardown"):
            if not self._next():
                said = self._log.read_text(encoding="utf-8", errors="replace")
                return [*found, none(item, f"pytest ended before it:\n{said}")]
        return found

    def close(self) -> None:
        """End it."""
        self._stream.close()
        self._machine.close()
        self._process.wait()
        self._place.close()


def none(item: pytest.Item, why: str, *, skipped: bool = False) -> pytest.TestReport:
    """Return the report of a test that was not run."""
    return pytest.TestReport(
        nodeid=item.nodeid,
        location=item.location,
        keywords={},
        outcome="skipped" if skipped else "failed",
        longrepr=(str(item.path), item.location[1] or 0, f"Skipped: {why}") if skipped else why,
        when="setup",
    )


class Outside:
    """Has the tests run, and logs their reports."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._session: Session | None = None
        self._why = ""

    def _reports(self, item: pytest.Item) -> list[pytest.TestReport]:
        if self._session is None and not self._why:
            every = [other for other in item.session.items if needs_systemd(other)]
            try:
                self._session = Session(self._config, every)
            except NoSuchKind as error:
                self._why = str(error)
        if self._session is None:
            return [none(item, self._why, skipped=not os.environ.get("CI"))]
        return self._session.reports(item)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> bool | None:
        """Log the reports of a test that is run there."""
        if not needs_systemd(item):
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in self._reports(item):
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        # What the test before this one has left for it: the next may be of another folder.
        item.session._setupstate.teardown_exact(nextitem)
        return True

    def pytest_unconfigure(self) -> None:
        """End it."""
        if self._session is not None:
            self._session.close()
