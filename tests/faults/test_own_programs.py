# SPDX-License-Identifier: BSD-2-Clause
"""The daemon's own programs: replaced, removed or broken while it runs, and over a restart."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import jaildaemon
from jaildaemon.errors import Refused
from tests.faults.test_restart import restart
from tests.faults.world import JAILDAEMON, Daemon, World

PACKAGE = Path(jaildaemon.__file__).parent
BROKEN = b"\x7fELF, and nothing more"
MUCH = "head -c 300000 /dev/zero | tr '\\0' x"
"""More than a pipe holds."""


def install(place: Path) -> Path:
    """Put a copy of the package there; returns what PYTHONPATH must have."""
    shutil.copytree(PACKAGE, place / "jaildaemon")
    return place


@pytest.fixture
def place(world: World) -> Path:
    """A copy of the package, which the daemon can be started from."""
    return install(world.directory / "installed")


def start(daemon: Daemon, place: Path) -> None:
    """Start the daemon from a copy."""
    daemon.start(env={"PYTHONPATH": str(place)})


def doctor(daemon: Daemon, place: Path) -> dict[str, dict[str, object]]:
    """Return what doctor says of each thing."""
    words = [*JAILDAEMON, "doctor", "--json", "-f", daemon.socket]
    env = {**os.environ, "PYTHONPATH": str(place)}
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    return {check["name"]: check for check in json.loads(done.stdout)["checks"]}


def test_a_daemon_whose_files_are_gone_works_on(world: World, place: Path) -> None:
    daemon, fifo = world.daemon, world.fifo()
    start(daemon, place)
    jail = world.jail()
    rule = daemon.attach(jail.jail, f"{MUCH}; echo kept; echo > {fifo.path}", "A", respawn="after")
    shutil.rmtree(place)
    for _ in range(2):
        daemon.ring(rule)
        run, _ = daemon.started(rule)
        assert fifo.line() == ""
        daemon.wait(f"run {run} ended: exit 0")
        daemon.armed(rule)
    other = daemon.attach(jail.jail, "true", "B")
    assert daemon.rule(other)["state"] == "armed"
    assert daemon.call("Status")["warnings"] == []
    while len(daemon.journal("output")) < 2:
        daemon.settled()
    assert all(r["output_tail"].endswith("x" * 9 + "kept\n") for r in daemon.journal("output"))


def test_a_command_never_waits_for_an_output_reader_that_cannot_start(
    world: World, place: Path
) -> None:
    daemon, fifo, go_on = world.daemon, world.fifo(), world.fifo("go-on")
    reader = place / "jaildaemon" / "libexec" / "jailoutput"
    good = reader.read_bytes()
    reader.write_bytes(BROKEN)
    start(daemon, place)
    command = f"{MUCH}; echo > {fifo.path}; read x < {go_on.path}; echo kept; exit 7"
    rule = daemon.attach(world.jail().jail, command, "A", respawn="after")
    daemon.ring(rule)
    run, _ = daemon.started(rule)
    assert fifo.line() == ""
    warning = f"what commands write is not kept: {reader} cannot be started: Exec format error"
    assert daemon.call("Status")["warnings"] == [warning]
    # A restart with it is refused; repaired, it takes place though the command runs on.
    with pytest.raises(Refused, match=f"{reader}: cannot be started: Exec format error"):
        daemon.call("Restart")
    reader.write_bytes(good)
    restart(daemon)
    go_on.write("\n")
    daemon.wait(f"run {run} ended: exit 7")
    while not daemon.journal("output"):
        daemon.settled()
    assert daemon.journal("output")[0]["output_tail"].endswith("kept\n")
    assert daemon.call("Status")["warnings"] == []


LATE = """
import sys
from jaildaemon.daemon import service
real = service.Service.run
def run(self):
    before = set(sys.modules)
    real(self)
    print("late:", *sorted(set(sys.modules) - before), file=sys.stderr, flush=True)
service.Service.run = run
from jaildaemon.__main__ import main
sys.exit(main())
"""


def test_nothing_is_imported_after_the_start(world: World) -> None:
    """What is imported late may be of another version by then, or gone."""
    daemon, jail = world.daemon, world.jail()
    daemon.start(program=[sys.executable, "-c", LATE])
    nobody = daemon.attach(jail.jail, "id", "N", respawn="after", run_as="nobody", timeout="1m")
    rule = daemon.attach(jail.jail, "echo out; exit 3", "A", respawn="after", settle="10ms")
    for each in (rule, nobody):
        daemon.ring(each)
        daemon.wait(f"{each}: ", " ended: ")
        daemon.armed(each)
    daemon.call("Hold", rule=rule)
    daemon.call("Release", rule=rule)
    daemon.until_armed([rule])
    daemon.call("Fire", rule=rule)
    daemon.armed(rule)
    daemon.call("Explain", jail=jail.jail)
    daemon.call("Reload")
    os.kill(daemon.pid, signal.SIGHUP)
    daemon.wait("reloaded: ")
    for words in (["log"], ["log", "none"], ["-c", "x", "-j", "docker:no"], ["-c", "x", "-j", "1"]):
        subprocess.run([*JAILDAEMON, *words, "-f", daemon.socket], capture_output=True, check=False)
    with pytest.raises(Refused):
        daemon.attach(jail.jail, "x", "B", run_as="nobody-of-this-name")
    daemon.journal_path.unlink()
    daemon.call("Status")
    daemon.call("Detach", all=True)
    assert daemon.end() == 0
    assert "late:" in daemon.log


@pytest.mark.parametrize("name", ["jailprobe", "jailoutput"])
def test_doctor_starts_each_program_once(world: World, place: Path, name: str) -> None:
    programs = {"jailprobe": "helper", "jailoutput": "output reader"}
    path = place / "jaildaemon" / "libexec" / name
    found = doctor(world.daemon, place)
    assert [found[what]["ok"] for what in programs.values()] == [True, True]
    path.write_bytes(BROKEN)
    found = doctor(world.daemon, place)
    check = found[programs[name]]
    assert (check["ok"], check["found"]) == (False, f"{path} cannot be started: Exec format error")
    assert "make install" in str(check["hint"])
    path.unlink()
    check = doctor(world.daemon, place)[programs[name]]
    assert not check["ok"]
    assert "No such file or directory" in str(check["found"])


# --- the handover ---------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="FreeBSD's is in the state directory")
def test_a_restart_needs_no_temporary_directory(world: World, daemon: Daemon) -> None:
    rule = daemon.attach(world.jail().jail, "true", respawn="after")
    probe = daemon.probe(rule)
    nowhere = "import tempfile; tempfile.tempdir = '/nonexistent'"
    daemon.end()
    program = [sys.executable, "-c", f"{nowhere}; from jaildaemon.cli.main import main; main()"]
    daemon.start(program=program)
    rule = daemon.attach(world.jail().jail, "true", respawn="after")
    probe = daemon.probe(rule)
    restart(daemon)
    assert daemon.probe(rule) == probe


@pytest.mark.parametrize("failing", ["first", "second"])
def test_a_restart_that_cannot_be_prepared_is_refused(world: World, failing: str) -> None:
    """For want of memory, of a descriptor, of room: the old daemon goes on."""
    count = {"first": 0, "second": 2}[failing]
    script = f"""
import errno, itertools, os, sys
import jaildaemon.daemon.handover as m
from jaildaemon.cli.main import main
made, real = itertools.count(), m.unnamed_file
def unnamed_file(directory):
    if next(made) == {count}:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return real(directory)
m.unnamed_file = unnamed_file
sys.exit(main())
"""
    daemon = world.daemon
    daemon.start(program=[sys.executable, "-c", script])
    rule = daemon.attach(world.jail().jail, "true", respawn="after")
    probe = daemon.probe(rule)
    with pytest.raises(Refused, match="cannot be prepared: No space left on device") as refused:
        daemon.call("Restart")
    assert "the old one runs on" in str(refused.value)
    fds = daemon.fds()
    assert daemon.probe(rule) == probe
    restart(daemon)
    assert daemon.probe(rule) == probe
    assert daemon.fds() <= fds


RUBBISH = ["x", "rehearse", "rehearse x", "-1", "1 2", "9" * 5000, "rehearse  3", "4 ", "\u0664"]


@pytest.mark.parametrize("words", [*RUBBISH, "0", "400", "rehearse 400", "FILE", "rehearse FILE"])
def test_a_handover_that_is_none_is_refused_in_one_line(world: World, words: str) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(b'{"format": 1}')
        file.flush()
        env = {**os.environ, "JAILDAEMON_HANDOVER": words.replace("FILE", str(file.fileno()))}
        done = subprocess.run(
            [*JAILDAEMON, *world.daemon.arguments()],
            env=env,
            pass_fds=[file.fileno()],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    (line,) = done.stderr.splitlines()
    assert line.startswith("jaildaemon: ")
    assert line.endswith("(unset JAILDAEMON_HANDOVER)")
    assert done.returncode == 1


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"[" * 100_000, b"{}", b'{"format": 1}', b"\xff"]
)
def test_a_handover_without_what_it_needs_is_refused_in_one_line(world: World, text: bytes) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(text)
        file.flush()
        done = subprocess.run(
            [*JAILDAEMON, *world.daemon.arguments()],
            env={**os.environ, "JAILDAEMON_HANDOVER": f"{file.fileno()}"},
            pass_fds=[file.fileno()],
            capture_output=True,
            text=True,
            check=False,
        )
    (line,) = done.stderr.splitlines()
    assert line.startswith("jaildaemon: restart: handover: cannot be read: ")
    assert done.returncode == 1
