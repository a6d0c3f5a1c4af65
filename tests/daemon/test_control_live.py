# SPDX-License-Identifier: BSD-2-Clause
"""The control socket of a real daemon: who may speak, what is kept, what it costs."""

import array
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from jaildaemon.cli import client as command
from jaildaemon.core import wire
from jaildaemon.errors import NotPermitted
from tests.daemon.conftest import need_root
from tests.daemon.product import (
    LONGEST_SECONDS,
    Daemon,
    run,
    wait_until,
)
from tests.kernel.processes import memory_kib

LINUX = sys.platform == "linux"
linux_only = pytest.mark.skipif(not LINUX, reason="cannot: looks into /proc")


def strace() -> str:
    """Return strace(1)."""
    found = shutil.which("strace")
    if found is None:
        pytest.skip("strace is missing; install the package strace")
    return found


@linux_only
def test_the_socket_is_only_roots_from_its_first_instant(directory: Path) -> None:
    log = directory / "log"
    calls = "umask,bind,listen,chmod,fchmod,fchmodat"
    words = (strace(), "-qq", "-o", str(log), "-e", f"trace={calls}")
    daemon = Daemon(directory, before=words)
    mode = os.stat(daemon.socket).st_mode
    daemon.stop()
    assert stat.filemode(mode) == "srw-------"
    lines = [line.split(" = ")[0].rstrip() for line in log.read_text().splitlines()]
    bind = next(n for n, line in enumerate(lines) if line.startswith("bind(") and "/pipe" in line)
    # The umask at the moment of bind(2), and no chmod(2) that would mend it later.
    assert [line for line in lines[:bind] if line.startswith("umask")][-1] == "umask(0177)"
    ours = f"fchmod({lines[bind].removeprefix('bind(').partition(',')[0]},"
    chmods = [line for line in lines[bind:] if "chmod" in line]
    assert not [line for line in chmods if "/pipe" in line or line.startswith(ours)]


@linux_only
def test_descriptors_that_a_client_passes_are_not_kept(served: Daemon) -> None:
    before = served.descriptors()
    client = served.client()
    null = os.open(os.devnull, os.O_RDWR)
    message = b'{"method":"org.varlink.service.GetInfo"}\0'
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [null] * 100))]
    for _ in range(10):
        client.socket.sendmsg([message], rights)
        assert "product" in str(client.receive())
    assert len(served.descriptors()) <= len(before) + 1  # the connection itself
    client.close()
    os.close(null)
    wait_until(lambda: len(served.descriptors()) <= len(before), "it closed its end")


def test_a_hundred_at_once_are_sixty_four_and_the_daemon_lives(served: Daemon) -> None:
    need_root()  # for another user they are fewer
    clients = [served.client() for _ in range(100)]
    answered = 0
    for client in clients:
        try:
            client.send({"method": "org.varlink.service.GetInfo"})
        except BrokenPipeError:
            continue
        answered += client.receive() is not None
    assert answered == 64
    for client in clients:
        client.close()
    assert served.lines.wait_for("64 clients are served")
    wait_until(lambda: is_served(served), "there is room again")


def is_served(daemon: Daemon) -> bool:
    """Say whether one more client is served."""
    client = daemon.client()
    try:
        client.send({"method": "org.jaildaemon.Status"})
        return client.receive() is not None
    except BrokenPipeError:
        return False
    finally:
        client.close()


def test_floods_of_every_kind_cost_bounded_memory(served: Daemon) -> None:
    need_root()  # sixty at once are more than another user has
    describe = (
        b'{"method":"org.varlink.service.GetInterfaceDescription",'
        b'"parameters":{"interface":"org.jaildaemon"}}\0'
    )
    before = memory_kib(served.pid)
    clients = [served.client() for _ in range(60)]
    for number, client in enumerate(clients):
        client.socket.setblocking(False)
        flood = (describe, b"x", b'{"a":[')[number % 3] * 4096
        for _ in range(64):
            try:
                client.socket.send(flood)
            except BlockingIOError:
                pass
            except (BrokenPipeError, ConnectionResetError):
                break
    assert served.status()["rules"] == 0  # it still serves
    assert memory_kib(served.pid) - before < 16 * 1024
    for client in clients:
        client.close()
    wait_until(lambda: is_served(served), "there is room again")


@linux_only
def test_clients_that_come_and_go_leave_nothing(served: Daemon) -> None:
    need_root()
    assert is_served(served)
    before = served.descriptors()
    for number in range(200):
        client = served.client()
        if number % 2:
            client.socket.send(b'{"method":"org.jaildaemon.Stat')
        client.close()
    wait_until(lambda: len(served.descriptors()) <= len(before), "all were closed")
    served.status()


def test_who_hangs_up_during_attach_leaves_no_rule(served: Daemon, jail: str) -> None:
    for _ in range(20):
        client = served.client()
        client.send(
            {
                "method": "org.jaildaemon.Attach",
                "parameters": {"command": "true", "jail": jail},
            }
        )
        client.close()
    # Each was either withdrawn while arming, or armed before it hung up.
    leftover = served.call("List")["parameters"]["rules"]
    for rule in leftover:
        assert rule["state"] in ("armed", "waiting", "gone")
    served.call("Detach", all=True)
    assert served.status()["rules"] == 0


# --- who stands elsewhere ---------------------------------------------------------------------

ASK = """
import json, socket, sys
s = socket.socket(socket.AF_UNIX)
{before}
s.connect(sys.argv[1])
try:
    s.sendall(b'{{"method":"org.jaildaemon.Status"}}\\0')
except BrokenPipeError:
    pass  # the answer is there already
data = b""
while b"\\0" not in data:
    data += s.recv(65536) or b"\\0"
print(data.rstrip(b"\\0").decode())
"""
CHROOT = "import os; os.chroot(sys.argv[2]); os.chdir('/')"
ELSEWHERE = [
    (("unshare", "--fork", "--pid"), "", "it is in another PID namespace"),
    (("unshare", "--user", "--map-root-user"), "", "it is in another user namespace"),
    ((), CHROOT, "it has another root directory"),
]


@linux_only
@pytest.mark.parametrize(("words", "before", "why"), ELSEWHERE, ids=[e[2] for e in ELSEWHERE])
def test_root_from_elsewhere_is_denied_and_logged(
    directory: Path, words: tuple[str, ...], before: str, why: str
) -> None:
    need_root()
    daemon = Daemon(directory)
    path = "/pipe" if before else str(daemon.socket)
    done = subprocess.run(
        [*words, sys.executable, "-I", "-c", ASK.format(before=before), path, directory],
        capture_output=True,
        text=True,
        check=True,
        timeout=LONGEST_SECONDS,
    )
    answer = done.stdout
    assert '"error":"org.jaildaemon.NotPermitted"' in answer
    assert f'"why":"{why}"' in answer
    line = daemon.lines.wait_for("denied uid 0")
    assert line.endswith(f"at the socket: {why}")
    assert daemon.status()["rules"] == 0
    daemon.stop()


@linux_only
def test_the_command_says_that_it_is_denied_and_why(served: Daemon) -> None:
    need_root()
    done = run(
        *("-c", "true", "-j", "1", "-f", served.socket),
        before=("unshare", "--fork", "--pid"),
    )
    told = r"jaildaemon: connect: uid 0 pid \d+: it is in another PID namespace\n"
    assert re.fullmatch(told, done.stderr), done.stderr
    assert done.returncode == 5


def test_the_command_reads_the_answer_of_a_server_that_hung_up_unheard(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(directory / "pipe"))
    listener.listen()

    def hang_up(_: socket.socket) -> tuple[int, int]:
        server, _ = listener.accept()
        error: dict[str, object] = {"what": "connect", "on": "you", "why": "no"}
        server.sendall(wire.error("org.jaildaemon.NotPermitted", error))
        server.close()
        return os.geteuid(), os.getpid()

    monkeypatch.setattr(command, "_server", hang_up)
    with pytest.raises(NotPermitted, match=r"^connect: you: no$"):
        command.call(str(directory / "pipe"), "Status", {})
    listener.close()


def test_root_from_here_is_served(served: Daemon) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-c", ASK.format(before=""), served.socket],
        capture_output=True,
        text=True,
        check=True,
        timeout=LONGEST_SECONDS,
    )
    assert '"rules":0' in done.stdout
