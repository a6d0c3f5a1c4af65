# SPDX-License-Identifier: BSD-2-Clause
"""Whatever the daemon deals with may hang: containers can be stopped, and status answers.

A PID namespace ends only when its probe is reaped, which the daemon does.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jaildaemon.backends.throwaway import ThrowawayJail
from jaildaemon.cli import client
from jaildaemon.core import wire
from jaildaemon.errors import JaildaemonError
from tests.faults.world import Daemon, World, changed, wait_gone
from tests.kernel.events import PATIENCE_SECONDS

assert sys.platform == "linux"

SOURCE = Path(__file__).parent / "nss_stuck.c"


def fill(path: Path) -> socket.socket:
    """Make a receiver at `path` that never reads, its queue full."""
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.bind(str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler:
        filler.setblocking(False)
        filler.connect(str(path))
        with contextlib.suppress(BlockingIOError):
            while True:
                filler.send(b"full")
    return receiver


@contextlib.contextmanager
def background(world: World, change: str) -> Iterator[Callable[..., dict[str, Any]]]:
    """Run a daemon in the background, whose log is where `change` has it; give what calls it."""
    words = [word for word in world.daemon.arguments() if word != "-F"]
    subprocess.run([*changed("daemon.sinks", change), *words], check=True, timeout=PATIENCE_SECONDS)
    pid = int((world.directory / "pid").read_text("ascii"))
    try:
        yield lambda method, **wish: client.call(world.daemon.socket, method, wish)
    finally:
        os.kill(pid, signal.SIGTERM)
        wait_gone(pid)


def stops(jail: ThrowawayJail) -> bool:
    """Stop a container; say whether that came to its end."""
    thread = threading.Thread(target=jail.close, daemon=True)
    thread.start()
    thread.join(PATIENCE_SECONDS)
    return not thread.is_alive()


@pytest.mark.parametrize("place", ["syslogd", "journald"])
def test_a_receiver_of_the_log_that_does_not_read(world: World, place: str) -> None:
    path = world.directory / place
    here, nowhere = f"{path}", f"{world.directory}/none"
    syslog, journal = (here, nowhere) if place == "syslogd" else (nowhere, here)
    change = f"SYSLOG, m.JOURNAL = ('{syslog}',), '{journal}'"
    jail, other = world.jail(), world.jail()
    with fill(path) as receiver, background(world, change) as call:
        wish = {"command": "true", "policy": {"respawn": "after"}}
        call("Attach", jail=jail.jail, **wish)
        rung = call("Attach", jail=other.jail, **wish)["id"]
        run = call("Fire", rule=rung)["run"]
        assert run
        assert stops(jail)
        (warning,) = [w for w in call("Status")["warnings"] if "the log" in w]
        assert warning.startswith("the log cannot be written: nobody reads it; ")
        receiver.setblocking(False)
        assert receiver.recv(65536) == b"full", "somebody has read"


def test_standard_error_that_nobody_reads(world: World, daemon: Daemon) -> None:
    jail, other = world.jail(), world.jail()
    daemon.attach(jail.jail, "true", "A")
    pipe = daemon.process.stderr
    assert pipe is not None
    fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 4096)
    rule = daemon.attach(other.jail, "true", "B" * 180)
    while not any("the log" in warning for warning in daemon.call("Status")["warnings"]):
        daemon.call("Hold", rule=rule)
        daemon.call("Release", rule=rule)
    assert stops(jail)
    assert daemon.call("Status")["probes"] <= 1


# --- users ------------------------------------------------------------------------------


@pytest.fixture
def stuck_users(world: World) -> dict[str, Any]:
    """Give how a daemon is started whose host does not answer about users."""
    compiler, etc = shutil.which("cc"), Path("/etc/nsswitch.conf")
    if compiler is None or not etc.exists():
        pytest.skip("cannot: there is no C compiler or no nsswitch.conf here")
    library, fifo = world.directory / "libnss_stuck.so.2", world.fifo("stuck")
    subprocess.run(
        [
            compiler,
            "-shared",
            "-fPIC",
            f'-DFIFO="{fifo.path}"',
            "-o",
            library,
            SOURCE,
        ],
        check=True,
    )
    switch = world.directory / "nsswitch.conf"
    switch.write_text("passwd: files stuck\ngroup: files stuck\n", encoding="ascii")
    script = f'mount --bind {switch} {etc} && exec "$@"'
    before = ("unshare", "--mount", "sh", "-c", script, "sh")
    return {"before": before, "env": {"LD_LIBRARY_PATH": f"{world.directory}"}, "fifo": fifo}


def test_users_that_are_not_found_out(world: World, stuck_users: dict[str, Any]) -> None:
    daemon, jail, other = world.daemon, world.jail(), world.jail()
    daemon.start(*stuck_users["before"], env=stuck_users["env"])
    daemon.attach(jail.jail, "true")
    errors: list[JaildaemonError] = []

    def ask() -> None:
        try:
            daemon.call("Attach", jail=other.jail, command="true", policy={"run_as": "jdstuck"})
        except JaildaemonError as error:
            errors.append(error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    assert stuck_users["fifo"].line() == "stuck"
    assert stops(jail)
    assert daemon.call("Status")["rules"] >= 1
    asking.join(PATIENCE_SECONDS)
    (error,) = errors
    assert (error.on, error.why) == (
        "run_as jdstuck",
        "the host's account database does not answer",
    )
    daemon.until_children(0)  # the child that hung is killed


def test_readers_that_are_not_found_out_at_the_start(
    world: World, stuck_users: dict[str, Any]
) -> None:
    config = world.directory / "rules.toml"
    config.write_text("[daemon]\nreaders = 'jdstuck'\n", encoding="ascii")
    daemon = world.daemon
    env = {**stuck_users["env"], "JAILDAEMON_CONFIG": f"{config}"}
    daemon.start(*stuck_users["before"], env=env)
    (warning,) = daemon.call("Status")["warnings"]
    assert warning.startswith("readers jdstuck: the host's account database does not answer: ")
    assert os.stat(daemon.socket).st_mode & 0o777 == 0o600


# --- the others -------------------------------------------------------------------------


def test_a_client_that_does_not_read(world: World, daemon: Daemon) -> None:
    jail = world.jail()
    daemon.attach(jail.jail, "true")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as mute:
        mute.connect(daemon.socket)
        mute.setblocking(False)
        wish = wire.call(f"{wire.SERVICE}.GetInterfaceDescription", {"interface": wire.INTERFACE})
        with contextlib.suppress(BlockingIOError):
            while True:
                mute.send(wish)
        assert stops(jail)
        assert daemon.call("Status")["pid"] == daemon.pid


def test_a_command_that_writes_where_nobody_reads(world: World, daemon: Daemon) -> None:
    jail = world.jail()
    nobody = world.directory / "nobody"
    os.mkfifo(nobody)
    rule = daemon.attach(jail.jail, f"echo x > {nobody}", respawn="now")
    run = daemon.run(rule)
    daemon.armed(rule)
    assert stops(jail)
    assert daemon.call("Status")["running"] == 1
    os.close(os.open(nobody, os.O_RDONLY | os.O_NONBLOCK))
    del run


def test_an_engine_that_hangs(world: World) -> None:
    daemon, jail, asked = world.daemon, world.jail(), world.fifo("asked")
    docker = world.directory / "docker"
    docker.write_text(f"#!/bin/sh\necho asked >{asked.path}\nexec sleep 1000\n", encoding="ascii")
    docker.chmod(0o700)
    rules = world.directory / "rules.toml"
    rules.write_text(
        f"[engines.docker]\nclient = '{docker}'\n"
        "[[rule]]\njail = 'docker:web'\ntitle = 'A'\ncommand = 'true'\n",
        encoding="ascii",
    )
    daemon.start(env={"JAILDAEMON_CONFIG": f"{rules}"})
    daemon.attach(jail.jail, "true")
    assert asked.line() == "asked"
    assert stops(jail)
    assert daemon.call("Status")["rules"] >= 1
