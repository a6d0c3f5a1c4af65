# SPDX-License-Identifier: BSD-2-Clause
"""The table of mutations never rots: each text is in its place, once, and each test is there."""

import tomllib
from collections import Counter
from pathlib import Path

import pytest

from tools import mutate
from tools.mutate import Mutation, chosen, table

LEAST: int = 120
"""Of those that a test must notice."""


def test_every_mutation_has_its_one_place_and_its_tests() -> None:
    wrong = {f"{m.table}: {m}": m.problem for m in table() if m.problem}
    assert wrong == {}


def test_the_table_is_large_and_covers_what_is_critical() -> None:
    mutations = table()
    assert sum(m.equivalent is None for m in mutations) >= LEAST
    places = Counter(m.file.partition("src/jaildaemon/")[2] or m.file for m in mutations)
    for place in (
        "helper/helper_linux.c",
        "helper/params.c",
        "helper/output.c",
        "backends/linux.py",
        "backends/trust.py",
        "backends/probe.py",
        "core/journal.py",
        "core/limits.py",
        "daemon/journal.py",
        "daemon/recovery.py",
        "daemon/control.py",
        "daemon/hub.py",
        "daemon/keeper.py",
        "engines/base.py",
    ):
        assert places[place], place


def test_no_mutation_is_there_twice() -> None:
    twice = [key for key, n in Counter((m.file, m.old, m.new) for m in table()).items() if n > 1]
    assert twice == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"old": "no such text " * 2}, "its text is there 0 times, not once"),
        ({"old": "LEAST"}, "its text is there"),
        ({"new": ""}, "it changes nothing"),
        ({"tests": ()}, "no test is named"),
        ({"tests": ("tests/test_mutations.py::test_nothing",)}, "no such test: tests/test_mut"),
        ({"tests": (), "equivalent": "nobody reads it"}, None),
        ({}, None),
    ],
)
def test_what_is_wrong_with_a_mutation_is_said(
    change: dict[str, object], problem: str | None
) -> None:
    fields: dict[str, object] = {
        "file": "tests/test_mutations.py",
        "old": "LEAST" + ": int = 120",
        "new": "LEAST" + ": int = 0",
        "tests": ("tests/test_mutations.py::test_no_mutation_is_there_twice",),
        "why": "",
        "equivalent": None,
        "table": "",
        **change,
    }
    if "new" in change:
        fields["new"] = fields["old"]
    found = Mutation(**fields).problem  # type: ignore[arg-type]
    assert (found or "").startswith(problem or "")
    assert (found is None) == (problem is None)


def test_five_by_chance_are_the_same_by_the_same_seed() -> None:
    mutations = table()
    five = chosen(mutations, "random:5", "1")
    assert len(five) == 5
    assert five == chosen(mutations, "random:5", "1") != chosen(mutations, "random:5", "2")
    only = chosen(mutations, "helper/params.c", "1")
    assert {m.file for m in only} == {"helper/params.c"}


def test_the_tables_are_short_and_say_nothing_that_is_not_read() -> None:
    for path in Path(mutate.TABLE).glob("*.toml"):
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 400, path
        for entry in tomllib.loads(text)["mutation"]:
            known = {"file", "why", "old", "new", "tests", "equivalent"}
            assert entry.keys() <= known, entry
