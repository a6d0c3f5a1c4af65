# SPDX-License-Identifier: BSD-2-Clause
"""The table of `list`: as wide as the terminal, by cells; elsewhere nothing is cut."""

import io
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.cells import cell_len

from jaildaemon.cli import logview, output, views

NOW = datetime(2026, 11, 25, 21, 3, 40, tzinfo=UTC)
LONG = "/usr/local/sbin/restart-the-container --name web --because 'it asked for it'"


def rule(**fields: Any) -> dict[str, Any]:
    """Return a rule as List gives it."""
    known = {"id": "t1", "jail": "2981", "title": "NARROW", "command": "echo hi", "state": "armed"}
    return {**known, "refused": 0, **fields}


RULES = [
    rule(),
    rule(id="docker:web/スナップショット", title="スナップショット", jail="docker:web"),
    rule(id="t3", title="Überblick 日本語", command=LONG, state="failing", reason="no " * 60),
]


class Terminal(io.StringIO):
    """What is written to."""

    encoding = "utf-8"

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        """Say which of the two it is."""
        return self._terminal


def listed(
    monkeypatch: pytest.MonkeyPatch, columns: str | None, *, terminal: bool = True
) -> list[str]:
    """Return the lines of a list in a terminal so wide, or in a pipe."""
    shown = Terminal(terminal=terminal)
    monkeypatch.setattr("sys.stdout", shown)
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    views.rules({"rules": RULES}, NOW)
    return shown.getvalue().splitlines()


@pytest.mark.parametrize("columns", ["20", "40", "60", "80", "200", "1000", "999999"])
def test_no_line_is_wider_than_the_terminal_and_every_id_is_whole(
    monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    lines = listed(monkeypatch, columns)
    table, reasons = lines[: len(RULES) + 1], lines[len(RULES) + 1 :]
    whole = max(cell_len(one["id"]) for one in RULES) + len(" failing")
    assert max(map(cell_len, table)) <= max(int(columns), whole)
    assert all(one["id"] in line for line, one in zip(table[1:], RULES, strict=True))
    # A reason is one line, however long: grep(1) finds it, and a terminal wraps it.
    assert reasons == [f"t3: not armed: {'no ' * 60}"]


@pytest.mark.parametrize("columns", ["80", "100"])
def test_wide_characters_are_counted_by_their_cells(
    monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    lines = listed(monkeypatch, columns)[1:4]
    starts = {cell_len(line[: line.rindex(word)]) for line, word in zip(lines, CUTS, strict=True)}
    assert len(starts) == 1, lines


CUTS = ("NARROW", "スナ", "Überb")
"""How each title begins, however much of it there is room for."""


def test_a_title_is_cut_only_where_there_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "スナップショット" in listed(monkeypatch, "200")[2]
    assert LONG in listed(monkeypatch, "200")[3]
    assert LONG not in listed(monkeypatch, "80")[3]


@pytest.mark.parametrize("columns", [None, "0", "20", "80"])
def test_what_is_no_terminal_gets_every_cell_whole(
    monkeypatch: pytest.MonkeyPatch, columns: str | None
) -> None:
    lines = listed(monkeypatch, columns, terminal=False)
    assert lines[0].split() == "ID STATE JAIL TITLE COMMAND LAST NEXT REFUSED".split()
    for line, one in zip(lines[1:], RULES, strict=False):
        for name in ("id", "state", "jail", "title", "command"):
            assert one[name] in line


@pytest.mark.parametrize("columns", ["0", "", "x", "-5", "9999999"])
def test_a_number_of_columns_that_is_none_shows_all_the_same(
    monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    assert len(listed(monkeypatch, columns)) == len(RULES) + 2


def test_what_a_terminal_cannot_show_is_cut_with_what_it_can(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Terminal, "encoding", "iso8859-1")
    table = "".join(listed(monkeypatch, "80")[:4])
    assert "~" in table
    assert "\u2026" not in table
    assert output.more() == "~"


def test_what_a_command_wrote_is_whole() -> None:
    entry = {"time": "2026-11-25T22:28:02.000Z", "kind": "output", "rule": "t1", "run": "x.1"}
    assert logview.Lines().of({**entry, "output_tail": "x" * 2000})[1] == f"    | {'x' * 2000}"
