# SPDX-License-Identifier: BSD-2-Clause
"""Take checks out, one at a time, and see that a test misses each: make mutate.

tools/mutations/*.toml is the table.  A mutation names its place by quoted text,
which must be in the file exactly once, says what stands there instead, and which
tests must notice.  Each is tried in a copy of the tree, with its own programs.
ONLY=random:5 tries five, ONLY=TEXT those whose file, text or test has TEXT.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import venv
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "tools" / "mutations"
HANG_SECONDS = 300
"""A test that only hangs notices nothing."""
QUIET = """\
from hypothesis import Phase, settings

# That it fails is enough: what the smallest example is takes minutes.
settings.register_profile("mutate", phases=[Phase.explicit, Phase.generate], database=None)
settings.load_profile("mutate")
"""
NOTICED, SURVIVED, HUNG, UNTRIED, BROKEN = "noticed", "SURVIVED", "HUNG", "not tried", "BROKEN"


@dataclass(frozen=True)
class Mutation:
    """One change, and who must notice it."""

    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    why: str
    equivalent: str | None
    """Why no test can notice it, where that is so."""
    table: str

    @property
    def problem(self) -> str | None:
        """What is wrong with it in this tree."""
        found = (ROOT / self.file).read_text(encoding="utf-8").count(self.old)
        if found != 1:
            return f"its text is there {found} times, not once: {self.old!r}"
        if self.old == self.new:
            return "it changes nothing"
        if not self.tests and self.equivalent is None:
            return "no test is named"
        missing = [t for t in self.tests if not _is_there(t)]
        return f"no such test: {missing[0]}" if missing else None

    def __str__(self) -> str:
        """Return where it is and what it is, in one line."""
        return f"{self.file}: {self.why}"


def _is_there(test: str) -> bool:
    path, _, name = test.partition("::")
    file = ROOT / path
    function = f"def {name.partition('[')[0]}("
    return file.exists() and (not name or function in file.read_text(encoding="utf-8"))


def table() -> list[Mutation]:
    """Return all of it."""
    return [one for path in sorted(TABLE.glob("*.toml")) for one in _read(path)]


def _read(path: Path) -> list[Mutation]:
    with path.open("rb") as file:
        entries = tomllib.load(file)["mutation"]
    return [
        Mutation(
            entry["file"],
            entry["old"],
            entry["new"],
            tuple(entry.get("tests", ())),
            entry["why"],
            entry.get("equivalent"),
            path.name,
        )
        for entry in entries
    ]


def chosen(mutations: list[Mutation], only: str, seed: str) -> list[Mutation]:
    """Return those that are to be tried."""
    tried = [m for m in mutations if m.equivalent is None]
    if only.startswith("random:"):
        # Chance, not secrecy: the seed makes it again.
        return random.Random(seed).sample(tried, min(int(only[7:]), len(tried)))
    return [m for m in tried if any(only in text for text in (m.file, m.old, m.why, *m.tests))]


class Copy:
    """A copy of the tree, with an interpreter that imports from it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout.split("\0")
        for name in filter(None, listed):
            if (ROOT / name).is_file():
                (directory / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, directory / name)
        libexec = "src/jaildaemon/libexec"
        shutil.copytree(ROOT / libexec, directory / libexec, dirs_exist_ok=True)
        for place in (directory, *directory.rglob("*")):
            if not place.is_symlink():
                place.chmod(place.stat().st_mode & ~0o022)
        self._make_interpreter()
        (directory / "mutate_quiet.py").write_text(QUIET, encoding="ascii")

    def _make_interpreter(self) -> None:
        ours = self.directory / ".venv"
        venv.create(ours, with_pip=False, symlinks=True)
        (theirs,) = (ROOT / ".venv" / "lib").glob("python*/site-packages")
        (packages,) = (ours / "lib").glob("python*/site-packages")
        # The tree's own package is found here first, then what it needs, there.
        lines = f"{self.directory / 'src'}\n{theirs}\n"
        (packages / "a.pth").write_text(lines, encoding="utf-8")
        for script in (ROOT / ".venv" / "bin").iterdir():
            target = ours / "bin" / script.name
            if script.is_file() and not target.exists():
                try:
                    text = script.read_text(encoding="utf-8")
                except UnicodeDecodeError:
                    target.symlink_to(script)
                    continue
                _, line, rest = text.partition("\n")
                target.write_text(f"#!{ours / 'bin' / 'python'}{line}{rest}", encoding="utf-8")
                target.chmod(0o755)

    def build(self) -> bool:
        """Build the C programs; say whether they could be."""
        words = ["sh", "helper/build.sh", "src/jaildaemon/libexec"]
        built = subprocess.run(words, cwd=self.directory, check=False, capture_output=True)
        libexec = self.directory / "src" / "jaildaemon" / "libexec"
        for place in (libexec, *libexec.iterdir()):
            place.chmod(0o755)
        return built.returncode == 0

    def run(self, tests: tuple[str, ...]) -> tuple[int | None, int]:
        """Run tests; return the status, None after HANG_SECONDS, and how many were not skipped."""
        report = self.directory / "report.xml"
        report.unlink(missing_ok=True)
        words = [".venv/bin/python", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        words += ["-p", "mutate_quiet", f"--junitxml={report}", *tests]
        env = {**os.environ, "PYTHONPATH": str(self.directory), "PYTHONDONTWRITEBYTECODE": "1"}
        env.pop("CI", None)  # a skip is none of our business
        process = subprocess.Popen(
            ["nice", *words],
            cwd=self.directory,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            status: int | None = process.wait(HANG_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            status = None
        return status, _ran(report)


def _ran(report: Path) -> int:
    if not report.exists():
        return 0
    # Written by our own pytest.
    suites = ET.parse(report).getroot().iter("testsuite")  # noqa: S314
    return sum(int(s.get("tests", 0)) - int(s.get("skipped", 0)) for s in suites)


def try_out(copy: Copy, mutation: Mutation) -> str:
    """Make the change, run the tests, undo it; return what came of it."""
    freebsd = "freebsd" in mutation.file
    if freebsd != sys.platform.startswith("freebsd") and (freebsd or "linux" in mutation.file):
        return UNTRIED
    path = copy.directory / mutation.file
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
    c = mutation.file.startswith("helper/")
    try:
        if c and not copy.build():
            return BROKEN
        status, ran = copy.run(mutation.tests)
    finally:
        path.write_text(text, encoding="utf-8")
        if c:
            copy.build()
    if status is None:
        return HUNG
    if status == 1:
        return NOTICED
    if status == 0:
        return SURVIVED if ran else UNTRIED
    return BROKEN  # it could not even be collected: that is no check


def main() -> int:
    """Try what is wanted; 1 if a mutation survived, or the table is wrong."""
    mutations = table()
    wrong = [f"{m.table}: {m}: {m.problem}" for m in mutations if m.problem]
    if wrong:
        print("\n".join(wrong))
        return 1
    only = os.environ.get("ONLY", "")
    seed = os.environ.get("SEED") or str(random.SystemRandom().randrange(10**6))
    wanted = chosen(mutations, only, seed)
    equivalent = sum(m.equivalent is not None for m in mutations)
    print(f"mutate: {len(wanted)} of {len(mutations)}, {equivalent} equivalent; SEED={seed}")
    bad: list[str] = []
    counts: dict[str, int] = {}
    directory = ROOT / "build" / "mutate"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    try:
        copy = Copy(directory)
        tests = tuple(dict.fromkeys(test for m in wanted for test in m.tests))
        if "--unchanged" in sys.argv and copy.run(tests)[0] != 0:
            print("mutate: the tests fail without any change")
            return 1
        for mutation in wanted:
            began = time.monotonic()
            result = try_out(copy, mutation)
            counts[result] = counts.get(result, 0) + 1
            print(f"{result:9} {time.monotonic() - began:5.0f} s  {mutation}", flush=True)
            if result in (SURVIVED, HUNG, BROKEN):
                bad.append(f"{result}: {mutation}\n    {mutation.tests}")
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print("mutate:", ", ".join(f"{count} {what}" for what, count in sorted(counts.items())))
    print("\n".join(bad), end="\n" if bad else "")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
