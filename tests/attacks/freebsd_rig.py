# SPDX-License-Identifier: BSD-2-Clause
"""FreeBSD jails with an attacker in them, and the naive daemon."""

import ctypes
import os
import signal
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.attacks.rig import HERE, LONGEST_SECONDS, STRICT, Daemon, build
from tests.attacks.talker import NaiveTalker, Talker
from tests.helper.parent import wait_readable

NAIVE = HERE / "naive_freebsd.py"
SUSPENDED = ("pause", "sigsusp")
"""What sigsuspend(2) waits for, in 13 and in 15 (sys/kern/kern_sig.c)."""
LIBC = ctypes.CDLL(None, use_errno=True)
KERN_PROC_PID = (1, 14, 1)  # sys/sysctl.h
KINFO_SIZE, KI_RUNTIME = 1088, 328  # sys/user.h


class Naive(NaiveTalker):
    """naive_freebsd.py, running: the daemon that each attack must win against first."""

    def __init__(self, jid: int, wrap: Iterable[str | Path] = ()) -> None:
        super().__init__(sys.executable, NAIVE, str(jid), wrap=wrap)
        self.own = self.pid

    def serve(self, count: int) -> list[int]:
        """Fork probes, and have it ring from now on whenever one of them is gone."""
        self._serves = True
        return [int(word) for word in self.asked(f"serve {count}").split()]

    def hangs(self, pid: int) -> bool:
        """Have it wait for a probe; say whether it misses another that is rung meanwhile.

        A wait without an end that the author did not think of.
        """
        other = int(self.asked("arm"))
        self.say(f"reap {pid} block")
        assert shows(self.pid, "wchan", "wait")
        os.kill(other, signal.SIGHUP)
        assert shows(other, "state", "Z")  # dead, and nobody looks
        return shows(self.pid, "wchan", "wait") and self.silent()


class Bell:
    """A rule in a jail of its own, whose command is heard."""

    def __init__(self, daemon: Daemon, fifo: Path) -> None:
        os.mkfifo(fifo)
        self._fifo, self._fd = fifo, os.open(fifo, os.O_RDWR)
        self._name = f"jdother{os.getpid()}"
        self._jid = make_jail(f"name={self._name}", "path=/")
        self.daemon = daemon

    def served(self, times: int = 5) -> float:
        """Arm and ring it, so often; return the median of the milliseconds until it is heard."""
        before, figures = self.daemon.triggers(), []
        for _ in range(times):
            pid = self.daemon.attach(self._jid, "OTHER", command=f"echo x >{self._fifo}")
            began = time.perf_counter()
            os.kill(pid, signal.SIGHUP)
            wait_readable(self._fd)
            os.read(self._fd, 64)
            figures.append((time.perf_counter() - began) * 1000)
        assert self.daemon.triggers() == before + times
        return sorted(figures)[times // 2]

    def close(self) -> None:
        """Hear no more."""
        os.close(self._fd)
        remove_jail(self._name)


@pytest.fixture
def other(daemon: Daemon, tmp_path: Path) -> Iterator[Bell]:
    """Give another jail's rule."""
    bell = Bell(daemon, tmp_path / "heard")
    yield bell
    bell.close()


def shows(pid: int, what: str, wanted: str | tuple[str, ...]) -> bool:
    """Say whether ps(1) comes to show that of a process."""
    command = ["ps", "-o", f"{what}=", "-p", str(pid)]
    end = time.monotonic() + LONGEST_SECONDS
    while time.monotonic() < end:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        if done.stdout.startswith(wanted):
            return True
    return False


def cpu_seconds(pid: int) -> float:
    """Return what a process has used of a processor; needs no new one, as ps(1) would."""
    name = (ctypes.c_int * 4)(*KERN_PROC_PID, pid)
    kinfo, size = ctypes.create_string_buffer(KINFO_SIZE), ctypes.c_size_t(KINFO_SIZE)
    assert LIBC.sysctl(name, len(name), kinfo, ctypes.byref(size), None, 0) == 0
    (microseconds,) = struct.unpack_from("=Q", kinfo, KI_RUNTIME)
    return float(microseconds) / 1e6


def jail_name(jid: int) -> str:
    """Return the name of a jail."""
    named = ["jls", "-j", str(jid), "name"]
    return subprocess.run(named, capture_output=True, text=True, check=True).stdout.strip()


def make_jail(*parameters: str) -> int:
    """Make a jail that persists; return its jid."""
    made = subprocess.run(
        ["jail", "-i", "-c", "persist", *parameters], capture_output=True, text=True, check=True
    )
    return int(made.stdout)


def remove_jail(name: str | int) -> None:
    """Remove a jail: TERM, then KILL to what is in it."""
    subprocess.run(["jail", "-r", str(name)], check=True, capture_output=True)


@pytest.fixture(scope="session")
def attacker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the attacker."""
    if os.geteuid() != 0:
        pytest.skip("only root may make the jails: run the tests as root")
    program = tmp_path_factory.mktemp("attacker") / "fbsd_attacker"
    return build(program, *STRICT, HERE / "fbsd_attacker.c", HERE / "fbsd_floods.c")


@pytest.fixture
def jid(attacker: Path) -> Iterator[int]:
    """Give a jail on /."""
    assert attacker.exists()
    name = f"jdattack{uuid.uuid4().hex[:8]}"
    yield make_jail(f"name={name}", "path=/")
    remove_jail(name)


@pytest.fixture
def jail(jid: int) -> int:
    """Give a jail, as the daemon calls it."""
    return jid


@pytest.fixture
def inside(jid: int, attacker: Path) -> Iterator[Talker]:
    """Give the attacker, running as root of the jail."""
    talker = Talker("jexec", str(jid), attacker)
    assert talker.first.startswith("ready")
    yield talker
    talker.close()


@pytest.fixture
def naive(jid: int) -> Iterator[Naive]:
    """Give the naive daemon of that jail."""
    running = Naive(jid)
    yield running
    running.close()


@pytest.fixture
def daemon(tmp_path: Path, attacker: Path) -> Iterator[Daemon]:
    """Give a daemon."""
    assert attacker.exists()
    running = Daemon(tmp_path)
    yield running
    running.close()
