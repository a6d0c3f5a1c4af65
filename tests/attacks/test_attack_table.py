# SPDX-License-Identifier: BSD-2-Clause
"""docs/attacks.md names tests that there are, and every test of an attack is named there."""

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
PAGE = (TESTS.parent / "docs" / "attacks.md").read_text(encoding="utf-8")
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
