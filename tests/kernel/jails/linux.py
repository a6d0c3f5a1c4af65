# SPDX-License-Identifier: BSD-2-Clause
"""What every Linux jail has in common, and the tree that containers run on."""

import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import ClassVar

from tests.kernel.events import PATIENCE_SECONDS
from tests.kernel.jails.base import Jail, NoSuchKind, must_have, parse_ps
from tests.kernel.place import CGROUPS, Place
from tests.kernel.processes import children

FIRST_ID, IDS = 100000, 65536
"""The usual range of a user namespace's ids on the host."""

INIT = ["/bin/sh", "/init"]
INIT_SCRIPT = "trap 'exit 0' TERM\nsleep 1000000 &\nwait\n"
"""Number 1 of a container: number 1 dies of no signal that it does not handle."""


class LinuxJail(Jail):
    """A container, by the host's pid of its init."""

    init: int
    userns: ClassVar[bool] = False
    """Whether its ids are others than the host's."""
    # For images without procps.  A process's arguments end in NUL each.
    plain_sh_ring = r"""
for p in /proc/[0-9]*; do
    case $(tr '\0' ' ' < "$p/cmdline" 2>/dev/null) in
    'jaildaemon: TITLE'*) kill -HUP "${p#/proc/}";;
    esac
done
"""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        if self.userns:
            self.first_id, self.ids = FIRST_ID, IDS

    @property
    def name(self) -> str:
        """The init's pid, as -j takes any process of the container."""
        return str(self.init)

    @property
    def space(self) -> str:
        """The PID namespace."""
        return os.readlink(f"/proc/{self.init}/ns/pid")

    def members(self) -> list[int]:
        """Return the host's pids of the processes in the container."""
        space, found = self.space, []
        for name in os.listdir("/proc"):
            if name.isdecimal():
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{name}/ns/pid") == space:
                        found.append(int(name))
        return found


class BusyboxJail(LinuxJail):
    """A container whose tree is a static busybox, as in the smallest images."""

    programs: ClassVar[dict[str, str]] = {"busybox": "busybox-static"}

    def wait_up(self) -> None:
        """Wait until the init has its trap, and its child: before that a TERM is lost on it.

        Nothing that it could tell goes through every engine, so it is looked at.
        """
        end = time.monotonic() + PATIENCE_SECONDS
        try:
            while not children(self.init):
                if time.monotonic() > end:
                    raise NoSuchKind("its init does nothing")
        except OSError as error:
            msg = f"its init ended at once: {error}"
            raise NoSuchKind(msg) from error

    def ps(self) -> dict[int, str]:
        """Return what busybox's ps shows inside."""
        done = self.inside("ps", "-o", "pid,args")
        assert done.returncode == 0, done.stderr
        return parse_ps(done.stdout)

    def shown(self, title: str | None) -> str:
        """Return what busybox's ps shows: the name first, where it is not that of the program."""
        return f"{{jailprobe}} {super().shown(title)}"


def rootfs(place: Place) -> Path:
    """Make the containers' tree, once a session."""
    root = place.directory / "rootfs"
    if root.exists():
        return root
    must_have(BusyboxJail.programs)
    busybox = str(shutil.which("busybox"))
    for name in ("bin", "proc", "sys", "dev", "tmp", "etc", "root", "run"):
        (root / name).mkdir(parents=True)
    shutil.copy(busybox, root / "bin/busybox")
    (root / "init").write_text(INIT_SCRIPT, encoding="ascii")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n", encoding="ascii")
    (root / "etc/group").write_text("root:x:0:\n", encoding="ascii")
    done = subprocess.run(
        ["chroot", root, "/bin/busybox", "--install", "-s", "/bin"],
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        shutil.rmtree(root)
        msg = f"{busybox} is not static: install the package busybox-static"
        raise NoSuchKind(msg)
    return root


def mount_namespace(*commands: str) -> list[str]:
    """Return a prefix that runs what follows in a mount namespace made by `commands`."""
    script = " && ".join([*commands, 'exec "$@"'])
    return ["unshare", "--mount", "sh", "-c", script, "sh"]


def with_subordinate_ids(place: Place, user: str) -> list[str]:
    """Return a prefix under which `user` owns our range of ids, without a change to /etc."""
    for name in ("/etc/subuid", "/etc/subgid"):
        if not Path(name).exists():
            msg = f"there is no {name} to put a range of ids over"
            raise NoSuchKind(msg)
    ids = place.directory / f"subid.{user}"
    ids.write_text(f"{user}:{FIRST_ID}:{IDS}\n", encoding="ascii")
    return mount_namespace(f"mount --bind {ids} /etc/subuid", f"mount --bind {ids} /etc/subgid")


def hybrid_cgroups() -> bool:
    """Say whether version 2 has controllers beside version 1, which crun refuses."""
    controllers = CGROUPS / "unified/cgroup.controllers"
    return controllers.exists() and bool(controllers.read_text(encoding="ascii").strip())
