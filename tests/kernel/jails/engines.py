# SPDX-License-Identifier: BSD-2-Clause
"""Containers of docker, by a dockerd of our own that leaves the machine's alone, and of podman."""

import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import ClassVar

from tests.kernel.events import PATIENCE_SECONDS, wait_gone
from tests.kernel.jails.base import NoSuchKind, must
from tests.kernel.jails.linux import (
    INIT,
    BusyboxJail,
    mount_namespace,
    rootfs,
    with_subordinate_ids,
)
from tests.kernel.place import Place

# Podman 5 says at each call that it would rather have cgroup2.
os.environ["PODMAN_IGNORE_CGROUPSV1_WARNING"] = "1"
REMAP_USER, REMAP_GROUP = "nobody", "nogroup"
OPTIONS = [
    "--iptables=false",
    "--ip6tables=false",
    "--bridge=none",
    "--storage-driver=vfs",
]


class Dockerd:
    """One dockerd, for the session, with its own root, socket and view of /run."""

    running: ClassVar[dict[Path, "Dockerd"]] = {}

    def __init__(self, place: Place, *, userns: bool) -> None:
        directory = place.directory / ("dku" if userns else "dk")
        directory.mkdir()
        self.directory, self.socket = directory, f"unix://{directory}/socket"
        # dockerd makes files in /run whatever it is told, for the machine's own one.
        prefix = mount_namespace("mount -t tmpfs tmpfs /run")
        options = list(OPTIONS)
        if userns:
            prefix += with_subordinate_ids(place, REMAP_USER)
            options.append(f"--userns-remap={REMAP_USER}:{REMAP_GROUP}")
        options += [
            f"--data-root={directory}/data",
            f"--exec-root={directory}/exec",
            f"--pidfile={directory}/pid",
            f"--cgroup-parent=/{place.cgroup}",
            f"--host={self.socket}",
        ]
        place.note("cgroup", place.cgroup)
        self._start(place, [*prefix, "dockerd", *options])
        tar = ["tar", "-C", str(rootfs(place)), "-c", "."]
        with subprocess.Popen(tar, stdout=subprocess.PIPE) as packed:
            must(self.command("import", "-", "jail"), stdin=packed.stdout)

    def _start(self, place: Place, argv: list[str]) -> None:
        """Start it, and wait until it says that it is ready, by sd_notify(3)'s protocol."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(str(self.directory / "notify"))
            notify.settimeout(PATIENCE_SECONDS)
            env = {**os.environ, "NOTIFY_SOCKET": str(self.directory / "notify")}
            with (self.directory / "log").open("w", encoding="utf-8") as log:
                self.process = subprocess.Popen(
                    argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env
                )
            place.note_process(self.process.pid)
            told = b""
            while b"READY=1" not in told:
                if self.process.poll() is not None:
                    raise NoSuchKind(f"dockerd failed: {self.last_words()}")
                try:
                    told = notify.recv(4096)
                except TimeoutError:
                    raise NoSuchKind(f"dockerd was not ready: {self.last_words()}") from None

    def last_words(self) -> str:
        """Return the last line of its log."""
        lines = (self.directory / "log").read_text(encoding="utf-8").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def command(self, *words: str) -> list[str]:
        """Return a command of docker(1) to it."""
        return ["docker", "--host", self.socket, *words]

    @classmethod
    def stop_all(cls) -> None:
        """End them."""
        for dockerd in cls.running.values():
            dockerd.process.terminate()
            dockerd.process.wait(timeout=PATIENCE_SECONDS)
        cls.running.clear()

    @classmethod
    def of(cls, place: Place, *, userns: bool) -> "Dockerd":
        """Return the session's dockerd."""
        key = place.directory / str(userns)
        if key not in cls.running:
            cls.running[key] = cls(place, userns=userns)
        return cls.running[key]


class Docker(BusyboxJail):
    """A container of docker."""

    kind = "docker"
    programs: ClassVar[dict[str, str]] = {
        **BusyboxJail.programs,
        "dockerd": "docker.io",
        "docker": "docker-cli|docker.io",
        "containerd": "containerd",
    }

    def start(self) -> None:
        """Make it."""
        self._dockerd = Dockerd.of(self.place, userns=self.userns)
        self._id = self.place.name("jail")
        self.place.note("run", *self._dockerd.command("rm", "--force", self._id))
        options = ["--detach", "--name", self._id, "--network", "none"]
        must(self._dockerd.command("run", *options, "jail", *INIT))
        found = self._dockerd.command("inspect", "--format", "{{.State.Pid}}", self._id)
        self.init = int(must(found).stdout)
        self.wait_up()

    def argv(self, *inside: str, uid: int = 0) -> list[str]:
        """Return the command that runs `inside` in the container."""
        return self._dockerd.command("exec", "--user", f"{uid}:{uid}", self._id, *inside)

    def _stop(self) -> None:
        """Stop it."""
        must(self._dockerd.command("stop", self._id))
        wait_gone(self.init)


class DockerUser(Docker):
    """The same with mapped ids, by --userns-remap."""

    kind = "docker, user namespace"
    userns = True


class Podman(BusyboxJail):
    """A container of podman on runc."""

    kind = "podman"
    programs: ClassVar[dict[str, str]] = {
        **BusyboxJail.programs,
        "podman": "podman",
        "conmon": "conmon",
        "runc": "runc",
    }

    def _command(self, *words: str) -> list[str]:
        home = self.place.directory / "podman"
        return [
            "podman",
            f"--root={home}/root",
            f"--runroot={home}/run",
            f"--tmpdir={home}/tmp",
            "--storage-driver=vfs",
            "--cgroup-manager=cgroupfs",
            "--events-backend=file",
            "--runtime=runc",
            *words,
        ]

    def _import(self) -> None:
        home = self.place.directory / "podman"
        if home.exists():
            return
        home.mkdir()
        tar = ["tar", "-C", str(rootfs(self.place)), "-c", "."]
        try:
            with subprocess.Popen(tar, stdout=subprocess.PIPE) as packed:
                must(self._command("import", "-", "jail"), stdin=packed.stdout)
        except NoSuchKind:
            shutil.rmtree(home)
            raise

    def start(self) -> None:
        """Make it."""
        self.place.note("cgroup", self.place.cgroup)
        self._import()
        self._id = self.place.name("jail")
        self.place.note("run", *self._command("rm", "--force", "--time=0", self._id))
        options = ["--detach", f"--name={self._id}", "--network=none", "--log-driver=none"]
        options.append(f"--cgroup-parent=/{self.place.cgroup}")
        # Its defaults are higher than a root without CAP_SYS_RESOURCE may set.
        options += ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"]
        if self.userns:
            mapping = f"0:{self.first_id}:{self.ids}"
            options += [f"--uidmap={mapping}", f"--gidmap={mapping}"]
        must(self._command("run", *options, "jail", *INIT))
        found = must(self._command("inspect", "--format={{.State.Pid}}", self._id))
        self.init = int(found.stdout)
        self.wait_up()

    def argv(self, *inside: str, uid: int = 0) -> list[str]:
        """Return the command that runs `inside` in the container."""
        return self._command("exec", f"--user={uid}:{uid}", self._id, *inside)

    def _stop(self) -> None:
        """Stop it."""
        must(self._command("stop", self._id))
        wait_gone(self.init)


class PodmanUser(Podman):
    """The same with mapped ids, by --uidmap."""

    kind = "podman, user namespace"
    userns = True
