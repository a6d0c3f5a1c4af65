# SPDX-License-Identifier: BSD-2-Clause
"""A Linux jail for tests: every namespace of its own, on an empty root of its own.

Run as a program it becomes that jail: prints the host pid of its init, which
lives until its standard input ends.  The init is nobody's child (the backend
ends children that nobody watches), and needs no file in its own tree.
"""

import ctypes
import errno
import os
import select
import subprocess
import sys
from pathlib import Path

NEWNS, NEWUSER = 0x00020000, 0x10000000  # linux/sched.h
NEWTIME = 0x00000080
OTHERS = 0x02000000 | 0x04000000 | 0x08000000 | 0x20000000 | 0x40000000
MS_REC, MS_PRIVATE, MNT_DETACH = 0x4000, 1 << 18, 2  # sys/mount.h
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}  # asm/unistd.h
FIRST_MAPPED, MAPPED = 100_000, 65_536
LAST_PID = "/proc/sys/kernel/ns_last_pid"  # pid_namespaces(7); CONFIG_CHECKPOINT_RESTORE
ENDING_SECONDS = 60.0


class NamespaceJail:
    """One jail; `init` is the host pid of its init."""

    def __init__(self, *, user_namespace: bool = False, wanted_pid: int = 0) -> None:
        their_end, self._pipe = os.pipe()
        arguments = ["user"] if user_namespace else []
        if wanted_pid:  # a wish: whoever forks in the same instant takes it
            arguments.append(str(wanted_pid))
        try:
            made = subprocess.run(
                [sys.executable, "-I", "-S", __file__, *arguments],
                stdin=their_end,
                stdout=subprocess.PIPE,
                check=True,
            )
        finally:
            os.close(their_end)
        self.init = int(made.stdout)
        self._pidfd = -1
        if sys.platform == "linux":
            self._pidfd = os.pidfd_open(self.init)

    def end(self) -> None:
        """Tell it to end; it does when every process in it has been reaped."""
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1

    def close(self) -> None:
        """End it, and return when its init is no more; an ended one is no error."""
        self.end()
        if self._pidfd >= 0:
            ended, _, _ = select.select([self._pidfd], [], [], ENDING_SECONDS)
            assert ended, "the jail did not end"
            os.close(self._pidfd)
            self._pidfd = -1


def _check(name: str, result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _own_root(libc: ctypes.CDLL) -> None:
    """Replace the tree by an empty one with /proc in it."""

    def mount(source: bytes, target: bytes, kind: bytes | None, flags: int) -> None:
        _check("mount", libc.mount(source, target, kind, ctypes.c_ulong(flags), None))

    mount(b"none", b"/", None, MS_REC | MS_PRIVATE)
    mount(b"jail", b"/tmp", b"tmpfs", 0)
    for name in ("proc", "old"):
        os.mkdir(f"/tmp/{name}")
    mount(b"proc", b"/tmp/proc", b"proc", 0)
    _check("pivot_root", libc.syscall(PIVOT_ROOT[os.uname().machine], b"/tmp", b"/tmp/old"))
    os.chdir("/")
    _check("umount2", libc.umount2(b"/old", MNT_DETACH))
    os.rmdir("/old")


def _own_user_namespace(libc: ctypes.CDLL, ids: str = f"0 {FIRST_MAPPED} {MAPPED}") -> None:
    """Let a child of before, which has the right, map the ids of a new user namespace."""
    asked_read, asked = os.pipe()
    mapped_read, mapped = os.pipe()
    pid = os.getpid()
    if os.fork() == 0:
        os.read(asked_read, 1)
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{pid}/{name}").write_text(f"{ids}\n", "ascii")
        os.write(mapped, b"m")
        os._exit(0)
    _check("unshare", libc.unshare(NEWUSER))
    os.write(asked, b"a")
    os.close(mapped)
    if os.read(mapped_read, 1) != b"m":
        sys.exit("the ids were not mapped")
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def _become_jail(libc: ctypes.CDLL) -> None:
    if "user" in sys.argv[1:]:
        _own_user_namespace(libc)
    if libc.unshare(NEWNS | OTHERS | NEWTIME) < 0:
        if ctypes.get_errno() != errno.EINVAL:
            _check("unshare", -1)
        _check("unshare", libc.unshare(NEWNS | OTHERS))  # before 5.6
    told_read, told = os.pipe()
    if sys.argv[1:] and sys.argv[-1].isdecimal():
        Path(LAST_PID).write_text(str(int(sys.argv[-1]) - 1), "ascii")
    init = os.fork()
    if init:
        os.close(told)
        if os.read(told_read, 1) != b"r":
            sys.exit("the jail did not begin")
        sys.stdout.write(f"{init}\n")
        return
    null_fd = os.open(os.devnull, os.O_RDWR)
    os.dup2(null_fd, 1)
    os.setsid()
    _own_root(libc)
    os.write(told, b"r")
    os.dup2(null_fd, 2)
    os.closerange(3, 64)
    while os.read(0, 1):
        continue


if __name__ == "__main__":
    _become_jail(ctypes.CDLL(None, use_errno=True))
