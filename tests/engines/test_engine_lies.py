# SPDX-License-Identifier: BSD-2-Clause
"""An engine whose pids are not this host's: it lies, or counts in a PID namespace of its own.

Each is first believed by the naive way, which holds the process of the number and asks
again, and so takes another container than the one that the rule means.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jaildaemon.engines import Endpoint, made
from jaildaemon.engines.answers import Found
from tests.daemon.product import run, wait_until
from tests.engines.makers import DockerMaker, LxcMaker, Maker, removed
from tests.engines.ruled import Ruled, new_name
from tests.kernel.jails.base import must
from tests.kernel.jails.engines import OPTIONS
from tests.kernel.jails.linux import INIT

assert sys.platform == "linux"

from jaildaemon.backends import this_system  # noqa: E402 - see above
from jaildaemon.backends.linux import LinuxBackend  # noqa: E402 - see above

ID = "1" * 64
TRIES = 100
"""Until a container of the other dockerd has the number that is wanted."""


@pytest.fixture(scope="module")
def backend() -> Iterator[LinuxBackend]:
    """Give the real backend, in this process."""
    made = this_system()
    assert isinstance(made, LinuxBackend)
    yield made
    made.watcher.close()


def naively_taken(backend: LinuxBackend, engine: str, name: str, endpoint: Endpoint) -> int:
    """Return whose init is held where a number that is said twice is enough."""
    asked = made(engine, backend.watcher, endpoint)
    answers: list[Any] = []

    def ask(count: int) -> Found:
        asked.lookup(name, answers.append)
        while len(answers) < count:
            backend.watcher.wait()
        assert isinstance(answers[-1], Found), answers
        return answers[-1]

    first = ask(1)
    held = backend.resolve(str(first.pid))
    taken = held.number if ask(2) == first and held.alive() else 0
    held.close()
    return taken


def lying(path: Path, engine: str, name: str, pid: int) -> Path:
    """Write a client that says that `name` runs, with the first process of another container."""
    if engine in ("docker", "podman"):
        said = {"ps": f"{ID} {name}", "inspect": f"{ID} {pid} running /{name}"}
    else:
        state = {"id": name, "pid": pid, "status": "running"}
        said = {"list": json.dumps([state]), "state": json.dumps(state)}
    cases = "".join(f"*\\ {word}\\ *) echo '{text}';; " for word, text in said.items())
    path.write_text(f'#!/bin/sh\ncase " $* " in {cases}*) exec sleep 1000;; esac\n', "ascii")
    path.chmod(0o755)
    return path


def stands_nowhere(ruled: Ruled, jail: str, guest: int, why: str) -> None:
    """Wait until a rule says why it has no container, and look that no probe was made."""
    wait_until(lambda: why in ruled.rules()[f"{jail}/BELL"].get("reason", ""), why)
    assert not [rule for rule in ruled.rules().values() if rule.get("jid") == guest]
    assert ruled.daemon.call("Status")["parameters"]["probes"] == 0
    done = run("-c", "true", "-j", jail, "-t", "ONCE", "-f", ruled.daemon.socket)
    assert done.returncode == 1
    assert why in done.stderr


def test_no_lie_of_an_engine_moves_a_bell_into_another_container(
    ruled: Ruled, maker: Maker, backend: LinuxBackend
) -> None:
    if maker.engine in ("lxc", "nspawn"):
        pytest.skip(f"cannot: {maker.engine} has no client to put in its place")
    guest, prod = new_name(maker.host), new_name(maker.host)
    with removed(maker, guest):
        maker.run(guest)
        init = maker.pid(guest)
        client = lying(ruled.directory / maker.engine, maker.engine, prod, init)
        endpoint = Endpoint(client=str(client))
        assert naively_taken(backend, maker.engine, prod, endpoint) == init
        place = f'[engines.{maker.engine}]\nclient = "{client}"\n'
        jail = f"{maker.engine}:{prod}"
        ruled.write(jail, before=place)
        stands_nowhere(ruled, jail, init, f"process {init}")


class OtherDockerd:
    """A dockerd in a PID namespace of its own, at a socket of this host."""

    def __init__(self, maker: DockerMaker, directory: Path) -> None:
        self._host, self.socket = maker.host, f"{directory}/s"
        paths = {"data-root": "data", "exec-root": "exec", "pidfile": "pid"}
        words = [f"--{option}={directory}/{name}" for option, name in paths.items()]
        words += [*OPTIONS, f"--cgroup-parent=/{maker.place.cgroup}"]
        words.append(f"--host=unix://{self.socket}")
        script = 'mount -t tmpfs tmpfs /run; exec dockerd "$@"'
        spaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        self._log = (directory / "log").open("wb")
        self._process = subprocess.Popen(
            [*maker.prefix, *spaces, "sh", "-c", script, "sh", *words],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        maker.place.note_process(self._process.pid)
        script = 'until docker --host "unix://$2" version; do [ -d /proc/$1 ] || exit 1; done'
        must(["sh", "-c", script, "sh", str(self._process.pid), self.socket])
        with maker.packed() as packed:
            self.docker("import", "-", "jail", stdin=packed.stdout)

    def docker(self, *words: str, **options: object) -> str:
        """Ask it."""
        return must(["docker", "--host", f"unix://{self.socket}", *words], **options).stdout

    def run(self, name: str, pid: int) -> bool:
        """Run a container whose first process has this number there; False if none came so."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        first = children.read_text(encoding="ascii").split()[0]
        script = 'echo "$1" >/proc/sys/kernel/ns_last_pid'
        enter = ["nsenter", f"--target={first}", "--pid", "--mount", "--"]
        before = 0
        for _ in range(TRIES):
            must([*enter, "sh", "-c", script, "sh", str(pid - before - 1)])
            self.docker("run", "--detach", f"--name={name}", "--network=none", "jail", *INIT)
            came = int(self.docker("inspect", "--format={{.State.Pid}}", name))
            if came == pid:
                return True
            before += came - pid
            self.docker("rm", "--force", name)
        return False

    def stop(self) -> None:
        """End it, and all that is in its namespace."""
        self._process.kill()
        self._process.wait()
        self._log.close()


def test_an_engine_in_another_pid_namespace_moves_no_bell(
    ruled: Ruled, maker: Maker, backend: LinuxBackend
) -> None:
    if not isinstance(maker, DockerMaker) or maker.engine != "docker":
        pytest.skip("cannot: of the engines only docker has a daemon and a socket")
    guest, prod = new_name(maker.host), new_name(maker.host)
    with removed(maker, guest):
        maker.run(guest)
        init = maker.pid(guest)
        other = OtherDockerd(maker, ruled.directory)
        try:
            if not other.run(prod, init):
                pytest.skip(f"cannot: in {TRIES} tries no container had the number")
            assert naively_taken(backend, "docker", prod, Endpoint(socket=other.socket)) == init
            ruled.write(f"docker:{prod}", before=f'[engines.docker]\nsocket = "{other.socket}"\n')
            stands_nowhere(ruled, f"docker:{prod}", init, f"process {init} is not in the control")
        finally:
            other.stop()


def test_no_context_of_roots_is_followed(ruled: Ruled, maker: Maker) -> None:
    """What is configured for people leads to another machine; what is asked is this one's."""
    if maker.engine != "docker":
        pytest.skip("cannot: only docker has contexts")
    home = ruled.directory / "home"
    (home / ".docker").mkdir(parents=True)
    nowhere = f"unix://{ruled.directory}/nowhere"
    environment = {"HOME": str(home), "DOCKER_HOST": nowhere, "DOCKER_CONTEXT": "prod"}
    must(["env", f"HOME={home}", "docker", "context", "create", "prod", f"--docker=host={nowhere}"])
    must(["env", f"HOME={home}", "docker", "context", "use", "prod"])
    name = new_name(maker.host)
    ruled.replace(**environment)
    ruled.write(f"docker:{name}")
    with removed(maker, name):
        maker.run(name)
        assert ruled.armed(f"docker:{name}/BELL") == maker.pid(name)


SQUATTER = """
import socket, struct, sys, threading
GET_STATE, GET_INIT_PID, RUNNING = 3, 4, 2
listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
listener.bind("\\0/var/lib/lxc/" + sys.argv[1] + "/command")
listener.listen()
print("ready", flush=True)
def serve(client):
    with client:
        while asked := client.recv(16):
            said = {GET_STATE: RUNNING, GET_INIT_PID: int(sys.argv[2])}
            word = said.get(struct.unpack_from("i", asked)[0])
            client.sendall(struct.pack("iiQ", -1 if word is None else 0, 0, word or 0))
while True:
    threading.Thread(target=serve, args=listener.accept()[:1], daemon=True).start()
"""
"""Answers lxc-info(1) in the place of a container's monitor."""


def test_nobody_who_answers_in_lxcs_place_moves_a_bell(
    ruled: Ruled, maker: Maker, backend: LinuxBackend
) -> None:
    """Its sockets are abstract: anybody in the host's network namespace can have them."""
    if not isinstance(maker, LxcMaker):
        pytest.skip(f"cannot: {maker.engine} is not asked by an abstract socket")
    guest, prod = new_name(maker.host), new_name(maker.host)
    with removed(maker, guest):
        maker.run(guest)
        init = maker.pid(guest)
        maker.run(prod)
        maker.remove(prod)
        nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        words = [*nobody, sys.executable, "-I", "-S", "-c", SQUATTER, prod, str(init)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as squatter:
            try:
                assert squatter.stdout is not None
                assert squatter.stdout.readline() == "ready\n"
                assert maker.pid(prod) == init, "the engine is not deceived"
                ruled.write(f"lxc:{prod}")
                stands_nowhere(ruled, f"lxc:{prod}", init, f"lxc.payload.{prod}")
            finally:
                squatter.kill()
