# SPDX-License-Identifier: BSD-2-Clause
"""The sentences of the original man page, and the check that each has its tests."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SENTENCES = Path(__file__).parent / "manpage.toml"
MARK = "manpage"

Tests = dict[str, set[str]]
"""The ids of the sentences that each test says it proves."""


def load(path: Path = SENTENCES) -> list[dict[str, Any]]:
    """Return the sentences: id, text, verbatim, tests."""
    found: list[dict[str, Any]] = tomllib.loads(path.read_text(encoding="utf-8"))["sentence"]
    return found


def _marked(function: ast.FunctionDef) -> Iterator[str]:
    """Give the ids in `@pytest.mark.manpage("id", ...)`."""
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func).endswith(f".{MARK}"):
            yield from (str(ast.literal_eval(argument)) for argument in decorator.args)


def tests_in(directory: Path) -> Tests:
    """Return every test function in the files of `directory`, without running any.

    By the source, so that one file may be run alone, and the other system's
    tests count too.
    """
    found: Tests = {}
    for path in sorted(directory.glob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found[node.name] = set(_marked(node))
    return found


def problems(sentences: list[dict[str, Any]], tests: Tests) -> list[str]:
    """Say what is wrong: a sentence nobody proves, a test nobody wrote, marks that disagree."""
    ids = [sentence["id"] for sentence in sentences]
    found = [
        f"two sentences have the id {name!r}"
        for name in sorted({i for i in ids if ids.count(i) > 1})
    ]
    for sentence in sentences:
        name, proofs = sentence["id"], set(sentence["tests"])
        if not proofs:
            found.append(f"no test proves {name!r}: {sentence['text']}")
        found += [
            f"{name!r} names {test}, which does not exist" for test in sorted(proofs - tests.keys())
        ]
        found += [
            f"{name!r} names {test}, which does not have the mark"
            for test in sorted(proofs & tests.keys())
            if name not in tests[test]
        ]
        found += [
            f"{test} has the mark {name!r}, and the sentence does not name it"
            for test in sorted(tests)
            if name in tests[test] and test not in proofs
        ]
    found += [
        f"{test} has the mark {name!r}, which is no sentence"
        for test, names in sorted(tests.items())
        for name in sorted(names - set(ids))
    ]
    return found
