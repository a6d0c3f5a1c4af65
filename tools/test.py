# SPDX-License-Identifier: BSD-2-Clause
"""make test: everything, in lanes side by side, for most of it waits for a kernel.

The first lane's output is shown as it comes, the others' when it has ended, each
with its own summary of what was skipped, and why.  The last line counts them all.
Arguments go to pytest instead: `python tools/test.py tests/kernel -k respawn`.

From the environment: ONLY=core,kernel is these parts only; RERUN=3 has what failed
run alone three times more, and is for .ci/run (tools/unsteady.py).
"""

import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools import outcomes, unsteady

ROOT = Path(__file__).resolve().parent.parent
PYTEST = [sys.executable, "-m", "pytest"]
COVERED = ["--cov=jaildaemon.core", "--cov-branch", "--cov-fail-under=100", "-q"]

PARTS = {
    "core": ["tests/core"],
    "kernel": ["tests/kernel"],
    "helper": ["tests/helper"],
    "attacks": ["tests/attacks"],
    "daemon": ["tests/daemon"],
    "contract": ["tests/contract"],
    "engines": ["tests/engines"],
    "fuzz": ["tests/fuzz"],
    "faults": ["tests/faults"],
    "packaging": ["tests/test_packaging.py", "tests/test_dist.py", "tests/test_port.py"],
    "bench": ["tests/test_bench.py"],
    "house": [],
}
"""What ONLY takes; tests/README.md says what each needs.  "house" is what no other part has."""
LANES = [
    [["core"], ["kernel", "helper"]],
    [["attacks", "daemon", "contract", "engines", "fuzz"]],
    [["faults", "packaging", "bench", "house"]],
]
"""What runs side by side, and what after what; each innermost list is one pytest."""


def paths(part: str) -> list[str]:
    """Return what pytest is given for a part."""
    if part != "house":
        return PARTS[part]
    others = {path for paths in PARTS.values() for path in paths}
    found = (str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("tests/test_*.py")))
    return [path for path in found if path not in others]


def chosen(only: str) -> list[list[list[str]]]:
    """Return the lanes with the parts that ONLY names, all without it; ValueError."""
    wanted = only.replace(",", " ").split() or [*PARTS]
    unknown = [part for part in wanted if part not in PARTS]
    if unknown:
        raise ValueError(f"no such part: {unknown[0]} (there are: {', '.join(PARTS)})")
    lanes = [[[p for p in parts if p in wanted] for parts in lane] for lane in LANES]
    return [found for lane in lanes if (found := [parts for parts in lane if parts])]


def command(parts: list[str], report: Path) -> list[str]:
    """Return the command that tests some parts."""
    words = [path for part in parts for path in paths(part)]
    words += COVERED if parts == ["core"] else ["--durations=5"]
    return [*PYTEST, *words, *outcomes.options(report)]


def run(lanes: list[list[list[str]]], directory: Path) -> outcomes.Outcomes:
    """Run the lanes side by side; return what came of their tests."""
    reports = [directory / f"{at}" for at in range(len(lanes))]
    others = []
    for lane, report in zip(lanes[1:], reports[1:], strict=True):
        output = tempfile.TemporaryFile()  # noqa: SIM115 - read when the lane has ended
        argv = [word for parts in lane for word in command(parts, report)]
        others.append((subprocess.Popen(argv, stdout=output, stderr=output), output))
    codes = [subprocess.run(command(p, reports[0]), check=False).returncode for p in lanes[0]]
    for process, output in others:
        codes.append(process.wait())
        output.seek(0)
        sys.stdout.flush()
        sys.stdout.buffer.write(output.read())
        output.close()
    return outcomes.read(reports, codes)


def minutes(found: outcomes.Outcomes) -> str:
    """Return the line with how long each part took, for tests/README.md."""
    parts = {path: part for part, paths in PARTS.items() for path in paths}
    sums: Counter[str] = Counter()
    for path, seconds in found.seconds.items():
        at = next((it for it in (path, "/".join(path.split("/")[:2])) if it in parts), "")
        sums[parts.get(at, "house")] += seconds
    return "minutes: " + ", ".join(f"{p} {sums[p] / 60:.1f}" for p in PARTS if p in sums)


def last_line(counts: Counter[str]) -> str:
    """Return the line that counts all tests."""
    return "total: " + ", ".join(f"{counts[kind]} {kind}" for kind in outcomes.KINDS)


def main(arguments: list[str]) -> int:
    """Run pytest; return 0, or 1 where a test failed, 2 for a wrong ONLY."""
    only, rerun = os.environ.pop("ONLY", ""), os.environ.pop("RERUN", "")
    if arguments:
        return subprocess.run([*PYTEST, *arguments], check=False).returncode
    try:
        lanes = chosen(only)
    except ValueError as error:
        sys.stderr.write(f"jaildaemon: test: {error}\n")
        return 2
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory(prefix="jd.outcomes.") as name:
        found = run(lanes, Path(name))
        counts = found.counts()
        status = int(bool(found.failures or found.broken))
        if status and rerun:
            status = unsteady.judge(found, int(rerun), Path(name), counts)
    for code in found.broken:
        print(f"jaildaemon: test: a pytest ended with status {code} and named no test that failed")
    print(minutes(found))
    print(last_line(counts))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
