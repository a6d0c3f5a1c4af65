# SPDX-License-Identifier: BSD-2-Clause
"""The negative control on FreeBSD: a fork of the interpreter attaches itself to the jail.

python naive_freebsd.py JID; "arm" prints the pid of a probe, "kill PID" ends one.
"""

import ctypes
import os
import signal
import sys

libc = ctypes.CDLL(None, use_errno=True)


def arm(jid: int) -> int:
    """Fork a probe; return its pid when it is in the jail."""
    told_read, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        if libc.jail_attach(jid) != 0:
            os._exit(ctypes.get_errno())
        signal.signal(signal.SIGHUP, lambda *_: os._exit(129))
        os.write(told, b"r")
        while True:
            signal.pause()
    os.close(told)
    assert os.read(told_read, 1) == b"r", os.waitpid(pid, 0)
    os.close(told_read)
    return pid


if __name__ == "__main__":
    print("ready", flush=True)
    for line in sys.stdin:
        words = line.split()
        if words[0] == "arm":
            print(arm(int(sys.argv[1])), flush=True)
        elif words[0] == "reap":
            print(*os.waitpid(int(words[1]), os.WNOHANG), flush=True)
        else:
            os.kill(int(words[1]), signal.SIGKILL)
            print(*os.waitpid(int(words[1]), 0), flush=True)
