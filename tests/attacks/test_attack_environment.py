# SPDX-License-Identifier: BSD-2-Clause
"""Attacks 8 and 29: what the daemon was started with, its environment and its terminal."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attacks.rig import HERE, SECRET, Daemon, build
from tests.attacks.tally import Tally
from tests.kernel.processes import environment

LINUX = sys.platform == "linux"
SHOW = "tr '\\0' '\\n' </proc/$$/environ" if LINUX else "procstat -h -e $$ | tr ' ' '\\n'"
TERMINAL = "cut -d' ' -f7 /proc/$$/stat" if LINUX else "ps -o tty= -p $$"
GROUP = "cut -d' ' -f5 /proc/$$/stat" if LINUX else "ps -o pgid= -p $$"
NO_TERMINAL = "0" if LINUX else "-"
FILES = "ls /proc/$$/fd" if LINUX else "procstat -h -f $$ | awk '{print $3}'"


def _poison(directory: Path) -> dict[str, str]:
    """Return an environment of which nothing may be seen again."""
    library = build(directory / "poison.so", "-shared", "-fPIC", HERE / "poison.c")
    touch = f"touch {directory}/touched"
    script = directory / "script"
    script.write_text(f"{touch}\n", encoding="ascii")
    return {
        "LD_PRELOAD": str(library),
        "POISON_TOLD": str(directory / "loaded"),
        "LD_LIBRARY_PATH": "/nonexistent",
        "LD_AUDIT": "/nonexistent/audit.so",
        "PYTHONPATH": "/nonexistent/python",
        "PYTHONSTARTUP": "/nonexistent/startup.py",
        "PYTHONINSPECT": "",
        "BASH_ENV": str(script),
        "ENV": str(script),
        "SHELLOPTS": "xtrace",
        "PS4": f"$({touch})",
        "IFS": "x",
        "PATH": f"/nonexistent/bin:{os.environ['PATH']}",
        "BASH_FUNC_true%%": f"() {{ {touch}; }}",
        "BASH_FUNC_echo%%": f"() {{ {touch}; }}",
        "GCONV_PATH": "/nonexistent",
        "LOCPATH": "/nonexistent",
        "NLSPATH": "/nonexistent",
        "TMPDIR": "/nonexistent",
        "HOME": "/nonexistent",
        "LANG": "xx_XX",
        "LC_ALL": "C.UTF-8",
        "SECRET": SECRET,
    }


def test_nothing_of_the_daemons_environment_reaches_the_command_or_the_probe(
    jail: int, tmp_path: Path, tally: Tally
) -> None:
    poison = _poison(tmp_path)
    touched, loaded = tmp_path / "touched", tmp_path / "loaded"
    naive = subprocess.run(
        [shutil.which("bash") or "/bin/sh", "-c", f"true; {SHOW}"],
        env=poison,
        capture_output=True,
        text=True,
        check=True,
    )
    had = {line.partition("=")[0] for line in naive.stdout.splitlines()} & {*poison}
    assert SECRET in naive.stdout
    assert had >= {"BASH_ENV", "LD_PRELOAD", "PYTHONPATH"}
    assert "sh" in loaded.read_text(encoding="ascii")
    assert touched.exists() or shutil.which("bash") is None
    tally.control("poisoned environment", len(had))
    touched.unlink(missing_ok=True)
    loaded.unlink()

    told = tmp_path / "told"
    os.mkfifo(told)
    told_fd = os.open(told, os.O_RDWR)
    daemon = Daemon(tmp_path, environment=poison)
    try:
        pid = daemon.attach(jail, "BELL", command=f"true; {{ {SHOW}; }} >{told}")
        assert environment(pid) == {}
        os.kill(pid, signal.SIGHUP)
        daemon.wait_log("run .* ended: exit 0")
        lines = [line for line in os.read(told_fd, 65536).decode().splitlines() if "=" in line]
    finally:
        daemon.close()
        os.close(told_fd)
    names = {line.partition("=")[0] for line in lines}
    ours = {f"JAILDAEMON_{name}" for name in ("JID", "JAIL", "TITLE", "RULE", "RUN")}
    assert names == {"PATH", "HOME", "LANG"} | ours
    values = dict(line.partition("=")[::2] for line in lines)
    assert values["PATH"] == "/sbin:/bin:/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"
    leaked = [line for line in lines if "nonexistent" in line or SECRET in line]
    # The daemon itself is root's to start as he likes: Python was loaded with it, and only that.
    programs = {Path(name).name for name in loaded.read_text(encoding="ascii").split()}
    leaked += [name for name in programs if not name.startswith("python")]
    leaked += ["touched"] * touched.exists()
    tally.attack("poisoned environment", 2 * len(poison), len(leaked), str(leaked))


@pytest.fixture
def on_terminal() -> Iterator[list[str]]:
    """Give what starts a program on a terminal of its own."""
    master, slave = os.openpty()
    script = (
        "import fcntl, os, sys, termios; os.setsid(); fd = os.open(sys.argv[1], os.O_RDWR);"
        "fcntl.ioctl(fd, termios.TIOCSCTTY, 0); os.execvp(sys.argv[2], sys.argv[2:])"
    )
    yield [sys.executable, "-c", script, os.ttyname(slave)]
    os.close(slave)
    os.close(master)


def _terminal(pid: int) -> str:
    command = ["/bin/sh", "-c", TERMINAL.replace("$$", str(pid))]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_the_daemon_gives_a_command_no_terminal_and_no_descriptor(
    jail: int, on_terminal: list[str], tmp_path: Path, tally: Tally
) -> None:
    """TIOCSTI: neither probe nor command has a controlling terminal, whatever the daemon has."""
    naive = [*on_terminal, "/bin/sh", "-c", TERMINAL]
    shown = subprocess.run(naive, capture_output=True, text=True, check=True).stdout.strip()
    tally.control("terminal", shown != NO_TERMINAL, shown)
    daemon = Daemon(tmp_path, wrap=on_terminal)
    told = tmp_path / "told"
    os.mkfifo(told)
    told_fd = os.open(told, os.O_RDWR)
    try:
        assert _terminal(daemon.pid) != NO_TERMINAL
        command = f"{{ {TERMINAL}; {GROUP}; echo $$; {FILES}; }} >{told}"
        pid = daemon.attach(jail, "BELL", command=command)
        theirs = _terminal(pid)
        # Its helper began them: alone in both, for that has ended.
        assert os.getsid(pid) == os.getpgid(pid) != os.getsid(daemon.pid)
        os.kill(pid, signal.SIGHUP)
        daemon.wait_log("run .* ended: exit 0")
        terminal, group, shell, *descriptors = os.read(told_fd, 65536).decode().split()
    finally:
        daemon.close()
        os.close(told_fd)
    assert group == shell
    leaked = {*descriptors} - {"0", "1", "2", "10", "text", "cwd", "root", "ctty"}
    wins = (terminal != NO_TERMINAL) + (theirs != NO_TERMINAL) + len(leaked)
    tally.attack("terminal", 2, wins, f"{terminal} {theirs} {descriptors}")
