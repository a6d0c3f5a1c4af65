# SPDX-License-Identifier: BSD-2-Clause
"""The newcomer's first command, as a newcomer runs it, and ended half way."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import typing_extensions

import jaildaemon
from jaildaemon.backends import HELPER
from jaildaemon.cli import demo
from jaildaemon.errors import Refused
from tests.kernel.events import PATIENCE_SECONDS, TooLate, wait_gone

JAILDAEMON = Path(sys.executable).parent / "jaildaemon"


def run(temporary: Path) -> subprocess.CompletedProcess[str]:
    """Run the demo to its end, its state in `temporary`."""
    return subprocess.run(
        [JAILDAEMON, "demo"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
        env={**os.environ, "TMPDIR": str(temporary)},
    )


def left_of(temporary: Path) -> dict[str, list[str]]:
    """Return what is left of a demo: files, and (Linux) processes and mounts.

    What was told to end, or is of somebody else's demo, may take a moment, but it ends.
    """
    left = {"files": sorted(os.listdir(temporary)), "processes": [], "mounts": []}
    if sys.platform == "linux":
        for pid in filter(str.isdecimal, os.listdir("/proc")):
            try:
                words = Path("/proc", pid, "cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if b"DEMO_BELL" in words or os.fsencode(temporary) in words:
                try:
                    wait_gone(int(pid))
                except TooLate:
                    left["processes"].append(words.decode())
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8")
        # Other suites of ours have containers with file systems mounted.
        ours = ("jaildaemon-demo", str(temporary))
        left["mounts"] = [x for x in mounts.splitlines() if any(word in x for word in ours)]
    return left


NOTHING: dict[str, list[str]] = {"files": [], "processes": [], "mounts": []}


def test_it_ends_with_the_line_that_says_it_works_and_leaves_nothing(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    last = done.stdout.splitlines()[-1]
    assert last.startswith("ok: a signal inside the jail ran the command on the host in ")
    assert "jaildaemon: DEMO_BELL" in done.stdout
    assert left_of(tmp_path) == NOTHING


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", range(1, 6))
def test_ended_at_any_step_it_leaves_nothing(
    tmp_path: Path, step: int, number: signal.Signals
) -> None:
    demo = subprocess.Popen(
        [JAILDAEMON, "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A group of its own, as at a terminal: Ctrl-C hits every process of it.
        start_new_session=True,
        # And it is not ignored, as it is by what a shell runs in the background.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - one thread
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert demo.stdout is not None
    while not demo.stdout.readline().startswith(f"{step}."):
        continue
    if number == signal.SIGINT:
        os.killpg(demo.pid, number)
    else:
        demo.send_signal(number)
    _, errors = demo.communicate(timeout=PATIENCE_SECONDS)
    # 0: it was faster than the signal.
    assert demo.returncode in (0, 130)
    assert errors == ""
    assert left_of(tmp_path) == NOTHING


def open_to_all(path: Path) -> bool:
    """Say whether any user may read `path` and reach it."""
    above = all(os.stat(directory).st_mode & 0o001 for directory in path.parents)
    return above and bool(os.stat(path).st_mode & 0o004)


def environment_for_all(directory: Path) -> Path:
    """Make a copy of what is installed that any user may run; return its python."""
    candidates = [Path(sys.executable).resolve(), Path("/usr/bin/python3").resolve()]
    python = next((p for p in candidates if p.exists() and open_to_all(p)), None)
    if python is None:
        pytest.skip("cannot: no Python here is open to other users")
    made = directory / "venv"
    subprocess.run([python, "-m", "venv", "--without-pip", made], check=True)
    (target,) = made.glob("lib/python3*/site-packages")
    shutil.copytree(Path(jaildaemon.__file__).parent, target / "jaildaemon")
    for name in ("attr", "attrs", "cattr", "cattrs", "rich", "markdown_it", "mdurl", "pygments"):
        found = importlib.util.find_spec(name)
        assert found is not None
        assert found.origin is not None
        shutil.copytree(Path(found.origin).parent, target / name)
    shutil.copy(typing_extensions.__file__, target)
    return made / "bin" / "python"


@pytest.mark.skipif(sys.platform != "linux", reason="cannot: only Linux has user namespaces")
@pytest.mark.skipif(os.geteuid() != 0, reason="cannot: is itself not root, as in the test above")
def test_without_root_it_makes_a_user_namespace_of_its_own() -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        python = environment_for_all(directory)
        state = directory / "state"
        state.mkdir()
        os.chown(state, 65534, 65534)
        done = subprocess.run(
            [python, "-I", "-m", "jaildaemon", "demo"],
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
            env={"PATH": os.environ["PATH"], "TMPDIR": str(state)},
            cwd="/",
            user=65534,
            group=65534,
            extra_groups=[],
        )
        if "gives no user namespace" in done.stderr:
            pytest.skip("cannot: this kernel gives other users no user namespace")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines()[-1].startswith("ok: ")
        assert left_of(state) == NOTHING


@pytest.mark.skipif(os.geteuid() != 0, reason="cannot: only root has what belongs to others")
def test_root_in_a_tree_of_a_users_is_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    helper = tree / "jailprobe"
    shutil.copy(HELPER, helper)
    os.chown(tree, 2000, 2000)
    monkeypatch.setattr(demo, "HELPER", helper)
    with pytest.raises(Refused) as caught:
        demo.run()
    assert str(caught.value) == (
        f"demo: {helper}: its directory {tree} belongs to uid 2000, not to root"
        " (run it as that user, or from a clone that root made)"
    )
