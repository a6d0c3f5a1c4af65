# SPDX-License-Identifier: BSD-2-Clause
"""Attacks 27, 32: what others can write, or could have put in the place of the daemon's files."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jaildaemon.backends import HELPER
from tests.attacks.rig import JAILDAEMON, LONGEST_SECONDS
from tests.attacks.tally import Tally


def _start(directory: Path, *, helper: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Start a daemon that must not start."""
    files = ["-f", str(directory / "pipe"), "-p", str(directory / "pid")]
    arguments = [*JAILDAEMON, "-D", "-F", *files]
    if helper:
        program = (
            "import sys; from pathlib import Path; import jaildaemon.backends as b;"
            "b.HELPER = Path(sys.argv.pop(1)); b.this_system.__defaults__ = (b.HELPER,);"
            "from jaildaemon.cli.main import main; sys.exit(main())"
        )
        arguments = [sys.executable, "-c", program, str(helper), "-D", "-F", *files]
    return subprocess.run(
        arguments, capture_output=True, text=True, check=False, timeout=LONGEST_SECONDS
    )


Spoil = Callable[[Path], object]


def _victim(directory: Path) -> Path:
    return directory / "victim"


def _given_away(path: Path) -> None:
    path.touch()
    os.chown(path, 1000, 1000)


def _given_to_a_group(directory: Path) -> None:
    directory.chmod(0o770)
    os.chown(directory, 0, 1000)


SPOILERS: dict[str, Spoil] = {
    "the directory is anybody's": lambda d: d.chmod(0o777),
    "the directory is a group's": _given_to_a_group,
    "the directory is a user's": lambda d: os.chown(d, 1000, 1000),
    "the lock is a link": lambda d: (d / "pipe.lock").symlink_to(_victim(d)),
    "the pidfile is a link": lambda d: (d / "pid").symlink_to(_victim(d)),
    "the pidfile is another name of a file": lambda d: (d / "pid").hardlink_to(_victim(d)),
    "the lock is a fifo": lambda d: os.mkfifo(d / "pipe.lock"),
    "the pidfile is a fifo": lambda d: os.mkfifo(d / "pid"),
    "the pidfile is a directory": lambda d: (d / "pid").mkdir(),
    "the lock is a user's": lambda d: _given_away(d / "pipe.lock"),
    "the pidfile is anybody's": lambda d: os.close(os.open(d / "pid", os.O_CREAT, 0o666)),
    "the socket is a link": lambda d: (d / "pipe").symlink_to(_victim(d)),
    "the socket is a fifo": lambda d: os.mkfifo(d / "pipe"),
    "the socket is a file": lambda d: (d / "pipe").touch(),
}
SPOILT = """\
the directory is anybody's|can be written by others than root
the directory is a group's|can be written by others than root
the directory is a user's|belongs to uid 1000, not to root
the lock is a link|is a symbolic link
the pidfile is a link|is a symbolic link
the pidfile is another name of a file|has another name (a hard link)
the lock is a fifo|is not a regular file
the pidfile is a fifo|is not a regular file
the pidfile is a directory|Is a directory
the lock is a user's|belongs to uid 1000, not to root
the pidfile is anybody's|can be written by others than root
the socket is a link|exists and is not a socket
the socket is a fifo|exists and is not a socket
the socket is a file|exists and is not a socket
"""


@pytest.mark.parametrize(
    ("how", "why"), [line.split("|") for line in SPOILT.splitlines()], ids=lambda text: text[:40]
)
def test_what_others_could_have_put_there_is_refused(
    how: str, why: str, tmp_path: Path, attacker: Path, tally: Tally
) -> None:
    assert attacker.exists()
    directory = tmp_path / "run"
    directory.mkdir()
    _victim(directory).write_text("precious", encoding="ascii")
    mask = os.umask(0)
    try:
        SPOILERS[how](directory)
    finally:
        os.umask(mask)
    done = _start(directory)
    assert done.returncode in (1, 5), done
    assert why in done.stderr
    assert _victim(directory).read_text(encoding="ascii") == "precious"
    tally.attack(f"files: {how}", 1, 0)


LINK = (
    "the helper cannot be used: Too many levels of symbolic links"
    if sys.platform == "linux"
    else "the helper is not a regular file"
)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("user", "the helper belongs to uid 1000, not to root"),
        ("writable", "the helper can be written by others than root"),
        ("link", LINK),
        ("fifo", "the helper is not a regular file"),
    ],
)
def test_a_helper_that_others_could_change_is_refused(
    how: str, why: str, tmp_path: Path, attacker: Path, tally: Tally
) -> None:
    assert attacker.exists()
    helper = tmp_path / "jailprobe"
    if how == "link":
        helper.symlink_to(HELPER)
    elif how == "fifo":
        os.mkfifo(helper)
    else:
        shutil.copy(HELPER, helper)
        if how == "user":
            os.chown(helper, 1000, 1000)
        else:
            helper.chmod(0o757)
    done = _start(tmp_path, helper=helper)
    assert (done.returncode, why in done.stderr) == (1, True), done
    tally.attack(f"helper: {how}", 1, 0)
