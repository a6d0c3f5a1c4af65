# SPDX-License-Identifier: BSD-2-Clause
"""docs/attacks.md names existing tests, every attack, and a test for each promise."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
PAGE = (TESTS.parent / "docs/attacks.md").read_text(encoding="utf-8")
PROMISES = (TESTS.parent / "SECURITY.md").read_text(encoding="utf-8")
MOST_BYTES = 8000
"""Of SECURITY.md: a page that is read whole."""
KNOWN = range(1, 34)
"""The attacks that were collected beforehand."""
ROW = re.compile(r"^\| (\d+) \| [^|]+ \| ([^|]+) \|$", re.MULTILINE)

DEFINED = re.compile(r"^def (test_\w+)", re.MULTILINE)


def defined(folder: Path, pattern: str) -> set[str]:
    """Return the names of the tests in the files of a folder."""
    texts = [path.read_text(encoding="utf-8") for path in folder.rglob(pattern)]
    return {name for text in texts for name in DEFINED.findall(text)}


def test_every_test_that_the_page_names_exists() -> None:
    files = {path.stem for path in TESTS.rglob("test_*.py")}
    named = set(re.findall(r"\b(test_\w+)\b", PAGE)) - files - {"test_attack_NAME"}
    assert named - defined(TESTS, "test_*.py") == set()


def test_every_attack_is_on_the_page() -> None:
    attacks = defined(TESTS / "attacks", "test_attack_*.py")
    own = set(DEFINED.findall(Path(__file__).read_text(encoding="utf-8")))
    labels = defined(TESTS / "attacks", "test_attack_labels.py")
    # A test of the same name for the other system is named as `..._on_freebsd`.
    missing = {name.removesuffix("_on_freebsd") for name in attacks - own - labels}
    assert {name for name in missing if name not in PAGE} == set()


def test_no_known_attack_is_forgotten() -> None:
    rows = ROW.findall(PAGE)
    assert [int(number) for number, _ in rows] == list(KNOWN)
    for number, tests in rows:
        assert re.search(r"`test_\w+`", tests), number


def test_every_promise_and_limit_has_its_row_of_tests() -> None:
    numbered = re.findall(r"^- \*\*([PL]\d+)\*\* ", PROMISES, re.MULTILINE)
    rows = dict(re.findall(r"^\| ([PL]\d+) \| ([^|]+) \|$", PAGE, re.MULTILINE))
    assert list(rows) == numbered
    assert len(numbered) > 20
    for number, tests in rows.items():
        assert re.search(r"`test_\w+`", tests) or tests.startswith("none"), number
        assert number[0] == "L" or not tests.startswith("none"), f"{number} is only promised"
    named = set(re.findall(r"\b([PL]\d+)\)", PROMISES))
    assert named <= set(numbered)


def test_the_promises_are_short_enough_to_be_read() -> None:
    assert len(PROMISES.encode()) <= MOST_BYTES


def calls(function: ast.FunctionDef) -> set[str]:
    """Return what a function calls by its last name."""
    found = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
    return {name.attr if isinstance(name, ast.Attribute) else ast.unparse(name) for name in found}


def attacks() -> dict[str, bool]:
    """Return every test that attacks, and whether it has a negative control of its own."""
    found = {}
    for path in (TESTS / "attacks").glob("test_attack_*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                called = calls(node)
                if called & {"attack", "served"}:
                    found[node.name] = "control" in called
    return found


def test_every_attack_wins_against_a_naive_design_first_or_it_is_said_why_not() -> None:
    _, _, section = PAGE.partition("## Without a negative control")
    excused = set(re.findall(r"^\| `(test_\w+)` \|", section.partition("\n#")[0], re.MULTILINE))
    found = attacks()
    assert len(found) > 40
    assert {name for name, controlled in found.items() if not controlled} == excused
