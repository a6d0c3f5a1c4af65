# SPDX-License-Identifier: BSD-2-Clause
"""Containers of the OCI runtimes themselves, runc and crun, with no engine above."""

import json
from typing import Any, ClassVar

from tests.kernel.events import wait_gone
from tests.kernel.jails.base import NoSuchKind, must
from tests.kernel.jails.linux import INIT, BusyboxJail, hybrid_cgroups, mount_namespace, rootfs

CAPABILITIES = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_SETGID", "CAP_SETUID"]


class OciJail(BusyboxJail):
    """A container by config.json (the OCI runtime specification)."""

    program: ClassVar[str]

    def _spec(self, cgroup: str) -> dict[str, Any]:
        namespaces = ["pid", "mount", "ipc", "uts", "network"] + ["user"] * self.userns
        linux: dict[str, Any] = {
            "cgroupsPath": cgroup,
            "namespaces": [{"type": name} for name in namespaces],
        }
        if self.userns:
            mapping = {"containerID": 0, "hostID": self.first_id, "size": self.ids}
            linux |= {"uidMappings": [mapping], "gidMappings": [mapping]}
        sets = ("bounding", "effective", "permitted")
        return {
            "ociVersion": "1.0.2",
            "hostname": "jail",
            "root": {"path": str(rootfs(self.place)), "readonly": True},
            "process": {
                "terminal": False,
                "user": {"uid": 0, "gid": 0},
                "args": INIT,
                "env": ["PATH=/bin"],
                "cwd": "/",
                "capabilities": dict.fromkeys(sets, CAPABILITIES),
                "noNewPrivileges": True,
            },
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {
                    "destination": "/dev",
                    "type": "tmpfs",
                    "source": "tmpfs",
                    "options": ["nosuid", "mode=755"],
                },
            ],
            "linux": linux,
        }

    def _command(self, *words: str) -> list[str]:
        return [self.program, "--root", str(self.place.directory / self.program), *words]

    def start(self) -> None:
        """Make it."""
        self._id = self.place.name("j")
        bundle = self.place.new_directory("b")
        self.place.note("cgroup", self.place.cgroup)
        spec = self._spec(f"/{self.place.cgroup}/{self._id}")
        (bundle / "config.json").write_text(json.dumps(spec), encoding="ascii")
        self.place.note("run", *self._command("delete", "--force", self._id))
        # The container inherits 0, 1 and 2: a pipe to us would stay open.
        run = self._command("run", "--detach", "--bundle", str(bundle), self._id)
        script = 'log=$1; shift; "$@" </dev/null >"$log" 2>&1 || { cat "$log" >&2; exit 1; }'
        try:
            must(["sh", "-c", script, "sh", str(bundle / "log"), *run])
        except NoSuchKind as error:
            msg = f"{self.program}: {error}"
            raise NoSuchKind(msg) from error
        self.init = json.loads(must(self._command("state", self._id)).stdout)["pid"]
        self.wait_up()

    def argv(self, *inside: str, uid: int = 0) -> list[str]:
        """Return the command that runs `inside` in the container."""
        return self._command("exec", "--user", f"{uid}:{uid}", self._id, *inside)

    def _stop(self) -> None:
        """Ask its init to end, and remove it."""
        must(self._command("kill", self._id, "TERM"))
        wait_gone(self.init)
        must(self._command("delete", "--force", self._id))


class Runc(OciJail):
    """A container of runc."""

    kind = "runc"
    program = "runc"
    programs: ClassVar[dict[str, str]] = {**BusyboxJail.programs, "runc": "runc"}


class RuncUser(Runc):
    """The same with mapped ids."""

    kind = "runc, user namespace"
    userns = True


class Crun(OciJail):
    """A container of crun."""

    kind = "crun"
    program = "crun"
    programs: ClassVar[dict[str, str]] = {**BusyboxJail.programs, "crun": "crun"}

    def _command(self, *words: str) -> list[str]:
        hide = mount_namespace("umount --lazy /sys/fs/cgroup/unified") if hybrid_cgroups() else []
        return [*hide, *super()._command(*words)]


class CrunUser(Crun):
    """The same with mapped ids."""

    kind = "crun, user namespace"
    userns = True
