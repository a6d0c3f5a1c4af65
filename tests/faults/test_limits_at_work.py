# SPDX-License-Identifier: BSD-2-Clause
"""Limits with a real daemon: how often, how many, how long, how much, and as whom."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.world import Daemon, Fifo, World, alive, changed, wait_gone
from tests.kernel.processes import memory_kib

LINUX = sys.platform == "linux"
S6_JAIL = f"jaildaemon_s6_{os.getpid()}"
RING_BYTES = 65536
QUICK_KILL = changed("daemon.runner", "KILL_SECONDS = 1.0")


# --- how often ------------------------------------------------------------------------


def test_over_its_limit_a_rule_has_no_probe_until_the_window_allows(
    world: World, daemon: Daemon
) -> None:
    rule = daemon.attach(world.jail().jail, "true", respawn="now", limit="3/2s")
    began = time.monotonic()
    for _ in range(3):
        daemon.run(rule)
        last = daemon.wait(f"{rule}: armed", f"{rule}: no probe for")
    assert "the limit of 3/2s is reached" in last
    found = daemon.rule(rule)
    assert found["state"] == "limited"
    assert "probe_pid" not in found
    daemon.armed(rule)
    assert time.monotonic() - began >= 2.0
    assert daemon.rule(rule)["state"] == "armed"
    assert sum("is reached" in line for line in daemon.log) == 1


def test_a_cooldown_begins_with_the_end_of_the_run(world: World, daemon: Daemon) -> None:
    fifo = world.fifo()
    rule = daemon.attach(
        world.jail().jail, f"read x < {fifo.path}", respawn="now", cooldown="300ms"
    )
    run = daemon.run(rule)
    assert daemon.rule(rule)["state"] == "running"
    fifo.write("\n")
    daemon.wait(f"run {run} ended")
    began = time.monotonic()
    daemon.wait(f"{rule}: no probe for 0.3 s: cooldown")
    assert daemon.rule(rule)["state"] == "cooling"
    daemon.armed(rule)
    assert time.monotonic() - began >= 0.25


# --- how many --------------------------------------------------------------------------


def test_at_its_concurrency_a_rule_has_no_probe(world: World, daemon: Daemon) -> None:
    fifo = world.fifo()
    rule = daemon.attach(world.jail().jail, f"read x < {fifo.path}", respawn="now")
    for number in range(8):
        daemon.run(rule)
        if number < 7:
            daemon.armed(rule)
    found = daemon.rule(rule)
    assert (found["state"], found["triggers"]) == ("running", 8)
    assert "probe_pid" not in found
    fifo.write("\n")
    daemon.armed(rule)


def test_at_most_32_commands_run_and_the_rest_waits_in_order(world: World, daemon: Daemon) -> None:
    jail, hold, told = world.jail(), world.fifo("hold"), world.fifo("told")
    command = f"echo $JAILDAEMON_RULE > {told.path}; read x < {hold.path}"
    rules = [
        daemon.attach(jail.jail, command, f"Q{n:02}Q", respawn="now", concurrency=4, limit="none")
        for n in range(12)
    ]
    for _ in range(3):
        for rule in rules:
            daemon.ring(rule)
            daemon.wait(f"{rule}: signal from", f"{rule}: run ")
        daemon.until_armed(rules)
    first = [told.line() for _ in range(32)]
    status = daemon.call("Status")
    assert (status["running"], status["queued"], status["triggers"]) == (32, 4, 36)
    assert told.waiting() == []
    assert sum("commands run already" in line for line in daemon.log) == 4
    # A crash loses none of those that wait, and starts none of the others again.
    daemon.again()
    status = daemon.call("Status")
    assert (status["running"], status["queued"]) == (32, 4)
    # Whose command runs and whose waits both show.
    assert told.waiting() == []
    hold.write("\n" * 36)
    last = [told.line() for _ in range(4)]
    # In the order of their starts: which of them comes to its echo first is the host's affair.
    assert [record["rule"] for record in daemon.journal("start")[-4:]] == rules[-4:]
    for rule in rules:
        assert [*first, *last].count(rule) == 3
    daemon.until_armed(rules)
    while daemon.call("Status")["running"]:
        daemon.wait("ended: ")
    assert len(daemon.journal("start")) == len(daemon.journal("trigger")) == 36


# --- how long ----------------------------------------------------------------------------


def test_a_timeout_ends_the_whole_group(world: World) -> None:
    daemon, fifo = world.daemon, world.fifo()
    daemon.start(program=QUICK_KILL)
    child = f"sh -c 'echo $$ > {fifo.path}; exec sleep 1000'"
    command = f"trap '' TERM; {child} & wait; sleep 1000"
    rule = daemon.attach(world.jail().jail, command, respawn="after", timeout="200ms")
    daemon.ring(rule)
    run, pid = daemon.started(rule)
    member = int(fifo.line())
    daemon.wait(f"run {run} has not ended after 0.2 s: SIGTERM")
    daemon.wait(f"run {run} ended: SIGKILL")  # so it was not the TERM that ended it
    wait_gone(pid)
    wait_gone(member)
    daemon.armed(rule)


def test_kill_follows_though_the_shell_died_of_the_term(world: World) -> None:
    daemon, fifo = world.daemon, world.fifo()
    daemon.start(program=changed("daemon.runner", "KILL_SECONDS = 3.0"))
    script = f'trap "" TERM; echo $$ > {fifo.path}; while :; do sleep 1000; done'
    command = f"sh -c '{script}' & sleep 1000; true"
    rule = daemon.attach(world.jail().jail, command, respawn="after", timeout="200ms")
    daemon.ring(rule)
    run = daemon.started(rule)[0]
    stubborn = int(fifo.line())
    daemon.wait(f"run {run} ended: SIGTERM")
    daemon.armed(rule)
    assert alive(stubborn)
    wait_gone(stubborn)


# --- settle ---------------------------------------------------------------------------------


S6_SHUTDOWN = "trap '' HUP TERM; echo up; read go; kill -HUP -1; kill -TERM -1; sleep 0.1; exit 0"


@pytest.fixture
def s6() -> Iterator["subprocess.Popen[bytes]"]:
    """A container whose init ends as s6-linux-init-shutdownd does: HUP and TERM to all, then exit.

    The real one waits some seconds before it kills and exits; a tenth is enough to be seen.
    """
    if LINUX:
        command = ["unshare", "--fork", "--pid", "--mount-proc", "sh", "-c", S6_SHUTDOWN]
    else:
        command = ["jail", "-c", f"name={S6_JAIL}", "path=/", "command=/bin/sh", "-c", S6_SHUTDOWN]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as jail:
        assert jail.stdout is not None
        assert jail.stdout.readline() == b"up\n"
        yield jail
        jail.kill()


def init_of(jail: "subprocess.Popen[bytes]") -> str:
    """Return what -j takes: the host's pid of its init, or its name."""
    if not LINUX:
        return S6_JAIL
    path = Path(f"/proc/{jail.pid}/task/{jail.pid}/children")
    return path.read_text(encoding="ascii").split()[0]


def shut_down(jail: "subprocess.Popen[bytes]") -> None:
    """Let its init end it."""
    assert jail.stdin is not None
    jail.stdin.write(b"go\n")
    jail.stdin.flush()


def test_a_shutdown_that_signals_everybody_rings_without_settle(
    daemon: Daemon, s6: "subprocess.Popen[bytes]"
) -> None:
    hup = daemon.attach(init_of(s6), "true", "HUP")
    settles = daemon.attach(init_of(s6), "true", "SETTLE", settle="2s")
    usr1 = daemon.attach(init_of(s6), "true", "USR1", signal="USR1", respawn="after")
    shut_down(s6)
    left = {f"{hup}: signal from", f"{settles}: run", f"{usr1}: gone: the probe died of SIGHUP"}
    while left:
        line = daemon.wait(*left)
        left = {text for text in left if text not in line}
    # It has ended by then, so nothing was started for it.
    why = daemon.wait(" refused: ").partition(" did not settle: ")[2]
    assert re.fullmatch(r"the (container|jail) has ended.*|no process is left in the jail", why)
    daemon.settled()
    assert [record["rule"] for record in daemon.journal("start")] == [hup]
    assert daemon.rules() == {}


def test_a_settle_in_a_jail_that_lives_on_only_takes_time(world: World, daemon: Daemon) -> None:
    rule = daemon.attach(world.jail().jail, "true", settle="200ms", respawn="after")
    began = time.monotonic()
    daemon.ring(rule)
    daemon.wait("settles: ")
    assert daemon.rule(rule)["state"] == "settling"
    daemon.started(rule)
    assert time.monotonic() - began >= 0.2
    daemon.armed(rule)


# --- as whom --------------------------------------------------------------------------------


def test_run_as(world: World, daemon: Daemon) -> None:
    fifo = world.fifo()
    world.directory.chmod(0o755)
    command = f'echo "$(id -u) $(id -g) $(id -G) $HOME $(umask) $PWD" > {fifo.path}'
    for path in (*world.directory.parents, world.directory):
        if not path.stat().st_mode & 0o001:
            command = 'echo "$(id -u) $(id -g) $(id -G) $HOME $(umask) $PWD"'
    rule = daemon.attach(world.jail().jail, command, respawn="after", run_as="nobody")
    run = daemon.run(rule)
    daemon.wait(f"run {run} ended: exit 0")
    told = fifo.line() if str(fifo.path) in command else output(daemon, run)
    account = subprocess.run(
        ["sh", "-c", "id -u nobody; id -g nobody; id -G nobody; echo ~nobody"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    assert told.strip() == " ".join([*account[:4], "0022", "/"])


# --- how much -------------------------------------------------------------------------------


def output(daemon: Daemon, run: str) -> str:
    """Wait for the record of a run's output."""
    end = time.monotonic() + 20
    while True:
        for record in daemon.journal("output"):
            if record["run"] == run:
                return str(record["output_tail"])
        assert time.monotonic() < end, "no output was kept"
        daemon.settled()


def test_of_the_output_the_end_is_kept(world: World, daemon: Daemon) -> None:
    rule = daemon.attach(world.jail().jail, "seq 200000; echo last >&2", respawn="after")
    run = daemon.run(rule)
    daemon.wait(f"run {run} ended: exit 0")
    tail = output(daemon, run)
    assert tail.endswith("199999\n200000\nlast\n")
    assert len(tail) <= 4096
    assert list(daemon.state.glob("*.output")) == []


def test_a_gigabyte_of_output_takes_64_kib(world: World, daemon: Daemon) -> None:
    fifo = world.fifo()
    megabytes = 1024 if LINUX else 64  # which was only seen emulated
    command = f"dd if=/dev/zero bs=1M count={megabytes} 2>/dev/null; echo end; read x < {fifo.path}"
    rule = daemon.attach(world.jail().jail, command, respawn="after")
    before = memory_kib(daemon.pid)
    daemon.ring(rule)
    run, _ = daemon.started(rule)
    (ring,) = daemon.state.glob(f"{run}.output")
    fifo.write("\n")
    daemon.wait(f"run {run} ended: exit 0")
    assert output(daemon, run).endswith("end\n")
    assert not ring.exists()
    assert memory_kib(daemon.pid) - before < 4096


def test_the_file_of_the_output_is_bounded(world: World, daemon: Daemon) -> None:
    fifo = world.fifo()
    done = world.fifo("done")
    command = f"dd if=/dev/zero bs=1M count=64; echo x > {done.path}; read x < {fifo.path}"
    rule = daemon.attach(world.jail().jail, command)
    daemon.ring(rule)
    run, _ = daemon.started(rule)
    done.line()
    assert (daemon.state / f"{run}.output").stat().st_size <= RING_BYTES + 8
    fifo.write("\n")


def test_who_holds_the_output_for_months_neither_delays_nor_dies(
    world: World, daemon: Daemon
) -> None:
    hold, told = world.fifo("hold"), world.fifo("told")
    jail = (
        f"echo $$ > {told.path}; while read x < {hold.path}; do echo $x; echo $x >{told.path}; done"
    )
    command = f"{'setsid' if LINUX else 'daemon'} sh -c '{jail}' & echo started"
    rule = daemon.attach(world.jail().jail, command, respawn="after")
    run = daemon.run(rule)
    daemon.wait(f"run {run} ended: exit 0")
    daemon.armed(rule)
    pid = int(told.line())
    assert output(daemon, run) == "started\n"
    try:
        # It may write on, also when the daemon is dead.
        for _ in range(3):
            hold.write("x" * 2000 + "\n")
            assert len(told.line()) == 2000
            daemon.again()
        assert alive(pid)
        assert list(daemon.state.glob("*.output")) == []
    finally:
        os.kill(pid, signal.SIGKILL)


# --- the log ----------------------------------------------------------------------------------


def test_a_storm_of_signals_does_not_flood_the_log(world: World, daemon: Daemon) -> None:
    jail = world.jail()
    rule = daemon.attach(jail.jail, "true", "STORM", respawn="now", limit="5/1h")
    storm = "while :; do pkill -HUP -f '[S]TORM'; done"
    ring = subprocess.Popen(jail.inside(storm), start_new_session=True)
    try:
        daemon.wait(f"{rule}: no probe for")
        for _ in range(50):
            daemon.settled()
    finally:
        os.killpg(ring.pid, signal.SIGKILL)
        ring.wait()
    assert len(daemon.journal("start")) == 5
    lines = [line for line in daemon.log if line.startswith(f"{rule}: ")]
    assert len(lines) <= 4 * 5 + 2


def test_stopped_it_serves_its_triggers_when_continued(world: World, daemon: Daemon) -> None:
    fifo = world.fifo()
    jail = world.jail()
    rules = [daemon.attach(jail.jail, f"echo x > {fifo.path}", f"S{n}") for n in range(5)]
    probes = [daemon.probe(rule) for rule in rules]
    os.kill(daemon.pid, signal.SIGSTOP)
    for probe in probes:
        os.kill(probe, signal.SIGHUP)
    assert not_ringing(fifo)
    os.kill(daemon.pid, signal.SIGCONT)
    assert [fifo.line() for _ in rules] == ["x"] * 5


def not_ringing(fifo: Fifo) -> bool:
    """Say whether nothing has been told."""
    return fifo.waiting() == []
