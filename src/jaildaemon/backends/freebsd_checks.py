# SPDX-License-Identifier: BSD-2-Clause
"""What of a FreeBSD must be as the daemon needs it, each found by trying."""

import errno
import os
import sys

from jaildaemon.backends import freebsd_libc as libc
from jaildaemon.backends.finding import Finding, tried

assert sys.platform.startswith("freebsd")

NO_JAIL = 2**31 - 1
"""A jid that no jail has: above JAIL_MAX (kern_jail.c)."""
GENERIC = "a kernel with what GENERIC has is needed"


def checks() -> list[Finding]:
    """Examine the kernel."""
    return [
        tried("kernel", lambda: f"FreeBSD {libc.sysctl_int('kern.osreldate')}", GENERIC),
        _jailed(),
        tried("capability mode", _capability_mode, GENERIC),
        tried("processes", _processes, "this program does not know this kernel: update it"),
        tried("boot", _boot, GENERIC),
        tried("jail descriptors", _descriptors, GENERIC),
    ]


def _jailed() -> Finding:
    if not libc.sysctl_int("security.jail.jailed"):
        return Finding("place", ok=True, found="the host itself")
    children = libc.sysctl_int("security.jail.children.max")
    found = f"a jail, which may have {children} jails of its own"
    hint = "set children.max of this jail: it can only reach jails that it made"
    return Finding("place", ok=children > 0, found=found, hint=hint)


def _capability_mode() -> str:
    if not libc.sysctl_int("kern.features.security_capability_mode"):
        raise OSError(errno.ENOSYS, "the kernel has none")
    return "probes can give up every right"


def _processes() -> str:
    libc.process(os.getpid())
    return "their structure is known"


def _boot() -> str:
    random = libc.boot_id()
    return "kern.boot_id" if random is not None else "by the start of init (before FreeBSD 14)"


def _descriptors() -> str:
    try:
        facts = libc.jail_get(jid=NO_JAIL, flags=libc.JAIL_GET_DESC)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return "none (before FreeBSD 15): jails are known by a process of theirs"
        return "there"  # ENOENT: the question was understood
    os.close(facts.desc)
    return "there"
