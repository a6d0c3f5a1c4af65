# SPDX-License-Identifier: BSD-2-Clause
"""The suite's own promises: no sentence without a test, nothing left after a crash."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel import manpage, place
from tests.kernel.conftest import skip_or_fail
from tests.kernel.events import wait_gone
from tests.kernel.jails import KINDS, cannot_have
from tests.kernel.place import Place

ROOT = Path(__file__).parents[2]
SENTENCE = {"id": "one", "text": "It rings.", "tests": ["test_ring"]}

OUTLIVES = "runc" if sys.platform == "linux" else "jail on /"
"""A kind of jail that does not end with the process that made it."""

CRASH = """
import os, sys
from tests.kernel.jails import KINDS
from tests.kernel.jails.base import NoSuchKind
from tests.kernel.place import Place

place = Place()
(kind,) = (kind for kind in KINDS if kind.kind == sys.argv[1])
jail = kind(place)
try:
    jail.start()
except NoSuchKind as error:
    place.close()
    sys.exit(str(error))
print(place.directory.name, jail.name, flush=True)
os.kill(os.getpid(), 9)
"""


def test_every_sentence_has_its_tests_and_every_mark_its_sentence() -> None:
    assert manpage.problems(manpage.load(), manpage.tests_in(Path(__file__).parent)) == []


@pytest.mark.parametrize(
    ("sentences", "tests", "problem"),
    [
        ([{**SENTENCE, "tests": []}], {}, "no test proves 'one': It rings."),
        ([SENTENCE], {}, "'one' names test_ring, which does not exist"),
        ([SENTENCE], {"test_ring": set()}, "'one' names test_ring, which does not have the mark"),
        ([], {"test_ring": {"one"}}, "test_ring has the mark 'one', which is no sentence"),
        (
            [SENTENCE],
            {"test_ring": {"one"}, "test_other": {"one"}},
            "test_other has the mark 'one', and the sentence does not name it",
        ),
        ([SENTENCE, SENTENCE], {"test_ring": {"one"}}, "two sentences have the id 'one'"),
    ],
)
def test_a_sentence_without_its_test_is_found(
    sentences: list[dict[str, object]], tests: manpage.Tests, problem: str
) -> None:
    assert manpage.problems(sentences, tests) == [problem]


def test_a_proven_sentence_is_no_problem() -> None:
    assert manpage.problems([SENTENCE], {"test_ring": {"one"}, "test_more": set()}) == []


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a home of sessions of our own: in everybody's any other pytest may be the next one."""
    with tempfile.TemporaryDirectory(prefix="jd.") as name:
        directory = Path(name)
        directory.chmod(0o755)
        made = directory / place.HOME.name
        monkeypatch.setattr(place, "HOME", made)
        yield made


def test_the_next_session_removes_what_a_killed_one_left(home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CRASH, OUTLIVES],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(home.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode > 0:
        (kind,) = (kind for kind in KINDS if kind.kind == OUTLIVES)
        skip_or_fail(done.stderr.strip(), cannot_have(kind))
    session, jail = done.stdout.split()
    assert (home / session / "ledger").exists()

    following = Place()
    try:
        assert session in following.leftovers
        assert not (home / session).exists()
        if sys.platform == "linux":
            wait_gone(int(jail))
        else:
            assert subprocess.run(["jls", "-j", jail], check=False).returncode != 0
    finally:
        following.close()
