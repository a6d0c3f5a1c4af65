# SPDX-License-Identifier: BSD-2-Clause
"""Attacks 19 and 20 as a program: a jail goes and another takes its number.

To be run as PID 1's shadow in a PID namespace of its own, where the numbers can
be chosen (/proc/sys/kernel/ns_last_pid).  Prints what came of it as JSON: of jails, or
of who signals a number ("signal").
"""

import ctypes
import json
import os
import select
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from jaildaemon.backends import this_system
from jaildaemon.backends.probe import Probe
from jaildaemon.errors import JaildaemonError, NoSuchJail
from tests.contract.worlds import Owner

assert sys.platform == "linux"

NUMBER = 20_000
ROUNDS = 25
NEWPID = 0x20000000
libc = ctypes.CDLL(None, use_errno=True)


def jail_at(number: int) -> tuple[int, int]:
    """Make a PID namespace whose init has this number here; return its parent and it."""
    read_fd, write_fd = os.pipe()
    parent = os.fork()
    if parent == 0:
        libc.unshare(NEWPID)
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(number - 1), encoding="ascii")
        init = os.fork()
        if init == 0:
            os.close(read_fd)
            os.closerange(3, 64)
            while True:
                signal.pause()
        os.write(write_fd, str(init).encode())
        os.close(write_fd)
        os.waitpid(init, 0)
        os._exit(0)
    os.close(write_fd)
    made = int(os.read(read_fd, 16))
    os.close(read_fd)
    assert made == number, (made, number)
    return parent, made


def end(parent: int, init: int) -> None:
    """End a jail, whole."""
    os.kill(init, signal.SIGKILL)
    os.waitpid(parent, 0)


def _has_pidfs() -> bool:
    """Say whether processes are told apart for good (6.9); before, a clock tick is the grain."""
    fds = [os.pidfd_open(pid) for pid in (1, os.getpid())]
    different = len({os.fstat(fd).st_ino for fd in fds}) == 2
    for fd in fds:
        os.close(fd)
    return different


def space(pid: int | str) -> str:
    return os.readlink(f"/proc/{pid}/ns/pid")


def naive() -> bool:
    """Resolve by number, then enter by number: say whether we are in the wrong jail."""
    parent, init = jail_at(NUMBER)
    meant = space(init)
    end(parent, init)
    parent, init = jail_at(NUMBER)
    # What it remembered is the number.
    entered = space(NUMBER)
    wrong = entered != meant and entered == space(init)
    end(parent, init)
    return wrong


def sleeper() -> tuple[int, int]:
    """Make a process; return its number, the next one if it can be had, and its pidfd."""
    Path("/proc/sys/kernel/ns_last_pid").write_text(str(NUMBER - 1), encoding="ascii")
    pid = os.fork()
    if pid == 0:
        while True:
            signal.pause()
    return pid, os.pidfd_open(pid)


def kill(pid: int, pidfd: int) -> None:
    """Kill a number, and wait for the process."""
    os.kill(pid, signal.SIGKILL)
    select.select([pidfd], [], [])
    os.close(pidfd)


def stranger() -> bool:
    """Remember the number of a probe that the kernel reaps; say whether another gets its signal."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    pid, pidfd = sleeper()
    kill(pid, pidfd)  # the probe is the jail's to kill
    for _ in range(ROUNDS):
        other, pidfd = sleeper()
        if other == pid:
            break
        kill(other, pidfd)  # the dead one's number was not free yet: it is told before
    kill(pid, pidfd)  # then we withdraw the probe, by its number
    return pid == other


def members(init: int) -> int:
    """Count who is in a jail besides its init."""
    theirs = space(init)
    found = 0
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) != init:
            try:
                found += space(name) == theirs
            except OSError:
                continue
    return found


def attack(moment: str) -> str:
    """Replace the jail at some moment; return what the rule's owner was told."""
    parent, init = jail_at(NUMBER)
    try:
        jail = BACKEND.resolve(str(init))
    except JaildaemonError:
        end(parent, init)
        return "refused"
    owner = Owner()
    probe = Probe(BACKEND, jail, owner)
    if moment == "resolved":
        end(parent, init)
        parent, init = jail_at(NUMBER)
    probe.arm("jaildaemon: BELL", 0, 0)
    if moment == "started":
        os.kill(init, signal.SIGKILL)
        # Its init can only be reaped when our probe has been: serve until then.
        while owner.told[-1:] not in (["failed"], ["ended"]):
            BACKEND.watcher.wait()
        os.waitpid(parent, 0)
        parent, init = jail_at(NUMBER)
    while not owner.told:
        BACKEND.watcher.wait()
    assert members(init) == 0, "a probe stands in the wrong jail"
    said = owner.told[-1]
    if owner.death is not None and owner.death.signal == signal.SIGHUP:
        said = "TRIGGER"
    if owner.told == ["armed"]:
        said = "armed"
    if said == "failed" and not getattr(owner.error, "lost", False):
        said = f"failed: {owner.error}"
    again = BACKEND.resolve(str(NUMBER))
    if again.key == jail.key and PIDFS:
        said = "the new one is taken for the old one"
    again.close()
    jail.close()
    end(parent, init)
    return said


BACKEND = this_system()
PIDFS = _has_pidfs()

if __name__ == "__main__" and sys.argv[1] == "signal":
    print(json.dumps({"stranger": stranger()}))
elif __name__ == "__main__":
    told: dict[str, int] = {}
    for turn in range(ROUNDS):
        moment = ("resolved", "started")[turn % 2]
        word = f"{moment}: {attack(moment)}"
        told[word] = told.get(word, 0) + 1
    parent, init = jail_at(NUMBER)
    end(parent, init)
    try:
        BACKEND.resolve(str(NUMBER))
        gone = False
    except NoSuchJail:
        gone = True
    print(json.dumps({"naive": naive(), "told": told, "gone": gone}))
