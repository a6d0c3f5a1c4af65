# SPDX-License-Identifier: BSD-2-Clause
"""The wheel and the source distribution: each is installed as pip does, and then used."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from jaildaemon import __version__
from tests.test_packaging import (
    PATIENCE_SECONDS,
    ROOT,
    clean_environment,
    environment_of_a_stranger,
)


def must(work: Path, *argv: str | Path) -> str:
    """Run a command; skip the test where no package index answers."""
    done = subprocess.run(
        argv,
        cwd=ROOT,
        env=clean_environment(work),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    if "Could not find a version" in done.stderr:
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr
    return done.stdout


def environment(work: Path, name: str, *wanted: str | Path) -> Path:
    """Make a virtual environment with some packages; return its directory of programs."""
    must(work, sys.executable, "-m", "venv", work / name)
    must(work, work / name / "bin/python", "-m", "pip", "install", "-qq", *wanted)
    return work / name / "bin"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dist")


@pytest.fixture(scope="module")
def built(work: Path) -> dict[str, Path]:
    """Both distributions, by kind."""
    programs = environment(work, "builder", "hatchling")
    must(work, programs / "python", "-m", "hatchling", "build", "-d", work / "out")
    (wheel,), (source,) = (list((work / "out").glob(name)) for name in ("*.whl", "*.tar.gz"))
    return {"wheel": wheel, "sdist": source}


def test_the_wheel_has_the_program_and_its_helpers_and_nothing_else(built: dict[str, Path]) -> None:
    with zipfile.ZipFile(built["wheel"]) as wheel:
        names = set(wheel.namelist())
        modes = {i.filename: i.external_attr >> 16 & 0o777 for i in wheel.infolist()}
    assert {name.partition("/")[0] for name in names} == {
        "jaildaemon",
        f"jaildaemon-{__version__}.dist-info",
    }
    for helper in ("jailprobe", "jailoutput"):
        assert modes[f"jaildaemon/libexec/{helper}"] == 0o755
    # It has programs of this machine's.
    assert not built["wheel"].name.endswith("-any.whl")


def test_the_source_distribution_has_what_is_kept_and_nothing_that_was_built(
    built: dict[str, Path],
) -> None:
    with tarfile.open(built["sdist"]) as source:
        names = {Path(*Path(name).parts[1:]) for name in source.getnames()}
    assert {Path("helper/helper_linux.c"), Path("man/jaildaemon.1"), Path("Makefile")} <= names
    assert not [
        n for n in names if n.parts[0] in (".venv", "build", "dist") or "libexec" in n.parts
    ]


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_what_is_installed_from_it_shows_itself_at_work(
    kind: str, built: dict[str, Path], work: Path, tmp_path: Path
) -> None:
    jaildaemon = environment(work, kind, built[kind]) / "jaildaemon"
    assert must(work, jaildaemon, "--version") == f"jaildaemon {__version__}\n"
    if os.geteuid() != 0:
        pytest.skip("only root makes jails; run the tests as root")
    clean = environment_of_a_stranger(tmp_path)
    done = subprocess.run(
        [jaildaemon, "demo"],
        env={k: v for k, v in clean.items() if not k.startswith("PYTHON")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith("ok: ")
