# SPDX-License-Identifier: BSD-2-Clause
"""The machine is short of something: disk, descriptors, a directory, the right to write."""

import contextlib
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jaildaemon.core.fleet import Now
from jaildaemon.daemon import journal as journal_file
from jaildaemon.daemon.journal import Journal
from jaildaemon.errors import JaildaemonError, Refused
from tests.faults.world import Daemon, World, alive
from tests.kernel.events import PATIENCE_SECONDS
from tests.logged import logger_into

assert sys.platform == "linux"

FULL = "No space left on device"


@pytest.fixture
def small(world: World) -> Iterator[Daemon]:
    """A daemon whose state is on a file system of 64 KiB."""
    daemon = world.daemon
    daemon.state.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "state", str(daemon.state)]
    if subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("cannot: no file system may be mounted here")
    try:
        daemon.start()
        yield daemon
        with contextlib.suppress(FileNotFoundError):
            (daemon.state / "filler").unlink()
        daemon.close()
    finally:
        subprocess.run(["umount", str(daemon.state)], check=True)


def fill(directory: Path) -> None:
    """Leave no byte free."""
    with (directory / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 512)
    # The journal's own last page must be full too.
    with (directory / "journal.jsonl").open("ab", buffering=0) as file:
        size = file.tell()
        room = -size % resource.getpagesize()
        if room:
            file.write(b" " * (room - 1) + b"\n")


def test_on_a_full_disk_nothing_is_armed_until_a_line_can_be_written(
    world: World, small: Daemon
) -> None:
    daemon, fifo = small, world.fifo()
    jail = world.jail()
    rule = daemon.attach(jail.jail, f"echo ran > {fifo.path}", "A", respawn="after")
    fill(daemon.state)
    daemon.ring(rule)
    assert FULL in daemon.wait(f"{rule}: run ")
    line = daemon.wait(f"{rule}: not armed, another try in")
    assert "the journal cannot be written" in line
    assert FULL in line
    found = daemon.rule(rule)
    assert (found["state"], found["refused"]) == ("failing", 1)
    assert FULL in found["reason"]
    with pytest.raises(JaildaemonError, match="the journal cannot be written"):
        daemon.attach(jail.jail, "true", "B")
    with pytest.raises(Refused, match="the journal cannot be written"):
        daemon.call("Restart")
    assert fifo.waiting() == []
    (daemon.state / "filler").unlink()
    daemon.armed(rule)
    assert [record["rule"] for record in daemon.journal("refused")] == [rule]
    daemon.ring(rule)
    assert fifo.line() == "ran"
    daemon.wait("ended: exit 0")
    daemon.again()
    daemon.armed(rule)


def test_a_run_ends_on_a_full_disk(world: World, small: Daemon) -> None:
    daemon, fifo = small, world.fifo()
    command = f"read x < {fifo.path}; seq 100000"
    rule = daemon.attach(world.jail().jail, command, respawn="after")
    run = daemon.run(rule)
    fill(daemon.state)
    fifo.write("\n")
    daemon.wait(f"run {run} ended: exit 0")
    daemon.wait("kept in memory: end")
    daemon.wait("not armed")
    (daemon.state / "filler").unlink()
    daemon.armed(rule)
    assert [record["run"] for record in daemon.journal("end")] == [run]


def test_a_state_directory_that_became_read_only(world: World, small: Daemon) -> None:
    daemon = small
    rule = daemon.attach(world.jail().jail, "true", respawn="after")
    directory = str(daemon.state)
    # What is open for writing keeps the whole file system from it; a remount that is forced
    # by an error of the disk does not ask.  So: a bind mount for whoever opens anew.
    subprocess.run(["mount", "--bind", directory, directory], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", directory], check=True)
        run = daemon.run(rule)
        daemon.wait(f"run {run} ended: exit 0")
        daemon.armed(rule)
        daemon.crash()
        daemon.launch()
        assert daemon.ended() == 1
        assert "Read-only file system" in daemon.log[-1]
    finally:
        subprocess.run(["umount", directory], check=True)
    daemon.start()
    daemon.armed(rule)


def test_without_descriptors_it_lives_and_recovers(world: World, daemon: Daemon) -> None:
    fifo = world.fifo()
    rule = daemon.attach(
        world.jail().jail, f"echo ran > {fifo.path}", respawn="after", limit="none"
    )
    limits = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    for spare in range(12):
        probe = daemon.armed_probe(rule)
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (daemon.fds() + spare, limits[1]))
        os.kill(probe, 1)
        daemon.wait(" refused: ", " ended: ")
        daemon.settled()
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, limits)
        daemon.until_armed([rule])
    starts = {record["run"] for record in daemon.journal("start")}
    over = [record["run"] for record in daemon.journal("end", "refused") if record.get("run")]
    assert starts <= set(over)
    assert len(over) == len(set(over))
    assert len(fifo.waiting()) <= 12
    daemon.until_children(1)


def test_more_clients_than_descriptors(world: World, daemon: Daemon) -> None:
    limits = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as stack:
        for spare in range(8):
            resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (daemon.fds() + spare, limits[1]))
            for _ in range(10):
                sock = stack.enter_context(socket.socket(socket.AF_UNIX))
                sock.connect(daemon.socket)
            daemon.settled()
            assert alive(daemon.pid)
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, limits)
    assert any("accepting nothing for 1 s: Too many open" in line for line in daemon.log)
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        with contextlib.suppress(JaildaemonError):
            assert daemon.call("Status")["pid"] == daemon.pid
            return
        assert time.monotonic() < end


def test_a_socket_directory_that_vanished(world: World) -> None:
    daemon, fifo = world.daemon, world.fifo()
    place = world.directory / "run"
    place.mkdir()
    daemon.socket = str(place / "pipe")
    daemon.start()
    rule = daemon.attach(world.jail().jail, f"echo ran > {fifo.path}")
    probe = daemon.probe(rule)
    shutil.rmtree(place)
    os.kill(probe, 1)
    assert fifo.line() == "ran"
    assert daemon.end() == 0
    assert daemon.log[-1] == "ended"
    place.mkdir()


def test_a_new_journal_is_begun_with_what_still_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_file, "MAX_BYTES", 20_000)
    said: list[str] = []
    journal = Journal(tmp_path, logger_into(said), lambda: Now(time.time(), time.monotonic()))
    journal.write(journal.record("boot", boot="here"))
    policy = {"limit": "5/1h"}
    for rule in ("t1", "t2"):
        journal.write(journal.record("rule", rule=rule, jail="1", command="x", policy=policy))
    journal.write(journal.record("unrule", rule="t2", reason="detached"))
    for number in range(300):
        trigger = journal.record("trigger", rule="t1", run=f"r{number}")
        journal.write(trigger, journal.record("start", rule="t1", run=f"r{number}"))
        if number != 299:
            journal.keep(journal.record("end", rule="t1", run=f"r{number}", exit_status=0))
    assert said == []
    assert (tmp_path / "journal.1.jsonl").stat().st_size > 20_000
    assert (tmp_path / "journal.jsonl").stat().st_size < 30_000
    again = Journal(tmp_path, logger_into(said), lambda: Now(time.time(), time.monotonic())).history
    assert again.boot == "here"
    assert list(again.rules) == ["t1"]
    known = again.rules["t1"]
    assert known.triggers == 300
    assert [run.run for run in known.runs.values() if run.started] == ["r299"]
    assert len(known.times) == 5
    assert again.last_id == 2
