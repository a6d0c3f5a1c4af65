# SPDX-License-Identifier: BSD-2-Clause
"""Attacks 7, 9, 10, 13, 19, 20 on FreeBSD: signals, and jails that end, come back or nest."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if not sys.platform.startswith("freebsd"):
    pytest.skip("cannot: the FreeBSD attacker", allow_module_level=True)

from jaildaemon.backends.base import Death
from tests.attacks.freebsd_rig import Bell, Naive, make_jail, remove_jail, shows
from tests.attacks.rig import LONGEST_SECONDS, Daemon
from tests.attacks.talker import Talker
from tests.attacks.tally import Tally
from tests.daemon.product import wait_until

HUP = signal.SIGHUP
IGNORED = {signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH, signal.SIGIO}
# A terminal's three do not stop who is alone in an orphaned group.
IGNORED |= {signal.SIGINFO, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
OTHERS = list(range(2, 129))  # _SIG_MAXSIG, sys/_sig.h
# Of Python: two are ignored, one is an exception, one is the thread library's own, one stops.
SIGTHR = 32
FATAL = sorted(
    set(OTHERS) - IGNORED - {signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, SIGTHR, signal.SIGSTOP}
)


def test_no_other_signal_is_a_trigger_on_freebsd(
    jid: int, inside: Talker, naive: Naive, daemon: Daemon, tally: Tally
) -> None:
    (pid,) = naive.serve(1)
    for number in FATAL:
        assert inside.ask(f"kill {pid} {number}") == ["ok"], number
        pid = naive.rang()
    tally.control("every other signal", len(FATAL))
    for number in OTHERS:
        pid = daemon.attach(jid, f"S{number}x")
        assert inside.ask(f"kill {pid} {number}") == ["ok"], number
        if number in IGNORED or number == signal.SIGSTOP:
            inside.ask(f"kill {pid} {signal.SIGCONT:d}")
            daemon.detach_all()
        else:
            told = daemon.wait_log(r"gone: the probe died of (\S+( \d+)?)").group(1)
            assert told == str(Death(number, None))
    tally.attack("every other signal", len(OTHERS), daemon.triggers())
    pid = daemon.attach(jid, "BELL")
    inside.ask(f"kill {pid} {HUP:d}")
    daemon.wait_log("run .* ended")
    assert daemon.triggers() == 1


def test_a_broadcast_is_no_trigger_unless_it_is_the_signal_on_freebsd(
    jid: int, inside: Talker, naive: Naive, daemon: Daemon, tally: Tally
) -> None:
    naive.serve(8)
    subprocess.run(["jexec", str(jid), "/bin/sh", "-c", "trap '' TERM; kill -TERM -1"], check=False)
    tally.control("broadcast of other signals", sum(naive.rang() > 0 for _ in range(8)))
    naive.close()
    for number in (signal.SIGTERM, 70, signal.SIGKILL):
        daemon.attach_many(jid, 8)
        # jexec(8)'s own shell is ended with the others.
        subprocess.run(
            ["jexec", str(jid), "/bin/sh", "-c", f"trap '' TERM; kill -{number:d} -1"], check=False
        )
        for _ in range(8):
            daemon.wait_log("gone: the probe died of ")
        if number == signal.SIGKILL:
            break
    assert inside.first
    tally.attack("broadcast of other signals", 24, daemon.triggers())
    daemon.attach_many(jid, 8)
    subprocess.run(["jexec", str(jid), "/bin/sh", "-c", "trap '' HUP; kill -HUP -1"], check=False)
    for _ in range(8):
        daemon.wait_log("run .* ended")
    assert daemon.triggers() == 8


def test_what_root_may_do_to_its_processes_neither_rings_nor_silences_on_freebsd(
    jid: int, inside: Talker, daemon: Daemon, tally: Tally
) -> None:
    pid = daemon.attach(jid, "BELL")
    lines = inside.ask(f"nuisance {pid}")
    won = {line.split()[1] for line in lines if line.startswith("won")}
    tally.attack("nuisance", len(lines), len(won & {"group", "reap", "new_privs"}), str(lines))
    assert daemon.triggers() == 0
    inside.ask(f"kill {pid} {HUP:d}")
    daemon.wait_log("run .* ended")
    assert daemon.triggers() == 1


def test_a_stopped_jail_stops_nothing_else(
    jid: int, inside: Talker, naive: Naive, other: Bell, tally: Tally
) -> None:
    """FreeBSD's freezer: SIGSTOP, to the probe and to all that is in the jail."""
    pid = int(naive.asked("arm"))
    assert inside.ask(f"kill {pid} {signal.SIGSTOP:d}") == ["ok"]
    assert inside.ask(f"kill {pid} {HUP:d}") == ["ok"]
    tally.control("probe stopped", naive.hangs(pid))
    os.kill(pid, signal.SIGCONT)
    assert naive.line().split()[0] == str(pid)
    daemon = other.daemon
    pid = daemon.attach(jid, "BELL")
    (rule,) = daemon.call("List")["parameters"]["rules"]
    assert inside.ask(f"kill {pid} {signal.SIGSTOP:d}") == ["ok"]
    assert shows(pid, "state", "T")
    assert inside.ask(f"kill {pid} {HUP:d}") == ["ok"]
    tally.note(f"probe stopped: another rule is served, median {other.served():.0f} ms")
    tally.attack("probe stopped", 1, daemon.triggers() - 5)
    assert inside.ask(f"kill {pid} {signal.SIGCONT:d}") == ["ok"]
    daemon.wait_log(rf"\b{rule['id']}: signal from jail ")
    assert daemon.triggers() == 6


def test_the_removal_of_the_jail_is_no_trigger(
    attacker: Path, daemon: Daemon, tally: Tally
) -> None:
    assert attacker.exists()
    naive = Naive(make_jail("jid=4711", "name=jdsame", "path=/"))
    naive.serve(1)
    remove_jail("jdsame")
    # It is quicker than jail(8), which waits for who got its TERM.
    wait_until(lambda: naive.rang() == 0, "jail -r rings the naive one")
    naive.close()
    tally.control("jail -r", 1)
    for turn in range(4):
        jid = make_jail("jid=4711", "name=jdsame", "path=/")
        assert len(daemon.attach_many(jid, 4)) == 4, turn
        remove_jail("jdsame")
        for _ in range(4):
            daemon.wait_log("gone: the probe died of SIG(TERM|KILL)")
    tally.attack("jail -r", 16, daemon.triggers())


def _make_soon(*parameters: str) -> None:
    """Make a jail as soon as its jid is free: a dead probe has it until it is reaped."""

    def made() -> bool:
        with contextlib.suppress(subprocess.CalledProcessError):
            return make_jail(*parameters) > 0
        return False

    wait_until(made, "the jid is free")


def _probes(jid: int) -> str:
    # Without -ax: since 15 that adds every process to those of the jail.
    command = ["ps", "-J", str(jid), "-o", "command="]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout


def test_a_later_jail_of_the_same_jid_is_another_one(
    attacker: Path, daemon: Daemon, tally: Tally
) -> None:
    """Same jid, same name, at once; and the rule would have armed again in the first."""
    assert attacker.exists()
    make_jail("jid=4711", "name=jdsame", "path=/")
    naive = Naive(4711)
    turns, strangers = 6, []
    try:
        for _ in range(turns):
            daemon.attach(4711, "BELL", command="sleep 1", respawn="now")
            remove_jail("jdsame")
            _make_soon("jid=4711", "name=jdsame", "path=/")
            daemon.wait_log("gone: the probe died of SIG(TERM|KILL)")
            strangers += [rule["id"] for rule in daemon.call("List")["parameters"]["rules"]]
            strangers += _probes(4711).split()
        # Who remembers the number stands in whatever has it now.
        pid = naive.asked("arm")
        tally.control("jid reused", _probes(4711).count("naive"))
        naive.asked(f"kill {pid}")
        tally.attack("jid reused", turns, len(strangers), str(strangers))
        assert daemon.triggers() == 0
    finally:
        naive.close()
        remove_jail("jdsame")


def test_a_nested_jail_of_the_same_name_is_another_one(
    attacker: Path, daemon: Daemon, tally: Tally
) -> None:
    assert attacker.exists()
    make_jail("name=jdouter", "path=/", "children.max=5")
    try:
        made = ["jexec", "jdouter", "jail", "-c", "name=web", "path=/", "persist"]
        subprocess.run(made, check=True)
        names = subprocess.run(["jls", "name"], capture_output=True, text=True, check=True)
        last = [name.rpartition(".")[2] for name in names.stdout.split()]
        tally.control("nested jail of that name", last.count("web"))  # who looks at that alone
        answer = daemon.call("Attach", jail="web", command="true", title="BELL")
        tally.attack("nested jail of that name", 1, int("error" not in answer), str(answer))
        assert answer["error"] == "org.jaildaemon.NoSuchJail"
    finally:
        remove_jail("jdouter")


@pytest.fixture
def public() -> Iterator[Path]:
    """Give a directory with a path short enough for a socket."""
    place = Path(f"/var/tmp/jdatk{os.getpid()}")
    place.mkdir(mode=0o700)
    yield place
    shutil.rmtree(place)


@pytest.fixture
def by_nullfs(attacker: Path, public: Path) -> Iterator[int]:
    """Give a jail whose tree is the host's, read-only, by nullfs(5)."""
    assert attacker.exists()
    root = public / "root"
    root.mkdir()
    done = subprocess.run(
        ["mount", "-t", "nullfs", "-o", "ro", "/", root], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip("cannot: this kernel has no nullfs")
    yield make_jail(f"name=jdnull{os.getpid()}", f"path={root}")
    remove_jail(f"jdnull{os.getpid()}")
    subprocess.run(["umount", root], check=True)


CALL = (
    "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
    "print(s.recv(4096).decode())"
)
LOCAL_PEERCRED = 1


def test_the_socket_in_a_jail_serves_nobody_there_on_freebsd(
    jid: int, by_nullfs: int, public: Path, tally: Tally
) -> None:
    """In a jail on /, and in one that has it by nullfs."""
    daemon = Daemon(public)
    naive = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    naive.bind(str(public / "naive"))
    naive.listen(1)
    naive.settimeout(LONGEST_SECONDS)
    try:
        for where in (jid, by_nullfs):

            def command(path: str, jail: int = where) -> list[str]:
                return ["jexec", str(jail), sys.executable, "-c", CALL, path]

            # Who looks at the uid alone is had by every root of every jail.
            with subprocess.Popen(command(str(public / "naive")), stdout=subprocess.DEVNULL):
                sock, _ = naive.accept()
                cred = sock.getsockopt(0, LOCAL_PEERCRED, 256)
                assert int.from_bytes(cred[4:8], sys.byteorder) == 0
                sock.send(b"welcome")
                sock.close()
            tally.control(f"socket in jail {where}", 1)
            done = subprocess.run(
                command(daemon.socket), capture_output=True, text=True, check=True
            )
            assert f"it is in jail {where}" in done.stdout
            daemon.wait_log(rf"denied uid 0 pid \d+ at the socket: it is in jail {where}")
            tally.attack("socket", 1, int("NotPermitted" not in done.stdout))
    finally:
        naive.close()
        daemon.close()
