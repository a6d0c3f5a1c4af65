# SPDX-License-Identifier: BSD-2-Clause
"""Little is believed of what an engine says, and one container's silence is no other's."""

import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from jaildaemon.engines import base
from jaildaemon.engines.answers import Found, Scan, Stopped, found
from jaildaemon.engines.docker import Docker
from jaildaemon.engines.endpoint import EngineError
from jaildaemon.engines.lxc import Lxc
from jaildaemon.engines.nspawn import Nspawn
from jaildaemon.engines.oci import Runc

if TYPE_CHECKING:
    from jaildaemon.engines.base import Engine

assert sys.platform == "linux"

from tests.engines.asking import LONGEST_SECONDS, Machine  # noqa: E402 - see above


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


def test_docker_is_asked_for_names_and_then_for_all_that_are_wanted(machine: Machine) -> None:
    machine.program(
        "docker",
        'shift; case $1 in ps) echo "a1 w-a1"; echo "b2 w-b2,w-a1/link"; echo "-x w"; echo;; '
        'inspect) shift 3; for id; do echo "$id 7 running /w-$id"; done; '
        'echo "c3 8 exited /w-c3"; echo "d4 x running /w"; echo "more words than that";; esac',
    )
    docker = Docker(machine.watcher)
    listed = {"w-a1": "a1", "w-b2": "b2"}
    scan = machine.ask(lambda done: docker.scan(lambda _: True, done))
    assert scan == Scan([Found("w-a1", "a1", 7), Found("w-b2", "b2", 7)], listed)
    scan = machine.ask(lambda done: docker.scan(lambda n: n == "w-b2", done))
    assert scan == Scan([Found("w-b2", "b2", 7)], listed)


def test_what_no_rule_means_is_not_looked_at(machine: Machine) -> None:
    machine.program(
        "docker",
        'shift; case $1 in ps) echo "a1 web"; echo "b2 sick";; '
        'inspect) shift 3; [ "$*" = a1 ] || exec sleep 1000; echo "a1 7 running /web";; esac',
    )
    docker = Docker(machine.watcher)
    scan = machine.ask(lambda done: docker.scan(lambda n: n == "web", done))
    assert scan == Scan([Found("web", "a1", 7)], {"web": "a1", "sick": "b2"})
    machine.program("docker", 'shift; [ $1 = ps ] || exit 1; echo "a1 web"')
    scan = machine.ask(lambda done: docker.scan(lambda _: False, done))
    assert scan == Scan([], {"web": "a1"})


def test_one_container_that_cannot_be_looked_at_takes_no_other_with_it(machine: Machine) -> None:
    machine.program(
        "docker",
        'shift; case $1 in ps) echo "a1 web"; echo "b2 sick"; echo "c3 db";; '
        'inspect) shift 3; case "$*" in *b2*|*sick*) echo "i/o error" >&2; exit 1;; '
        'web) echo "a1 7 running /web";; db) echo "c3 8 paused /db";; esac;; esac',
    )
    docker = Docker(machine.watcher)
    scan = machine.ask(lambda done: docker.scan(lambda _: True, done))
    assert scan.found == [Found("db", "c3", 8), Found("web", "a1", 7)]
    assert scan.silent == {"sick": "docker failed: i/o error"}


def test_an_engine_that_says_nothing_of_several_is_asked_for_no_more(machine: Machine) -> None:
    machine.program("lxc-ls", "echo a b c d e")
    machine.program("lxc-info", f"echo x >>{machine.directory}/asked; echo no >&2; exit 1")
    lxc = Lxc(machine.watcher)
    scan = machine.ask(lambda done: lxc.scan(lambda _: True, done))
    assert scan.silent == dict.fromkeys("abcde", "lxc-info failed: no")
    assert len((machine.directory / "asked").read_text(encoding="ascii").split()) == base.SILENT


def test_an_engine_that_is_slow_gets_more_time(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "SECONDS", 0.25)
    monkeypatch.setattr(base, "MOST_SECONDS", LONGEST_SECONDS)
    machine.program("docker", "echo x; exec sleep 0.7")
    docker = Docker(machine.watcher)
    answers: list[Any] = []
    while not any(isinstance(answer, str) for answer in answers):
        answers.append(machine.ask(functools.partial(docker.ask, ["docker"])))
    limits = [float(str(late).split()[3]) for late in answers[:-1]]
    assert len(limits) >= 2
    # And does not lose it all with one answer that it needed the time for.
    before = docker._seconds
    assert before > 0.5
    machine.program("docker", "echo x")
    machine.ask(functools.partial(docker.ask, ["docker"]))
    assert docker._seconds < before


def test_an_engine_never_gets_more_than_a_minute(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "SECONDS", 0.01)
    monkeypatch.setattr(base, "MOST_SECONDS", 0.03)
    machine.program("docker", "exec sleep 1000")
    docker = Docker(machine.watcher)
    for _ in range(3):
        assert isinstance(machine.ask(functools.partial(docker.ask, ["docker"])), base.TooLate)
    assert docker._seconds == 0.03


def test_of_docker_one_that_went_meanwhile_takes_no_other_with_it(machine: Machine) -> None:
    machine.program(
        "docker",
        'shift; case $1 in ps) echo a1 web; echo b2 db;; inspect) echo "a1 7 running /web"; '
        'echo "Error: No such container: b2" >&2; exit 1;; esac',
    )
    docker = Docker(machine.watcher)
    scan = machine.ask(lambda done: docker.scan(lambda _: True, done))
    assert (scan.found, scan.silent) == ([Found("web", "a1", 7)], {})


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


def test_a_container_that_does_not_run_is_not_one_that_there_is_not(machine: Machine) -> None:
    machine.program("docker", 'echo "abc 0 exited /web"')
    machine.program("lxc-info", "true")
    machine.program("runc", """echo '{"id":"web","pid":0,"status":"stopped"}'""")
    for kind, state in ((Docker, "exited"), (Lxc, "stopped"), (Runc, "stopped")):
        engine: Engine = kind(machine.watcher)
        assert machine.ask(functools.partial(engine.lookup, "web")) == Stopped(state)
    machine.program("docker", 'echo "abc 0 ex\x1bited /web"; echo "abd 7 created /db"')
    docker = Docker(machine.watcher)
    assert machine.ask(functools.partial(docker.lookup, "web")) == Stopped("stopped")
    assert machine.ask(functools.partial(docker.lookup, "db")) == Stopped("created")
    assert machine.ask(functools.partial(docker.lookup, "mail")) is None


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
    assert [one.name for one in answer.found] == names


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
    assert machine.ask(lambda done: nspawn.scan(lambda _: True, done)).found == [web]
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
    assert machine.ask(lambda done: nspawn.scan(lambda _: True, done)).found == []
