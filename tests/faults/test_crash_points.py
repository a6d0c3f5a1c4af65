# SPDX-License-Identifier: BSD-2-Clause
"""The daemon dies at every system call between a signal and the end of its run.

strace(1) kills it: once before each call that a clean trace has.  Whatever the
moment, the outcome is one of docs/faults.md, "A death at any moment".
"""

import os
import random
import shutil
import signal
from collections import Counter

import pytest

from tests.faults.tracer import Strace, hot_path
from tests.faults.world import Daemon, Fifo, World

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="no strace")

BLIND = {"rt_sigreturn", "exit_group", "restart_syscall", "munmap", "brk", "mmap", "mprotect"}
"""Calls that change nothing outside, or that strace cannot stop before."""
EVERY = int(os.environ.get("JAILDAEMON_EVERY") or 12)
"""Take one point of so many, others each time; 1 takes all, in some four minutes."""


def wait_dead(daemon: Daemon) -> bool:
    """Wait for the daemon's death or the next probe; say whether it is dead."""
    try:
        daemon.wait(": armed in")
        daemon.settled()
    except AssertionError as error:
        if "the daemon died" in str(error):
            return True
        raise
    return False


def test_at_every_moment_the_outcome_is_one_of_those_written(world: World) -> None:
    points = [point for point in hot_path(world) if point[0] not in BLIND]
    fifo = world.fifo()
    offset = random.SystemRandom().randrange(EVERY)
    outcomes: Counter[str] = Counter()
    wrong = []
    for number, (name, when, _) in enumerate(points[offset::EVERY]):
        directory = world.directory / f"point{number}"
        directory.mkdir()
        found = die_at(world, Daemon(directory), fifo, name, when)
        outcomes[found] += 1
        if found not in OUTCOMES:
            wrong.append(f"{name}:{when}: {found}")
    print(f"{len(points)} points:", *(f"{found} {count}," for found, count in outcomes.items()))
    assert wrong == []
    # A quarter of all points is; the few that are taken may have more, and yet prove something.
    assert outcomes["alive"] < outcomes.total() * 3 / 4


OUTCOMES = {
    "alive",  # this time there was no such call any more: nothing happened
    "unseen",  # no record of the trigger: it died before it knew; 0 runs
    "interrupted, never started",  # `start` is there, the command never was; 0 runs
    "interrupted, ran",  # `start` is there, the command ended while nobody looked; 1 run
    "adopted",  # the command outlived it; 1 run, its end is in the journal
    "ran",  # it had all of it in the journal already; 1 run
}


def die_at(world: World, daemon: Daemon, fifo: Fifo, name: str, when: int) -> str:
    """Let a daemon die before one system call, start the next, and return what came of it."""
    jail = world.jail()
    daemon.start()
    try:
        rule = daemon.attach(jail.jail, f"echo $JAILDAEMON_RUN > {fifo.path}", respawn="after")
        daemon.settled()
        probe = daemon.probe(rule)
        strace = Strace(daemon.pid, "-e", f"inject={name}:signal=KILL:when={when}")
        os.kill(probe, signal.SIGHUP)
        died = wait_dead(daemon)
        strace.close()
        daemon.crash()
        return outcome(daemon, fifo, rule) if died else "alive"
    finally:
        daemon.close()
        jail.close()
        fifo.waiting()


def outcome(daemon: Daemon, fifo: Fifo, rule: str) -> str:
    """Start the next daemon, and say what became of the trigger."""
    daemon.start()
    daemon.armed(rule)  # whatever happened, the rule is back
    daemon.settled()
    while daemon.rule(rule)["state"] != "armed":
        daemon.armed(rule)
    runs = fifo.waiting()
    starts, ends = daemon.journal("start"), daemon.journal("end")
    if len(runs) > 1 or len(starts) > 1:
        return f"ran twice: {runs} {starts}"
    if not daemon.journal("trigger"):
        return "unseen" if not runs else "ran without a trigger"
    if not starts:
        return "a trigger without a start"
    if daemon.journal("interrupted"):
        return "interrupted, ran" if runs else "interrupted, never started"
    if len(ends) != 1 or not runs:
        return f"lost: {runs} {ends}"
    return "ran" if "exit_status" in ends[0] else "adopted"
