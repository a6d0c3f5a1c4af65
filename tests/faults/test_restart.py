# SPDX-License-Identifier: BSD-2-Clause
"""`jaildaemon restart`: the daemon replaces itself, and nobody in a jail can tell."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import jaildaemon
from jaildaemon.errors import Refused
from tests.daemon.product import wait_ended
from tests.faults.world import JAILDAEMON, Daemon, World, changed, wait_gone

PACKAGE = Path(jaildaemon.__file__).parent


def restart(daemon: Daemon) -> None:
    """Restart it, and return when the new program serves."""
    daemon.pass_over()  # the first program's " serves "
    daemon.call("Restart")
    assert int(daemon.wait(" serves ").rpartition(" ")[2]) == daemon.pid


@pytest.fixture
def copied(world: World) -> Path:
    """A daemon that runs from a copy of the package, which may be broken; returns the copy."""
    place = world.directory / "new" / "jaildaemon"
    shutil.copytree(PACKAGE, place)
    world.daemon.start(env={"PYTHONPATH": str(place.parent)})
    if sys.platform == "linux":
        exe = os.readlink(f"/proc/{world.daemon.pid}/exe")
        assert exe == os.path.realpath(sys.executable)
    return place


def test_the_pid_and_the_probes_stay(world: World, daemon: Daemon) -> None:
    jail, fifo = world.jail(), world.fifo()
    command = f"echo $JAILDAEMON_RULE > {fifo.path}"
    rules = [
        daemon.attach(jail.jail, command, "ONE"),
        daemon.attach(jail.jail, command, "TWO", respawn="after"),
        daemon.attach(jail.jail, command, "THREE", respawn="now"),
    ]
    before = {rule: found["probe_pid"] for rule, found in daemon.rules().items()}
    restart(daemon)
    assert {rule: found["probe_pid"] for rule, found in daemon.rules().items()} == before
    assert (world.directory / "pid").read_text(encoding="ascii") == str(daemon.pid)
    for rule in rules:
        daemon.ring(rule)
        assert fifo.line() == rule
    assert daemon.end() == 0


def test_running_commands_keep_their_parent_and_their_status(world: World, daemon: Daemon) -> None:
    jail, fifo = world.jail(), world.fifo()
    rule = daemon.attach(jail.jail, f"read x < {fifo.path}; exit 7", "A", respawn="after")
    daemon.ring(rule)
    run, pid = daemon.started(rule)
    restart(daemon)
    assert pid in daemon.children()
    fifo.write("\n")
    daemon.wait(f"run {run} ended: exit 7")
    daemon.armed(rule)
    daemon.settled()


def test_a_command_that_ends_during_the_exchange_has_its_status(
    world: World, daemon: Daemon
) -> None:
    jail, fifo = world.jail(), world.fifo()
    rule = daemon.attach(jail.jail, f"read x < {fifo.path}; echo out; exit 7", respawn="after")
    for _ in range(5):
        daemon.ring(rule)
        run, pid = daemon.started(rule)
        daemon.call("Restart")
        # The answer comes before the exec: it ends now, at about that moment.
        fifo.write("\n")
        wait_gone(pid)
        daemon.wait(f"run {run} ended: exit 7")
        daemon.armed(rule)
        daemon.settled()
    assert {r["exit_status"] for r in daemon.journal("end")} == {7}


def test_no_signal_is_lost_or_seen_twice_in_many_restarts(world: World, daemon: Daemon) -> None:
    jail = world.jail()
    rules = [
        daemon.attach(jail.jail, "true", f"T{n}", respawn="now", limit="none", concurrency=64)
        for n in range(6)
    ]
    rung = 0
    for number in range(10):
        probes = [found["probe_pid"] for found in daemon.rules().values()]
        ends = [wait_ended(probe) for probe in probes]  # later a number may be another's
        daemon.pass_over()  # the program before it has said " serves " too
        daemon.launch_restart()
        # No wait for anything: at ten moments of the rehearsal and the exec.
        time.sleep(number * 0.04)
        for probe in probes:
            os.kill(probe, signal.SIGHUP)
            rung += 1
        assert daemon.restarted() == 0
        daemon.wait(" serves ")
        for ended in ends:
            ended()  # until then it looks as one that has not been rung
        daemon.until_armed(rules)
    assert rung >= 50
    while daemon.call("Status")["running"]:  # before the last of them some may have to wait
        daemon.settled()
    assert len(daemon.journal("trigger")) == len(daemon.journal("start")) == rung
    daemon.until_fds(daemon.fds_at_start + 3 * len(rules) + 4)


def test_descriptors_and_children_do_not_grow(world: World, daemon: Daemon) -> None:
    rule = daemon.attach(world.jail().jail, "echo x", respawn="after", limit="none")
    restart(daemon)
    daemon.settled()
    fds = daemon.fds()
    for _ in range(20):
        daemon.run(rule)
        daemon.armed(rule)
        restart(daemon)
    daemon.settled()
    daemon.until_children(1)  # the probe; no reader, no zombie
    daemon.until_fds(fds)


def test_windows_are_kept(world: World, daemon: Daemon) -> None:
    jail = world.jail()
    limited = daemon.attach(jail.jail, "true", "L", respawn="after", limit="1/1h")
    cooling = daemon.attach(jail.jail, "true", "C", respawn="after", cooldown="1h")
    for rule in (limited, cooling):
        daemon.run(rule)
        daemon.wait("no probe for")
    restart(daemon)
    found = daemon.rules()
    assert (found[limited]["state"], found[cooling]["state"]) == ("limited", "cooling")
    assert all("next_arming" in rule for rule in found.values())


def break_syntax(place: Path) -> None:
    """Leave an upgrade half done."""
    (place / "daemon" / "service.py").write_text("def (:\n", encoding="ascii")


def break_helper(place: Path) -> None:
    """Forget the helper."""
    (place / "libexec" / "jailprobe").unlink()


def break_journal(place: Path) -> None:
    """Let the new version not know our rules."""
    (place / "core" / "journal.py").write_text(
        (PACKAGE / "core" / "journal.py")
        .read_text(encoding="utf-8")
        .replace('elif kind == "rule":', 'elif kind == "regel":'),
        encoding="utf-8",
    )


def break_handover(place: Path) -> None:
    """Let the new version speak another handover."""
    path = place / "daemon" / "handover.py"
    text = path.read_text(encoding="utf-8").replace("FORMAT = 1", "FORMAT = 2")
    path.write_text(text, encoding="utf-8")


BREAKS = [
    (break_syntax, "SyntaxError"),
    (break_helper, "the helper cannot be used"),
    (break_journal, "has no rule t1"),
    (break_handover, "has format 1, not 2"),
]


def test_a_broken_new_version_is_found_out(world: World, copied: Path) -> None:
    daemon, fifo = world.daemon, world.fifo()
    rule = daemon.attach(world.jail().jail, f"echo ran > {fifo.path}", respawn="after")
    probe = daemon.probe(rule)
    for damage, why in BREAKS:
        damage(copied)
        with pytest.raises(Refused, match="the rehearsal failed") as refused:
            daemon.call("Restart")
        assert why in str(refused.value)
        assert "the old one runs on" in str(refused.value)
        assert daemon.probe(rule) == probe
        shutil.rmtree(copied)
        shutil.copytree(PACKAGE, copied)
    restart(daemon)
    assert daemon.probe(rule) == probe
    daemon.ring(rule)
    assert fifo.line() == "ran"


def test_a_new_version_that_hangs_is_ended(world: World, copied: Path) -> None:
    daemon = world.daemon
    rule = daemon.attach(world.jail().jail, "true", respawn="after")
    probe = daemon.probe(rule)
    handover = copied / "daemon" / "handover.py"
    text = handover.read_text(encoding="utf-8")
    impatient = re.sub("REHEARSAL_SECONDS = .*", "REHEARSAL_SECONDS = 1.0", text)
    handover.write_text(impatient, encoding="utf-8")
    restart(daemon)
    hanging = impatient.replace("    history = History()", "    signal.pause()")
    handover.write_text(hanging, encoding="utf-8")
    with pytest.raises(Refused, match=r"not done after 1 s \(the old one runs on\)") as refused:
        daemon.call("Restart")
    assert "the rehearsal failed (SIGKILL)" in str(refused.value)
    assert daemon.probe(rule) == probe


def test_a_program_that_others_can_write_is_not_executed(world: World, copied: Path) -> None:
    daemon = world.daemon
    rule = daemon.attach(world.jail().jail, "true", respawn="after")
    probe = daemon.probe(rule)
    handover = copied / "daemon" / "handover.py"
    for path, words in (
        (handover, f"{handover}: can be written by others than root"),
        (copied, f": its directory {copied} can be written by others than root"),
    ):
        mode = path.stat().st_mode
        path.chmod(mode | 0o002)
        with pytest.raises(Refused) as refused:
            daemon.call("Restart")
        assert words in str(refused.value)
        path.chmod(mode)
    restart(daemon)
    assert daemon.probe(rule) == probe


def test_a_crash_right_after_the_exec_is_a_crash(world: World, copied: Path) -> None:
    daemon = world.daemon
    rule = daemon.attach(world.jail().jail, "true", respawn="after")
    # The rehearsal goes well, what follows does not.
    service = copied / "daemon" / "service.py"
    text = service.read_text(encoding="utf-8")
    first = "    check_descriptors(handover)\n"
    assert first in text
    crash = text.replace(first, f"    os.kill(os.getpid(), 9)\n{first}")
    service.write_text(crash, encoding="utf-8")
    daemon.call("Restart")
    assert daemon.ended() == -signal.SIGKILL
    daemon.start()
    daemon.armed(rule)


MOMENTS = {
    "before the exec": (
        "        # Blocked signals stay",
        "        os.kill(os.getpid(), signal.SIGTERM)\n        # Blocked signals stay",
    ),
    "with the end of the rehearsal": (
        "                self._when_quiet(self._exec)",
        """\
                os.kill(os.getpid(), signal.SIGTERM)
                self._backend.watcher.call_in(0, lambda: self._when_quiet(self._exec))""",
    ),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_termination_during_the_exchange_is_not_lost(
    world: World, copied: Path, moment: str
) -> None:
    daemon = world.daemon
    handover = copied / "daemon" / "handover.py"
    text, (before, after) = handover.read_text(encoding="utf-8"), MOMENTS[moment]
    assert text.count(before) == 1
    handover.write_text(text.replace(before, after), encoding="utf-8")
    restart(daemon)  # from here on each exchange has it
    daemon.launch_restart()
    assert daemon.ended() == 0
    assert daemon.log[-1] == "ended"
    daemon.restarted()


TOLD_AT_ONCE = changed(
    "daemon.signals",
    "set_to = m.signal.signal; m.signal.signal = lambda number, handler: "
    "(m.set_to(number, handler), number == 15 and m.os.kill(m.os.getpid(), number))[0]",
)


def test_a_termination_as_soon_as_it_is_handled_is_not_lost(world: World) -> None:
    world.daemon.launch(program=TOLD_AT_ONCE)
    assert world.daemon.ended() == 0
    assert world.daemon.log[-1] == "ended"


def test_in_the_background_too(world: World) -> None:
    daemon = world.daemon
    words = [word for word in daemon.arguments() if word != "-F"]
    subprocess.run([*JAILDAEMON, *words], check=True)
    pidfile = world.directory / "pid"
    pid = int(pidfile.read_text(encoding="ascii"))
    try:
        rule = daemon.attach(world.jail().jail, "true", respawn="after")
        probe = daemon.probe(rule)
        done = subprocess.run([*JAILDAEMON, "restart", "-f", daemon.socket], check=False)
        assert done.returncode == 0
        # The old listener is the new one: whoever calls now is answered by the new program.
        assert daemon.call("Status")["pid"] == pid
        assert daemon.probe(rule) == probe
        assert int(pidfile.read_text(encoding="ascii")) == pid
    finally:
        os.kill(pid, signal.SIGTERM)
        wait_gone(pid)
    assert not pidfile.exists()
