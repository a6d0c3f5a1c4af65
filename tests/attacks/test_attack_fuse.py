# SPDX-License-Identifier: BSD-2-Clause
"""Attack 7 again: a caller from a container with the host's processes, on a hostile file system."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("cannot: the Linux attacker", allow_module_level=True)
assert sys.platform == "linux"

from tests.attacks.fuse_root import FuseServer
from tests.attacks.rig import HERE, LONGEST_SECONDS, Daemon
from tests.attacks.tally import Tally
from tests.helper.parent import wait_readable


def test_a_caller_whose_root_never_answers_holds_nothing_up(
    daemon: Daemon, tmp_path: Path, tally: Tally
) -> None:
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("cannot: no /dev/fuse here")
    point = tmp_path / "point"
    point.mkdir()
    server = FuseServer()
    arguments = [str(server.fd), str(point), str(tmp_path)]
    caller = subprocess.Popen(
        [sys.executable, HERE / "fuse_root.py", *arguments],
        pass_fds=[server.fd],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    assert caller.stdin is not None
    assert caller.stdout is not None
    looks = f"import os; os.stat('/proc/{caller.pid}/root')"
    looking = None
    try:
        assert caller.stdout.readline() == "mounted\n"
        server.start()
        assert caller.stdout.readline() == "ready\n"
        server.stall()
        # Who looks at the caller's root waits for as long as the caller likes.
        looking = subprocess.Popen([sys.executable, "-c", looks])
        assert server.asked.wait(LONGEST_SECONDS)
        assert looking.poll() is None
        tally.control("a root that never answers", 1)
        caller.stdin.write("call\n")
        wait_readable(caller.stdout.fileno())
        answer = caller.stdout.readline()
        tally.attack("a root that never answers", 1, int("NotPermitted" not in answer), answer)
        assert daemon.triggers() == 0  # it serves
    finally:
        server.go_on()
        if looking is not None:
            assert looking.wait(LONGEST_SECONDS) == 0
        caller.kill()
        caller.wait()
        caller.stdin.close()
        caller.stdout.close()
