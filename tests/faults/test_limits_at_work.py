# SPDX-License-Identifier: BSD-2-Clause
"""Limits with a real daemon: how often, how many, how long, how much, and as whom."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.faults.world import Daemon, Fifo, World, alive, changed, wait_gone
from tests.kernel.events import PATIENCE_SECONDS
from tests.kernel.processes import memory_kib

LINUX = sys.platform == "linux"
RING_BYTES = 65536
ALL_OUTPUT = changed("daemon.output", f"OUTPUT_SECONDS = {PATIENCE_SECONDS}")
"""A reader of output that gets no processor has not read all of it a second after its end."""


# --- how often ------------------------------------------------------------------------


def test_over_its_limit_a_rule_has_no_probe_until_the_window_allows(
    world: World, daemon: Daemon
) -> None:
    jail = world.jail()
    limited = daemon.attach(jail.jail, "true", respawn="now", limit="3/1h")
    for _ in range(3):
        daemon.run(limited)
        last = daemon.wait(f"{limited}: armed", f"{limited}: no probe for")
    assert "the limit of 3/1h is reached" in last
    found = daemon.rule(limited)
    assert found["state"] == "limited"
    assert "probe_pid" not in found
    rule = daemon.attach(jail.jail, "true", respawn="now", limit="3/2s")
    # Where three take longer than the window, one more reaches the limit, or the next.
    while "is reached" not in last or not last.startswith(f"{rule}: "):
        daemon.run(rule)
        last = daemon.wait(f"{rule}: armed", f"{rule}: no probe for")
    daemon.armed(rule)
    assert daemon.rule(rule)["state"] == "armed"
    assert sum("is reached" in line for line in daemon.log) == 2
    triggers, armed = (daemon.times(kind, rule) for kind in ("trigger", "armed"))
    assert armed[-1] - triggers[-3] >= 2.0


def test_a_cooldown_begins_with_the_end_of_the_run(world: World, daemon: Daemon) -> None:
    jail, fifo = world.jail(), world.fifo()
    for cooldown in ("1h", "300ms"):
        rule = daemon.attach(jail.jail, f"read x < {fifo.path}", respawn="now", cooldown=cooldown)
        run = daemon.run(rule)
        assert daemon.rule(rule)["state"] == "running"
        fifo.write("\n")
        daemon.wait(f"run {run} ended")
        assert daemon.wait(f"{rule}: no probe for").endswith(f": cooldown [{jail.jail}]")
        if cooldown == "1h":
            assert daemon.rule(rule)["state"] == "cooling"
    daemon.armed(rule)
    (ended,), (_, armed) = (daemon.times(kind, rule) for kind in ("end", "armed"))
    assert armed - ended >= 0.3


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


def when_ready(ready: Fifo, kill_seconds: float) -> list[str]:
    """Return the program, where a timeout begins when the command has told `ready`.

    Its trap is set by then.  And with its own KILL_SECONDS, so that the test is quick.
    """
    begin = "m.Runner._watch_timeout"
    wait = f"open({str(ready.path)!r}).readline()"
    change = f"begin = {begin}; {begin} = lambda *a: ({wait}, m.begin(*a))"
    return changed("daemon.runner", f"KILL_SECONDS = {kill_seconds}; m.{change}")


def test_a_timeout_ends_the_whole_group(world: World) -> None:
    daemon, fifo, ready = world.daemon, world.fifo(), world.fifo("ready")
    daemon.start(program=when_ready(ready, 1.0))
    child = f"sh -c 'echo $$ > {fifo.path}; echo > {ready.path}; exec sleep 1000'"
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


@pytest.mark.parametrize("kill_seconds", [1.0, 3600.0])
def test_kill_follows_though_the_shell_died_of_the_term(world: World, kill_seconds: float) -> None:
    daemon, fifo, ready = world.daemon, world.fifo(), world.fifo("ready")
    daemon.start(program=when_ready(ready, kill_seconds))
    script = f'trap "" TERM; echo $$ >{fifo.path}; echo >{ready.path}; while :; do sleep 1000; done'
    command = f"sh -c '{script}' & sleep 1000; true"
    rule = daemon.attach(world.jail().jail, command, respawn="after", timeout="200ms")
    daemon.ring(rule)
    run = daemon.started(rule)[0]
    stubborn = int(fifo.line())
    daemon.wait(f"run {run} ended: SIGTERM")
    daemon.armed(rule)
    if kill_seconds == 3600.0:  # with any less it could be over by now
        assert alive(stubborn)
        os.killpg(os.getpgid(stubborn), signal.SIGKILL)
    wait_gone(stubborn)


# --- as whom --------------------------------------------------------------------------------


def test_run_as(world: World) -> None:
    daemon, fifo = world.daemon, world.fifo()
    daemon.start(program=ALL_OUTPUT)
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
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        for record in daemon.journal("output"):
            if record["run"] == run:
                return str(record["output_tail"])
        assert time.monotonic() < end, "no output was kept"
        daemon.settled()


def test_of_the_output_the_end_is_kept(world: World) -> None:
    daemon = world.daemon
    daemon.start(program=ALL_OUTPUT)
    rule = daemon.attach(world.jail().jail, "seq 200000; echo last >&2", respawn="after")
    run = daemon.run(rule)
    daemon.wait(f"run {run} ended: exit 0")
    tail = output(daemon, run)
    assert tail.endswith("199999\n200000\nlast\n")
    assert len(tail) <= 4096
    assert list(daemon.state.glob("*.output")) == []


def test_a_gigabyte_of_output_takes_64_kib(world: World) -> None:
    daemon, fifo = world.daemon, world.fifo()
    daemon.start(program=ALL_OUTPUT)
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
    gate = world.fifo("gate")
    command = (
        f"{'setsid' if LINUX else 'daemon'} sh -c '{jail}' & echo started; read x <{gate.path}"
    )
    rule = daemon.attach(world.jail().jail, command, respawn="after")
    run = daemon.run(rule)
    daemon.until_read(run, b"started\n")  # what is not, a second after the end, never will be
    gate.write("\n")
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


# A small Linux has no pkill(1); README.md has this for it.
RING = """
for p in /proc/[0-9]*; do
    t=; { IFS= read -r t <"$p/cmdline"; } 2>/dev/null || :
    [ "$t" != "jaildaemon: STORM" ] || kill -HUP "${p#/proc/}"
done 2>/dev/null
"""
if sys.platform != "linux":
    RING = "pkill -HUP -f '^jaildaemon: STORM'"


def test_a_storm_of_signals_does_not_flood_the_log(world: World, daemon: Daemon) -> None:
    jail = world.jail()
    rule = daemon.attach(jail.jail, "true", "STORM", respawn="now", limit="5/1h")
    ring = subprocess.Popen(jail.inside(f"while :; do\n{RING}\ndone"), start_new_session=True)
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
    os.waitid(os.P_PID, daemon.pid, os.WSTOPPED)
    for probe in probes:
        os.kill(probe, signal.SIGHUP)
        wait_gone(probe)
    assert fifo.waiting() == []
    os.kill(daemon.pid, signal.SIGCONT)
    assert [fifo.line() for _ in rules] == ["x"] * 5
