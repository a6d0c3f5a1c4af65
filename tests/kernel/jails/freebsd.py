# SPDX-License-Identifier: BSD-2-Clause
"""Jails of FreeBSD, made by jail(8)."""

import subprocess
from typing import ClassVar

from tests.kernel.jails.base import Jail, NoSuchKind, must, parse_ps


class HostTreeJail(Jail):
    """A jail on /, which persists without a process."""

    kind = "jail on /"
    programs: ClassVar[dict[str, str]] = {"jail": "the base system", "jexec": "the base system"}
    full = True
    plain_sh_ring = r"""
ps -ax -o pid= -o args= | while read -r pid args; do
    case $args in 'jaildaemon: TITLE'*) kill -HUP "$pid";; esac
done
"""

    def parameters(self) -> list[str]:
        """Return what jail(8) is told besides the name."""
        return ["path=/"]

    def start(self) -> None:
        """Make it."""
        self.jail_name = self.place.name("jaildaemon_")
        self.place.note("run", "jail", "-r", self.jail_name)
        made = must(["jail", "-i", "-c", f"name={self.jail_name}", "persist", *self.parameters()])
        self.jid = made.stdout.split()[-1]

    @property
    def name(self) -> str:
        """The jid."""
        return self.jid

    @property
    def space(self) -> str:
        """The jid."""
        return self.jid

    def argv(self, *inside: str, uid: int = 0) -> list[str]:
        """Return the command that runs `inside` in the jail."""
        if uid == 0:
            return ["jexec", self.jid, *inside]
        # jexec -U wants a name of the jail's; any number will do here.
        return ["jexec", self.jid, "chroot", "-u", str(uid), "-g", str(uid), "-G", "", "/", *inside]

    def ps(self) -> dict[int, str]:
        """Return what ps shows inside."""
        done = self.inside("ps", "-axww", "-o", "pid=", "-o", "args=")
        assert done.returncode == 0, done.stderr
        return parse_ps(done.stdout)

    def shown(self, title: str | None) -> str:
        """Return what ps(1) shows: it adds the helper's name to every set title."""
        return f"{super().shown(title)} (jailprobe)"

    def _stop(self) -> None:
        """Remove it, as jail(8) does: TERM, then KILL."""
        must(["jail", "-r", self.jail_name])


class OwnTreeJail(HostTreeJail):
    """A jail on a tree of its own: the programs of /rescue, statically linked, and a /dev."""

    kind = "jail on its own tree"
    full = False

    def parameters(self) -> list[str]:
        """Return what jail(8) is told besides the name; makes the tree."""
        root = self.place.new_directory("root")
        for name in ("bin", "dev", "etc", "tmp"):
            (root / name).mkdir()
        copy = 'cd /rescue && tar -cf - sh ps kill chroot id | tar -xf - -C "$1"'
        done = subprocess.run(
            ["sh", "-c", copy, "sh", str(root / "bin")],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            msg = f"no tree can be made of /rescue: {done.stderr.strip()}"
            raise NoSuchKind(msg)
        self.place.note("run", "umount", str(root / "dev"))
        return [f"path={root}", "mount.devfs", "exec.clean"]
