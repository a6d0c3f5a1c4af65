# SPDX-License-Identifier: BSD-2-Clause
"""The engines as the host's root has them: their default places, in a mount namespace of our own.

The daemon under test lives in the same namespace, so that it asks each engine
as it would on any host, and nothing of the machine's own engines is touched.
"""

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from tests.kernel.events import PATIENCE_SECONDS, wait_gone
from tests.kernel.jails.base import NoSuchKind, must, must_have
from tests.kernel.jails.engines import OPTIONS, Docker, Podman
from tests.kernel.jails.linux import INIT, BusyboxJail, hybrid_cgroups, rootfs
from tests.kernel.jails.oci import Crun, Runc
from tests.kernel.place import Place
from tests.kernel.processes_linux import status

STORAGE = '[storage]\ndriver = "vfs"\nrunroot = "/run/containers/storage"\n'
STORAGE += 'graphroot = "/var/lib/containers/storage"\n'
CONTAINERS = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
log_driver = "none"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
"""
HOMES = ("docker", "containers", "lxc")


class Host:
    """A mount namespace with a /run and /var/lib of our own."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.directory = place.new_directory("w")
        etc = self.directory / "etc"
        if Path("/etc/containers").is_dir():
            shutil.copytree("/etc/containers", etc)
        etc.mkdir(exist_ok=True)
        (etc / "storage.conf").write_text(STORAGE, encoding="ascii")
        (etc / "containers.conf").write_text(CONTAINERS, encoding="ascii")
        lines = ["set -e"]
        monitored = Path("/run/lxc").is_dir()
        if monitored:
            # The machine's lxc-monitord, if it runs, has its socket in no mount namespace:
            # who asks for events gets it, so containers must tell it by its own fifo.
            (self.directory / "run-lxc").mkdir()
            lines.append(f"mount --bind /run/lxc {self.directory}/run-lxc")
        lines += ["mount -t tmpfs -o mode=755 tmpfs /run", "mkdir -p /run/lock"]
        if monitored:
            lines += ["mkdir /run/lxc", f"mount --move {self.directory}/run-lxc /run/lxc"]
        for name in HOMES:
            (self.directory / name).mkdir()
        lines += [
            # A directory that is not there is made in a layer of our own.
            "mount -t tmpfs -o mode=755 tmpfs /var/lib",
            *(f"mkdir /var/lib/{name}" for name in HOMES),
            *(f"mount --bind {self.directory}/{name} /var/lib/{name}" for name in HOMES),
            f"[ ! -d /etc/containers ] || mount --bind {etc} /etc/containers",
        ]
        if hybrid_cgroups():
            lines.append("umount --lazy /sys/fs/cgroup/unified")
        script = "; ".join([*lines, "echo; exec cat"])
        pipe = subprocess.PIPE
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", script], stdin=pipe, stdout=pipe, stderr=pipe
        )
        place.note_process(self._holder.pid)
        assert self._holder.stdout is not None
        assert self._holder.stderr is not None
        if self._holder.stdout.readline() != b"\n":
            raise NoSuchKind(f"no namespace: {self._holder.stderr.read().decode()}")
        # Its file, not its number: the namespace must be there when the ledger is undone.
        place.note("cgroup", place.cgroup)

    @property
    def prefix(self) -> tuple[str, ...]:
        """What runs a command in it."""
        return ("nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", "--")

    def must(self, *argv: str, **options: object) -> str:
        """Run a command that must succeed; return its output."""
        return must([*self.prefix, *argv], **options).stdout

    def close(self) -> None:
        """End it."""
        self._holder.communicate()


class Maker:
    """Containers of one engine, by name."""

    engine: ClassVar[str]
    programs: ClassVar[dict[str, str]]
    """What it needs, and the packages that have it."""
    pauses: ClassVar[bool] = True

    def __init__(self, host: Host) -> None:
        self.host, self.place = host, host.place
        must_have({**BusyboxJail.programs, **self.programs})
        rootfs(self.place)
        self.prepare()

    def try_out(self) -> None:
        """Run a container once; NoSuchKind where this machine has none of this engine."""
        name = self.place.name("trial")
        with removed(self, name):
            self.run(name)

    @property
    def prefix(self) -> tuple[str, ...]:
        """What runs a command where the engine is."""
        return self.host.prefix

    def prepare(self) -> None:
        """Make what all containers need."""

    def run(self, name: str) -> None:
        """Make and start a container."""
        raise NotImplementedError

    def pid(self, name: str) -> int:
        """Return the host's pid of its init."""
        raise NotImplementedError

    def remove(self, name: str) -> None:
        """End it, and give back its name."""
        raise NotImplementedError

    def again(self, name: str) -> None:
        """End it and start the very same one again, where the engine can."""
        self.remove(name)
        self.run(name)

    def pause(self, name: str) -> None:
        """Freeze it."""
        self.host.must(self.engine, "pause", name)

    def unpause(self, name: str) -> None:
        """Thaw it."""
        self.host.must(self.engine, "unpause", name)

    def stop(self) -> None:
        """End the engine's own daemon, if it has one."""


class DockerMaker(Maker):
    """Docker, by a dockerd of our own at docker's usual socket."""

    engine = "docker"
    programs = Docker.programs

    @property
    def options(self) -> list[str]:
        """Say what each container needs."""
        return []

    def prepare(self) -> None:
        """Start it, with the one image."""
        self.start()
        with self.packed() as packed:
            self.host.must("docker", "import", "-", "jail", stdin=packed.stdout)

    def start(self) -> None:
        """Start dockerd, and wait until it answers."""
        self.log = (self.host.directory / "dockerd.log").open("ab")
        argv = [*self.host.prefix, "dockerd", *OPTIONS, f"--cgroup-parent=/{self.place.cgroup}"]
        self.process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log
        )
        self.place.note_process(self.process.pid)
        script = "until docker version >/dev/null 2>&1; do [ -d /proc/$1 ] || exit 1; done"
        self.host.must("sh", "-c", script, "sh", str(self.process.pid))

    def packed(self) -> "subprocess.Popen[bytes]":
        """Return what packs the one image."""
        tar = ["tar", "-C", str(rootfs(self.place)), "-c", "."]
        return subprocess.Popen(tar, stdout=subprocess.PIPE)

    def run(self, name: str) -> None:
        """Run it."""
        options = ["--detach", f"--name={name}", "--network=none", *self.options]
        self.host.must(self.engine, "run", *options, "jail", *INIT)

    def pid(self, name: str) -> int:
        """Ask the engine."""
        return int(self.host.must(self.engine, "inspect", "--format={{.State.Pid}}", name))

    def remove(self, name: str) -> None:
        """Remove it by force."""
        self.host.must(self.engine, "rm", "--force", name)

    def again(self, name: str) -> None:
        """Kill and start it; while it has not ended, podman would say that it runs already."""
        init = self.pid(name)
        self.host.must(self.engine, "kill", name)
        wait_gone(init)
        self.host.must(self.engine, "start", name)

    def stop(self) -> None:
        """End dockerd."""
        self.process.terminate()
        self.process.wait(timeout=PATIENCE_SECONDS)
        self.log.close()


class PodmanMaker(DockerMaker):
    """Podman in root's default store."""

    engine = "podman"
    programs = Podman.programs

    def prepare(self) -> None:
        """Make the one image."""
        with self.packed() as packed:
            self.host.must("podman", "import", "-", "jail", stdin=packed.stdout)

    @property
    def options(self) -> list[str]:
        """Put it into the session's cgroup."""
        return [f"--cgroup-parent=/{self.place.cgroup}"]

    def remove(self, name: str) -> None:
        """Remove it by force, at once."""
        self.host.must("podman", "rm", "--force", "--time=0", name)

    def stop(self) -> None:
        """There is no daemon of podman."""


class RuncMaker(Maker):
    """runc in its default state directory."""

    engine = "runc"
    programs = Runc.programs

    def run(self, name: str) -> None:
        """Run it; it must not inherit our pipes."""
        bundle = self.place.new_directory("b")
        spec = Runc(self.place)._spec(f"/{self.place.cgroup}/{name}")
        (bundle / "config.json").write_text(json.dumps(spec), encoding="ascii")
        script = 'log=$1; shift; "$@" </dev/null >"$log" 2>&1 || { cat "$log" >&2; exit 1; }'
        words = [self.engine, "run", "--detach", f"--bundle={bundle}", name]
        self.host.must("sh", "-c", script, "sh", f"{bundle}/log", *words)

    def pid(self, name: str) -> int:
        """Ask the engine."""
        return int(json.loads(self.host.must(self.engine, "state", name))["pid"])

    def remove(self, name: str) -> None:
        """Kill and remove it."""
        self.host.must(self.engine, "delete", "--force", name)

    def unpause(self, name: str) -> None:
        """Thaw it, as runtimes call it."""
        self.host.must(self.engine, "resume", name)


class CrunMaker(RuncMaker):
    """crun in its default state directory."""

    engine = "crun"
    programs = Crun.programs


class LxcMaker(Maker):
    """LXC in its default lxcpath."""

    engine = "lxc"
    programs: ClassVar[dict[str, str]] = {"lxc-start": "lxc", "lxc-monitor": "lxc"}

    def run(self, name: str, more: str = "") -> None:
        """Write its configuration, and start it."""
        home = self.host.directory / "lxc" / name
        home.mkdir(exist_ok=True)
        values = {
            "lxc.uts.name": "jail",
            "lxc.rootfs.path": f"dir:{rootfs(self.place)}",
            "lxc.init.cmd": " ".join(INIT),
            "lxc.signal.halt": "SIGTERM",
            "lxc.net.0.type": "empty",
            "lxc.mount.auto": "proc:mixed",
            "lxc.cgroup.dir": f"{self.place.cgroup}/{name}",
        }
        text = "".join(f"{key} = {value}\n" for key, value in values.items()) + more
        (home / "config").write_text(text, encoding="ascii")
        self.host.must("lxc-start", f"--name={name}", "--daemon", f"--logfile={home}/log")

    def pid(self, name: str) -> int:
        """Ask the engine."""
        told = self.host.must("lxc-info", f"--name={name}", "--pid", "--no-humanize")
        if not told.strip():
            raise NoSuchKind(f"{name} does not run")
        return int(told)

    def remove(self, name: str) -> None:
        """Kill it; its name is that of its directory, and its monitor removes its cgroup last."""
        init = self.pid(name)
        monitor = int(status(init)["PPid"])
        self.host.must("lxc-stop", f"--name={name}", "--kill")
        wait_gone(init)
        wait_gone(monitor)

    def pause(self, name: str) -> None:
        """Freeze it."""
        self.host.must("lxc-freeze", f"--name={name}")

    def unpause(self, name: str) -> None:
        """Thaw it."""
        self.host.must("lxc-unfreeze", f"--name={name}")


def age(pid: int) -> float:
    """Return how long a process has lived, in seconds, to a clock tick."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        ticks = int(file.read().rpartition(b")")[2].split()[19])
    with open("/proc/uptime", encoding="ascii") as file:
        up = float(file.read().split()[0])
    return up - ticks / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def removed(maker: Maker, *names: str) -> Iterator[None]:
    """Remove what a test may leave."""
    try:
        yield
    finally:
        for name in names:
            with contextlib.suppress(NoSuchKind):
                maker.remove(name)
