# SPDX-License-Identifier: BSD-2-Clause
"""Whose run a process is, after the daemon that began it was killed."""

import os
import signal
import subprocess

import pytest

from tests.faults.test_recovery import edit
from tests.faults.world import Daemon, World, in_run


@pytest.mark.parametrize("proof", [True, False], ids=["pid and start time", "by 0.1.0's journal"])
def test_a_command_that_made_its_environment_anew_is_waited_for(
    world: World, daemon: Daemon, *, proof: bool
) -> None:
    fifo = world.fifo()
    command = f"exec env -i sh -c 'echo ready > {fifo.path}; exec sleep 1000'"
    rule = daemon.attach(world.jail().jail, command, respawn="after")
    daemon.ring(rule)
    run, pid = daemon.started(rule)
    assert fifo.line() == "ready"
    daemon.crash()
    if not proof:  # the environment alone lost it, and armed its rule beside it
        edit(daemon, "pid", start_time=None)
    daemon.start()
    daemon.wait(f"run {run} goes on as pid {pid}" if proof else f"run {run} interrupted: ")
    os.kill(pid, signal.SIGKILL)
    daemon.armed(rule)


def test_what_another_user_calls_a_run_is_not_taken_for_it(world: World, daemon: Daemon) -> None:
    rule = daemon.attach(world.jail().jail, "true", respawn="after")
    run = daemon.run(rule)
    daemon.wait(f"run {run} ended")
    daemon.armed(rule)
    daemon.crash()
    daemon.rewrite([r for r in daemon.journal() if r["kind"] not in ("pid", "end")])
    with subprocess.Popen(
        ["cat"],
        env={"JAILDAEMON_RUN": run, "PATH": os.environ["PATH"]},
        user=1234,
        start_new_session=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as forger:
        forger.stdin.write(b"x")  # type: ignore[union-attr]
        forger.stdin.flush()  # type: ignore[union-attr]
        assert forger.stdout.read(1) == b"x"  # type: ignore[union-attr]
        assert in_run(forger.pid, run)  # which was all that was asked
        daemon.start()
        daemon.wait(f"run {run} interrupted: ")
        forger.kill()
