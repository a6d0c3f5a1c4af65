# SPDX-License-Identifier: BSD-2-Clause
"""What -j takes on Linux, and what a user namespace makes of uids."""

import contextlib
import os
import subprocess
import threading
from collections.abc import Iterator

import pytest

from tests.kernel.events import Bell
from tests.kernel.jails import KINDS
from tests.kernel.jails.linux import LinuxJail
from tests.kernel.jails.namespaces import Namespaces
from tests.kernel.processes import children, look
from tests.kernel.product import Daemon

REFUSED, NO_JAIL = 1, 4
USER_KINDS = [kind for kind in KINDS if issubclass(kind, LinuxJail) and kind.userns]


@contextlib.contextmanager
def another_process(jail: LinuxJail) -> Iterator[int]:
    """Give the host's pid of a process of the jail that is not its init."""
    if not isinstance(jail, Namespaces):
        yield children(jail.init)[0]
        return
    pipe = subprocess.PIPE
    with subprocess.Popen(jail.argv("cat"), stdin=pipe, stdout=pipe) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.stdout.read(1) == b"\n"
        yield next(pid for pid in jail.members() if pid != jail.init)


@pytest.mark.every_kind
def test_j_takes_any_process_of_the_container(jail: LinuxJail, daemon: Daemon, bell: Bell) -> None:
    with another_process(jail) as pid:
        done = daemon.attach(bell.command(), str(pid), "ANY")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        rule = daemon.rule("ANY")
        assert rule["jail"] == str(pid)
        assert rule["jid"] == jail.init
        assert look(rule["probe_pid"]).space == jail.space
    # The process only named the container: in bare namespaces it has ended now.
    jail.ring("ANY")
    assert bell.wait() == "rang"


def test_a_process_of_the_hosts_pid_namespace_is_refused_saying_why(daemon: Daemon) -> None:
    for pid in (os.getpid(), daemon.process.pid):
        done = daemon.attach("true", str(pid), "HOST")
        assert done.returncode == REFUSED
        assert str(pid) in done.stderr
        assert "shares the host's PID namespace" in done.stderr
    assert daemon.rules() == []


def test_other_namespaces_around_the_hosts_processes_are_no_container(daemon: Daemon) -> None:
    pipe = subprocess.PIPE
    command = ["unshare", "--mount", "--uts", "--ipc", "--net", "--cgroup", "cat"]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.stdout.read(1) == b"\n"
        done = daemon.attach("true", str(process.pid), "PID HOST")
        assert done.returncode == REFUSED
        assert "shares the host's PID namespace" in done.stderr
        assert daemon.rules() == []


def test_a_threads_id_is_refused(daemon: Daemon) -> None:
    # A thread of ours would be refused as a process of the host anyway, and
    # that is another exit code.
    found: list[int] = []
    told, over = threading.Event(), threading.Event()

    def say() -> None:
        found.append(threading.get_native_id())
        told.set()
        over.wait()

    thread = threading.Thread(target=say)
    thread.start()
    told.wait()
    try:
        done = daemon.attach("true", str(found[0]), "THREAD")
        assert done.returncode == NO_JAIL
        assert str(found[0]) in done.stderr
        assert daemon.rules() == []
    finally:
        over.set()
        thread.join()


def test_a_process_that_has_ended_is_refused(daemon: Daemon) -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    done = daemon.attach("true", str(process.pid), "ENDED")
    assert done.returncode == NO_JAIL
    assert str(process.pid) in done.stderr


@pytest.mark.parametrize("jail", USER_KINDS, indirect=True, ids=lambda kind: kind.kind)
def test_an_id_that_the_user_namespace_does_not_have_is_refused_clearly(
    jail: LinuxJail, daemon: Daemon
) -> None:
    for option, words in (("-u", "uid"), ("-g", "gid")):
        done = daemon.attach("true", jail, "UNMAPPED", option, str(jail.ids))
        assert done.returncode == REFUSED
        assert f"user namespace has no such {words}" in done.stderr
        assert daemon.rules() == []
        assert jail.find("UNMAPPED") == []
    daemon.arm("true", jail, "LAST", "-u", str(jail.ids - 1), "-g", str(jail.ids - 1))
    seen = look(daemon.probe("LAST"))
    last = jail.first_id + jail.ids - 1
    assert (seen.uids, seen.gids) == ((last,) * 3, (last,) * 3)
