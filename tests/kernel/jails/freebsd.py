# SPDX-License-Identifier: BSD-2-Clause
"""Jails of FreeBSD, made by jail(8)."""

from typing import ClassVar

from tests.kernel.jails.base import Jail, must, parse_ps

COPY = """
set -e
programs="/bin/sh /bin/ps /bin/kill /usr/sbin/chroot"
libraries=$(ldd -f '%p\\n' $programs | grep '^/' | sort -u)
tar -cf - $programs $libraries /libexec/ld-elf.so.1 2>/dev/null | tar -xf - -C "$1"
"""
"""Copies programs into a tree, with what they are linked with."""


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
        # jexec -U wants a name of the jail's; chroot(8) takes any number.
        ids = ["-u", str(uid), "-g", str(uid), "-G", str(uid)]
        return ["jexec", self.jid, "chroot", *ids, "/", *inside]

    def ps(self) -> dict[int, str]:
        """Return what ps shows inside."""
        done = self.inside("ps", "-axww", "-o", "pid=", "-o", "args=")
        assert done.returncode == 0, done.stderr
        # ps(1) shows a backslash as two (strvis(3)).
        return parse_ps(done.stdout.replace("\\\\", "\\"))

    def shown(self, title: str | None) -> str:
        """Return what ps(1) shows: it adds the helper's name to every set title."""
        return f"{super().shown(title)} (jailprobe)"

    def _stop(self) -> None:
        """Remove it, as jail(8) does: TERM, then KILL."""
        must(["jail", "-r", self.jail_name])


class OwnTreeJail(HostTreeJail):
    """A jail on a tree of its own, with a few programs, what they are linked with, and a /dev."""

    kind = "jail on its own tree"
    full = False

    def parameters(self) -> list[str]:
        """Return what jail(8) is told besides the name; makes the tree."""
        root = self.place.new_directory("root")
        (root / "dev").mkdir()
        must(["sh", "-c", COPY, "sh", str(root)])
        self.place.note("run", "umount", str(root / "dev"))
        return [f"path={root}", "mount.devfs", "exec.clean"]
