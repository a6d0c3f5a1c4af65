# SPDX-License-Identifier: BSD-2-Clause
"""The two readers of hostile bytes: the kept corpus takes every branch, and a planted bug is found.

`make fuzz` does the million runs; here are as many as find what was planted.
"""

import json
import random
import shutil
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.wire_once import once

ROOT = Path(__file__).resolve().parents[2]
SEEDS = ROOT / "tests" / "fuzz" / "seeds"
HELPER = ROOT / "helper"
RUNS = 20_000


def need(program: str, package: str) -> str:
    """Return where a program is; Linux can have each of them."""
    found = shutil.which(program)
    if found is None:
        cannot = "" if sys.platform == "linux" else "cannot: "
        pytest.skip(f"{cannot}{program} is missing; install the package {package}")
    return found


def test_the_analyzer_finds_nothing_in_the_helper(tmp_path: Path) -> None:
    need("gcc", "gcc")
    sources = ["params.c", "helper_linux.c"] if sys.platform == "linux" else ["params.c"]
    for name in sources:
        command = ["gcc", "-std=c11", "-O2", "-fanalyzer", "-Wall", "-Wextra", "-ffreestanding"]
        done = subprocess.run(
            [*command, "-c", "-o", str(tmp_path / "x.o"), str(HELPER / name)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_the_analyzer_finds_something_where_there_is_something(tmp_path: Path) -> None:
    need("gcc", "gcc")
    bad = tmp_path / "bad.c"
    bad.write_text("#include <stdlib.h>\nint f(int *p){free(p);return *p;}\n", encoding="ascii")
    command = ["gcc", "-std=c11", "-O2", "-fanalyzer", "-c", "-o", str(tmp_path / "x.o"), str(bad)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "use after" in done.stderr


# --- params.c ---------------------------------------------------------------------------


def test_scan_build_finds_nothing_in_the_helper(tmp_path: Path) -> None:
    clang = need("clang", "clang")
    for name in ("params.c", "helper_linux.c"):
        if name == "helper_linux.c" and sys.platform != "linux":
            continue
        command = [clang, "--analyze", "-Xanalyzer", "-analyzer-output=text", "-std=c11"]
        done = subprocess.run(
            [*command, "-ffreestanding", "-o", str(tmp_path / "x"), str(HELPER / name)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")


def _fuzzer(directory: Path, params: Path) -> Path:
    clang = need("clang", "clang")
    program = directory / f"fuzz_{params.parent.name}"
    sanitizers = "-fsanitize=fuzzer,address,undefined"
    # The target includes helper.h by its place: the mutated reader lies elsewhere.
    target = ROOT / "tests" / "fuzz" / "fuzz_params.c"
    command = [clang, "-g", "-O1", sanitizers, f"-I{HELPER}"]
    command += ["-o", str(program), str(target), str(params)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "fuzzer" in done.stderr and done.returncode:
        cannot = "" if sys.platform == "linux" else "cannot: "
        pytest.skip(f"{cannot}libFuzzer is missing; install the package libclang-rt-dev")
    assert done.returncode == 0, done.stderr
    return program


def _fuzz(program: Path, directory: Path, seeds: Path) -> subprocess.CompletedProcess[str]:
    options = [f"-runs={RUNS}", "-max_len=1100", "-seed=1", f"-artifact_prefix={directory}/"]
    corpus = directory / "corpus"
    corpus.mkdir(exist_ok=True)
    return subprocess.run(
        [program, *options, corpus, seeds], capture_output=True, text=True, check=False
    )


PLANTED = {
    "the label's length is not compared": (
        "len != PARAMS_HEAD + label_len",
        "len < PARAMS_HEAD",
    ),
    "the head may be short": ("len < PARAMS_HEAD ||", "len < PARAMS_HEAD - 1 ||"),
    "any flag passes": ("out->flags & ~FLAG_ALL ||", ""),
    "uid -1 passes": ("out->uid == UINT32_MAX ||", ""),
}


def test_the_fuzzer_finds_nothing_in_the_reader(tmp_path: Path) -> None:
    done = _fuzz(_fuzzer(tmp_path, HELPER / "params.c"), tmp_path, SEEDS / "params")
    assert done.returncode == 0, done.stderr
    assert f"Done {RUNS} runs" in done.stderr


@pytest.mark.parametrize("bug", PLANTED)
def test_the_fuzzer_finds_a_bug_that_was_planted(bug: str, tmp_path: Path) -> None:
    good, bad = PLANTED[bug]
    source = (HELPER / "params.c").read_text(encoding="ascii")
    assert source.count(good) == 1
    mutant = tmp_path / "mutant" / "params.c"
    mutant.parent.mkdir()
    mutant.write_text(source.replace(good, bad), encoding="ascii")
    # Without the kept corpus, which would find it at once: by fuzzing.
    good_one = tmp_path / "seed"
    good_one.mkdir()
    shutil.copy(SEEDS / "params" / "way00", good_one)
    done = _fuzz(_fuzzer(tmp_path, mutant), tmp_path, good_one)
    assert done.returncode != 0, "not found"


def test_the_kept_corpus_takes_every_branch_of_params(tmp_path: Path, figures: list[str]) -> None:
    need("gcc", "gcc")
    need("gcov", "gcc")
    main = tmp_path / "main.c"
    main.write_text(
        "#include <stdio.h>\n#include <stdlib.h>\n"
        "int LLVMFuzzerTestOneInput(const unsigned char *, size_t);\n"
        "int main(int argc, char **argv) { static unsigned char b[4096];\n"
        'for (int i = 1; i < argc; i++) { FILE *f = fopen(argv[i], "rb");\n'
        "LLVMFuzzerTestOneInput(b, fread(b, 1, sizeof(b), f)); fclose(f); } return 0; }\n",
        encoding="ascii",
    )
    target = ROOT / "tests" / "fuzz" / "fuzz_params.c"
    command = ["gcc", "-O0", "--coverage", "-o", "covered"]
    command += [str(path) for path in (main, target, HELPER / "params.c")]
    subprocess.run(command, check=True, cwd=tmp_path)
    seeds = sorted((SEEDS / "params").iterdir())
    subprocess.run([tmp_path / "covered", *seeds], check=True, cwd=tmp_path)
    notes = next(path.name for path in tmp_path.glob("*-params.gcda") if "fuzz" not in path.name)
    gcov = ["gcov", "--branch-probabilities", "--json-format", "--stdout", notes]
    done = subprocess.run(gcov, capture_output=True, check=True, cwd=tmp_path)
    (file,) = [f for f in json.loads(done.stdout)["files"] if f["file"].endswith("params.c")]
    branches = [branch for line in file["lines"] for branch in line["branches"]]
    taken = sum(branch["count"] > 0 for branch in branches)
    figures.append(f"params.c: {taken} of {len(branches)} branches by {len(seeds)} seeds")
    assert 0 < taken == len(branches)


# --- wire.py ------------------------------------------------------------------------------


def test_the_kept_corpus_takes_every_branch_of_wire(tmp_path: Path, figures: list[str]) -> None:
    program = ROOT / "tests" / "fuzz" / "wire_once.py"
    run = [sys.executable, "-m", "coverage"]
    measure = ["run", "--branch", "--include=*/jaildaemon/core/wire.py"]
    measure += [str(program), str(SEEDS / "wire")]
    subprocess.run([*run, *measure], check=True, cwd=tmp_path)
    subprocess.run([*run, "json", "-q", "-o", "c.json"], check=True, cwd=tmp_path)
    (file,) = json.loads((tmp_path / "c.json").read_text(encoding="ascii"))["files"].values()
    summary = file["summary"]
    found = f"{summary['covered_branches']} of {summary['num_branches']}"
    figures.append(f"wire.py: {found} branches by {len(list((SEEDS / 'wire').iterdir()))} seeds")
    assert summary["percent_covered"] == 100
    assert summary["num_branches"] >= 12


def _mutated(chance: random.Random, seeds: list[bytes]) -> bytes:
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.randint(1, 4)):
        match chance.randrange(4):
            case 0 if data:
                data[chance.randrange(len(data))] = chance.randrange(256)
            case 1 if data:
                at = chance.randrange(len(data))
                del data[at : at + chance.randint(1, 8)]
            case 2:
                data[(at := chance.randint(0, len(data))) : at] = chance.choice(seeds)[:200]
            case _:
                data.insert(chance.randint(0, len(data)), chance.choice(b'\0{}[]",:0e\\\xff'))
    return bytes(data)


DEEPEST = 1000


def _shallow(text: str, **hooks: Any) -> object:
    """Read JSON, and give up about where Python 3.11 does: 3.13 stands the deepest seed."""
    if text.count("[") + text.count("{") > DEEPEST:
        raise RecursionError
    return json.loads(text, **hooks)


def _wire(source: str, loads: Callable[..., object] = json.loads) -> types.ModuleType:
    module = types.ModuleType("mutant")
    exec(compile(source, "mutant", "exec"), module.__dict__)  # noqa: S102 - ours, mutated
    module.__dict__["json"] = types.SimpleNamespace(loads=loads)
    return module


WIRE = (ROOT / "src" / "jaildaemon" / "core" / "wire.py").read_text(encoding="ascii")
WIRE_PLANTED = {
    "the limit is not looked at": ("size >= self._limit", "False"),
    "the search goes on too far": ("self._searched = 0\n        return", "return"),
    "NaN passes": ("parse_constant=_no_constant,", ""),
    "deep nesting is not caught": ("(ValueError, RecursionError)", "ValueError"),
    "a list passes": ("not isinstance(message, dict)", "False"),
}


def _found(wire: types.ModuleType, runs: int) -> str | None:
    chance = random.Random(1)
    seeds = [path.read_bytes() for path in sorted((SEEDS / "wire").iterdir())]
    for n in range(runs):
        # The long ones now and then: they are slow.
        data = _mutated(chance, seeds if n % 20 == 0 else [s for s in seeds if len(s) < 4000])
        try:
            once(wire, data)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a bug found
            return repr(error)[:80]
    return None


def test_mutation_finds_nothing_in_the_codec() -> None:
    assert _found(_wire(WIRE), 4000) is None


@pytest.mark.parametrize("bug", WIRE_PLANTED)
def test_mutation_finds_a_bug_that_was_planted_in_the_codec(bug: str) -> None:
    good, bad = WIRE_PLANTED[bug]
    assert WIRE.count(good) == 1
    assert _found(_wire(WIRE.replace(good, bad), _shallow), 8000) is not None


def test_an_interpreter_that_gives_up_early_is_no_bug() -> None:
    assert _found(_wire(WIRE, _shallow), 4000) is None
