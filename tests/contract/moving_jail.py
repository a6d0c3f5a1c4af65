# SPDX-License-Identifier: BSD-2-Clause
"""A Linux jail whose init changes under way: other namespaces, or its first thread ends.

Run as a program it prints the host pid of its init, which then obeys words on standard
input, each answered by a line, and ends with it.
"""

import ctypes
import os
import subprocess
import sys
import threading

NEWUTS, NEWIPC, NEWNET, NEWPID = 0x04000000, 0x08000000, 0x40000000, 0x20000000
SYS_EXIT = {"x86_64": 60, "aarch64": 93}


class MovingJail:
    """One such jail; `init` is the host pid of its init."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.init = int(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def tell(self, word: str) -> None:
        """Have it do something; return when it is done."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        assert self._line() == f"{word}\n"

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def _obey(libc: ctypes.CDLL) -> None:
    """Read words until the end, and end the whole process then."""
    for line in sys.stdin:
        word = line.strip()
        if word == "move":
            assert libc.unshare(NEWUTS | NEWIPC | NEWNET) == 0
        if word == "part":
            # The namespaces are a thread's: the one that goes on has the others' no more.
            threading.Thread(target=_obey, args=(libc,)).start()
            print(word, flush=True)
            libc.syscall(SYS_EXIT[os.uname().machine], 0)
        print(word, flush=True)
    os._exit(0)


def _main() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(NEWPID | NEWUTS | NEWIPC | NEWNET) == 0
    init = os.fork()
    if init:
        print(init, flush=True)
        os.waitpid(init, 0)
    else:
        _obey(libc)


if __name__ == "__main__":
    _main()
