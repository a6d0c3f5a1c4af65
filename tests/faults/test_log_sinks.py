# SPDX-License-Identifier: BSD-2-Clause
"""Whoever collects the log may die, be full, or not read: the daemon goes on."""

import contextlib
import os
import signal
import subprocess
import sys
import time

from jaildaemon.errors import JaildaemonError
from tests.faults.world import Daemon, World, wait_gone
from tests.kernel.events import PATIENCE_SECONDS


def rung(daemon: Daemon, rule: str, old: int) -> None:
    """Wait for another probe than `old`."""
    end = time.monotonic() + PATIENCE_SECONDS
    while daemon.rule(rule).get("probe_pid", old) == old:
        assert time.monotonic() < end


def test_a_log_that_nobody_reads_any_more_does_not_stop_it(world: World, daemon: Daemon) -> None:
    fifo = world.fifo()
    rule = daemon.attach(
        world.jail().jail, f"echo x > {fifo.path}", respawn="now", limit="none", concurrency=64
    )
    pipe = daemon.process.stderr
    assert pipe is not None
    pipe.close()
    for _ in range(5):
        old = daemon.ring(rule)
        assert fifo.line() == "x"
        rung(daemon, rule, old)
    os.kill(daemon.pid, signal.SIGTERM)
    wait_gone(daemon.pid)
    daemon.forget()


def test_a_log_that_its_reader_does_not_read_holds_nobody_up(world: World, daemon: Daemon) -> None:
    fifo = world.fifo()
    command = f"echo x > {fifo.path} # {'long' * 2000}"
    rule = daemon.attach(world.jail().jail, command, respawn="now", limit="none", concurrency=64)
    for _ in range(20):  # 8 KiB of log each
        old = daemon.ring(rule)
        assert fifo.line() == "x"
        rung(daemon, rule, old)
    daemon.wait("signal from")  # all of the pipe is read
    daemon.ring(rule)
    daemon.wait(" lines were lost, nobody read them")
    assert fifo.line() == "x"


def test_the_daemon_needs_no_working_log(world: World) -> None:
    daemon = world.daemon
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "jaildaemon", *daemon.arguments()], stderr=full
        )
    finally:
        os.close(full)
    try:
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            with contextlib.suppress(JaildaemonError):
                assert daemon.call("Status")["pid"] == process.pid
                break
            assert time.monotonic() < end
        fifo = world.fifo()
        rule = daemon.attach(world.jail().jail, f"echo ran > {fifo.path}")
        daemon.ring(rule)
        assert fifo.line() == "ran"
    finally:
        process.terminate()
        process.wait()
