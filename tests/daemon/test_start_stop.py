# SPDX-License-Identifier: BSD-2-Clause
"""Starting and ending a real daemon: its files, its locks, and what is left of it."""

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jaildaemon.daemon import files
from jaildaemon.errors import Refused
from tests.contract.fake import FakeBackend
from tests.daemon.product import (
    JAILDAEMON,
    LONGEST_SECONDS,
    Client,
    Daemon,
    run,
    wait_ended,
    wait_until,
)


@contextlib.contextmanager
def background(directory: Path, *words: str | Path, **how: Any) -> Iterator[int]:
    """Start a daemon by -D; give its pid, and end it."""
    arguments = words or ("-f", directory / "pipe", "-p", directory / "pid")
    done = run("-D", *arguments, **how)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    pid = int((directory / "pid").read_text(encoding="ascii"))
    try:
        yield pid
    finally:
        ended = wait_ended(pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        ended()


def status(path: Path) -> dict[str, object]:
    """Ask a daemon for its counts."""
    client = Client(path)
    try:
        found: dict[str, object] = client.call("Status")["parameters"]
        return found
    finally:
        client.close()


# --- the files --------------------------------------------------------------------------


def test_when_the_parent_returns_the_daemon_answers(directory: Path) -> None:
    with background(directory) as pid:
        assert status(directory / "pipe")["pid"] == pid
        names = {
            name: stat.filemode(os.lstat(directory / name).st_mode) for name in listing(directory)
        }
        assert names == {"pid": "-rw-------", "pipe": "srw-------", "pipe.lock": "-rw-------"}
    assert listing(directory) == []


def listing(directory: Path) -> list[str]:
    """Return the names in a directory."""
    return sorted(os.listdir(directory))


def test_the_pidfile_is_locked_while_the_daemon_lives(daemon: Daemon) -> None:
    assert daemon.pidfile.read_text() == str(daemon.pid)
    with daemon.pidfile.open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_pidfile_that_nobody_locks_is_taken_whatever_it_says(directory: Path) -> None:
    (directory / "pid").write_text("99999999999 garbage\n" * 10)
    daemon = Daemon(directory)
    assert daemon.pidfile.read_text() == str(daemon.pid)
    daemon.stop()
    assert listing(directory) == []


def test_a_killed_daemons_files_are_in_nobodys_way(directory: Path) -> None:
    first = Daemon(directory)
    first.stop(signal.SIGKILL)
    assert listing(directory) == ["pid", "pipe", "pipe.lock"]
    assert run("-c", "true", "-j", "1", "-f", first.socket).returncode == 3
    second = Daemon(directory)
    assert second.status()["pid"] == second.pid
    second.stop()
    assert listing(directory) == []


def test_two_daemons_with_their_own_files_live_side_by_side(directory: Path) -> None:
    daemons = []
    for name in ("a", "b"):
        (directory / name).mkdir()
        daemons.append(Daemon(directory / name))
    assert [daemon.status()["pid"] for daemon in daemons] == [daemon.pid for daemon in daemons]
    for daemon in daemons:
        daemon.stop()


def test_paths_are_relative_to_where_the_daemon_was_started(directory: Path) -> None:
    with background(directory, "-f", "pipe", "-p", "pid", cwd=directory) as pid:
        assert status(directory / "pipe")["pid"] == pid
    assert listing(directory) == []


# --- locks and races --------------------------------------------------------------------


def test_a_start_while_another_holds_the_lock_is_refused(directory: Path) -> None:
    with (directory / "pipe.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = run("-D", "-f", directory / "pipe", "-p", directory / "pid")
    assert done.stderr == (
        f"jaildaemon: start: {directory}/pipe:"
        " jaildaemon is already running: a daemon that is just starting\n"
    )
    assert (done.returncode, listing(directory)) == (1, ["pipe.lock"])


def test_a_pidfile_that_was_locked_but_not_written_is_not_read(directory: Path) -> None:
    with (directory / "pid").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = run("-D", "-f", directory / "pipe", "-p", directory / "pid")
    assert done.stderr == (
        f"jaildaemon: start: {directory}/pid:"
        " jaildaemon is already running: a daemon that is just starting\n"
    )
    assert (done.returncode, listing(directory)) == (1, ["pid"])


def test_a_refused_start_has_not_touched_the_socket(directory: Path, daemon: Daemon) -> None:
    """The pidfile comes first: a stale socket stays for whoever may replace it."""
    stale = directory / "stale"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(stale))
    before = os.lstat(stale)
    done = run("-D", "-f", stale, "-p", daemon.pidfile)
    assert done.returncode == 1
    assert os.path.samestat(os.lstat(stale), before)


def test_a_socket_on_which_somebody_else_listens_is_not_taken(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(directory / "pipe"))
        other.listen()
        daemon = subprocess.Popen(
            [JAILDAEMON, "-D", "-f", directory / "pipe", "-p", directory / "pid"],
            stderr=subprocess.PIPE,
            text=True,
        )
        accepted, _ = other.accept()
        assert b"org.varlink.service.GetInfo" in accepted.recv(4096)
        accepted.close()
        _, told = daemon.communicate(timeout=LONGEST_SECONDS)
    assert told == (
        f"jaildaemon: start: {directory}/pipe:"
        f" jaildaemon is already running: pid {os.getpid()}, which does not answer\n"
    )
    assert daemon.returncode == 1
    assert listing(directory) == ["pipe"]


def test_who_listens_and_does_not_answer_is_alive_too(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "ANSWER_SECONDS", 0.05)
    path, backend = str(directory / "pipe"), FakeBackend()
    told = rf"^start: {path}: jaildaemon is already running: "
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(socket.socket(socket.AF_UNIX))
        other.bind(path)
        other.listen(1)
        control = files.ControlSocket(path, backend)
        with pytest.raises(Refused, match=told + rf"pid {os.getpid()}, which does not answer$"):
            control.bind()
        full = False
        while not full:
            waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
            waiting.setblocking(False)
            full = waiting.connect_ex(path) != 0
        if sys.platform == "linux":  # elsewhere a full queue refuses, as a dead one does
            with pytest.raises(Refused, match=told + "something that does not answer$"):
                control.bind()
        control.remove()
    assert listing(directory) == ["pipe"]


def test_a_pidfile_removed_under_us_may_be_anothers_and_is_left_alone(directory: Path) -> None:
    first = Daemon(directory)
    first.pidfile.unlink()
    other = directory / "other"
    other.mkdir()
    words = [str(w) for w in ("-F", "-f", other / "pipe", "-p", first.pidfile)]
    second = subprocess.Popen([JAILDAEMON, "-D", *words], stderr=subprocess.PIPE)
    assert second.stderr is not None
    assert b" serves " in second.stderr.readline()
    first.stop()
    assert first.pidfile.read_text() == str(second.pid)
    second.terminate()
    second.communicate(timeout=LONGEST_SECONDS)
    assert listing(directory) == ["other"]


@pytest.mark.parametrize("name", ["pid", "pipe", "pipe.lock"])
@pytest.mark.parametrize("instead", [None, "a file", "a directory"])
def test_what_was_put_in_the_place_of_our_files_is_left_alone(
    directory: Path, name: str, instead: str | None
) -> None:
    daemon = Daemon(directory)
    (directory / name).unlink()
    if instead == "a file":
        (directory / name).write_text("precious")
    elif instead == "a directory":
        (directory / name).mkdir()
    daemon.stop()
    assert daemon.process.returncode == 0
    assert daemon.lines.seen[-1] == "jaildaemon: ended"
    assert listing(directory) == ([name] if instead else [])


def test_a_directory_that_is_gone_at_the_end_is_no_failure(directory: Path) -> None:
    (directory / "sub").mkdir()
    daemon = Daemon(directory / "sub")
    (directory / "sub").rename(directory / "moved")
    daemon.stop()
    assert (daemon.process.returncode, daemon.lines.seen[-1]) == (0, "jaildaemon: ended")


LEAVE_A_HIGH_ONE = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (400, 4000))
os.dup2(2, 300, inheritable=True)
resource.setrlimit(resource.RLIMIT_NOFILE, (200, 4000))
os.execvp(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux: looks into /proc")
def test_what_the_parent_left_open_is_closed_above_the_limit_too(directory: Path) -> None:
    daemon = Daemon(directory, before=(sys.executable, "-c", LEAVE_A_HIGH_ONE))
    assert "300" not in daemon.descriptors()
    daemon.stop()


def signal_at_listen(name: str) -> tuple[str, ...]:
    """Return words by which a daemon gets a signal while it starts."""
    strace = shutil.which("strace")
    if strace is None:
        why = "strace is missing; install the package strace"
        pytest.skip(why if sys.platform == "linux" else "cannot: strace is Linux's")
    return (strace, "-f", "-qq", "-o", os.devnull, "-e", f"inject=listen:signal={name}", "--")


def test_told_to_reload_while_it_starts_it_goes_on(directory: Path) -> None:
    daemon = Daemon(directory, before=signal_at_listen("HUP"))
    daemon.lines.wait_for("reloaded: ")
    daemon.stop()
    assert daemon.process.returncode == 0


def test_a_daemon_killed_before_it_answers_is_no_success(directory: Path) -> None:
    words = signal_at_listen("KILL")
    done = run("-D", "-f", directory / "pipe", "-p", directory / "pid", before=words)
    told = f"start: {directory}/pipe: the daemon ended before it answered"
    assert (done.returncode, done.stderr) == (1, f"jaildaemon: {told}\n")
    # What it left is in nobody's way.
    daemon = Daemon(directory)
    daemon.stop()
    assert listing(directory) == []


# --- signals ----------------------------------------------------------------------------


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_by_term_and_int_and_says_so(daemon: Daemon, signum: int) -> None:
    assert daemon.stop(signum)[1:] == [
        "jaildaemon: ending: no new rules, withdrawing the probes",
        "jaildaemon: ended",
    ]
    assert daemon.process.returncode == 0
    assert listing(daemon.directory) == []


def test_hup_does_not_end_it(daemon: Daemon) -> None:
    for _ in range(3):
        os.kill(daemon.pid, signal.SIGHUP)
        assert daemon.lines.next() == "jaildaemon: reloaded: 0 added, 0 removed, 0 kept"
    assert daemon.status()["pid"] == daemon.pid


def test_usr1_logs_the_counts(daemon: Daemon, jail: str) -> None:
    assert run("-c", "true", "-j", jail, "-f", daemon.socket).returncode == 0
    os.kill(daemon.pid, signal.SIGUSR1)
    line = daemon.lines.wait_for("status")
    assert line == (
        "jaildaemon: status: 1 rules, 1 probes, 0 running, 0 queued, 0 triggers, 0 refused"
    )


def test_nothing_is_left_of_it_in_the_jail(daemon: Daemon, jail: str) -> None:
    for title in ("A", "B"):
        done = run("-c", "true", "-j", jail, "-t", title, "-f", daemon.socket)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    rules = daemon.call("List")["parameters"]["rules"]
    probes = [wait_ended(rule["probe_pid"]) for rule in rules]
    assert len(probes) == 2
    daemon.stop()
    for ended in probes:
        ended()
    assert listing(daemon.directory) == []


def test_killed_it_takes_its_probes_along(daemon: Daemon, jail: str) -> None:
    assert run("-c", "true", "-j", jail, "-f", daemon.socket).returncode == 0
    (rule,) = daemon.call("List")["parameters"]["rules"]
    ended = wait_ended(rule["probe_pid"])
    daemon.stop(signal.SIGKILL)
    ended()


def test_a_command_goes_on_when_the_daemon_ends(daemon: Daemon, jail: str, directory: Path) -> None:
    for name in ("told", "go"):
        os.mkfifo(directory / name)
    told = os.open(directory / "told", os.O_RDWR)
    go = os.open(directory / "go", os.O_RDWR)
    command = f"echo began > {directory}/told; read x < {directory}/go; echo $x > {directory}/told"
    assert run("-c", command, "-j", jail, "-f", daemon.socket).returncode == 0
    (rule,) = daemon.call("List")["parameters"]["rules"]
    os.kill(rule["probe_pid"], signal.SIGHUP)
    assert os.read(told, 16) == b"began\n"
    wait_until(lambda: daemon.status()["running"] == 1, "the run is counted")
    daemon.stop()
    os.write(go, b"went on\n")
    assert os.read(told, 16) == b"went on\n"
    os.close(told)
    os.close(go)
