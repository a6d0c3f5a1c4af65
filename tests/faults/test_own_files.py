# SPDX-License-Identifier: BSD-2-Clause
"""Journal, socket, lock, pidfile and state directory are removed or replaced while it runs."""

import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jaildaemon.errors import NoDaemon
from tests.faults.test_restart import restart
from tests.faults.world import JAILDAEMON, Daemon, World


def run(*words: object) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    line = [*JAILDAEMON, *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def warnings(daemon: Daemon) -> list[str]:
    """Return those of Status that are of our files."""
    found: list[str] = daemon.call("Status")["warnings"]
    return [warning for warning in found if "limit" not in warning or "anew" in warning]


def hang_up(daemon: Daemon) -> None:
    """Send SIGHUP, and wait until it has been taken."""
    os.kill(daemon.pid, signal.SIGHUP)
    daemon.wait("reloaded: ")


# --- the journal -----------------------------------------------------------------------------


def rotate(path: Path) -> None:
    """As logrotate does with `create`."""
    path.rename(f"{path}.1")
    path.touch(0o600)


def truncate(path: Path) -> None:
    """As logrotate does with `copytruncate`."""
    shutil.copy(path, f"{path}.copy")
    os.truncate(path, 0)


def restore(path: Path) -> None:
    """Put a backup in its place."""
    old = path.with_name("backup")
    old.write_text("", encoding="ascii")
    old.replace(path)


def remove_all(path: Path) -> None:
    """Remove the whole directory."""
    shutil.rmtree(path.parent)


def move_all(path: Path) -> None:
    """Move the whole directory away, and make an empty one."""
    path.parent.rename(path.parent.with_name("elsewhere"))
    path.parent.mkdir(0o700)


HOW: dict[Callable[[Path], None], str] = {
    Path.unlink: "was moved or removed",
    remove_all: "was moved or removed",
    move_all: "was moved or removed",
    rotate: "was replaced",
    restore: "was replaced",
    truncate: "was cut short",
}


@pytest.fixture
def rules(world: World, daemon: Daemon) -> dict[str, str]:
    """Three rules: one held, one whose limit is used up, one that may ring."""
    jail = world.jail()
    found = {
        "held": daemon.attach(jail.jail, "true", "H", respawn="after"),
        "limited": daemon.attach(jail.jail, "true", "L", respawn="after", limit="1/1h"),
        "free": daemon.attach(jail.jail, "true", "F", respawn="after"),
    }
    daemon.call("Hold", rule=found["held"])
    daemon.run(found["limited"])
    daemon.wait("no probe for")
    return found


def states(daemon: Daemon, rules: dict[str, str]) -> list[str]:
    """Return the states of the three."""
    found = daemon.rules()
    return [found[rule]["state"] for rule in rules.values()]


@pytest.mark.parametrize("how", HOW, ids=lambda how: how.__name__)
def test_a_journal_that_was_moved_or_cut_is_begun_anew_with_all_that_lives(
    daemon: Daemon, rules: dict[str, str], how: Callable[[Path], None]
) -> None:
    assert warnings(daemon) == []
    how(daemon.journal_path)
    (warning,) = warnings(daemon)
    assert warning.startswith(f"the journal {daemon.journal_path} {HOW[how]}: it was begun anew")
    daemon.run(rules["free"])
    daemon.armed(rules["free"])
    assert run("log", "-f", daemon.socket).returncode == 0
    # By a crash all that is only in memory is lost.
    daemon.crash()
    daemon.start()
    daemon.until_armed([rules["free"]])
    assert states(daemon, rules) == ["held", "limited", "armed"]
    assert daemon.rule(rules["free"])["triggers"] == 1


@pytest.mark.parametrize("how", HOW, ids=lambda how: how.__name__)
def test_what_is_decided_next_finds_out_before_anybody_asks(
    daemon: Daemon, rules: dict[str, str], how: Callable[[Path], None]
) -> None:
    """Nothing is decided that is written to a file without a name."""
    how(daemon.journal_path)
    daemon.run(rules["free"])
    daemon.crash()
    kinds = [r["kind"] for r in daemon.journal()]
    assert "start" in kinds
    daemon.start()
    daemon.until_armed([rules["free"]])
    assert states(daemon, rules) == ["held", "limited", "armed"]


def test_a_rotated_journal_is_still_in_the_log_and_no_backup_is_lost(
    daemon: Daemon, rules: dict[str, str]
) -> None:
    daemon.journal_path.rename(f"{daemon.journal_path}.1")
    daemon.journal_path.write_text('{"backup": 1}\n', encoding="ascii")
    daemon.run(rules["free"])
    daemon.armed(rules["free"])
    done = run("log", "--json", "-f", daemon.socket)
    kinds = [json.loads(line)["entry"]["kind"] for line in done.stdout.splitlines()]
    if os.path.exists("/proc/self/fd"):
        assert kinds.count("hold") == 1
    assert kinds.count("start") >= 1
    found = daemon.state / "journal.found.jsonl"
    assert found.read_text(encoding="ascii") == '{"backup": 1}\n'


def test_a_reload_takes_the_warning_away(daemon: Daemon) -> None:
    daemon.journal_path.unlink()
    assert len(warnings(daemon)) == 1
    assert len(warnings(daemon)) == 1
    daemon.call("Reload")
    assert warnings(daemon) == []


def test_where_no_journal_can_be_begun_nothing_is_run_and_status_says_so(
    world: World, daemon: Daemon
) -> None:
    jail, fifo = world.jail(), world.fifo()
    rule = daemon.attach(jail.jail, f"echo ran > {fifo.path}", "A", respawn="now")
    daemon.journal_path.unlink()
    daemon.journal_path.mkdir()
    (daemon.journal_path / "full").touch()
    (daemon.state / "journal.found.jsonl").mkdir()
    (daemon.state / "journal.found.jsonl" / "full").touch()
    daemon.ring(rule)
    daemon.wait("refused: the journal cannot be written: ")
    assert fifo.waiting() == []
    assert any("cannot be begun anew" in warning for warning in warnings(daemon))
    shutil.rmtree(daemon.journal_path)
    daemon.armed_probe(rule)
    daemon.ring(rule)
    assert fifo.line() == "ran"
    daemon.armed_probe(rule)
    restart(daemon)
    assert daemon.rule(rule)["state"] == "armed"


def test_doctor_looks_at_the_state_directory_of_the_daemon_that_it_found(daemon: Daemon) -> None:
    words = ("doctor", "--json", "-f", daemon.socket)

    def state() -> dict[str, Any]:
        checks = json.loads(run(*words).stdout)["checks"]
        found: dict[str, Any] = {check["name"]: check for check in checks}["state"]
        return found

    assert state()["found"].startswith(f"{daemon.state}, ")
    daemon.state.chmod(0o777)
    assert state()["found"] == f"{daemon.state}: can be written by others than root"
    daemon.state.chmod(0o700)


# --- the socket, its lock, the pidfile ---------------------------------------------------------


def test_a_socket_that_is_gone_is_made_again_by_sighup_and_the_rules_are_taken(
    world: World,
) -> None:
    daemon, jail = world.daemon, world.jail()
    rules = world.directory / "rules.toml"
    rules.touch()
    daemon.start(env={"JAILDAEMON_CONFIG": str(rules)})
    rule = daemon.attach(jail.jail, "true", "A", respawn="after")
    inode = os.stat(daemon.socket).st_ino
    os.unlink(daemon.socket)
    with pytest.raises(NoDaemon) as error:
        daemon.call("Status")
    assert f"its daemon still runs: pid {daemon.pid}" in str(error.value)
    assert error.value.hint == f"kill -HUP {daemon.pid} makes it again"
    done = run(*daemon.arguments())
    assert f"already running: pid {daemon.pid}, whose socket is gone" in done.stderr
    assert f"kill -HUP {daemon.pid}" in done.stderr
    os.kill(daemon.pid, signal.SIGUSR1)
    daemon.wait(f"warning: the socket {daemon.socket} was removed or replaced")
    rule_in_file = '[[rule]]\njail = "docker:no"\ntitle = "N"\ncommand = "true"\n'
    rules.write_text(rule_in_file, encoding="ascii")
    hang_up(daemon)
    assert len(daemon.rules()) == 2
    assert daemon.rule(rule)["state"] == "armed"
    assert oct(os.stat(daemon.socket).st_mode & 0o777) == "0o600"
    assert os.stat(daemon.socket).st_ino != inode
    assert warnings(daemon) == []
    restart(daemon)
    assert daemon.end() == 0
    assert not os.path.lexists(daemon.socket)


def test_who_is_connected_stays_so_when_the_socket_is_made_again(daemon: Daemon) -> None:
    call = b'{"method":"org.jaildaemon.Status","parameters":{}}\0'
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(daemon.socket)
        sock.sendall(call)
        assert b"uptime" in sock.recv(65536)
        fds = daemon.fds()
        os.unlink(daemon.socket)
        for _ in range(3):
            hang_up(daemon)
        sock.sendall(call)
        assert b"uptime" in sock.recv(65536)
        assert daemon.fds() == fds


@pytest.mark.parametrize("with_what", ["a file", "another's socket", "a dead socket"])
def test_what_was_put_in_the_sockets_place(daemon: Daemon, with_what: str) -> None:
    os.unlink(daemon.socket)
    with socket.socket(socket.AF_UNIX) as other:
        if with_what == "a file":
            Path(daemon.socket).write_text("precious", encoding="ascii")
        else:
            other.bind(daemon.socket)
            if with_what == "another's socket":
                other.listen()
        inode = os.stat(daemon.socket).st_ino
        hang_up(daemon)
        taken = os.stat(daemon.socket).st_ino != inode
        assert taken == (with_what == "a dead socket")
        if not taken:
            assert any("cannot be made again" in line for line in daemon.log)
            os.unlink(daemon.socket)
            hang_up(daemon)
    assert warnings(daemon) == []


@pytest.mark.parametrize("name", ["pid", "pipe.lock"])
@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_pidfile_and_lock_are_made_again_by_sighup(daemon: Daemon, name: str, how: str) -> None:
    path = daemon.directory / name
    assert path.read_text(encoding="ascii") == str(daemon.pid)
    path.unlink()
    if how == "replaced":
        path.write_text("123", encoding="ascii")
    (warning,) = warnings(daemon)
    renew = f"kill -HUP {daemon.pid} makes it again"
    assert warning == f"{path} was removed or replaced: {renew}"
    hang_up(daemon)
    assert warnings(daemon) == []
    assert path.read_text(encoding="ascii") == str(daemon.pid)
    done = run(*daemon.arguments())
    assert f"jaildaemon is already running: pid {daemon.pid}" in done.stderr
    restart(daemon)
    assert daemon.end() == 0
    assert not path.exists()
