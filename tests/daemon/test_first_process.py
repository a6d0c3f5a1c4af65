# SPDX-License-Identifier: BSD-2-Clause
"""The daemon as the first process of a container of its own."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.daemon.product import JAILDAEMON, wait_until

if sys.platform != "linux":
    pytest.skip("cannot: Linux namespaces", allow_module_level=True)


def _children(pid: int) -> list[int]:
    words = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return [int(word) for word in words]


def test_what_others_leave_to_the_first_process_is_reaped(tmp_path: Path) -> None:
    unshare, nsenter = shutil.which("unshare"), shutil.which("nsenter")
    if os.geteuid() != 0 or unshare is None or nsenter is None:
        pytest.skip("cannot: only root, by unshare(1) and nsenter(1)")
    files = ["-f", str(tmp_path / "pipe"), "-p", str(tmp_path / "pid")]
    command = [
        unshare,
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        str(JAILDAEMON),
        "-D",
        "-F",
    ]
    with subprocess.Popen([*command, *files], stderr=subprocess.PIPE, text=True) as running:
        try:
            _leave_and_end(running, nsenter)
        finally:
            running.kill()  # its child is killed with it


def _leave_and_end(running: "subprocess.Popen[str]", nsenter: str) -> None:
    assert running.stderr is not None
    while " as pid 1" not in (line := running.stderr.readline()):
        assert line, "it did not start"
    (daemon,) = _children(running.pid)
    # Its parent, a shell, ends at once: who is first gets it.
    left = [nsenter, "-t", str(daemon), "-p", "sh", "-c", "sleep 1000 &"]
    subprocess.run(left, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    wait_until(lambda: _sleepers(daemon) != [], "it is left to the daemon")
    (orphan,) = _sleepers(daemon)
    os.kill(orphan, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{orphan}").exists(), "it is reaped")
    os.kill(daemon, signal.SIGTERM)
    running.stderr.read()


def _sleepers(daemon: int) -> list[int]:
    """Return the children of the daemon that are sleep(1)."""
    return [pid for pid in _children(daemon) if _words(pid).startswith(b"sleep\0")]


def _words(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()
