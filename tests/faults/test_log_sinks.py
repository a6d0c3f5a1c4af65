# SPDX-License-Identifier: BSD-2-Clause
"""Whoever collects the log may die, be full, or not read: the daemon goes on."""

import contextlib
import os
import signal
import subprocess
import sys
import time

from jaildaemon.errors import JaildaemonError
from tests.faults.world import Daemon, World, changed, wait_gone
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


def test_a_log_that_its_reader_does_not_read_holds_nobody_up(world: World) -> None:
    daemon, fifo = world.daemon, world.fifo()
    daemon.start(program=changed("daemon.sinks", "MAX_LINES = 5"))
    jail, command = world.jail().jail, f"echo x > {fifo.path}"
    rule = daemon.attach(jail, command, "long" * 45, respawn="now", limit="none", concurrency=64)

    def warnings() -> list[str]:
        return [w for w in daemon.call("Status")["warnings"] if "the log" in w]

    end = time.monotonic() + PATIENCE_SECONDS
    while not warnings() or " are lost" not in warnings()[0]:
        assert time.monotonic() < end, "64 KiB of pipe are never full"
        old = daemon.ring(rule)
        assert fifo.line() == "x"
        rung(daemon, rule, old)
    assert "the log cannot be written: nobody reads it; 5 lines wait" in warnings()[0]
    daemon.wait(" lines were lost, nobody read them")
    daemon.ring(rule)
    daemon.wait("signal from")
    assert fifo.line() == "x"
    assert warnings() == []


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
