# SPDX-License-Identifier: BSD-2-Clause
"""The one place that asks which system this is."""

import sys
from pathlib import Path

from jaildaemon.backends.base import Backend
from jaildaemon.backends.finding import Finding
from jaildaemon.backends.throwaway import FreeBSDJail, LinuxNamespaces, ThrowawayJail
from jaildaemon.errors import Refused

if sys.platform == "linux":
    from jaildaemon.backends import linux_access as access
    from jaildaemon.backends.linux_image import Program, unnamed_file
elif sys.platform.startswith("freebsd"):
    from jaildaemon.backends import freebsd_access as access
    from jaildaemon.backends.freebsd_program import Program, unnamed_file

__all__ = ["Program", "access", "unnamed_file"]

HELPER = Path(__file__).resolve().parent.parent / "libexec" / "jailprobe"
OUTPUT_READER = HELPER.with_name("jailoutput")


def this_system(helper: Path = HELPER) -> Backend:
    """Return the backend of the kernel at hand."""
    if sys.platform == "linux":
        from jaildaemon.backends.linux import LinuxBackend

        return LinuxBackend(helper)
    if sys.platform.startswith("freebsd"):
        from jaildaemon.backends.freebsd import FreeBSDBackend

        return FreeBSDBackend(helper)
    raise Refused("start", sys.platform, "has neither FreeBSD jails nor Linux namespaces")


def configuration() -> tuple[str, tuple[str, ...]]:
    """Return where this system's rules in files are, and which engines name its jails.

    None where the kernel itself does.
    """
    if sys.platform == "linux":
        return "/etc/jaildaemon.toml", ("docker", "podman", "lxc", "nspawn", "runc", "crun")
    return "/usr/local/etc/jaildaemon.toml", ()


def throwaway_jail() -> ThrowawayJail:
    """Make a jail for the demo."""
    return LinuxNamespaces() if sys.platform == "linux" else FreeBSDJail()


def checks() -> list[Finding]:
    """Examine the kernel at hand, for doctor."""
    if sys.platform == "linux":
        from jaildaemon.backends import linux_checks

        return linux_checks.checks()
    if sys.platform.startswith("freebsd"):
        from jaildaemon.backends import freebsd_checks

        return freebsd_checks.checks()
    return []


def jails_have_proc() -> bool:
    """Say whether a shell in a jail finds processes in /proc: FreeBSD's have pkill(1) instead."""
    return sys.platform == "linux"
