# SPDX-License-Identifier: BSD-2-Clause
"""The rules of the house: layers, sizes, names and linters.

Each rule is a function that returns what is wrong, and each is fed something
bad once, to show that it can find it.
"""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "jaildaemon"


def files_of_git() -> list[Path]:
    """Return the files that git knows; in an unpacked archive there is none to ask."""
    # The checkout may belong to another user than the one who runs the tests.
    git = ["git", "-c", "safe.directory=*", "-C", str(ROOT), "ls-files", "-z"]
    done = subprocess.run(git, capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("cannot: this is not a work tree of git")
    paths = [ROOT / name for name in done.stdout.decode().split("\0") if name]
    return [path for path in paths if path.is_file()]


def modules() -> dict[str, str]:
    """Return the source of every module of the package, by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path.read_text(encoding="utf-8")
    return found


# --- layers: architecture.md, Layout ------------------------------------------

LAYERS = [{"errors"}, {"core"}, {"backends", "engines"}, {"daemon"}, {"cli"}, {"__main__"}]
WORLD = (
    "asyncio ctypes fcntl glob io logging multiprocessing os pathlib random resource secrets "
    "select selectors shutil signal socket subprocess sys syslog tempfile threading time uuid"
)
"""What touches the world, and so is none of core's business."""
CLIENT_MAY = {"jaildaemon.errors", "jaildaemon.core.wire"}


def part(module: str) -> str:
    """Return the layer's name in jaildaemon.LAYER.module, "" for the package itself."""
    return f"{module}.".split(".")[1]


def rank(module: str) -> int:
    """Return how far to the right a module's layer is; the package itself is leftmost."""
    return next((i for i, names in enumerate(LAYERS) if part(module) in names), -1)


def imports(source: str) -> Iterator[str]:
    """Give the full name of everything that `source` imports, wherever it does."""
    known = modules()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                # A folder that does not exist yet is a layer all the same.
                yield whole if whole in known or base == "jaildaemon" else base


def wrong_imports(module: str, source: str) -> list[str]:
    """Return the imports of `source` that its layer may not have."""
    wrong = []
    for name in imports(source):
        top = name.split(".")[0]
        ours = top == "jaildaemon"
        if top in ("", "importlib"):
            wrong.append(f"{name}: does not say what it imports")
        elif ours and rank(name) > rank(module):
            wrong.append(f"{name}: further right")
        elif ours and rank(name) == rank(module) and part(name) != part(module):
            wrong.append(f"{name}: beside us")
        elif part(module) in ("core", "errors") and top in WORLD.split():
            wrong.append(f"{name}: touches the world")
        elif module == "jaildaemon.cli.client" and ours and name not in CLIENT_MAY:
            wrong.append(f"{name}: not for the client")
    return wrong


@pytest.mark.parametrize(("module", "source"), modules().items(), ids=modules())
def test_imports_go_from_right_to_left(module: str, source: str) -> None:
    assert wrong_imports(module, source) == []


@pytest.mark.parametrize(
    ("module", "source", "wrong"),
    [
        ("jaildaemon.errors", "from jaildaemon.core import text", "jaildaemon.core.text: further"),
        ("jaildaemon.core.x", "import jaildaemon.backends.base", "jaildaemon.backends.base: furt"),
        ("jaildaemon.core.x", "from jaildaemon import daemon", "jaildaemon.daemon: further right"),
        ("jaildaemon.core.x", "from ..daemon import files", "..daemon: does not say what"),
        ("jaildaemon.backends.x", "from jaildaemon.engines import y", "jaildaemon.engines: beside"),
        ("jaildaemon.engines.x", "import jaildaemon.backends", "jaildaemon.backends: beside us"),
        ("jaildaemon.daemon.x", "def f():\n import jaildaemon.cli", "jaildaemon.cli: further"),
        ("jaildaemon.daemon.x", "import importlib", "importlib: does not say what it imports"),
        ("jaildaemon.core.x", "import os.path", "os.path: touches the world"),
        ("jaildaemon.core.x", "from time import monotonic", "time: touches the world"),
        ("jaildaemon.errors", "import logging", "logging: touches the world"),
        ("jaildaemon.cli.client", "from jaildaemon.core import text", "jaildaemon.core.text: not"),
        ("jaildaemon.cli.client", "from jaildaemon.cli import x", "jaildaemon.cli: not for the"),
    ],
)
def test_a_wrong_import_is_found(module: str, source: str, wrong: str) -> None:
    assert [found[: len(wrong)] for found in wrong_imports(module, source)] == [wrong]


# --- only backends/__init__ asks which system this is -----------------------------

TYPE_CHECKERS_LINE = re.compile(r"assert sys\.platform(?: == '\w+'|\.startswith\('\w+'\))")


def asks_for_the_system(module: str, source: str) -> list[str]:
    """Return where `source` asks; an OS file may tell the type checker which one it is for."""
    if module == "jaildaemon.backends":
        return []
    tree = ast.parse(source)
    if part(module) in ("backends", "engines"):
        tree.body = [n for n in tree.body if not TYPE_CHECKERS_LINE.fullmatch(ast.unparse(n))]
    asking = {"sys.platform", "os.name", "os.uname"}
    found = []
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Attribute):
            names = [ast.unparse(node)]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [f"sys.{a.name}" for a in node.names if a.name == "platform"]
        found += [name for name in names if name in asking]
    return found


@pytest.mark.parametrize(("module", "source"), modules().items(), ids=modules())
def test_only_one_place_asks_which_system_this_is(module: str, source: str) -> None:
    assert asks_for_the_system(module, source) == []


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        ("jaildaemon.daemon.x", "import sys\nif sys.platform == 'linux': pass", ["sys.platform"]),
        ("jaildaemon.backends.x", "import sys\nx = sys.platform", ["sys.platform"]),
        ("jaildaemon.backends.x", "def f():\n assert sys.platform == 'linux'", ["sys.platform"]),
        ("jaildaemon.daemon.x", "assert sys.platform == 'linux'", ["sys.platform"]),
        ("jaildaemon.cli.x", "from sys import platform", ["sys.platform"]),
        ("jaildaemon.cli.x", "import platform", ["sys.platform"]),
        ("jaildaemon.cli.x", "import os\nx = os.uname()", ["os.uname"]),
        ("jaildaemon.backends.x", "assert sys.platform == 'linux'", []),
        ("jaildaemon.backends.x", "assert sys.platform.startswith('freebsd')", []),
        ("jaildaemon.backends", "x = sys.platform", []),
    ],
)
def test_a_question_for_the_system_is_found(module: str, source: str, found: list[str]) -> None:
    assert asks_for_the_system(module, source) == found


# --- -c starts fast -----------------------------------------------------------------

SLOW = {"attr", "attrs", "cattrs", "dataclasses", "logging", "pathlib", "rich", "subprocess"}
MINUS_C = """
from jaildaemon.cli.main import main
assert main(["-c", "true", "-j", "1", "-f", "/nonexistent/pipe"]) == 3
"""


def slow_modules(script: str) -> set[str]:
    """Return the slow modules that a bare interpreter has after `script`.

    Without site: an editable installation's own hooks would be measured, too.
    """
    path = f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r})"
    program = f"{path}\n{script}\nprint(*sys.modules)"
    command = [sys.executable, "-I", "-S", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return SLOW & set(done.stdout.split())


def test_minus_c_loads_nothing_slow() -> None:
    assert slow_modules(MINUS_C) == set()


def test_a_slow_module_is_found() -> None:
    assert slow_modules(f"{MINUS_C}\nimport logging, subprocess") == {"logging", "subprocess"}


# --- every source file -----------------------------------------------------------------

LONGEST = 400
SPDX = "SPDX-License-Identifier: BSD-2-Clause"
SOURCES = {".c", ".h", ".py", ".sh"}


def header_problems(text: str) -> list[str]:
    """Return what is wrong with a source file's licence line or its length."""
    lines = text.splitlines()
    problems = []
    if not any(SPDX in line for line in lines[:3]):
        problems.append("no SPDX line")
    if len(lines) > LONGEST and not any("Longer than 400 lines because" in x for x in lines[:30]):
        problems.append(f"{len(lines)} lines, and no reason in its header")
    return problems


def test_every_source_file_has_a_licence_and_a_bearable_length() -> None:
    wrong = {
        str(path.relative_to(ROOT)): problems
        for path in files_of_git()
        if path.suffix in SOURCES
        and (problems := header_problems(path.read_text(encoding="utf-8")))
    }
    assert wrong == {}


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("import os\n", ["no SPDX line"]),
        ("\n\n\n# " + SPDX, ["no SPDX line"]),
        (f"# {SPDX}\n" * 401, ["401 lines, and no reason in its header"]),
        (f"# {SPDX}\n" * 400, []),
        (f"#!/bin/sh\n# {SPDX}\n# Longer than 400 lines because ...\n" + "\n" * 400, []),
    ],
    ids=["none", "too late", "too long", "just not", "with a reason"],
)
def test_a_bad_header_is_found(text: str, problems: list[str]) -> None:
    assert header_problems(text) == problems


MACHINE_PATH = re.compile(r"(?<![\w.})$*>-])/(?:work|root)/")
"""A path of the machine it was written on; /proc/PID/root/ and the like are none."""


def machine_paths(text: str) -> list[str]:
    """Return the lines with a path that means something on one machine only."""
    return [line for line in text.splitlines() if MACHINE_PATH.search(line)]


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    wrong = {
        str(path.relative_to(ROOT)): lines
        for path in files_of_git()
        if (lines := machine_paths(path.read_text(encoding="utf-8", errors="replace")))
    }
    assert wrong == {}


def test_a_path_of_somebodys_machine_is_found() -> None:
    bad = [line.replace("@", "/") for line in ("see @work@main", "cd '@root@.pyenv'")]
    good = ["/proc/1/root/etc", "{proc}/root/x", "/home/work/x", "/workshop/x", "/root"]
    assert machine_paths("\n".join(bad + good)) == bad


def same_names(paths: list[Path]) -> list[str]:
    """Return the test files whose name another one has, too."""
    names = [path.name for path in paths if path.name.startswith("test_")]
    return sorted({name for name in names if names.count(name) > 1})


def test_every_test_file_has_a_name_of_its_own() -> None:
    assert same_names([path for path in files_of_git() if path.suffix == ".py"]) == []


def test_two_test_files_of_one_name_are_found() -> None:
    paths = [Path("a/test_x.py"), Path("b/test_x.py"), Path("a/base.py"), Path("b/base.py")]
    assert same_names(paths) == ["test_x.py"]


# --- linters ---------------------------------------------------------------------------------

NO_TOOL = 77


def lint(check: str, binaries: Path) -> subprocess.CompletedProcess[str]:
    command = ["sh", str(ROOT / "tools" / "lint.sh"), str(binaries), check]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "check", ["ruff", "format", "mypy-linux", "mypy-freebsd", "mandoc", "shellcheck"]
)
def test_lint(check: str) -> None:
    done = lint(check, Path(sys.executable).parent)
    if done.returncode == NO_TOOL:
        # conftest.py makes a failure of it where CI is set.
        pytest.skip(f"{check.partition('-')[0]} is not installed")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_missing_tool_is_told_from_a_finding(tmp_path: Path) -> None:
    bare = {**os.environ, "PATH": "/usr/bin:/bin"}
    lint_sh = ["/bin/sh", str(ROOT / "tools" / "lint.sh"), str(tmp_path)]
    done = subprocess.run([*lint_sh, "ruff"], env=bare, capture_output=True, check=False)
    assert done.returncode == NO_TOOL
    ruff = tmp_path / "ruff"
    ruff.write_text("#!/bin/sh\necho finding\nexit 1\n", encoding="ascii")
    ruff.chmod(0o755)
    done = subprocess.run([*lint_sh, "ruff"], env=bare, capture_output=True, check=False)
    assert (done.stdout, done.returncode) == (b"finding\n", 1)
