# SPDX-License-Identifier: BSD-2-Clause
"""A daemon that does not answer: each command says so in time, and names it."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jaildaemon.cli import client
from jaildaemon.cli.main import main
from jaildaemon.errors import NoDaemon
from tests.daemon.product import Client, Daemon, run, short_directory

QUERIES = ["list", "status", "log", "log -n 3", "explain 1", "metrics", "doctor"]
ORDERS = ["fire x", "hold --all", "release --all", "detach --all", "reload", "restart"]
SHORT = "client.QUERY_SECONDS = client.ORDER_SECONDS = client.RESTART_SECONDS = 0.2"


@pytest.fixture(scope="module")
def stopped() -> Iterator[Daemon]:
    """Give a daemon that is stopped."""
    with short_directory() as directory:
        daemon = Daemon(directory)
        os.kill(daemon.pid, signal.SIGSTOP)
        yield daemon
        os.kill(daemon.pid, signal.SIGCONT)
        daemon.stop()


def hurried(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the program with short deadlines: which of them it is, the next test says."""
    # The defaults of call and stream were taken when they were made.
    script = (
        "import sys; from jaildaemon.cli import client\n"
        f"{SHORT}\n"
        "client.call.__defaults__ = client.stream.__defaults__ = (0.2,)\n"
        "from jaildaemon.__main__ import main; sys.exit(main())"
    )
    argv = [sys.executable, "-I", "-c", script, *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("line", [*QUERIES, *ORDERS, "-c true -j 1"])
def test_who_asks_a_stopped_daemon_is_told_so(stopped: Daemon, line: str) -> None:
    done = hurried(*line.split(), "-f", stopped.socket)
    said = done.stdout if line == "doctor" else done.stderr
    assert f"{stopped.socket}: the daemon (pid {stopped.pid}) does not answer" in said
    assert done.returncode == (6 if line == "doctor" else 3)
    assert "Traceback" not in done.stdout + done.stderr


def test_a_query_gives_up_after_five_seconds(stopped: Daemon) -> None:
    done = run("list", "-f", stopped.socket)
    assert done.stderr == (
        f"jaildaemon: list: {stopped.socket}: the daemon (pid {stopped.pid}) does not answer"
        " (after 5 s; it is stopped, or hangs: see jaildaemon(1), BUGS)\n"
    )
    assert (done.returncode, done.stdout) == (3, "")


def test_the_metrics_of_a_daemon_that_does_not_answer_say_that_it_is_down(
    stopped: Daemon, directory: Path
) -> None:
    file = directory / "m.prom"
    file.write_text("jaildaemon_up 1.0\n")
    done = hurried("metrics", "-o", file, "-f", stopped.socket)
    assert done.returncode == 3
    assert file.read_text().splitlines()[-1] == "jaildaemon_up 0.0"


def test_a_queue_that_is_full_is_waited_for_as_long(directory: Path) -> None:
    path = directory / "pipe"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(0)
        waiting: list[Client] = []
        if sys.platform == "linux":  # FreeBSD refuses who finds the queue full
            waiting.append(Client(path))
        with pytest.raises(NoDaemon, match="does not answer") as caught:
            client.call(str(path), "Status", {}, 0.2)
        assert caught.value.exit_code == 3
        for one in waiting:
            one.close()


@pytest.mark.parametrize(
    ("line", "seconds"),
    [
        ("list", 5.0),
        ("status", 5.0),
        ("log", 5.0),
        ("log -F", None),
        ("explain 1", 5.0),
        ("fire x", 60.0),
        ("hold --all", 60.0),
        ("release --all", 60.0),
        ("detach --all", 60.0),
        ("reload", 60.0),
        ("restart", 150.0),
        ("-c true -j 1", 60.0),
    ],
)
def test_each_command_has_its_deadline(
    monkeypatch: pytest.MonkeyPatch, line: str, seconds: float | None
) -> None:
    asked: list[float | None] = []

    def connect(path: str, what: str, limit: float | None) -> socket.socket:
        asked.append(limit)
        raise NoDaemon(what, path, "is only asked how long it would be waited for")

    monkeypatch.setattr(client, "_connect", connect)
    assert main(line.split()) == 3
    assert asked == [seconds]
