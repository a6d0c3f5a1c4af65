# SPDX-License-Identifier: BSD-2-Clause
"""What is said in two places is the same: exit codes, the interface, the diagram.

Each comparison is fed something stale once, to show that it can fail.
"""

import ast
import re
from pathlib import Path

import pytest

from jaildaemon import errors
from jaildaemon.core import wire
from tools import diagram

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "jaildaemon"
FIRST = ROOT / "tests" / "org.jaildaemon-0.1.0.varlink"


def sources() -> list[str]:
    """Return the source of every module of the package."""
    return [path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))]


# --- exit codes -----------------------------------------------------------------------------


def exit_codes(source: str) -> set[int]:
    """Return the exit codes that classes of `source` give themselves."""
    return {
        node.value.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Assign | ast.AnnAssign)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, int)
        and "exit_code" in ast.unparse(node).partition("=")[0]
    }


def test_the_exit_codes_of_all_classes_are_those_of_the_table() -> None:
    used = set.union(*(exit_codes(source) for source in sources()))
    # 0 is success, 6 what check and doctor return: neither is an error.
    assert used | {0, 6} == set(errors.EXIT_CODES)


def test_an_exit_code_is_found() -> None:
    source = "class A:\n exit_code = 9\nclass B:\n exit_code: int = 7\n code = 3"
    assert exit_codes(source) == {9, 7}


def exit_status(page: str) -> dict[int, str]:
    """Return the codes in a manual page's EXIT STATUS, with their words."""
    section = page.partition(".Sh EXIT STATUS")[2].partition("\n.Sh ")[0]
    return {
        int(code): words for code, words in re.findall(r"^\.It (\d+)\n(.+)$", section, re.MULTILINE)
    }


def test_the_manual_page_has_the_exit_codes() -> None:
    page = (ROOT / "man" / "jaildaemon.1").read_text(encoding="utf-8")
    assert exit_status(page) == errors.EXIT_CODES


def test_an_exit_code_of_the_manual_page_is_found() -> None:
    page = (
        ".It 9\nNo.\n.Sh EXIT STATUS\n.Bl\n.It 0\nDone.\n.It 7\nOdd.\n.El\n.Sh FILES\n.It 8\nNo.\n"
    )
    assert exit_status(page) == {0: "Done.", 7: "Odd."}


def interface() -> str:
    return (PACKAGE / "org.jaildaemon.varlink").read_text(encoding="ascii")


def promised(kind: str) -> set[str]:
    """Return the names of the interface's methods or errors, in full."""
    names = re.findall(rf"^{kind} (\w+)", interface(), re.MULTILINE)
    return {f"{wire.INTERFACE}.{name}" for name in names}


def fields(description: str) -> dict[str, dict[str, str]]:
    """Return the fields and their types by "method Attach in", "type Rule in" and so on."""
    found = {}
    text = re.sub(r"#.*", "", description)
    each = r"^(type|method|error) (\w+) ?\(([^()]*)\)(?: -> \(([^()]*)\))?"
    for kind, name, *lists in re.findall(each, text, re.MULTILINE):
        for way, words in zip(("in", "out"), lists, strict=True):
            pairs = (field.partition(":") for field in words.split(",") if field.strip())
            found[f"{kind} {name} {way}"] = {a.strip(): b.strip() for a, _, b in pairs}
    return found


def broken(old: str, new: str) -> list[str]:
    """Return what a client of the old interface no longer finds, or would have to give."""
    after = fields(new)
    problems = []
    for part, before in fields(old).items():
        now = after.get(part, {})
        problems += [f"{part}: {name}" for name, kind in before.items() if now.get(name) != kind]
        added = now.keys() - before.keys()
        problems += [f"{part}: {name}" for name in added if not now[name].startswith("?")]
    return problems


def test_a_client_of_the_first_release_is_served() -> None:
    assert broken(FIRST.read_text(encoding="ascii"), interface()) == []


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("respawn: ?string", "respawn: ?int", "type Policy in: respawn"),
        ("triggers: int,", "", "type Rule in: triggers"),
        ("run_as: ?string", "run_as: ?string, shell: string", "type Policy in: shell"),
        ("method Hold", "method Keep", "method Hold in: rule"),
        ("(ids: []string)", "(ids: []int)", "method Detach out: ids"),
    ],
)
def test_a_client_that_is_no_longer_served_is_found(old: str, new: str, where: str) -> None:
    first = FIRST.read_text(encoding="ascii")
    assert where in broken(first, first.replace(old, new))


def test_every_method_of_the_interface_is_served() -> None:
    ours = {name for name in wire.ACCESS if name.startswith(f"{wire.INTERFACE}.")}
    assert ours == promised("method")


def test_every_error_of_the_interface_is_a_class() -> None:
    assert set(errors.BY_VARLINK) == promised("error")


# --- the page with the diagram ------------------------------------------------------------


def is_fresh(page: str) -> bool:
    """Say whether the page has what the tool draws now."""
    return diagram.BEGIN + diagram.drawn() + diagram.END in page


def test_the_diagram_is_that_of_the_table_that_runs() -> None:
    page = diagram.PAGE.read_text(encoding="utf-8")
    assert is_fresh(page), "stale: run python tools/diagram.py --write"


def test_a_stale_diagram_is_found() -> None:
    page = diagram.PAGE.read_text(encoding="utf-8")
    assert not is_fresh(page.replace("trigger_wait / START", "trigger_wait"))
