# SPDX-License-Identifier: BSD-2-Clause
"""The negative control on FreeBSD: a fork of the interpreter attaches itself to the jail.

    python naive_freebsd.py JID

It forks a probe for each "arm" that it reads, and does the rest as naive.py.
"""

import contextlib
import ctypes
import grp
import os
import signal
import sys

USER = 1234
RUNG = 129
libc = ctypes.CDLL(None, use_errno=True)
probes: list[int] = []


def enter(jid: int) -> None:
    """Attach ourselves to the jail."""
    if libc.jail_attach(jid) != 0:
        os._exit(ctypes.get_errno())


def arm(jid: int, how: str = "") -> int:
    """Fork a probe, as the user that all of ours are; return its pid when it is in the jail."""
    told_read, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        # Whatever shell put the tests into the background has it ignored.
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)
        enter(jid)
        if how == "drop":
            os.setresgid(USER, USER, USER)
            os.setresuid(USER, USER, USER)
        signal.signal(signal.SIGHUP, lambda *_: os._exit(RUNG))
        os.write(told, b"r")
        while True:
            signal.pause()
    os.close(told)
    probes.append(pid)
    there = os.read(told_read, 1) == b"r"
    os.close(told_read)
    return pid if there else 0


def look_up(jid: int) -> int:
    """Ask for a group by name, late, as root daemons do; return which it is."""
    pid = os.fork()
    if pid == 0:
        enter(jid)
        with contextlib.suppress(KeyError, OSError):
            os._exit(grp.getgrnam("bell").gr_gid)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def insist(jid: int, tries: int) -> int:
    """Fork in the jail until it can be done; return how often in vain."""
    told_read, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        enter(jid)
        for failed in range(tries + 1):
            try:
                if failed == tries or os.fork() == 0:
                    break
            except OSError:
                continue
        os.write(told, b"%d" % failed)
        os._exit(0)
    os.close(told)
    os.waitpid(pid, 0)
    failed = int(os.read(told_read, 16))
    os.close(told_read)
    return failed


def stop(*_: object) -> None:
    """End while we serve."""
    end()
    os._exit(0)


def serve(jid: int, count: int) -> None:
    """Ring whenever a probe is gone, whyever that is, and have the next one at once."""
    signal.signal(signal.SIGTERM, stop)
    print(*(arm(jid) for _ in range(count)), flush=True)
    while probes:
        pid, _ = os.waitpid(-1, 0)
        probes.remove(pid)
        print(f"rang {arm(jid)}", flush=True)


def end() -> None:
    """End every probe that is left, and reap it."""
    for pid in probes:
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(pid, os.WNOHANG) == (0, 0):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def main() -> None:
    """Do as we are told."""
    jid = int(sys.argv[1])
    print("ready", flush=True)
    for line in sys.stdin:
        words = line.split()
        if words[0] == "arm":
            print(arm(jid, words[-1]), flush=True)
        elif words[0] == "look-up":
            print(look_up(jid), flush=True)
        elif words[0] == "insist":
            print(insist(jid, int(words[1])), flush=True)
        elif words[0] == "serve":
            serve(jid, int(words[1]))
        elif words[0] == "reap":
            blocking = 0 if words[-1] == "block" else os.WNOHANG
            print(*os.waitpid(int(words[1]), blocking), flush=True)
        elif words[0] == "kill":
            os.kill(int(words[1]), signal.SIGKILL)
            print(*os.waitpid(int(words[1]), 0), flush=True)
        else:
            break
    end()
    print("ended", flush=True)


if __name__ == "__main__":
    main()
