# SPDX-License-Identifier: BSD-2-Clause
"""What of a Linux must be as the daemon needs it, each found by trying."""

import os
import sys

from jaildaemon.backends.finding import Finding, first_line, tried

assert sys.platform == "linux"

KERNEL = "a kernel of 5.10 or later is needed, with what distributions build in"


def checks() -> list[Finding]:
    """Examine the kernel and its security modules."""
    return [
        tried("kernel", lambda: f"Linux {first_line('/proc/sys/kernel/osrelease')}", KERNEL),
        tried("pidfd", _pidfd, KERNEL),
        tried("namespaces", _namespaces, KERNEL),
        tried("memfd", _memfd, KERNEL),
        _noexec(),
        tried("seccomp", lambda: f"mode {_status('Seccomp')} of our own", KERNEL),
        _lsm(),
    ]


def _pidfd() -> str:
    os.close(os.pidfd_open(os.getpid()))
    return "processes can be held"


def _namespaces() -> str:
    for kind in ("pid", "user", "ipc"):
        os.readlink(f"/proc/self/ns/{kind}")
    return "pid, user and ipc"


def _memfd() -> str:
    os.close(os.memfd_create("doctor", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
    return "a program can be sealed"


def _noexec() -> Finding:
    try:
        value = first_line("/proc/sys/vm/memfd_noexec")
    except OSError:
        value = "0"  # before 6.3
    hint = "sysctl vm.memfd_noexec=1: the helper is executed from a memfd"
    return Finding("memfd exec", ok=value != "2", found=f"vm.memfd_noexec is {value}", hint=hint)


def _status(name: str) -> str:
    with open("/proc/self/status", encoding="ascii") as file:
        for line in file:
            if line.startswith(f"{name}:"):
                return line.split()[1]
    raise OSError("the kernel has none")


def _lsm() -> Finding:
    try:
        modules = first_line("/sys/kernel/security/lsm")
    except OSError:
        modules = "not shown, for securityfs is not mounted"
    try:
        label = first_line("/proc/self/attr/current") or "no label"
    except OSError:
        label = "no label"
    # A profile that is one in name only is shown as "NAME (unconfined)".
    free = label in ("unconfined", "no label") or label.endswith(" (unconfined)")
    confined = "apparmor" in modules and not free
    hint = "what confines the daemon confines its commands: run it unconfined"
    return Finding("lsm", ok=not confined, found=f"{modules}; we are: {label}", hint=hint)
