# SPDX-License-Identifier: BSD-2-Clause
"""Other ways to have a container start one command on its host, beside ours.

One container, one command; what happens inside is done by a shell that waits
there.  From the line that this shell gets to the first thing the command does.
"""

import abc
import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from bench import latency, machine
from bench.rig import PATIENCE_SECONDS, Daemon, Fifo, Rig, Unmeasured, readable, rig, wish
from jaildaemon.backends.throwaway import ThrowawayJail

ENDPOINTS = 100
WARM_UP = 2
POLICY = Path("/usr/sbin/policy-rc.d")
"""Debian's: what it answers 101 to is not started by an installation."""
SBIN = "/usr/sbin:/usr/local/sbin:/sbin"
HAND = 'while read -r line; do eval "$line"; echo; done'


@contextlib.contextmanager
def nothing_started() -> Iterator[None]:
    """Keep packages from starting their services: nobody asked for a public sshd."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n", encoding="ascii")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()


def program(name: str, package: str, *, install: bool) -> str:
    """Return a program's path, installed from Debian where it is missing."""
    path = os.environ["PATH"] + ":" + SBIN
    found = shutil.which(name, path=path)
    if found is None and install and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        with nothing_started():
            subprocess.run(
                ["apt-get", "install", "-y", "-qq", "--no-install-recommends", package],
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
            )
        found = shutil.which(name, path=path)
    if found is None:
        raise Unmeasured(f"no {name}, and it cannot be installed; install the package {package}")
    return found


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def until_listening(port: int) -> None:
    """Return when somebody accepts at a port of the loopback."""
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
        except ConnectionRefusedError:
            if time.monotonic() > end:
                raise TimeoutError(f"nobody listens at {port}") from None
            time.sleep(0.02)
        else:
            return


class Peer(abc.ABC):
    """One way, with ENDPOINTS commands, the first of which writes to `fifo`."""

    what: ClassVar[str]
    ports: ClassVar[int]

    def __init__(self, it: Rig, jail: ThrowawayJail, *, install: bool) -> None:
        self.jail, self.install = jail, install
        self.fifo: Fifo = it.fifo()
        self.command = f"echo x > {self.fifo.path}"
        self.directory = Path(tempfile.mkdtemp(dir=it.directory))
        self.directory.chmod(0o755)
        self._hand = it.process(
            jail.inside(HAND), stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        self.prepare(it)

    @abc.abstractmethod
    def prepare(self, it: Rig) -> None:
        """Set it up; return when it can be used."""

    @abc.abstractmethod
    def act(self) -> str:
        """Return what is done inside."""

    @abc.abstractmethod
    def pids(self) -> list[int]:
        """Return the processes that it needs while nothing happens."""

    def shoot(self) -> float:
        """Do it; return the seconds until the command ran."""
        assert self._hand.stdin is not None
        line = f"{self.act()}\n".encode()
        began = time.perf_counter()
        self._hand.stdin.write(line)
        readable([self.fifo.fd], "the command", time.monotonic() + PATIENCE_SECONDS)
        return time.perf_counter() - began

    def settle(self) -> None:
        """Wait until all is over, inside and outside."""
        assert self._hand.stdout is not None
        fd = self._hand.stdout.fileno()
        while b"\n" not in self._last_words(fd):
            continue
        self.fifo.lines()

    def _last_words(self, fd: int) -> bytes:
        readable([fd], "the end of what was done inside", time.monotonic() + PATIENCE_SECONDS)
        data = os.read(fd, 4096)
        if not data:
            raise ConnectionError("the shell inside has ended")
        return data


class Ours(Peer):
    """jaildaemon, rung as the manual says."""

    what = "jaildaemon, rung by pkill -f"
    ports = 0
    titles: ClassVar[list[str]] = [f"BENCH{n:05}" for n in range(ENDPOINTS)]

    def prepare(self, it: Rig) -> None:
        program("pkill", "procps", install=self.install)
        self.daemon: Daemon = it.daemon()
        it.stack.callback(self._withdraw)
        wishes = [wish(self.jail.jail, self.command, t, respawn="after") for t in self.titles]
        answers = self.daemon.connection.calls("Attach", wishes)
        self._probes = [int(answer["probe_pid"]) for answer in answers]
        self.daemon.drain()

    def _withdraw(self) -> None:
        with contextlib.suppress(OSError):
            self.daemon.detach(self.jail.jail)

    def act(self) -> str:
        return f"pkill -HUP -f '^jaildaemon: {self.titles[0]}'"

    def pids(self) -> list[int]:
        return [self.daemon.pid, *self._probes]

    def settle(self) -> None:
        super().settle()
        line = self.daemon.wait(": armed in jail ")
        self._probes[0] = int(line.split(" as pid ")[1].split(":")[0])


class OursByNumber(Ours):
    """The same, by a shell that knows the probe's number: without pkill's search.

    One more probe: pkill shall not have to search twice as many.
    """

    what = "jaildaemon, by kill PID"
    titles: ClassVar[list[str]] = ["NUMBER"]

    def act(self) -> str:
        status = Path(f"/proc/{self._probes[0]}/status")
        words = status.read_text(encoding="ascii").split("NSpid:")[1].splitlines()[0].split()
        return f"kill -HUP {words[-1]}"


class Loop(Peer):
    """A shell loop on the host, on a named pipe in a bind mount."""

    what = "shell loop on a named pipe"
    ports = 0
    # Not `while read`: where a writer is slow to close, read finds the end of the file, and
    # the loop would be over.
    _LOOP = 'while :; do read -r _ <"$0" && /bin/sh -c "$1"; done'

    def prepare(self, it: Rig) -> None:
        self._inside = self.directory / "inside"
        outside = self.directory / "outside"
        outside.mkdir()
        self._inside.mkdir()
        self._loops = []
        for n in range(ENDPOINTS):
            os.mkfifo(outside / str(n))
            words = ["/bin/sh", "-c", self._LOOP, str(outside / str(n)), self.command]
            self._loops.append(it.process(words))
        mount = self.jail.inside(f"mount --bind {outside} {self._inside}")
        subprocess.run(mount, check=True)

    def act(self) -> str:
        return f"echo >{self._inside}/0"

    def pids(self) -> list[int]:
        return [loop.pid for loop in self._loops]


class Ssh(Peer):
    """ssh(1) to the loopback, with a key that is good for one command only."""

    what = "ssh, forced command"
    ports = 1

    def prepare(self, it: Rig) -> None:
        ssh = program("ssh", "openssh-client", install=self.install)
        sshd = program("sshd", "openssh-server", install=self.install)
        keygen = program("ssh-keygen", "openssh-client", install=self.install)
        port, place = free_port(), self.directory
        for name in ("host", "key"):
            words = [keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(place / name)]
            subprocess.run(words, check=True)
        public, host = ((place / f"{n}.pub").read_text(encoding="ascii") for n in ("key", "host"))
        # Of a hundred lines an idle sshd knows nothing.
        (place / "keys").write_text(f'restrict,command="{self.command}" {public}', encoding="ascii")
        (place / "known").write_text(f"[127.0.0.1]:{port} {host}", encoding="ascii")
        settings = {
            "Port": port,
            "ListenAddress": "127.0.0.1",
            "HostKey": place / "host",
            "AuthorizedKeysFile": place / "keys",
            "PidFile": "none",
            "StrictModes": "no",
            "PermitRootLogin": "forced-commands-only",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "UsePAM": "no",
        }
        lines = "".join(f"{name} {value}\n" for name, value in settings.items())
        (place / "config").write_text(lines, encoding="ascii")
        Path("/run/sshd").mkdir(exist_ok=True)  # where it locks itself in
        words = [sshd, "-D", "-e", "-f", str(place / "config")]
        self._sshd = it.process(words, stderr=(place / "log").open("wb"))
        until_listening(port)
        self._act = (
            f"{ssh} -n -T -F /dev/null -i {place}/key -p {port} -o BatchMode=yes "
            f"-o UserKnownHostsFile={place}/known root@127.0.0.1 2>{place}/said"
        )

    def act(self) -> str:
        return self._act

    def pids(self) -> list[int]:
        return machine.descendants(self._sshd.pid)


class Webhook(Peer):
    """webhook(1) on the loopback, called by curl."""

    what = "webhook, called by curl"
    ports = 1

    def prepare(self, it: Rig) -> None:
        webhook = program("webhook", "webhook", install=self.install)
        curl = program("curl", "curl", install=self.install)
        port, place = free_port(), self.directory
        script = place / "command"
        script.write_text(f"#!/bin/sh\n{self.command}\n", encoding="ascii")
        script.chmod(0o755)
        hooks = [{"id": f"bench{n}", "execute-command": str(script)} for n in range(ENDPOINTS)]
        (place / "hooks").write_text(json.dumps(hooks), encoding="ascii")
        words = [webhook, "-hooks", str(place / "hooks"), "-ip", "127.0.0.1", "-port", str(port)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._webhook = it.process(words, **quiet)
        until_listening(port)
        self._act = f"{curl} -s -o /dev/null http://127.0.0.1:{port}/hooks/bench0"

    def act(self) -> str:
        return self._act

    def pids(self) -> list[int]:
        return machine.descendants(self._webhook.pid)


ALL: tuple[type[Peer], ...] = (Ours, OursByNumber, Loop, Ssh, Webhook)


def _idle(peer: Peer) -> dict[str, Any]:
    pids = peer.pids()
    each = [machine.memory_kb(pid) for pid in pids]
    pss = [one["Pss"] for one in each if "Pss" in one]
    return {
        "memory_kb": sum(pss) if len(pss) == len(pids) else None,
        "processes": len(pids),
        "ports": peer.ports,
    }


def _columns(other: dict[str, Any]) -> dict[str, Any]:
    """Return what stands for the same 100 endpoints in another row."""
    return {name: other.get(name) for name in ("memory_kb", "processes", "ports")}


def _shot(peer: Peer, found: dict[str, Any]) -> float | None:
    """Ring once; None, and why, where it does not work."""
    try:
        seconds = peer.shoot()
        peer.settle()
    except OSError as error:
        found["why"] = f"it does not work here: {error}"
        return None
    return seconds


def _set_up(
    it: Rig, ways: Sequence[type[Peer]], found: dict[str, dict[str, Any]], *, install: bool
) -> list[Peer]:
    """Return those that work."""
    jail = it.jail()
    peers: list[Peer] = []
    for way in ways:
        try:
            peer = way(it, jail, install=install)
        except (Unmeasured, OSError, subprocess.CalledProcessError) as error:
            found[way.what]["why"] = str(error)
            continue
        if _shot(peer, found[way.what]) is not None:
            same = Ours if way is OursByNumber else way
            found[way.what] |= _idle(peer) if same is way else _columns(found[same.what])
            peers.append(peer)
    return peers


def measure(
    rounds: int, ways: Sequence[type[Peer]] = ALL, *, install: bool
) -> list[dict[str, Any]]:
    """Return the figures of each, taken in turn."""
    found: dict[str, dict[str, Any]] = {way.what: {"what": way.what} for way in ways}
    if not machine.LINUX:
        why = {"why": "compared on Linux only, as Debian has them"}
        return [{**one, **why} for one in found.values()]
    with rig() as it:
        peers = _set_up(it, ways, found, install=install)
        times: dict[str, list[float]] = {peer.what: [] for peer in peers}
        for number in range(rounds + WARM_UP):
            if not peers:
                break
            for peer in [*peers[number % len(peers) :], *peers[: number % len(peers)]]:
                time.sleep(latency.IDLE_SECONDS)
                seconds = _shot(peer, found[peer.what])
                if seconds is None:
                    peers.remove(peer)
                elif number >= WARM_UP:
                    times[peer.what].append(seconds)
        for peer in peers:
            found[peer.what]["latency"] = latency.summary(times[peer.what])
    return list(found.values())
