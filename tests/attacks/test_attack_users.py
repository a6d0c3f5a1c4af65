# SPDX-License-Identifier: BSD-2-Clause
"""Attack 7 on the host: users who are not root, at the socket of the daemon."""

import grp
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.rig import HERE, LONGEST_SECONDS, Daemon
from tests.attacks.talker import Talker
from tests.attacks.tally import Tally

USER = 1000
CALL = """
import os, socket, sys
sock = socket.socket(socket.AF_UNIX)
user, group = int(sys.argv[3]), int(sys.argv[4])
os.setgroups([])
os.setresgid(group, group, group)
os.setresuid(user, user, user)
try:
    sock.connect(sys.argv[1])
except OSError as error:
    sys.exit(f"connect: {error.strerror}")
sock.sendall(sys.argv[2].encode() + b"\\0")
answer = b""
while not answer.endswith(b"\\0") and (more := sock.recv(65536)):
    answer += more
print(answer.rstrip(b"\\0").decode())
"""


@pytest.fixture
def place(attacker: Path) -> Iterator[Path]:
    """Give a directory that everybody may look into."""
    assert attacker.exists()  # or this is not root
    directory = Path(tempfile.mkdtemp(prefix="jdusers"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def naive_socket(place: Path) -> Iterator[Path]:
    """Give the socket of the naive daemon."""
    path = place / "naive"
    talker = Talker(sys.executable, HERE / "naive_control.py", str(path))
    assert talker.first == "ready"
    yield path
    talker.close()


def _call(path: Path | str, method: str, group: int, **parameters: Any) -> str:
    """Call as a user; return the answer, or why there is none."""
    message = {"method": f"org.jaildaemon.{method}", "parameters": parameters}
    arguments = [str(path), json.dumps(message), str(USER), str(group)]
    done = subprocess.run(
        [sys.executable, "-c", CALL, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=LONGEST_SECONDS,
    )
    return done.stdout.strip() or done.stderr.strip()


def _served_as_root(naive_socket: Path, group: int) -> bool:
    return _call(naive_socket, "Attach", group, command="id -u") == "0"


def test_another_user_does_not_even_reach_the_socket(
    jail: int, place: Path, naive_socket: Path, tally: Tally
) -> None:
    tally.control("socket: another user", _served_as_root(naive_socket, USER))
    daemon = Daemon(place)
    try:
        answer = _call(daemon.socket, "Attach", USER, jail=str(jail), command="id -u")
        rules = daemon.call("List")["parameters"]["rules"]
        tally.attack("socket: another user", 1, len(rules), answer)
        assert answer == "connect: Permission denied"
    finally:
        daemon.close()


def test_a_reader_of_the_socket_may_look_and_nothing_else(
    jail: int, place: Path, naive_socket: Path, tally: Tally
) -> None:
    group = next(group for group in grp.getgrall() if group.gr_gid)
    tally.control("socket: a reader", _served_as_root(naive_socket, group.gr_gid))
    rules = place / "rules.toml"
    rules.write_text(f'[daemon]\nreaders = "{group.gr_name}"\n', encoding="ascii")
    daemon = Daemon(place, environment={"JAILDAEMON_CONFIG": str(rules)})
    try:
        probe = daemon.attach(jail, "BELL")
        (rule,) = daemon.call("List")["parameters"]["rules"]
        seen = json.loads(_call(daemon.socket, "List", group.gr_gid))
        assert [shown["id"] for shown in seen["parameters"]["rules"]] == [rule["id"]]
        calls: dict[str, dict[str, Any]] = {
            "Attach": {"jail": str(jail), "command": "id -u"},
            "Detach": {"all": True},
            "Fire": {"rule": rule["id"]},
            "Hold": {"all": True},
            "Release": {"all": True},
            "Reload": {},
            "Restart": {},
        }
        answers = {name: _call(daemon.socket, name, group.gr_gid, **calls[name]) for name in calls}
        done = [name for name, answer in answers.items() if "NotPermitted" not in answer]
        tally.attack("socket: a reader", len(calls), len(done), str(answers))
        (after,) = daemon.call("List")["parameters"]["rules"]
        assert (after["probe_pid"], after["triggers"]) == (probe, 0)
        os.kill(probe, 0)
    finally:
        daemon.close()
