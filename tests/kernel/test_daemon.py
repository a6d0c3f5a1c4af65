# SPDX-License-Identifier: BSD-2-Clause
"""-D: how a daemon starts, beside what it refuses to start, and what it leaves behind."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernel.conftest import skip_or_fail
from tests.kernel.events import Bell, Gate, wait_gone
from tests.kernel.jails.base import Jail
from tests.kernel.jails.linux import mount_namespace
from tests.kernel.place import Place
from tests.kernel.processes import ignored_signals, look, open_files
from tests.kernel.product import (
    DEFAULT_PIDFILE,
    DEFAULT_SOCKET,
    JAILDAEMON,
    Daemon,
    background,
    foreground,
    is_locked,
    pids_in,
    read_pid,
    run,
)

ROUNDS = 5


@pytest.mark.manpage("D-test-command")
def test_a_second_daemon_at_the_same_socket_is_refused_with_the_running_pid(daemon: Daemon) -> None:
    other = str(daemon.directory / "other.pid")
    for options in (("-D",), ("-D", "-F")):
        done = run(*options, "-p", other, "-f", str(daemon.socket))
        assert done.returncode == 1
        assert pids_in(done.stderr) == {daemon.process.pid}
        assert str(daemon.socket) in done.stderr
        assert not Path(other).exists()
    assert daemon.rules() == []  # it has not been disturbed


@pytest.mark.manpage("p-pidfile")
def test_a_second_daemon_with_the_same_pidfile_is_refused_with_the_running_pid(
    daemon: Daemon,
) -> None:
    other = daemon.directory / "other.pipe"
    done = run("-D", "-p", str(daemon.pidfile), "-f", str(other))
    assert done.returncode == 1
    assert pids_in(done.stderr) == {daemon.process.pid}
    assert str(daemon.pidfile) in done.stderr
    assert not other.exists()
    assert read_pid(daemon.pidfile) == daemon.process.pid
    assert daemon.rules() == []


def test_the_stale_socket_of_a_killed_daemon_is_replaced(
    place: Place, directory: Path, jail: Jail, bell: Bell
) -> None:
    with foreground(place, directory) as killed:
        killed.end(signal.SIGKILL)
        assert killed.socket.is_socket()
    with foreground(place, directory) as daemon:
        daemon.arm(bell.command(), jail, "Stale")
        jail.ring("Stale")
        assert bell.wait() == "rang"


def test_a_socket_at_which_nobody_listens_is_replaced_and_a_file_is_not(
    place: Place, directory: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as nobody:
        nobody.bind(str(directory / "pipe"))
    with foreground(place, directory) as daemon:
        assert daemon.rules() == []
        daemon.end()
    (directory / "pipe").write_text("mine", encoding="ascii")
    done = run("-D", "-p", str(directory / "pid"), "-f", str(directory / "pipe"))
    assert done.returncode == 1
    assert str(directory / "pipe") in done.stderr
    assert (directory / "pipe").read_text(encoding="ascii") == "mine"


def test_a_socket_that_cannot_be_is_named_in_the_error(directory: Path) -> None:
    for path in ("/nonexistent/directory/pipe", f"{directory}/{'x' * 120}", str(directory)):
        for options in (("-D",), ("-D", "-F")):
            done = run(*options, "-p", str(directory / "pid"), "-f", path)
            assert done.returncode == 1
            assert path in done.stderr
    assert os.listdir(directory) == []


@pytest.mark.manpage("synopsis-D", "f-alternative")
def test_two_daemons_with_their_own_files_live_side_by_side(
    place: Place, daemon: Daemon, jail: Jail, bell: Bell
) -> None:
    with foreground(place, daemon.directory, name="2") as second:
        daemon.arm(bell.command("first"), jail, "First")
        second.arm(bell.command("second"), jail, "Second")
        assert (daemon.titles(), second.titles()) == ({"First"}, {"Second"})
        assert look(daemon.probe("First")).parent == daemon.process.pid
        assert look(second.probe("Second")).parent == second.process.pid
        jail.ring("Second")
        assert bell.wait() == "second"
        assert second.end() == 0
    jail.ring("First")
    assert bell.wait() == "first"


@pytest.mark.manpage("p-pidfile")
def test_the_pidfile_holds_the_pid_is_locked_and_goes_with_the_daemon(
    place: Place, directory: Path
) -> None:
    with foreground(place, directory) as daemon:
        assert daemon.pidfile.read_bytes().decode().strip() == str(daemon.process.pid)
        assert is_locked(daemon.pidfile)
        assert daemon.end() == 0
        assert not daemon.pidfile.exists()
    with background(place, directory) as behind:
        assert is_locked(behind.pidfile)
        # pidfile(3): what an earlier daemon left is written over, not added to.
        behind.end(signal.SIGKILL)
        behind.pidfile.write_text("12345678901234567890", encoding="ascii")
    with background(place, directory) as behind:
        assert behind.pidfile.read_bytes().decode().strip() == str(behind.pid)


@pytest.mark.manpage("D-daemon-mode")
def test_start_in_the_background_returns_when_the_utility_works(
    place: Place, directory: Path, jail: Jail, bell: Bell
) -> None:
    for number in range(ROUNDS):
        with background(place, directory) as daemon:
            daemon.arm(bell.command(f"round {number}"), jail, "Now")
            assert (daemon.started.stdout, daemon.started.stderr) == ("", "")
            jail.ring("Now")
            assert bell.wait() == f"round {number}"


@pytest.mark.manpage("D-daemon-mode")
def test_the_background_daemon_keeps_nothing_of_the_terminal_it_was_started_from(
    place: Place, directory: Path
) -> None:
    with background(place, directory) as daemon:
        seen = look(daemon.pid)
        assert seen.session == daemon.pid
        # run() has already read its pipes to their ends: nobody holds them.
        assert daemon.rules() == []


def test_a_daemon_whose_parent_ignores_signals_works_as_any_other(
    place: Place, directory: Path, jail: Jail, bell: Bell, gate: Gate
) -> None:
    careless = ["sh", "-c", 'trap "" HUP INT QUIT TERM PIPE USR1; exec "$@"', "sh"]
    with foreground(place, directory, prefix=careless) as daemon:
        daemon.arm(f"{bell.command('$$')}; {gate.command}", jail, "Nohup")
        jail.ring("Nohup")
        assert ignored_signals(int(bell.wait())) == set()
        gate.open()
        daemon.wait_rule_gone("Nohup")
        assert daemon.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_the_end_leaves_no_probe_no_socket_no_pidfile_and_no_lock(
    place: Place, directory: Path, jail: Jail, bell: Bell, number: signal.Signals
) -> None:
    files = set(os.listdir(directory))
    with foreground(place, directory) as daemon:
        for title, option in (("One", ()), ("Two", ("-r",)), ("Three", ("-R",))):
            daemon.arm(bell.command(), jail, title, *option)
        probes = [daemon.probe(title) for title in daemon.titles()]
        assert daemon.end(number) == 0
        for pid in probes:
            wait_gone(pid)
    assert set(os.listdir(directory)) == files
    assert [args for args in jail.ps().values() if "jaildaemon" in args] == []
    assert bell.lines() == []


def test_the_end_of_a_background_daemon_leaves_nothing_either(
    place: Place, directory: Path, jail: Jail, bell: Bell
) -> None:
    files = set(os.listdir(directory))
    with background(place, directory) as daemon:
        daemon.arm(bell.command(), jail, "Behind", "-r")
        probe = daemon.probe("Behind")
        daemon.end()
        wait_gone(probe)
    assert set(os.listdir(directory)) == files
    assert bell.lines() == []


def test_a_running_command_goes_on_when_the_daemon_ends(
    place: Place, directory: Path, jail: Jail, bell: Bell, gate: Gate
) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with foreground(place, directory) as daemon:
            command = f"{bell.command('$$')}; {gate.command}; {bell.command('done')}"
            daemon.arm(command, jail, "Long")
            jail.ring("Long")
            pid = int(bell.wait())
            daemon.end(number)
            gate.open()
            assert bell.wait() == "done"
            wait_gone(pid)


def test_no_probe_outlives_a_killed_daemon_and_nothing_is_triggered(
    place: Place, directory: Path, jail: Jail, bell: Bell
) -> None:
    with foreground(place, directory) as killed:
        for title in ("One", "Two", "Three"):
            killed.arm(bell.command(), jail, title, "-r", "-u", "7")
        probes = [killed.probe(title) for title in killed.titles()]
        killed.end(signal.SIGKILL)
        for pid in probes:
            wait_gone(pid)
        assert [args for args in jail.ps().values() if "jaildaemon" in args] == []
    with foreground(place, directory, name="2") as daemon:
        daemon.arm(bell.command("the new one's"), jail, "New")
        jail.ring("New")
        assert bell.wait() == "the new one's"
        assert bell.lines() == []


def test_the_daemon_gives_no_probe_any_of_its_descriptors(daemon: Daemon, jail: Jail) -> None:
    for title in ("One", "Two"):
        daemon.arm("true", jail, title)
    assert [open_files(daemon.probe(title)) for title in ("One", "Two")] == [[], []]


@pytest.mark.manpage("f-default")
def test_the_default_socket_and_pidfile_are_the_man_pages(
    place: Place, jail: Jail, bell: Bell
) -> None:
    # On Linux in a /run of our own, so that a daemon of the machine's is not in the way.
    script = f"""
    set -e
    "$1" -D
    "$1" -c "$2" -j "$3" -t Default
    test -S {DEFAULT_SOCKET}
    cat {DEFAULT_PIDFILE}
    """
    private: list[str] = []
    if sys.platform == "linux":
        private = mount_namespace('mount -t tmpfs tmpfs "$(realpath /var/run)"')
    elif Path(DEFAULT_SOCKET).exists():
        skip_or_fail(f"a daemon of this machine's own is at {DEFAULT_SOCKET}")
    done = subprocess.run(
        [*private, "sh", "-c", script, "sh", JAILDAEMON, bell.command(), jail.name],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pid = int(done.stdout)
    place.note_process(pid)
    try:
        jail.ring("Default")
        assert bell.wait() == "rang"
    finally:
        os.kill(pid, signal.SIGTERM)
        wait_gone(pid)
