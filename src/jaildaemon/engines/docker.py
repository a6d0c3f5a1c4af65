# SPDX-License-Identifier: BSD-2-Clause
"""Docker and Podman, which have nearly the same command line."""

import glob
import re
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

from jaildaemon.engines.answers import Found, Scan, Stopped, found, stopped
from jaildaemon.engines.base import HERE, Engine, EventStream, LookedUp, Loop, Scanned, Stream
from jaildaemon.engines.directory import reappearance
from jaildaemon.engines.endpoint import Endpoint, EngineError, program
from jaildaemon.engines.identity import Init, in_cgroup_of, in_state_file

SOCKET = "/var/run/docker.sock"
FORMAT = "{{.Id}} {{.State.Pid}} {{.State.Status}} {{.Name}}"
LIST = "{{.ID}} {{.Names}}"
LIVING = ("running", "paused", "restarting", "stopping")
"""Docker's and podman's states in which a first process lives, if they name one."""


def _ids(untrusted: str) -> dict[str, str]:
    """Return the id of each name in the lines of LIST; docker's links have a slash."""
    ids = {}
    for line in untrusted.splitlines():
        ident, _, names = line.partition(" ")
        for name in names.strip().split(","):
            if found(name, ident, 1):
                ids[name] = ident
    return ids


def _parse(untrusted: str) -> list[tuple[str, Found | Stopped]]:
    """Return what `inspect` says in FORMAT, a line each; what else is there is a complaint."""
    containers: list[tuple[str, Found | Stopped]] = []
    for line in untrusted.splitlines():
        words = line.split()
        if len(words) == 4 and found(words[3].removeprefix("/"), words[0], 1):  # noqa: PLR2004 - the words of FORMAT
            name = words[3].removeprefix("/")
            one = found(name, words[0], words[1]) if words[2] in LIVING else None
            containers.append((name, one or stopped(words[2])))
    return containers


Inspected = list[tuple[str, Found | Stopped]] | EngineError


class Docker(Engine):
    """Containers of the docker at a socket of this host."""

    name = "docker"
    client: ClassVar[str] = "docker"
    settings: ClassVar[tuple[str, ...]] = ("client", "socket")
    states: ClassVar[tuple[str, ...]] = ("/run/docker/runtime-runc/moby/{}/state.json",)
    """State files of its runtimes."""
    every: ClassVar[tuple[str, ...]] = ()
    """What makes `ps` list whatever has a first process."""
    events: ClassVar[tuple[str, ...]] = ("start", "die", "rename")
    gone: ClassVar[str] = "no such"

    def command(self, *words: str) -> list[str]:
        """Return a command of its client.  --host is stronger than any context."""
        return [self.client, f"--host=unix://{self.endpoint.socket or SOCKET}", *words]

    def doubt(self, found: Found, init: Init) -> str | None:
        """Look for the id in its control group, and for the process in its runtime's state."""
        if in_cgroup_of(found.id, init):
            return None
        if any(in_state_file(path.format(found.id), init) for path in self.states):
            return None
        return (
            f"process {found.pid} is not in the control group of container {found.id[:12]}: "
            f"{self.name} may be another machine's, or in another PID namespace"
        )

    def scan(self, wants: Callable[[str], bool], done: Scanned) -> None:
        """List the names, then look at all that are wanted; at each, where that fails."""

        def listed(answer: str | EngineError) -> None:
            if isinstance(answer, EngineError):
                done(answer)
                return
            ids = _ids(answer)
            wanted = sorted(name for name in ids if wants(name))

            def inspected(answer: Inspected) -> None:
                if isinstance(answer, EngineError):
                    self.look_up_all(wanted, ids, done)
                    return
                containers = [one for _, one in answer if isinstance(one, Found)]
                done(Scan([one for one in containers if wants(one.name)], ids))

            if wanted:
                self._inspect([ids[name] for name in wanted], inspected)
            else:
                done(Scan([], ids))

        self.ask(self.command("ps", "--no-trunc", *self.every, f"--format={LIST}"), listed)

    def _inspect(self, names: list[str], done: Callable[[Inspected], None]) -> None:
        def answered(answer: str | EngineError) -> None:
            if isinstance(answer, EngineError):
                # One has ended meanwhile; what it says of the others is so.
                gone = self.gone in str(answer).lower()
                done(_parse(answer.output) if gone else answer)
                return
            done(_parse(answer))

        options = ("--type=container", f"--format={FORMAT}")
        self.ask(self.command("inspect", *options, *names), answered)

    def lookup(self, name: str, done: LookedUp) -> None:
        """Look at one; an id, or the beginning of one, is no name."""

        def answered(answer: Inspected) -> None:
            if isinstance(answer, EngineError):
                done(answer)
            else:
                done(dict(answer).get(name))

        self._inspect([name], answered)

    def watch(self, poke: Callable[[], None], ended: Callable[[str], None]) -> Stream:
        """Follow its events."""
        filters = [f"--filter=event={event}" for event in self.events]
        options = ("--filter=type=container", *filters, "--format={{.ID}}")
        return EventStream(self._loop, self.command("events", *options), poke, ended, self.endpoint)

    def watch_return(self, back: Callable[[], None]) -> Stream | None:
        """Watch its socket's directory: dockerd makes the socket anew."""
        return reappearance(self._loop, self.endpoint.socket or SOCKET, back)


CONFIGURATION = (
    "/usr/share/containers/containers.conf",
    "/etc/containers/containers.conf",
    "/etc/containers/containers.conf.d/*.conf",
)
_REMOTE = re.compile(rb"^[ \t]*remote[ \t]*=[ \t]*true\b", re.MULTILINE)
MAX_BYTES = 1 << 20


def _holds(path: str, pattern: re.Pattern[bytes]) -> bool:
    try:
        with open(path, "rb") as file:
            return bool(pattern.search(file.read(MAX_BYTES)))
    except OSError:
        return False


def made_remote() -> str | None:
    """Return the file of root's by which podman would be asked on another machine.

    Podman 4 then takes no notice of --remote=false.
    """
    paths = [path for pattern in CONFIGURATION for path in sorted(glob.glob(pattern))]
    return next((path for path in paths if _holds(path, _REMOTE)), None)


class Podman(Docker):
    """Containers of root's podman on this host."""

    name = "podman"
    client = "podman"
    settings: ClassVar[tuple[str, ...]] = ("client",)
    states = ("/run/runc/{}/state.json", "/run/crun/{}/status")
    every = ("--all",)  # else none that is stopping
    events: ClassVar[tuple[str, ...]] = ("start", "died", "rename", "restart")

    def __init__(self, loop: Loop, endpoint: Endpoint = HERE) -> None:
        def vet(path: str) -> str | None:
            file = made_remote()
            remote = file and f"is made another machine's, by remote = true in {file}"
            return remote or endpoint.vet(path)

        super().__init__(loop, replace(endpoint, vet=vet))

    def watch_return(self, back: Callable[[], None]) -> Stream | None:
        """Wait for nothing: it has no daemon that could come."""
        del back
        return None

    def command(self, *words: str) -> list[str]:
        """Return a command of it.  No variable that names a connection is passed on."""
        return [self.client, "--remote=false", *words]


class PodmanAsDocker(Podman):
    """Podman by the name of docker: the program is a script that starts it."""

    name = "docker"
    client = "docker"
    settings = ("client", "socket")


def is_podman(endpoint: Endpoint) -> bool:
    """Say whether docker's client is the script of podman-docker, which has no socket."""
    try:
        path = endpoint.client or program("docker")
    except EngineError:
        return False
    return endpoint.socket is None and _holds(path, _SCRIPT)


_SCRIPT = re.compile(rb"\A#!.*^exec [^\n]*podman\b", re.MULTILINE | re.DOTALL)
