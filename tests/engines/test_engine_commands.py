# SPDX-License-Identifier: BSD-2-Clause
"""An engine's command line is bounded and believed in little: with real commands that misbehave."""

import errno
import functools
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jaildaemon.engines import base, endpoint
from jaildaemon.engines.base import EventStream
from jaildaemon.engines.docker import Docker, Podman
from jaildaemon.engines.endpoint import Endpoint, EngineError
from tests.kernel.events import wait_gone

assert sys.platform == "linux"

from jaildaemon.backends.linux_watcher import LinuxWatcher  # noqa: E402 - see above
from jaildaemon.engines.directory import DirectoryStream  # noqa: E402 - see above
from tests.engines.asking import Machine  # noqa: E402 - see above


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


def test_a_socket_that_is_made_anew_is_told_of(machine: Machine, tmp_path: Path) -> None:
    backs: list[int] = []
    path = tmp_path / "docker.sock"
    docker = Docker(machine.watcher, Endpoint(socket=str(path)))
    stream = docker.watch_return(lambda: backs.append(1))
    assert stream is not None
    (tmp_path / "other").touch()
    with socket.socket(socket.AF_UNIX) as first:
        first.bind(str(path))
        machine.wait(lambda: backs)
    backs.clear()
    pokes: list[int] = []
    other = DirectoryStream(machine.watcher, str(tmp_path), lambda: pokes.append(1), print)
    for name in ("beside", "too"):  # told of to both, in whichever order
        pokes.clear()
        (tmp_path / name).touch()
        machine.wait(lambda: pokes)
    other.stop()
    path.unlink()
    with socket.socket(socket.AF_UNIX) as second:
        second.bind(str(path))
        machine.wait(lambda: backs)
    assert len(backs) == 1, "told of what is no socket of the engine's"
    stream.stop()
    assert Podman(machine.watcher).watch_return(lambda: backs.append(1)) is None


def test_an_engine_whose_socket_cannot_be_watched_is_asked_again_all_the_same(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(machine.watcher, "watch_fd", full)
    assert Docker(machine.watcher).watch_return(lambda: None) is None
