# SPDX-License-Identifier: BSD-2-Clause
"""SECURITY.md names tests that there are, every test of an attack, and every attack known."""

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
PAGE = (TESTS.parent / "SECURITY.md").read_text(encoding="utf-8")
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
