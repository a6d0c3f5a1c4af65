# SPDX-License-Identifier: BSD-2-Clause
"""The negative control: a probe as it is written in an afternoon, a fork of the daemon.

    python naive.py INIT CAPS DIRECTORY

It joins the namespaces of the jail whose init is INIT, keeps the capabilities
CAPS as `docker exec` would, and forks a probe for each "arm" it reads.  What it
is and has, the probe is and has: interpreter, memory, environment, descriptors.
"""

import contextlib
import ctypes
import os
import signal
import sys
from typing import NoReturn

assert sys.platform == "linux"

KINDS = {
    "mnt": 0x00020000,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
}
CAPSET = {"x86_64": 126, "aarch64": 91}  # asm/unistd.h
PR_CAPBSET_DROP = 24
USER = 1234
RUNG = 129
"""The exit code that means: the signal came."""

libc = ctypes.CDLL(None, use_errno=True)
probes: list[int] = []


def join(init: str) -> None:
    """Enter every namespace that is not ours already."""
    flags = sum(
        flag
        for kind, flag in KINDS.items()
        if os.readlink(f"/proc/{init}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")
    )
    if libc.setns(os.pidfd_open(int(init)), flags) != 0:
        sys.exit(f"setns: {os.strerror(ctypes.get_errno())}")


def keep(caps: int) -> None:
    """Give up the other capabilities, as a careful author would."""
    for cap in range(64):
        if not caps >> cap & 1:
            libc.prctl(PR_CAPBSET_DROP, cap, 0, 0, 0)
    low, high = caps & 0xFFFFFFFF, caps >> 32
    head = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
    libc.syscall(CAPSET[os.uname().machine], head, data)


def held_caps() -> int:
    """Return what we have: nobody can keep more."""
    with open("/proc/self/status", encoding="ascii") as file:
        (line,) = (line for line in file if line.startswith("CapPrm:"))
    return int(line.split()[1], 16)


def whose() -> int:
    """Ask for a user by name, late, as root daemons do."""
    import pwd

    with contextlib.suppress(KeyError, OSError):
        return pwd.getpwnam("bell").pw_uid
    return -1


def stand(caps: int, how: str) -> NoReturn:
    """Be a probe, which looks a user up, or becomes the one that all of ours are."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    # Whatever shell put the tests into the background has it ignored.
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    keep(caps)
    if how == "drop":
        os.setresgid(USER, USER, USER)
        os.setresuid(USER, USER, USER)
    if how == "lookup":
        os._exit(whose() & 0xFF)
    signal.signal(signal.SIGHUP, lambda *_: os._exit(RUNG))
    while True:
        signal.pause()


def arm(caps: int, how: str) -> int:
    """Fork a probe."""
    # Who ends us meanwhile must find it among the others: its jail would wait for it for ever.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        pid = os.fork()
        if pid == 0:
            stand(caps, how)
        probes.append(pid)
        return pid
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def stop(*_: object) -> None:
    """End while we serve."""
    end()
    os._exit(0)


def serve(caps: int, count: int) -> None:
    """Ring whenever a probe is gone, whyever that is, and have the next one at once."""
    signal.signal(signal.SIGTERM, stop)
    print(*(arm(caps, "") for _ in range(count)), flush=True)
    while True:
        pid, _ = os.waitpid(-1, 0)
        probes.remove(pid)
        try:
            following = arm(caps, "")
        except OSError:
            following = 0  # its jail has ended
        print(f"rang {following}", flush=True)
        if not probes:
            break


def insist(caps: int, tries: int) -> int:
    """Try to have a probe, as the jail's root, until there is one; return how often in vain."""
    os.setresuid(0, 0, 0)
    for failed in range(tries):
        try:
            arm(caps, "")
        except OSError:
            continue
        return failed
    return tries


def end() -> None:
    """End every probe that is left, and reap it: its jail waits for that."""
    for pid in probes:
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(pid, os.WNOHANG) == (0, 0):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def main() -> None:
    """Do as we are told."""
    init, caps, directory = sys.argv[1], int(sys.argv[2], 16), sys.argv[3]
    secret_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    caps &= held_caps()
    join(init)
    print("ready", os.getpid(), flush=True)
    for line in sys.stdin:
        words = line.split()
        if words[0] == "arm":
            print(arm(caps, words[-1]), flush=True)
        elif words[0] == "kill":
            os.kill(int(words[1]), signal.SIGKILL)
            print("ok", flush=True)
        elif words[0] == "reap":  # with a bound that the naive author did not think of
            blocking = 0 if words[-1] == "block" else os.WNOHANG
            print(*os.waitpid(int(words[1]), blocking), flush=True)
        elif words[0] == "serve":
            serve(caps, int(words[1]))
        elif words[0] == "insist":
            print(insist(caps, int(words[1])), flush=True)
        elif words[0] == "end":
            break
    end()
    print("ended", flush=True)
    os.close(secret_fd)


if __name__ == "__main__":
    main()
