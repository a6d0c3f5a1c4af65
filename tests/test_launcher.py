# SPDX-License-Identifier: BSD-2-Clause
"""The installed command: what it says when its Python is gone, and what `restart` makes of it."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import jaildaemon
from tests.faults.test_restart import restart
from tests.faults.world import World, world_in

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(jaildaemon.__file__).parent
OTHERS = [f"python3.{minor}" for minor in range(11, 20) if minor != sys.version_info[1]]


def launcher(directory: Path, python: Path | None, system: str = "Linux") -> Path:
    """Write the command for a library whose Python that is."""
    (directory / "lib" / "bin").mkdir(parents=True)
    if python is not None:
        (directory / "lib" / "bin" / "python").symlink_to(python)
    words = ["sh", str(ROOT / "tools" / "launcher.sh"), str(directory / "lib"), "3.11"]
    env = {**os.environ, "TARGET_OS": system}
    done = subprocess.run(words, env=env, capture_output=True, check=True)
    command = directory / "jaildaemon"
    command.write_bytes(done.stdout)
    command.chmod(0o755)
    return command


def run(command: Path, *words: str) -> tuple[int, str, str]:
    """Run it; return its status and what it says."""
    done = subprocess.run([command, *words], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_with_its_python_it_is_the_command(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', encoding="ascii")
    python.chmod(0o755)
    command = launcher(tmp_path, python)
    assert run(command, "--version") == (0, f"jaildaemon {jaildaemon.__version__}\n", "")
    code, out, said = run(command, "-c", "echo $0; x", "-j", "1", "-f", "/nonexistent/a b")
    assert (code, out) == (3, "")
    assert said.startswith("jaildaemon: attach: /nonexistent/a b: no daemon is running")


@pytest.mark.parametrize("how", ["none", "dangling"])
def test_without_its_python_it_says_in_one_line_what_to_do(tmp_path: Path, how: str) -> None:
    command = launcher(tmp_path, None if how == "none" else Path("/nonexistent/python3"))
    python = f"{tmp_path}/lib/bin/python"
    gone = "Python 3.11, which it was installed with, is gone: run make install again"
    assert run(command, "list") == (1, "", f"jaildaemon: {python}: {gone}\n")


@pytest.mark.parametrize("system", ["Linux", "FreeBSD"])
def test_with_another_python_behind_it_it_says_in_one_line_what_to_do(
    tmp_path: Path, system: str
) -> None:
    # The base of the tests' own, which does not have our modules: as another minor.
    command = launcher(tmp_path, Path(os.path.realpath(sys.executable)), system)
    now = "{}.{}".format(*sys.version_info)
    why = f"it was installed for Python 3.11, and {tmp_path}/lib/bin/python is {now}"
    assert run(command, "list") == (1, "", f"jaildaemon: {why}: run make install again\n")


# --- restart ---------------------------------------------------------------------------------


def other_python() -> str:
    """Return a Python of another minor version than ours, or skip."""
    for name in OTHERS:
        if path := shutil.which(name):
            ask = [path, "-c", "import sys; print(sys.executable)"]
            done = subprocess.run(ask, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return os.path.realpath(done.stdout.strip())
    pytest.skip("cannot: no Python of another minor version is here")


@pytest.mark.parametrize("python", ["the same", "another minor"])
def test_restart_takes_the_new_version_though_the_old_one_is_gone(python: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("cannot: only root may enter a jail")
    other = os.path.realpath(sys.executable) if python == "the same" else other_python()
    (needed,) = {p for p in sys.path if p.endswith("site-packages")}

    def install(world: World, name: str, interpreter: str) -> Path:
        """Put a version there, and make it the installed command; return its modules."""
        modules = world.directory / name
        shutil.copytree(PACKAGE, modules / "jaildaemon")
        command = world.directory / "jaildaemon"
        new = world.directory / "jaildaemon.new"
        new.write_text(
            f"#!{interpreter}\nimport sys\nsys.path[1:1] = [{str(modules)!r}]\n"
            f"sys.path.append({needed!r})\n"
            "from jaildaemon.__main__ import main\nsys.exit(main())\n",
            encoding="ascii",
        )
        new.chmod(0o755)
        new.replace(command)
        return modules

    with tempfile.TemporaryDirectory(prefix="jd.") as name, world_in(Path(name)) as world:
        daemon, fifo = world.daemon, world.fifo()
        old = install(world, "old", sys.executable)
        daemon.start(program=[str(world.directory / "jaildaemon")])
        much = "head -c 300000 /dev/zero"
        rule = daemon.attach(world.jail().jail, f"{much}; echo > {fifo.path}", respawn="after")
        probe = daemon.probe(rule)
        new_python = world.directory / "python"
        new_python.symlink_to(other)
        new = install(world, "new", str(new_python))
        shutil.rmtree(old)
        restart(daemon)
        loaded = Path(f"/proc/{daemon.pid}/cmdline")
        if loaded.exists():
            words = loaded.read_bytes().split(b"\0")
            command = world.directory / "jaildaemon"
            assert words[:2] == [os.fsencode(new_python), os.fsencode(command)]
            exe = os.path.realpath(f"/proc/{daemon.pid}/exe")
            assert exe == os.path.realpath(new_python)
        assert daemon.probe(rule) == probe
        daemon.ring(rule)
        assert fifo.line() == ""
        assert new.is_dir()
