# SPDX-License-Identifier: BSD-2-Clause
"""Containers of LXC."""

import shlex
from typing import ClassVar

from tests.kernel.events import wait_gone
from tests.kernel.jails.base import must
from tests.kernel.jails.linux import INIT, BusyboxJail, rootfs, with_subordinate_ids
from tests.kernel.place import CGROUPS


class Lxc(BusyboxJail):
    """A container by its own configuration file, in a directory of ours."""

    kind = "lxc"
    programs: ClassVar[dict[str, str]] = {**BusyboxJail.programs, "lxc-start": "lxc"}

    def _command(self, tool: str, *words: str) -> list[str]:
        return [tool, "--lxcpath", str(self.place.directory / "lxc"), "--name", self._id, *words]

    def start(self) -> None:
        """Make it."""
        self._id = self.place.name("j")
        home = self.place.directory / "lxc" / self._id
        home.mkdir(parents=True)
        lines = {
            "lxc.uts.name": "jail",
            "lxc.rootfs.path": f"dir:{rootfs(self.place)}",
            "lxc.init.cmd": shlex.join(INIT),
            "lxc.signal.halt": "SIGTERM",
            "lxc.net.0.type": "empty",
            "lxc.mount.auto": "proc:mixed",
            "lxc.cgroup.dir": f"{self.place.cgroup}/{self._id}",
        }
        text = "".join(f"{name} = {value}\n" for name, value in lines.items())
        if self.userns:
            text += f"lxc.idmap = u 0 {self.first_id} {self.ids}\n"
            text += f"lxc.idmap = g 0 {self.first_id} {self.ids}\n"
        (home / "config").write_text(text, encoding="ascii")
        self.place.note("cgroup", self.place.cgroup)
        if not (CGROUPS / "pids/lxc.pivot").exists():  # lxc-start leaves it behind
            self.place.note("cgroup", "lxc.pivot")
        self.place.note("run", *self._command("lxc-stop", "--kill"))
        prefix = with_subordinate_ids(self.place, "root") if self.userns else []
        must([*prefix, *self._command("lxc-start", "--daemon", "--logfile", str(home / "log"))])
        info = must(self._command("lxc-info", "--pid", "--no-humanize"))
        self.init = int(info.stdout)
        self.wait_up()

    def argv(self, *inside: str, uid: int = 0) -> list[str]:
        """Return the command that runs `inside` in the container."""
        ids = ["--uid", str(uid), "--gid", str(uid), "--clear-env", "--set-var", "PATH=/bin"]
        return self._command("lxc-attach", *ids, "--", *inside)

    def _stop(self) -> None:
        """Stop it."""
        must(self._command("lxc-stop"))
        wait_gone(self.init)


class LxcUser(Lxc):
    """The same with mapped ids."""

    kind = "lxc, user namespace"
    userns = True
