# SPDX-License-Identifier: BSD-2-Clause
"""Each system call between a signal and the next probe fails once, at each occurrence.

The daemon names the error or does without, lives, runs the command at most
once, accounts for it, and is armed again by itself.
"""

import errno
import os
import random
import shutil
import signal
from collections import Counter

import pytest

from jaildaemon.errors import NotPermitted
from tests.faults.tracer import Strace, hot_path
from tests.faults.world import Daemon, World, wait_gone

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="no strace")

EVERY = int(os.environ.get("JAILDAEMON_EVERY") or 4)
"""Take one point of so many, others each time; 1 takes all."""
ERRORS = {
    "pipe": "EMFILE ENFILE",
    "pipe2": "EMFILE ENFILE",
    "openat": "EMFILE ENFILE ENOMEM ENOSPC",
    "pidfd_open": "EMFILE ENFILE ENOMEM",
    "clone": "EAGAIN ENOMEM",
    "clone3": "EAGAIN ENOMEM",
    "vfork": "EAGAIN ENOMEM",
    "fork": "EAGAIN ENOMEM",
    "epoll_ctl": "ENOMEM ENOSPC",
    "dup": "EMFILE",
    "newfstatat": "ENOMEM",
    "stat": "ENOMEM",
    "mmap": "ENOMEM",
}
"""What each may say by its page in section 2 of the manual, when the system is short of something.

Of the other calls none can fail for a reason outside the daemon.
"""


def test_each_call_may_fail_once(world: World) -> None:
    points = [
        (name, when, error)
        for name, when, line in hot_path(world)
        if "EPOLL_CTL_DEL" not in line  # which needs nothing
        for error in ERRORS.get(name, "").split()
    ]
    assert {name for name, _, _ in points} >= {"pidfd_open", "openat", "epoll_ctl"}
    daemon = world.daemon
    daemon.start()
    told = world.fifo()
    rule = daemon.attach(
        world.jail().jail, f"echo $JAILDAEMON_RUN > {told.path}", respawn="after", limit="none"
    )
    offset = random.SystemRandom().randrange(EVERY)
    said: Counter[str] = Counter()
    for name, when, error in points[offset::EVERY]:
        where = f"{name}:{when}:{error}"
        runs_before, lines_before = len(daemon.journal("start")), len(daemon.log)
        daemon.settled()
        probe = daemon.probe(rule)
        strace = Strace(daemon.pid, "-e", f"inject={name}:error={error}:when={when}")
        os.kill(probe, signal.SIGHUP)
        try:
            daemon.armed(rule)
        except AssertionError as problem:
            raise AssertionError(f"{where}: {problem}") from problem
        finally:
            strace.close()
        daemon.until_armed([rule])
        starts = daemon.journal("start")[runs_before:]
        ran = [line for line in told.waiting() if line]
        assert len(starts) <= 1, where
        assert len(ran) <= 1, where
        log = "\n".join(daemon.log[lines_before:])
        accounted(daemon, [record["run"] for record in starts], ran, f"{where}: {log}")
        said[os.strerror(getattr(errno, error)) if ran == [] else "ran"] += 1
        if not ran:
            assert os.strerror(getattr(errno, error)) in log, f"{where}: {log}"
    print(dict(said))
    assert said["ran"] > 0
    daemon.settled()
    daemon.until_children(len(daemon.rules()))


@pytest.mark.parametrize("error", "ENOSPC EIO EDQUOT".split())
def test_each_line_of_the_journal_may_fail_once(world: World, daemon: Daemon, error: str) -> None:
    told = world.fifo()
    rule = daemon.attach(
        world.jail().jail,
        f"echo x; echo $JAILDAEMON_RUN > {told.path}",
        respawn="after",
        limit="none",
    )
    inject = f"inject=write:error={error}:when="
    # The first is its trigger and its start: refused, and armed again by itself.
    strace = Strace(daemon.pid, "-P", str(daemon.journal_path), "-e", f"{inject}1")
    daemon.ring(rule)
    words = os.strerror(getattr(errno, error))
    assert words in daemon.wait(" refused: the journal cannot be written")
    daemon.armed(rule)
    strace.close()
    daemon.settled()  # or the record of that would be counted with those of the next run
    assert told.waiting() == []
    assert daemon.journal("start") == []
    # The others are kept in memory and written with the next.
    for number in (2, 3):
        before = len(daemon.log)
        strace = Strace(daemon.pid, "-P", str(daemon.journal_path), "-e", f"{inject}{number}")
        run = daemon.run(rule)
        assert told.line() == run
        daemon.until_armed([rule])
        daemon.settled()
        kept = [line for line in daemon.log[before:] if "kept in memory" in line]
        assert len(kept) == 1
        assert words in kept[0]
        strace.close()
    daemon.run(rule)
    told.line()
    daemon.until_armed([rule])
    starts = [record["run"] for record in daemon.journal("start")]
    assert len(starts) == 3
    assert [record["run"] for record in daemon.journal("pid")] == starts
    assert [record["run"] for record in daemon.journal("end")] == starts


def accounted(daemon: Daemon, starts: list[str], ran: list[str], where: str) -> None:
    """Check that what started has an end, what did not a refusal, and nothing both."""
    ends = {record["run"] for record in daemon.journal("end")}
    refused = {record.get("run") for record in daemon.journal("refused")}
    for run in starts:
        assert (run in ends) != (run in refused), where
        assert (run in ran) == (run in ends), where
    assert set(ran) <= set(starts), where


def test_what_may_not_be_killed_is_killed_when_it_may(world: World, daemon: Daemon) -> None:
    """A security module may forbid it, by a policy of the jail's own."""
    rule = daemon.attach(world.jail().jail, "true")
    probe = daemon.probe(rule)
    strace = Strace(daemon.pid, "-e", "inject=kill:error=EACCES:when=1..2")
    with pytest.raises(NotPermitted, match="a security module of the kernel forbids"):
        daemon.call("Fire", rule=rule)
    daemon.call("Detach", rule=rule)
    wait_gone(probe)
    strace.close()
    daemon.until_children(0)
    assert daemon.rules() == {}
