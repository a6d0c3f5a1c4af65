# SPDX-License-Identifier: BSD-2-Clause
"""A daemon started by a careless parent: what it inherits harms neither it nor a command."""

import contextlib
import os
import resource
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.product import (
    JAILDAEMON,
    LONGEST_SECONDS,
    Client,
    Daemon,
    Lines,
    run,
    wait_ended,
    wait_until,
)

LINUX = sys.platform == "linux"


class Bell:
    """A rule whose command says something through a FIFO."""

    def __init__(self, daemon: Daemon, jail: str, command: str, *options: str) -> None:
        self._daemon = daemon
        path = daemon.directory / "fifo"
        os.mkfifo(path)
        self._fd = os.open(path, os.O_RDWR)
        whole = f"exec > {shlex.quote(str(path))}; {command}; echo END"
        done = run("-c", whole, "-j", jail, *options, "-f", daemon.socket)
        assert (done.returncode, done.stderr) == (0, "")

    def signal(self, which: int = 0) -> None:
        """Signal the probe, of the only rule or of the one at `which`."""
        rule = self._daemon.call("List")["parameters"]["rules"][which]
        os.kill(rule["probe_pid"], signal.SIGHUP)

    def hear(self) -> list[str]:
        """Return what the command said."""
        lines = Lines(self._fd)
        lines.wait_for("END")
        return lines.seen[:-1]

    def close(self) -> None:
        """Close the FIFO."""
        os.close(self._fd)


@contextlib.contextmanager
def bell(
    directory: Path, jail: str, command: str, *options: str, **how: object
) -> Iterator[tuple[Daemon, list[str]]]:
    """Start a daemon somehow, and ring; give what the command said."""
    daemon = Daemon(directory, **how)  # type: ignore[arg-type]
    try:
        rule = Bell(daemon, jail, command, *options)
        rule.signal()
        yield daemon, rule.hear()
        rule.close()
    finally:
        daemon.stop()


def sh(script: str) -> tuple[str, ...]:
    """Return words that run a command after some sh(1) has made its surroundings."""
    return ("sh", "-c", f'{script}; exec "$@"', "sh")


# --- signals ----------------------------------------------------------------------------


def block_and_ignore() -> None:
    """Be started by one who ignores and blocks whatever can be."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError):
            signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


@pytest.mark.parametrize(
    "how",
    [{"before": ("nohup",)}, {"before": sh("trap '' HUP CHLD")}, {"preexec_fn": block_and_ignore}],
    ids=["nohup", "ignored", "everything"],
)
def test_signals_that_a_parent_ignored_or_blocked_work_again(
    directory: Path, jail: str, how: dict[str, object]
) -> None:
    # The child is the command's: what it does not undo, the command has not either.
    command = "sh -c 'kill -HUP $$; echo ignored'; echo $?; sh -c 'kill -PIPE $$; echo ignored'"
    with bell(directory, jail, command, **how) as (daemon, said):
        assert said == ["129"]
        assert daemon.lines.wait_for("ended: exit 0")
    assert daemon.lines.seen[-1] == "jaildaemon: ended"
    assert daemon.process.returncode == 0


# --- descriptors ------------------------------------------------------------------------


def test_what_a_parent_left_open_is_closed_in_the_daemon(directory: Path) -> None:
    ends = os.pipe()
    words = ["-D", "-f", str(directory / "pipe"), "-p", str(directory / "pid")]
    done = subprocess.run([JAILDAEMON, *words], pass_fds=ends[1:], check=False)
    assert done.returncode == 0
    os.close(ends[1])
    # The daemon lives, and nobody has the other end any more.
    assert os.read(ends[0], 1) == b""
    os.close(ends[0])
    end_background(directory)


def end_background(directory: Path) -> None:
    """End what -D has started."""
    pid = int((directory / "pid").read_text(encoding="ascii"))
    ended = wait_ended(pid)
    os.kill(pid, signal.SIGTERM)
    ended()
    assert os.listdir(directory) == []


@pytest.mark.skipif(not LINUX, reason="cannot: looks into /proc")
def test_a_command_has_three_descriptors_and_no_more(directory: Path, jail: str) -> None:
    read_fd, write_fd = os.pipe()
    command = "exec 3>&1 >/dev/null; readlink /proc/$$/fd/* >&3; exec >&3"
    with bell(directory, jail, command, pass_fds=(read_fd, write_fd)) as (daemon, said):
        os.close(read_fd)
        os.close(write_fd)
        # 3 is the FIFO of the test itself, 2 the pipe to the reader of its output;
        # the ends of the pipe that was left open are gone.
        assert len([line for line in said if line.startswith("pipe:")]) == 1
        assert "/dev/null" in said
        # The daemon lets go of the pipe when the reader of the output has said that it has it;
        # the one that is left is the daemon's own stderr.
        wait_until(
            lambda: (
                len({fd for fd in daemon.descriptors().values() if fd.startswith("pipe:")}) <= 1
            ),
            "the reader has the pipe",
        )


def test_a_daemon_without_stdin_stdout_and_stderr_serves(directory: Path) -> None:
    words = ("-D", "-f", directory / "pipe", "-p", directory / "pid")
    closed = subprocess.run(
        [*sh("exec <&- >&- 2>&-"), JAILDAEMON, *words], check=False, timeout=LONGEST_SECONDS
    )
    assert closed.returncode == 0
    client = Client(directory / "pipe")
    assert client.call("Status")["parameters"]["rules"] == 0
    client.close()
    end_background(directory)


def written(path: Path) -> bool:
    """Say whether a file has something in it: without stderr nothing else tells."""
    return path.exists() and path.read_text(encoding="ascii") != ""


def test_in_the_foreground_without_stderr_it_serves(directory: Path, jail: str) -> None:
    words = [str(w) for w in ("-D", "-F", "-f", directory / "pipe", "-p", directory / "pid")]
    process = subprocess.Popen([*sh("exec <&- >&- 2>&-"), JAILDAEMON, *words])
    ended = wait_ended(process.pid)
    wait_until(lambda: written(directory / "pid"), "it wrote its pidfile")
    done = run("-c", "true", "-j", jail, "-f", directory / "pipe")
    assert (done.returncode, done.stderr) == (0, "")
    process.terminate()
    ended()
    assert process.wait() == 0
    assert os.listdir(directory) == []


def test_errors_without_stderr_keep_their_exit_code(directory: Path) -> None:
    for words, code in ((["-x"], 2), (["-c", "true", "-j", "1", "-f", directory / "none"], 3)):
        done = subprocess.run([*sh("exec <&- >&- 2>&-"), JAILDAEMON, *words], check=False)
        assert done.returncode == code


# --- environment ------------------------------------------------------------------------

POISON = {
    "PATH": os.environ["PATH"],
    # FreeBSD starts nothing with a library that is not there.
    "LD_PRELOAD": "/nonexistent/evil.so" if LINUX else "/lib/libm.so.5",
    "LD_LIBRARY_PATH": "/nonexistent",
    "BASH_ENV": "/nonexistent/evil.sh",
    "ENV": "/nonexistent/evil.sh",
    "PYTHONPATH": "/nonexistent",
    "IFS": "x",
    "HOME": "/nonexistent",
    "LANG": "de_DE.UTF-8",
    "SHELLOPTS": "xtrace",
    "SECRET": "of the parent",
    "JAILDAEMON_RULE": "forged",
    "JAILDAEMON_EVIL": "forged",
}
ADDED_BY_SH = {"PWD", "OLDPWD", "SHLVL", "_"}


def test_a_commands_environment_is_made_from_nothing(directory: Path, jail: str) -> None:
    options = ("-t", "BELL; $(evil) `evil`")
    with bell(directory, jail, "env", *options, env=POISON) as (_, said):
        found = dict(line.split("=", 1) for line in said)
    run_id = found.pop("JAILDAEMON_RUN")
    assert run_id.endswith(".1")
    assert {name: found[name] for name in found if name not in ADDED_BY_SH} == {
        "PATH": "/sbin:/bin:/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin",
        "HOME": os.path.expanduser("~root"),
        "LANG": "C.UTF-8",
        "JAILDAEMON_JID": jail,
        "JAILDAEMON_JAIL": jail,
        "JAILDAEMON_TITLE": "BELL; $(evil) `evil`",
        "JAILDAEMON_RULE": "t1",
    }


def lower_limits() -> None:
    """Be started with few descriptors allowed, though more could be."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 4000))
    os.umask(0o077)
    os.chdir("/tmp")
    os.nice(0)


def test_a_command_gets_the_daemons_old_limits_and_a_fixed_place(
    directory: Path, jail: str
) -> None:
    daemon = Daemon(directory, preexec_fn=lower_limits)
    rule = Bell(daemon, jail, "ulimit -Sn; ulimit -Hn; umask; pwd")
    rule.signal()
    assert rule.hear() == ["40", "4000", "0022", "/"]
    rule.close()
    daemon.stop()


def test_a_commands_limit_is_the_first_one_however_many_files_the_daemon_has(
    directory: Path, jail: str
) -> None:
    daemon = Daemon(directory, preexec_fn=lower_limits)
    for number in range(50):  # on Linux a descriptor each
        daemon.call("Attach", command="true", jail=jail, title=f"T{number}")
    rule = Bell(daemon, jail, "ulimit -Sn; ulimit -Hn", "-r", "-t", "BELL")
    rule.signal(-1)
    assert rule.hear() == ["40", "4000"]
    daemon.lines.wait_for(" ended: exit 0")
    daemon.lines.wait_for(" armed in jail ")
    daemon.call("Restart")  # the program that follows has not seen the start
    daemon.lines.wait_for(" serves ")
    rule.signal(-1)
    assert rule.hear() == ["40", "4000"]
    rule.close()
    daemon.stop()


def test_a_command_leads_a_session_of_its_own_and_has_no_terminal(
    directory: Path, jail: str
) -> None:
    # A small Linux has no ps(1).
    look = "cut -d ' ' -f 1,5,6 /proc/$$/stat" if LINUX else "ps -o pid,pgid,sid -p $$ | tail -1"
    with bell(directory, jail, f"echo $$; {look}") as (_, said):
        pid, columns = said[0], said[1].split()
        assert columns[:2] == [pid, pid]
        if LINUX:
            assert columns[2] == pid
