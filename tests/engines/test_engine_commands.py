# SPDX-License-Identifier: BSD-2-Clause
"""An engine's command line is bounded and believed in little: with real commands that misbehave."""

import errno
import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jaildaemon.engines import base, endpoint
from jaildaemon.engines.base import Engine, EventStream, Found, Question, found
from jaildaemon.engines.docker import Docker
from jaildaemon.engines.endpoint import EngineError
from jaildaemon.engines.lxc import Lxc
from jaildaemon.engines.nspawn import Nspawn
from jaildaemon.engines.oci import Runc
from tests.kernel.events import wait_gone

assert sys.platform == "linux"

from jaildaemon.backends.linux_watcher import LinuxWatcher  # noqa: E402 - see above
from jaildaemon.engines.directory import DirectoryStream  # noqa: E402 - see above

LONGEST_SECONDS = 60.0
"""A failure's bound, never a wait; and no answer of a program here has another."""


class Machine:
    """A watcher, and programs of our own in the place of the engines'."""

    def __init__(self, directory: Path) -> None:
        self.watcher = LinuxWatcher()
        self.directory = directory
        self.answers: list[Any] = []

    def program(self, name: str, script: str) -> None:
        """Write a program."""
        path = self.directory / name
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        path.chmod(0o755)

    def wait(self, done: Callable[[], object]) -> None:
        """Serve events until something is so."""
        end = time.monotonic() + LONGEST_SECONDS
        while not done():
            assert time.monotonic() < end, "it never happened"
            handle = self.watcher.call_in(1.0, lambda: None)
            self.watcher.wait()
            self.watcher.cancel(handle)

    def ask(self, ask: Callable[[Callable[[Any], None]], None]) -> Any:
        """Return what is answered."""
        self.answers.clear()
        ask(self.answers.append)
        assert self.answers == [], "answered within the call"
        self.wait(lambda: self.answers)
        self.wait(lambda: not self.watcher.children())
        (answer,) = self.answers
        return answer

    def question(self, *words: str) -> Any:
        """Ask by a command."""

        def ask(done: Callable[[Any], None]) -> None:
            Question(self.watcher, list(words), done)

        return self.ask(ask)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """Give a machine whose only programs are ours, and sh(1)'s."""
    monkeypatch.setattr(endpoint, "DIRECTORIES", (str(tmp_path), "/usr/bin", "/bin"))
    monkeypatch.setattr(base, "SECONDS", LONGEST_SECONDS)
    made = Machine(tmp_path)
    yield made
    made.watcher.close()


def test_an_answer_is_all_of_the_output(machine: Machine) -> None:
    machine.program("engine", 'printf "%s\\n" "$@"; echo complaint >&2')
    assert machine.question("engine", "a b", "$HOME") == "a b\n$HOME\n"


def test_the_environment_is_a_path_and_a_home_that_is_not_there(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "CONTAINER_HOST"):
        monkeypatch.setenv(name, "tcp://evil")
    monkeypatch.setenv("HOME", "/root")
    machine.program("engine", "exec env")
    told = dict(line.split("=", 1) for line in machine.question("engine").splitlines())
    assert told["HOME"] == endpoint.NOWHERE
    assert {"PATH", "HOME"} <= told.keys()
    assert not told.keys() - {"PATH", "HOME", "PWD", "SHLVL", "_", "OLDPWD"}  # sh(1)'s own


def test_nothing_is_inherited_but_the_three(machine: Machine) -> None:
    fd = os.open("/", os.O_RDONLY)
    os.set_inheritable(fd, False)
    machine.program("engine", f"[ -e /dev/fd/{fd} ] && echo open || echo closed; cat")
    assert machine.question("engine") == "closed\n"
    os.close(fd)


def test_a_failure_is_told_by_its_last_words(machine: Machine) -> None:
    machine.program("engine", "echo out; echo first >&2; echo last >&2; exit 3")
    error = machine.question("engine")
    assert isinstance(error, EngineError)
    assert (str(error), error.output) == ("engine failed: last", "out\n")
    machine.program("engine", "kill -9 $$")
    assert str(machine.question("engine")) == "engine failed: SIGKILL"


def test_a_program_that_is_not_there_is_named(machine: Machine) -> None:
    error = machine.question("no-such-engine")
    assert "no-such-engine cannot be started: there is no no-such-engine in " in str(error)


def test_without_a_descriptor_it_says_so(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.program("engine", "echo x")

    def full(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    for place, name in ((os, "pipe2"), (machine.watcher, "watch_fd")):
        with monkeypatch.context() as short:
            short.setattr(place, name, full)
            error = machine.question("engine")
        assert isinstance(error, EngineError)
        assert "Too many open files" in str(error)
    assert machine.question("engine") == "x\n"


def test_who_does_not_answer_is_ended_with_what_it_started(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = machine.directory / "pid"
    told.touch()
    machine.program("engine", f"sleep 1000 & echo $! >{told}; wait")
    seconds = 0.3
    # A busy machine may not come to start anything in so short a time: then it gets longer.
    while not (pid := told.read_text(encoding="ascii")):
        monkeypatch.setattr(base, "SECONDS", seconds)
        error = machine.question("engine")
        assert str(error) == f"no answer in {seconds:.0f} s"
        seconds *= 2
    wait_gone(int(pid))


def test_who_answers_without_an_end_is_ended(machine: Machine) -> None:
    machine.program("engine", "exec yes")
    error = machine.question("engine")
    assert str(error) == f"its answer is longer than {base.MAX_BYTES} bytes"
    assert len(error.output) <= base.MAX_BYTES + base.READ_BYTES


def test_whom_it_leaves_behind_holds_nothing_up(machine: Machine) -> None:
    told = machine.directory / "pid"
    machine.program("engine", f"sleep 1000 & echo $! >{told}; echo done")
    assert machine.question("engine") == "done\n"
    pid = int(told.read_text(encoding="ascii"))
    os.kill(pid, signal.SIGKILL)  # it was there all the time, and held the pipe
    wait_gone(pid)


def test_a_stream_pokes_for_whatever_it_says_and_tells_its_end(machine: Machine) -> None:
    fifo = machine.directory / "fifo"
    os.mkfifo(fifo)
    machine.program("engine", f"echo x; read -r line <{fifo}; echo bye >&2; exit 1")
    pokes: list[int] = []
    ends: list[str] = []
    EventStream(machine.watcher, ["engine"], lambda: pokes.append(1), ends.append)
    machine.wait(lambda: pokes)
    fifo.write_text("go\n", encoding="ascii")
    machine.wait(lambda: ends)
    assert ends == ["engine failed: bye"]


def test_a_stream_that_is_stopped_tells_nothing(machine: Machine) -> None:
    machine.program("engine", "exec sleep 1000")
    ends: list[str] = []
    stream = EventStream(machine.watcher, ["engine"], lambda: None, ends.append)
    stream.stop()
    machine.wait(lambda: not machine.watcher.children())
    assert ends == []


def test_a_stream_does_not_outlive_who_is_killed(machine: Machine) -> None:
    machine.program("engine", f"echo $$ >{machine.directory}/pid; echo x; exec sleep 1000")
    parent = os.fork()
    if parent == 0:
        try:
            watcher = LinuxWatcher()
            die = functools.partial(os.kill, os.getpid(), signal.SIGKILL)
            EventStream(watcher, ["engine"], die, lambda _: None)
            while True:
                watcher.wait()
        finally:
            os._exit(1)
    _, status = os.waitpid(parent, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    wait_gone(int((machine.directory / "pid").read_text(encoding="ascii")))


def test_a_stream_whose_daemon_died_before_it_began_never_begins(machine: Machine) -> None:
    machine.program("engine", "echo began")
    leash = [sys.executable, "-I", "-S", "-c", base.LEASH, "1", endpoint.program("engine")]
    done = subprocess.run(leash, capture_output=True, text=True, check=True)
    assert done.stdout == ""
    leash[-2] = str(os.getpid())
    done = subprocess.run(leash, capture_output=True, text=True, check=True)
    assert done.stdout == "began\n"


# --- what is believed ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "identity", "pid", "taken"),
    [
        ("web", "abc", "7", True),
        ("web", "abc", 7, True),
        ("web", "abc", "0", False),
        ("web", "abc", -1, False),
        ("web", "abc", "7 8", False),
        ("web", "abc", "9" * 5000, False),
        ("web", "abc", None, False),
        ("web", "abc", [7], False),
        ("-web", "abc", 7, False),
        ("w\x1bb", "abc", 7, False),
        ("../web", "abc", 7, False),
        ("", "abc", 7, False),
        ("w" * 256, "abc", 7, False),
        ("web", "", 7, False),
        ("web", "a b", 7, False),
    ],
)
def test_a_name_an_id_and_a_pid_are_taken_and_nothing_else(
    name: str, identity: str, pid: object, taken: bool
) -> None:
    one = found(name, identity, pid)
    assert one == (Found(name, identity, 7) if taken else None)


def test_docker_is_asked_for_ids_and_then_for_all_of_them(machine: Machine) -> None:
    machine.program(
        "docker",
        'shift; case $1 in ps) echo a1; echo "b2"; echo "-x";; '
        'inspect) shift 3; for id; do echo "$id 7 running /w-$id"; done; '
        'echo "c3 8 exited /w-c3"; echo "d4 x running /w"; echo "more words than that";; esac',
    )
    docker = Docker(machine.watcher)
    assert machine.ask(lambda done: docker.scan(lambda _: True, done)) == [
        Found("w-a1", "a1", 7),
        Found("w-b2", "b2", 7),
    ]
    assert machine.ask(lambda done: docker.scan(lambda n: n == "w-b2", done)) == [
        Found("w-b2", "b2", 7)
    ]


def test_of_docker_one_that_went_meanwhile_takes_no_other_with_it(machine: Machine) -> None:
    machine.program(
        "docker",
        'shift; case $1 in ps) echo a1; echo b2;; inspect) echo "a1 7 running /web"; '
        'echo "Error: No such container: b2" >&2; exit 1;; esac',
    )
    docker = Docker(machine.watcher)
    assert machine.ask(lambda done: docker.scan(lambda _: True, done)) == [Found("web", "a1", 7)]


def test_an_engine_that_says_no_is_no_engine_without_containers(machine: Machine) -> None:
    for name in ("docker", "runc", "lxc-ls", "busctl"):
        machine.program(name, "echo cannot connect >&2; exit 1")
    for kind in (Docker, Runc, Lxc, Nspawn):
        engine: Engine = kind(machine.watcher)
        answer = machine.ask(functools.partial(engine.scan, lambda _: True))
        assert isinstance(answer, EngineError), kind


def test_docker_finds_by_name_and_not_by_the_beginning_of_an_id(machine: Machine) -> None:
    machine.program("docker", 'echo "abc 7 running /web"')
    docker = Docker(machine.watcher)
    assert machine.ask(lambda done: docker.lookup("web", done)) == Found("web", "abc", 7)
    assert machine.ask(lambda done: docker.lookup("ab", done)) is None


ONE = '{"id":"a","pid":7,"status":"running"}'
TWO = '{"id":"b","pid":8,"status":"paused"}'
NEITHER = '{"id":"c","pid":9,"status":"created"},{"id":"d"},7,{"id":1,"pid":true}'


@pytest.mark.parametrize(
    ("said", "names"),
    [
        ("null", []),
        ("[]", []),
        (f"[{ONE},{TWO}]", ["a", "b"]),
        (f"[{NEITHER},{ONE}]", ["a"]),
        ('{"id":"a"}', []),
    ],
)
def test_runc_is_read_by_its_json(machine: Machine, said: str, names: list[str]) -> None:
    machine.program("runc", f"echo '{said}'")
    runc = Runc(machine.watcher)
    answer = machine.ask(lambda done: runc.scan(lambda _: True, done))
    assert [one.name for one in answer] == names


def test_what_is_no_json_is_said(machine: Machine) -> None:
    machine.program("runc", "echo '{'")
    runc = Runc(machine.watcher)
    answer = machine.ask(lambda done: runc.scan(lambda _: True, done))
    assert str(answer) == "runc answered what is not JSON"


def test_machined_is_asked_for_the_leader_of_each_container(machine: Machine) -> None:
    """In the words of Debian 13's; test_engines.py has the real one, where it is."""
    machine.program(
        "busctl",
        """echo '{"type":"a(ssso)","data":[[[".host","host","","/m/_2ehost"],'"""
        """'["web","container","systemd-nspawn","/m/web"],["vm","vm","libvirt-qemu","/m/vm"]]]}'""",
    )
    machine.program(
        "machinectl",
        '[ "$6" = web ] || { echo "Could not get path to machine: No machine \'$6\' known" >&2; '
        "exit 1; }; echo Leader=7; echo TimestampMonotonic=99; echo Unit=web.scope",
    )
    nspawn = Nspawn(machine.watcher)
    web = Found("web", "99", 7, "web.scope")
    assert machine.ask(lambda done: nspawn.scan(lambda _: True, done)) == [web]
    assert machine.ask(lambda done: nspawn.lookup("web", done)) == web
    assert machine.ask(lambda done: nspawn.lookup("db", done)) is None


def test_a_machine_that_ends_while_it_is_asked_for_is_gone(machine: Machine) -> None:
    """In the words of Debian 12's machinectl, which asks machined twice."""
    between = 'echo "Could not get properties: Invalid request descriptor" >&2; exit 1'
    known = f"{machine.directory}/known"
    machine.program(
        "machinectl",
        f"[ -e {known} ] && {{ rm {known}; {between}; }}; "
        f"echo \"Could not get path to machine: No machine '$6' known\" >&2; exit 1",
    )
    nspawn = Nspawn(machine.watcher)
    Path(known).touch()
    assert machine.ask(lambda done: nspawn.lookup("web", done)) is None
    machine.program("machinectl", between)
    error = machine.ask(lambda done: nspawn.lookup("web", done))
    assert isinstance(error, EngineError)
    assert "Invalid request descriptor" in str(error)


@pytest.mark.parametrize(
    "said",
    ["7", "[]", "{}", '{"data":[]}', '{"data":[7]}', '{"data":[[7]]}', '{"data":[[["web"]]]}'],
)
def test_what_is_no_list_of_machines_has_no_container(machine: Machine, said: str) -> None:
    machine.program("busctl", f"echo '{said}'")
    nspawn = Nspawn(machine.watcher)
    assert machine.ask(lambda done: nspawn.scan(lambda _: True, done)) == []


# --- a directory that is watched -------------------------------------------------------------


def test_a_directory_is_watched_from_before_it_is_there(machine: Machine, tmp_path: Path) -> None:
    pokes: list[int] = []
    path = tmp_path / "run" / "runc"
    stream = DirectoryStream(
        machine.watcher, str(path), lambda: pokes.append(1), lambda _: None, depth=2
    )

    def poked(act: Callable[[], object]) -> bool:
        pokes.clear()
        act()
        machine.wait(lambda: pokes)
        return True

    (tmp_path / "other").touch()
    assert poked(lambda: path.mkdir(parents=True))
    assert poked((path / "web").mkdir)
    assert poked((path / "web" / "state.json").touch)
    assert poked((path / "web" / "state.json").unlink)
    pokes.clear()
    (tmp_path / "run" / "beside").touch()
    assert poked((path / "web").rmdir)
    stream.stop()
