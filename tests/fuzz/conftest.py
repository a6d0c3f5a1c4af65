# SPDX-License-Identifier: BSD-2-Clause
"""What the kept corpus reaches is told in the summary of every run."""

import pytest

FIGURES = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Begin the list."""
    config.stash[FIGURES] = []


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print it."""
    if config.stash[FIGURES]:
        terminalreporter.section("the kept corpus of the fuzzers")
    for line in config.stash[FIGURES]:
        terminalreporter.write_line(line)


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> list[str]:
    """Give the list."""
    return request.config.stash[FIGURES]
