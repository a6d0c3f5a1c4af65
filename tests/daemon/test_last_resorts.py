# SPDX-License-Identifier: BSD-2-Clause
"""The program where everything around it fails: a line for its user, never a traceback."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.conftest import need_root
from tests.daemon.product import JAILDAEMON, LONGEST_SECONDS, Daemon, short_directory

LINUX = sys.platform == "linux"
SHOWING = [
    "list",
    "list --json",
    "status",
    "log",
    "hold --all",
    "reload",
    "check",
    "doctor",
    "metrics",
    "--help",
    "list --help",
    "--version",
]
OTHERS = ["fire nothing", "explain nothing", "log nothing", "-c true -j 0", "-x", "list --x"]
STARTS = ["-D -F", "-D"]


@pytest.fixture(scope="module")
def around() -> Iterator[tuple[Daemon, Path]]:
    """Give a daemon that is never ended by what is tried here, and its directory."""
    with short_directory() as directory:
        daemon = Daemon(directory)
        yield daemon, directory
        assert daemon.status()["rules"] == 0
        daemon.stop()


def words(line: str, directory: Path) -> str:
    """Return a command for sh(1): a subcommand, or a start beside the daemon that runs."""
    said = f"{JAILDAEMON} {line}"
    if line.startswith("-D"):
        return f"{said} -f {directory}/new -p {directory}/new.pid --state-dir {directory}/new.d"
    if line.startswith("check"):
        return f"{said} --config {directory}/none.toml"
    return said if "help" in line or "-version" in line else f"{said} -f {directory}/pipe"


def plain(script: str, *before: str, code: int | None = None) -> str:
    """Run a script; what it says must be lines for people.  Returns it."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [*before, "sh", "-c", script],
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LONGEST_SECONDS,
        check=False,
    )
    said = done.stdout + done.stderr
    for word in ("Traceback", "Exception ignored", "most recent call", "  File "):
        assert word not in said, said
    assert done.returncode in (0, 1, 2, 3, 4, 5, 6), said
    assert code is None or done.returncode == code, said
    return done.stderr


@pytest.mark.skipif(not LINUX, reason="cannot: /dev/full is Linux's")
@pytest.mark.parametrize("line", SHOWING)
def test_output_to_a_full_disk_is_an_error_in_one_line(
    around: tuple[Daemon, Path], line: str
) -> None:
    said = plain(f"{words(line, around[1])} >/dev/full", code=None)
    assert said == "jaildaemon: standard output: No space left on device\n"
    plain(f"{words(line, around[1])} >/dev/full 2>&1")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", "1</dev/null"])
def test_closed_outputs_end_in_no_traceback(around: tuple[Daemon, Path], closed: str) -> None:
    for line in ["list", "check", "fire nothing", "--help", "-c true -j 0"]:
        plain(f"{words(line, around[1])} {closed}")


def test_a_reader_that_has_had_enough_is_no_error(around: tuple[Daemon, Path]) -> None:
    for line in ("list", "log", "--help", "metrics"):
        assert plain(f"{words(line, around[1])} | true") == ""


@pytest.mark.parametrize("limit", ["-n 20", "-n 16", "-n 12", "-n 10", "-n 8", "-f 0"])
def test_limits_of_the_caller_are_named(around: tuple[Daemon, Path], limit: str) -> None:
    for line in ("list", "check", "metrics", "doctor", "-D -F"):
        script = f"ulimit {limit}; exec {words(line, around[1])}"
        if line == "-D -F":
            script = f"ulimit {limit}; timeout 1 {words(line, around[1])}; test $? = 124 || exit 1"
        plain(script)


def test_little_memory_is_named(around: tuple[Daemon, Path]) -> None:
    for limit in (32000, 40000, 48000, 64000):
        done = subprocess.run(
            ["sh", "-c", f"ulimit -v {limit}; exec {words('list', around[1])}"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stderr or "jaildaemon/" not in done.stderr, done.stderr


def test_a_directory_that_was_removed_is_named(directory: Path) -> None:
    gone = directory / "gone"
    begin = f"mkdir {gone}; cd {gone}; rmdir {gone}; {JAILDAEMON}"
    told = "is relative, and the current directory was removed\n"
    assert plain(f"{begin} -D -f x", code=1) == f"jaildaemon: start: x: {told}" or not LINUX
    assert told in plain(f"{begin} check x", code=1)
    plain(f"{begin} list -f x", code=3)
    plain(f"{begin} metrics -o x -f /nonexistent")


def away(*commands: str) -> tuple[str, ...]:
    """Return what runs a script in mounts of its own, where something is missing."""
    if not LINUX or shutil.which("unshare") is None:
        pytest.skip("cannot: mount namespaces are Linux's")
    need_root()
    return (
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "sh",
        "-c",
        "; ".join(commands) + '; "$@"',
        "x",
    )


@pytest.mark.parametrize("line", [*SHOWING, *OTHERS, *STARTS, "demo"])
def test_without_proc_each_says_a_line(around: tuple[Daemon, Path], line: str) -> None:
    command = f"{JAILDAEMON} demo" if line == "demo" else words(line, around[1])
    said = plain(command, *away("umount -l /proc"))
    if line in STARTS or line == "demo":
        assert "/proc" in said


@pytest.mark.parametrize("line", ["list", "check", "doctor"])
def test_without_dev_fd_each_works(around: tuple[Daemon, Path], line: str) -> None:
    bare = "mount -t tmpfs none /dev; mknod -m 666 /dev/null c 1 3; mknod -m 666 /dev/urandom c 1 9"
    plain(words(line, around[1]), *away(bare))


def test_a_daemon_starts_without_dev_fd(directory: Path) -> None:
    away()
    bare = "mount -t tmpfs none /dev; mknod -m 666 /dev/null c 1 3; mknod -m 666 /dev/urandom c 1 9"
    daemon = Daemon(directory, before=("unshare", "--mount", "sh", "-c", f'{bare}; exec "$@"', "x"))
    assert daemon.status()["rules"] == 0
    daemon.stop()


def test_a_pidfile_that_cannot_be_written_is_named(directory: Path) -> None:
    small = directory / "small"
    small.mkdir()
    full = (
        f"mount -t tmpfs -o size=8k,nr_inodes=20 x {small}",
        f"dd if=/dev/zero of={small}/fill bs=1k count=64 2>/dev/null",
    )
    for start in ("-D", "-D -F"):
        said = plain(
            f"{JAILDAEMON} {start} -f {directory}/s -p {small}/p --state-dir {directory}/st",
            *away(*full),
            code=1,
        )
        assert said == f"jaildaemon: start: {small}/p: No space left on device\n" or "p" in said
        assert said.count("\n") == 1


def calls_of_ours(trace: str) -> tuple[int, int]:
    """Return the numbers of the first system call of ours in a trace, and of the last."""
    lines = [line for line in trace.splitlines() if re.match(r"\w+\(", line)]
    first = next(i for i, line in enumerate(lines, 1) if "jaildaemon/__main__" in line)
    return first, len(lines)


@pytest.mark.parametrize("line", ["list", "-c true -j 0", "metrics", "check", "--help"])
def test_an_interrupt_at_any_call_is_silent(
    around: tuple[Daemon, Path], directory: Path, line: str
) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    command = words(line, around[1]).split()
    trace = directory / "trace"
    subprocess.run(["strace", "-o", trace, *command], capture_output=True, check=False)
    first, last = calls_of_ours(trace.read_text(errors="replace"))
    # Between these the file of our first line is looked for and read, by the interpreter.
    for at in range(first + 8, last, max(1, (last - first) // 12)):
        inject = ["-e", f"inject=all:signal=SIGINT:when={at}"]
        done = subprocess.run(
            ["strace", "-o", os.devnull, *inject, *command],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stderr, (at, done.stderr)
        assert done.returncode in (-signal.SIGINT, 0, 1, 3, 4, 6), (at, done.returncode)


def test_a_bug_is_one_line_that_says_where() -> None:
    script = (
        "import sys; from jaildaemon.cli import commands\n"
        "commands._status = None\n"
        "def broken(wish): return {}['nothing']\n"
        "commands._list = broken\n"
        "sys.argv[1:] = ['list']\n"
        "from jaildaemon.__main__ import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert re.fullmatch(
        r"jaildaemon: internal error: KeyError: 'nothing' \(.*:\d+\)\n", done.stderr
    )
