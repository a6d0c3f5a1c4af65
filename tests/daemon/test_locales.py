# SPDX-License-Identifier: BSD-2-Clause
"""Text in every locale: what leaves us is UTF-8, and what a terminal cannot show is escaped."""

import json
import os
import pty
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.conftest import need_root
from tests.daemon.product import JAILDAEMON, LONGEST_SECONDS, Daemon, short_directory, wait_until

MADE = {
    "en_US.ISO-8859-1": ("en_US", "ISO-8859-1"),
    "ja_JP.EUC-JP": ("ja_JP", "EUC-JP"),
    "zh_CN.GB18030": ("zh_CN", "GB18030"),
}
LOCALES = ["C", "C.UTF-8", *MADE]
TITLE = "Größe \u65e5\u672c \u2713 \u0a3c"
"""The last one is what GB18030 of Python and of the C library read differently in UTF-8."""
LONGER_THAN_80 = "echo \u65e5\u672c " + "x" * 80


@pytest.fixture(scope="module")
def places() -> Iterator[Path]:
    """Make the locales that a machine seldom has; gives their directory."""
    if shutil.which("localedef") is None or not Path("/usr/share/i18n/charmaps").is_dir():
        pytest.skip("localedef(1) and its character maps are missing: install locales")
    with tempfile.TemporaryDirectory(prefix="jd-locales.") as name:
        making = [
            subprocess.Popen(["localedef", "-i", language, "-f", charmap, f"{name}/{made}"])
            for made, (language, charmap) in MADE.items()
        ]
        for one in making:
            one.wait()  # 1 where it warned of something
        assert all(Path(name, made, "LC_CTYPE").exists() for made in MADE)
        yield Path(name)


def surroundings(places: Path, locale: str) -> dict[str, str]:
    """Return the environment of a locale."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith("LC_") and n != "PYTHONUTF8"}
    return {**kept, "LOCPATH": str(places), "LC_ALL": locale}


class Program:
    """The program in one locale; what it is given and what it says are bytes."""

    def __init__(self, daemon: Daemon, env: dict[str, str]) -> None:
        self._socket, self._env = daemon.socket, env

    def piped(self, *words: str | bytes, code: int = 0) -> bytes:
        """Run it with its output in a pipe; return that."""
        argv = [JAILDAEMON, *words, "-f", self._socket]
        done = subprocess.run(
            argv, env=self._env, capture_output=True, timeout=LONGEST_SECONDS, check=False
        )
        assert (done.returncode, done.stderr) == (code, b"")
        return done.stdout

    def shown(self, *words: str) -> bytes:
        """Run it in a terminal of 80 columns; return what that was sent."""
        ours, theirs = pty.openpty()
        env = {**self._env, "COLUMNS": "80"}
        with subprocess.Popen(
            [JAILDAEMON, *words, "-f", self._socket], env=env, stdout=theirs, stderr=theirs
        ) as process:
            os.close(theirs)
            sent = b""
            while True:
                try:
                    data = os.read(ours, 65536)
                except OSError:  # EIO: nobody has the other end
                    break
                if not data:
                    break
                sent += data
            os.close(ours)
            assert process.wait(LONGEST_SECONDS) == 0, sent
        return sent


@pytest.fixture(scope="module", params=LOCALES)
def spoken(request: pytest.FixtureRequest, places: Path) -> Iterator[tuple[Daemon, Program, str]]:
    """Give a daemon and a client, both in one locale."""
    need_root()
    env = surroundings(places, request.param)
    with short_directory() as directory:
        daemon = Daemon(directory, state=directory / "state", env=env)
        yield daemon, Program(daemon, env), request.param
        daemon.stop()


def cmdline(pid: int) -> bytes:
    """Return the arguments of a process."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0")


def test_titles_and_commands_are_utf_8_in_every_locale(
    spoken: tuple[Daemon, Program, str], jail: str
) -> None:
    daemon, program, _ = spoken
    # The last byte is in no UTF-8 text: it reaches the shell as it is.
    command = "printf %s \"$JAILDAEMON_TITLE|\u65e5\u672c|\"; printf '\xff' | od -An -tx1".encode()
    command = command.replace("\xff".encode(), b"\xff")
    program.piped("-c", command, "-j", jail, "-t", TITLE.encode(), "-r")
    (rule,) = daemon.call("List")["parameters"]["rules"]
    assert (rule["title"], rule["state"]) == (TITLE, "armed")
    assert cmdline(rule["probe_pid"]) == f"jaildaemon: {TITLE}".encode()
    program.piped("fire", TITLE.encode())

    def wrote() -> list[str]:
        lines = [json.loads(line) for line in program.piped("log", "--json").splitlines()]
        return [x["entry"]["output_tail"] for x in lines if "output_tail" in x["entry"]]

    wait_until(lambda: bool(wrote()), "its output is in the log")
    assert wrote() == [f"{TITLE}|\u65e5\u672c| ff\n"]
    assert daemon.status()["rules"] == 1
    program.piped("detach", f"{jail}/{TITLE}".encode())


def test_what_is_no_terminal_gets_utf_8_and_a_terminal_what_it_can_show(
    spoken: tuple[Daemon, Program, str], jail: str
) -> None:
    _, program, locale = spoken
    program.piped("-c", LONGER_THAN_80.encode(), "-j", jail, "-t", TITLE.encode(), "-r")
    encoding = "utf-8" if locale.startswith("C") else MADE[locale][1].lower()
    for words in (["list"], ["log"], ["explain", jail]):
        assert TITLE in program.piped(*words).decode()
        shown = program.shown(*words)
        assert b"Traceback" not in shown
        if words != ["list"]:  # which may have cut it
            assert TITLE.encode(encoding, "backslashreplace") in shown
    assert f'title="{TITLE}"' in program.piped("metrics").decode()
    program.piped("detach", "--all")


def test_a_path_is_the_bytes_that_were_given(
    places: Path, spoken: tuple[Daemon, Program, str]
) -> None:
    daemon, _, locale = spoken
    name = daemon.directory / "Größe"
    name.mkdir(exist_ok=True)
    words: list[str | bytes] = [str(JAILDAEMON), "metrics", "-o", bytes(name / "m.prom")]
    words += ["-f", str(daemon.socket)]
    done = subprocess.run(words, env=surroundings(places, locale), capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert os.listdir(bytes(name)) == [b"m.prom"]
