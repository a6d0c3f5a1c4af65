# SPDX-License-Identifier: BSD-2-Clause
"""The kinds of jail that this system may have, and which of them did run."""

import os
import shutil
import sys
from pathlib import Path
from typing import ClassVar, Protocol

from tests.kernel.jails.base import Jail, NoSuchKind, is_package, must_have, package_of
from tests.kernel.place import Place

KINDS: list[type[Jail]]
if sys.platform == "linux":
    from tests.kernel.jails.engines import Docker, Dockerd, DockerUser, Podman, PodmanUser
    from tests.kernel.jails.lxc import Lxc, LxcUser
    from tests.kernel.jails.namespaces import Namespaces, UserNamespaces
    from tests.kernel.jails.oci import Crun, CrunUser, Runc, RuncUser

    KINDS = [
        Namespaces,
        UserNamespaces,
        Runc,
        RuncUser,
        Crun,
        CrunUser,
        Lxc,
        LxcUser,
        Docker,
        DockerUser,
        Podman,
        PodmanUser,
    ]
else:
    from tests.kernel.jails.freebsd import HostTreeJail, OwnTreeJail

    KINDS = [HostTreeJail, OwnTreeJail]

FULL = [kind for kind in KINDS if kind.full]


class Kind(Protocol):
    """A kind of jail, as far as what it needs goes."""

    programs: ClassVar[dict[str, str]]


def cannot_have(kind: type[Kind]) -> str | None:
    """Say why this machine cannot have such a jail whatever is installed.

    Then its absence is no failure in CI.  Anything else is: there the engines
    are to be installed, and what does not work is to be repaired.
    """
    if getattr(kind, "userns", False):
        if not Path("/proc/self/ns/user").exists():
            return "this kernel has no user namespaces"
        limit = Path("/proc/sys/user/max_user_namespaces")
        if limit.read_text(encoding="ascii").strip() == "0":
            return "user.max_user_namespaces is 0"
    if shutil.which("apt-cache"):
        for program, packages in kind.programs.items():
            if not shutil.which(program) and not is_package(package_of(packages)):
                return f"this system has no package {package_of(packages)}"
    return None


class Jails:
    """The session's jails: one of each kind, shared, and others for tests that end them."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._shared: dict[type[Jail], Jail] = {}
        self._made: list[Jail] = []
        self.failed: dict[type[Jail], str] = {}
        self.ran: set[type[Jail]] = set()

    def fresh(self, kind: type[Jail]) -> Jail:
        """Make a jail; NoSuchKind, at once where it has failed before."""
        if kind in self.failed:
            raise NoSuchKind(self.failed[kind])
        try:
            if os.geteuid() != 0:
                raise NoSuchKind("only root can make it")
            must_have(kind.programs)
            jail = kind(self._place)
            jail.start()
        except NoSuchKind as error:
            self.failed[kind] = str(error)
            raise
        self.ran.add(kind)
        self._made.append(jail)
        return jail

    def shared(self, kind: type[Jail]) -> Jail:
        """Return the session's jail of this kind."""
        if kind not in self._shared:
            self._shared[kind] = self.fresh(kind)
        return self._shared[kind]

    def close(self) -> None:
        """End every jail."""
        for jail in reversed(self._made):
            jail.stop()
        if sys.platform == "linux":
            Dockerd.stop_all()
