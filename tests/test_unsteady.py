# SPDX-License-Identifier: BSD-2-Clause
"""tools/test.py: which part has which test; what fails, what is unsteady, and what is final."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tools import outcomes, test, unsteady
from tools.outcomes import Failure, Outcomes

ROOT = Path(__file__).resolve().parent.parent


# --- the parts ---------------------------------------------------------------------------


def test_every_test_is_in_one_part_and_every_part_in_one_lane() -> None:
    given = [ROOT / path for part in test.PARTS for path in test.paths(part)]
    for path in ROOT.glob("tests/**/test_*.py"):
        parts = [it for it in given if it == path or it in path.parents]
        assert len(parts) == 1, path
    assert Counter(p for lane in test.LANES for parts in lane for p in parts) == Counter(
        [*test.PARTS]
    )


def test_only_some_parts_may_be_chosen() -> None:
    assert test.chosen("") == test.LANES
    assert test.chosen("core,kernel,packaging") == [[["core"], ["kernel"]], [["packaging"]]]
    with pytest.raises(ValueError, match="no such part: cor "):
        test.chosen("core,cor")


def test_the_page_has_every_part() -> None:
    page = (ROOT / "tests" / "README.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1].strip(" `") for line in page.splitlines() if line.startswith("| `")]
    assert rows == [*test.PARTS]


# --- real pytests, with planted tests --------------------------------------------------------

STEADY = "def test_good():\n    pass\n\n\n"
SKIPPED = "import pytest\n\n\ndef test_skipped():\n    pytest.skip('why')\n\n\n"
FAILING = "def test_bad():\n    assert 1 == 2, 'always'\n"
UNSTEADY = """
import pathlib

def test_weather():
    mark = pathlib.Path(__file__).with_suffix(".ran")
    ran = mark.exists()
    mark.touch()
    assert ran, "the first time"
"""
PROPERTY = """
from hypothesis import given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

@settings(database=None, print_blob=True)
@given(st.integers())
def test_numbers(number):
    assert number < 1000

class Machine(RuleBasedStateMachine):
    @rule()
    def fail(self):
        assert False

test_machine = Machine.TestCase
"""
SETUP = """
import pytest

@pytest.fixture
def broken():
    yield
    raise OSError("afterwards")

def test_torn(broken):
    pass
"""
DEAD = "import os\n\n\ndef test_dead():\n    os._exit(3)\n"
UNREADABLE = "import nothing_of_this_name\n"


def ran(directory: Path, **files: str) -> Outcomes:
    """Return what came of tests in files of these contents, by a pytest each."""
    codes, reports = [], []
    for name, text in files.items():
        path = directory / f"test_{name}.py"
        path.write_text(text, encoding="ascii")
        reports.append(directory / f"{name}.report")
        words = [*test.PYTEST, "-p", "no:cacheprovider", str(path)]
        words += [f"--rootdir={directory}", *outcomes.options(reports[-1])]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, check=False)
        codes.append(done.returncode)
    return outcomes.read(reports, codes)


def test_what_came_of_each_test_is_told(tmp_path: Path) -> None:
    found = ran(tmp_path, good=STEADY + SKIPPED + FAILING, torn=SETUP)
    assert found.counts() == Counter(passed=1, skipped=1, failed=2)
    assert found.broken == []
    whys = {failure.test: failure.why for failure in found.failures.values()}
    assert whys == {
        "test_good.py::test_bad": "AssertionError: always",
        "test_torn.py::test_torn": "OSError: afterwards",
    }


def test_a_pytest_that_dies_is_no_success(tmp_path: Path) -> None:
    found = ran(tmp_path, good=STEADY, dead=STEADY + DEAD)
    assert found.broken == [3]
    assert found.failures == {}


def test_a_file_that_cannot_be_read_is_a_failure(tmp_path: Path) -> None:
    found = ran(tmp_path, unreadable=UNREADABLE)
    assert [*found.failures] == ["test_unreadable.py"]
    assert found.broken == [2]  # "interrupted": nothing was run


def test_a_property_is_known_by_its_making(tmp_path: Path) -> None:
    found = ran(tmp_path, properties=PROPERTY)
    assert len(found.failures) == 2
    assert all(failure.is_property for failure in found.failures.values())
    assert all(unsteady.is_final(failure) for failure in found.failures.values())


# --- which of them are unsteady -----------------------------------------------------------


@pytest.fixture
def page(tmp_path: Path) -> Path:
    made = tmp_path / "unsteady.md"
    made.write_text("| test | cause |\n|---|---|\n| `tests/a.py::test_known` | x |\n", "ascii")
    return made


def judged(found: Outcomes, tmp_path: Path, page: Path, times: int = 3) -> tuple[int, Counter[str]]:
    """Return the verdict, and the counts as it corrects them."""
    counts = found.counts()
    status = unsteady.judge(found, times, tmp_path, counts, page)
    return status, counts


def test_a_test_that_passes_three_times_alone_is_unsteady_and_named(
    tmp_path: Path,
    page: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unsteady, "ROOT", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    found = ran(tmp_path, weather=STEADY + UNSTEADY)
    assert judged(found, tmp_path, page) == (0, Counter(passed=2, failed=0))
    *_, last = capfd.readouterr().out.splitlines()
    assert last == "UNSTEADY: test_weather.py::test_weather: AssertionError: the first time"


def test_a_test_that_always_fails_is_no_weather(
    tmp_path: Path, page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unsteady, "ROOT", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    found = ran(tmp_path, bad=STEADY + FAILING)
    assert judged(found, tmp_path, page, 1) == (1, Counter(passed=1, failed=1))


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Replace running again: tests of these names fail, each time or only once."""
    made: list[list[str]] = []

    def again(tests: list[str], report: Path) -> Outcomes:
        made.append(tests)
        bad = {"test_bad", ("test_first", "test_second", "test_third")[len(made) - 1]}
        kinds = {it: "failed" if it.rpartition("::")[2] in bad else "passed" for it in tests}
        kinds.pop("tests/a.py::test_gone", None)
        return Outcomes(kinds)

    monkeypatch.setattr(unsteady, "again", again)
    return made


def failed(*names: str, is_property: bool = False) -> Outcomes:
    """Return outcomes with these failures."""
    return Outcomes(
        dict.fromkeys(names, "failed"),
        {name: Failure(name, "it was so", is_property=is_property) for name in names},
    )


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("tests/a.py::test_weather", 0),
        ("tests/a.py::test_weather[docker]", 0),
        ("tests/a.py::test_bad", 1),
        ("tests/a.py::test_first", 1),
        ("tests/a.py::test_third", 1),
        ("tests/a.py::test_gone", 1),
        ("tests/a.py::test_known", 1),
        ("tests/a.py::test_known[docker]", 1),
        ("tests/a.py::test_known_too", 0),
    ],
)
def test_one_that_fails_again_or_is_known_fails_the_run(
    name: str, status: int, tmp_path: Path, page: Path, runs: list[list[str]]
) -> None:
    assert judged(failed(name), tmp_path, page)[0] == status
    assert runs == [[name]] * 3


@pytest.mark.parametrize("name", [f"{it.rstrip('/')}/x.py::test" for it in unsteady.FINAL[:3]])
def test_what_is_final_is_not_run_again(
    name: str, tmp_path: Path, page: Path, runs: list[list[str]]
) -> None:
    assert judged(failed("tests/a.py::test_weather", name), tmp_path, page)[0] == 1
    assert judged(failed("tests/a.py::test_x", is_property=True), tmp_path, page)[0] == 1
    assert runs == []


def test_many_failures_are_no_weather(tmp_path: Path, page: Path, runs: list[list[str]]) -> None:
    many = [f"tests/a.py::test_{n}" for n in range(unsteady.MOST + 1)]
    assert judged(failed(*many), tmp_path, page)[0] == 1
    broken = failed("tests/a.py::test_weather")
    broken.broken = [-9]
    assert judged(broken, tmp_path, page)[0] == 1
    assert runs == []
    assert judged(failed(*many[1:]), tmp_path, page)[0] == 0


def test_all_that_is_final_or_listed_exists() -> None:
    known = unsteady.listed(unsteady.PAGE.read_text(encoding="utf-8"))
    assert known
    for name in (*unsteady.FINAL, *known):
        path, _, function = name.partition("::")
        assert (ROOT / path).exists(), name
        assert not function or f"def {function}(" in (ROOT / path).read_text(encoding="utf-8")


# --- the command -----------------------------------------------------------------------------


def test_a_part_that_there_is_not_is_told_in_one_line() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "test.py"],
        env={**os.environ, "ONLY": "kernel,nope"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("jaildaemon: test: no such part: nope (there are: core, ")


def test_the_minutes_of_each_part_are_counted() -> None:
    seconds = Counter({"tests/core/test_a.py": 60.0, "tests/core/b.py": 30.0, "tests/x.py": 6.0})
    assert test.minutes(Outcomes(seconds=seconds)) == "minutes: core 1.5, house 0.1"


def test_the_last_line_counts_all() -> None:
    assert test.last_line(Counter(passed=3, failed=1)) == "total: 3 passed, 1 failed, 0 skipped"
