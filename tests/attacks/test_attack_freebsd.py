# SPDX-License-Identifier: BSD-2-Clause
"""FreeBSD: CVE-2020-25582 and its like, by the root of a jail, on a real kernel."""

import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attacks.rig import HERE, STRICT, Daemon, build
from tests.attacks.tally import Tally

if not sys.platform.startswith("freebsd"):
    pytest.skip("cannot: the FreeBSD attacker", allow_module_level=True)

TARGETS = 400
"""Under emulation; a real machine makes as many in a second."""
AT_ONCE = 40
NAIVE = 40
VISIBLE: set[str] = set()
"""What the kernel shows of every process in the jail, ours too (kernel-facts.md, A4)."""


class Talker:
    """A program that answers lines."""

    def __init__(self, *command: str, environment: dict[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env={**os.environ, **(environment or {})},
        )
        self.first = self.line()

    def line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().rstrip("\n")

    def say(self, words: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{words}\n")
        self._process.stdin.flush()

    def ask(self, words: str) -> list[str]:
        """Have a command carried out; the answer ends with a dot."""
        self.say(words)
        lines = []
        while (line := self.line()) != ".":
            assert line, "it has ended"
            lines.append(line)
        return lines

    def counts(self, words: str = "counts") -> dict[str, str]:
        (line,) = self.ask(words)
        return dict(word.split("=", 1) for word in line.split())

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


@pytest.fixture(scope="module")
def attacker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if os.geteuid() != 0:
        pytest.skip("cannot: only root may make jails")
    program = tmp_path_factory.mktemp("attacker") / "fbsd_attacker"
    return build(program, *STRICT, HERE / "fbsd_attacker.c")


@pytest.fixture
def jid(attacker: Path) -> Iterator[int]:
    assert attacker.exists()
    name = f"jdattack{uuid.uuid4().hex[:8]}"
    made = subprocess.run(
        ["jail", "-i", "-c", f"name={name}", "path=/", "persist"],
        capture_output=True,
        text=True,
        check=True,
    )
    yield int(made.stdout)
    subprocess.run(["jail", "-r", name], check=True, capture_output=True)


@pytest.fixture
def inside(jid: int, attacker: Path) -> Iterator[Talker]:
    talker = Talker("jexec", str(jid), str(attacker))
    assert talker.first.startswith("ready")
    yield talker
    talker.close()


@pytest.fixture
def naive(jid: int) -> Iterator[Talker]:
    talker = Talker(sys.executable, str(HERE / "naive_freebsd.py"), str(jid))
    yield talker
    talker.close()


@pytest.fixture
def daemon(tmp_path: Path, attacker: Path) -> Iterator[Daemon]:
    assert attacker.exists()
    running = Daemon(tmp_path)
    yield running
    running.close()


def _armed(naive: Talker) -> int:
    naive.say("arm")
    return int(naive.line())


def _ended(naive: Talker, pid: int) -> None:
    naive.say(f"kill {pid}")
    naive.line()


def test_racing_the_entry_gains_nothing_on_freebsd(
    jid: int, inside: Talker, naive: Talker, daemon: Daemon, tally: Tally
) -> None:
    inside.ask("start race")
    pids = []
    for _ in range(NAIVE):
        pids.append(_armed(naive))
        if int(inside.counts()["wins"]):
            break
    control = inside.counts("stop")
    for pid in pids:
        _ended(naive, pid)
    tally.control("race", int(control["wins"]), control["won"])

    inside.ask("start race")
    armed = 0
    for _ in range(4 * TARGETS // AT_ONCE):
        armed += len(daemon.attach_many(jid, AT_ONCE))
        if int(inside.counts()["seen"]) >= TARGETS:
            break
        daemon.detach_all()
    found = inside.counts("stop")
    attempts, seen, wins = (int(found[name]) for name in ("attempts", "seen", "wins"))
    tally.note(
        f"race: {wins} of {attempts} attempts on {seen} of {armed} probes; naive: "
        f"{control['wins']} of {control['attempts']} on {control['seen']} ({control['won']})"
    )
    assert seen >= TARGETS
    tally.attack("race", attempts, wins, found["won"])
    assert daemon.triggers() == 0


def test_a_standing_probe_shows_nothing_on_freebsd(
    jid: int, inside: Talker, naive: Talker, daemon: Daemon, tally: Tally
) -> None:
    pid = _armed(naive)
    lines = inside.ask(f"look {pid}")
    won = {line.split()[1] for line in lines if line.startswith("won")}
    _ended(naive, pid)
    assert {"env", "filedesc", "vmmap", "attach", "ktrace"} <= won, lines
    for name in won:
        tally.control(f"look: {name}", 1)
    pid = daemon.attach(jid, "BELL")
    lines = inside.ask(f"look {pid}")
    won = {line.split()[1] for line in lines if line.startswith("won")} - VISIBLE
    assert len(lines) >= 12
    tally.attack("look", len(lines), len(won), " ".join(sorted(won)))
    assert daemon.triggers() == 0


def _procstat(jid: int, *options: str) -> str:
    done = subprocess.run(
        ["jexec", str(jid), "procstat", *options], capture_output=True, text=True, check=False
    )
    return done.stdout


def test_procstat_in_the_jail_shows_no_descriptor_map_or_environment(
    jid: int, inside: Talker, daemon: Daemon, tally: Tally
) -> None:
    assert inside.first
    pid = str(daemon.attach(jid, "BELL"))
    shown = []
    for option in ("-f", "-v", "-e", "-x"):
        lines = _procstat(jid, option, pid).splitlines()[1:]
        shown += [line for line in lines if not re.search(r" -$|^ *\d+ jailprobe *-?$", line)]
    tally.attack("procstat", 4, len(shown), str(shown))
    # From the host, root sees what there is: nothing but the root and current directory.
    done = subprocess.run(["procstat", "-f", pid], capture_output=True, text=True, check=True)
    kinds = {line.split()[2] for line in done.stdout.splitlines()[1:]}
    assert kinds <= {"text", "cwd", "root", "jail"}, done.stdout
    done = subprocess.run(["procstat", "-e", pid], capture_output=True, text=True, check=True)
    assert "=" not in done.stdout
    done = subprocess.run(["procstat", "-s", pid], capture_output=True, text=True, check=True)
    flags = done.stdout.splitlines()[1].split()
    assert "C" in flags[-1] or any("C" in word for word in flags[8:]), done.stdout  # capsicum


def test_no_other_signal_is_a_trigger_on_freebsd(
    jid: int, inside: Talker, daemon: Daemon, tally: Tally
) -> None:
    harmless = {signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH}
    harmless |= {signal.SIGIO, signal.SIGINFO, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
    numbers = [n for n in range(2, 33) if n != 32]
    for number in numbers:
        pid = daemon.attach(jid, f"S{number}x")
        assert inside.ask(f"kill {pid} {number}") == ["ok"]
        if number in harmless or number == signal.SIGSTOP:
            inside.ask(f"kill {pid} {signal.SIGCONT:d}")
            daemon.detach_all()
        else:
            daemon.wait_log("gone: the probe died of ")
    tally.attack("every other signal", len(numbers), daemon.triggers())
    pid = daemon.attach(jid, "BELL")
    inside.ask(f"kill {pid} {signal.SIGHUP:d}")
    daemon.wait_log("run .* ended")
    assert daemon.triggers() == 1


def test_the_removal_of_the_jail_is_no_trigger(
    attacker: Path, daemon: Daemon, tally: Tally
) -> None:
    assert attacker.exists()
    for turn in range(4):
        made = subprocess.run(
            ["jail", "-i", "-c", "jid=4711", "name=jdsame", "path=/", "persist"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert len(daemon.attach_many(int(made.stdout), 4)) == 4, turn
        subprocess.run(["jail", "-r", "jdsame"], check=True, capture_output=True)
        for _ in range(4):
            daemon.wait_log("gone: the probe died of SIG(TERM|KILL)")
    tally.attack("jail -r, the same jid again and again", 16, daemon.triggers())


def test_a_nested_jail_of_the_same_name_is_another_one(
    attacker: Path, daemon: Daemon, tally: Tally
) -> None:
    assert attacker.exists()
    subprocess.run(
        ["jail", "-c", "name=jdouter", "path=/", "persist", "children.max=5"], check=True
    )
    try:
        subprocess.run(
            ["jexec", "jdouter", "jail", "-c", "name=web", "path=/", "persist"], check=True
        )
        answer = daemon.call("Attach", jail="web", command="true", title="BELL")
        tally.attack("nested jail of that name", 1, int("error" not in answer), str(answer))
        assert answer["error"] == "org.jaildaemon.NoSuchJail"
    finally:
        subprocess.run(["jail", "-r", "jdouter"], check=True, capture_output=True)


def test_a_held_naive_probe_hangs_and_ours_cannot_be_held(
    jid: int, inside: Talker, naive: Talker, daemon: Daemon, tally: Tally
) -> None:
    pid = _armed(naive)
    inside.ask(f"start hold {pid}")
    os.kill(pid, signal.SIGKILL)
    naive.say(f"reap {pid}")
    assert naive.line() == "0 0"
    held = inside.counts("stop")
    tally.control("hold", int(held["wins"]))
    pid = daemon.attach(jid, "BELL")
    inside.ask(f"start hold {pid}")
    os.kill(pid, signal.SIGHUP)
    daemon.wait_log("run .* ended")
    held = inside.counts("stop")
    tally.attack("hold", int(held["attempts"]), int(held["wins"]))


def test_the_socket_in_a_jail_serves_nobody_there_on_freebsd(
    jid: int, inside: Talker, daemon: Daemon, tally: Tally
) -> None:
    """The jail's root is /, so that the socket is in it as nullfs would have it."""
    assert inside.first
    program = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        "print(s.recv(4096).decode())"
    )
    command = ["jexec", str(jid), sys.executable, "-c", program, daemon.socket]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"it is in jail {jid}" in done.stdout
    daemon.wait_log(rf"denied uid 0 pid \d+ at the socket: it is in jail {jid}")
    tally.attack("socket", 1, int("NotPermitted" not in done.stdout))
