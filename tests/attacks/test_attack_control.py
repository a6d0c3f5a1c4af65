# SPDX-License-Identifier: BSD-2-Clause
"""Attacks 7, 27, 29, 32: the control socket in a jail, a poisoned start, files of others."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("cannot: the Linux attacker", allow_module_level=True)
assert sys.platform == "linux"

from tests.attacks.cage import ALL_CAPS, DOCKER_CAPS, Cage, Plan
from tests.attacks.linux_fixtures import Make
from tests.attacks.rig import LONGEST_SECONDS, SECRET, Daemon
from tests.attacks.tally import Tally
from tests.helper.parent import status

# --- the socket, mounted into a jail ---------------------------------------------------

CASES = {
    "pid-namespace": (Plan(), None, "another PID namespace"),
    "user-namespace": (Plan(ALL_CAPS, user=True), None, None),
    # Its root directory may be a file system of its own: whoever asks that may wait for ever.
    "host-pids": (Plan(same=["pid"]), None, "root without CAP_SYS_ADMIN"),
    "privileged-host-pids": (Plan(ALL_CAPS, same=["pid"]), None, "another root directory"),
    # As a monitoring container has them: --pid=host -v /:/host:ro.
    "chroot-to-the-host": (Plan(same=["pid"]), "/host", "root without CAP_SYS_ADMIN"),
}


def _called(cage: Cage, path: str, root: str | None) -> str:
    (answer,) = cage.ask(f"call {path} {root or ''}")
    return answer


@pytest.fixture
def public(tmp_path: Path) -> Iterator[Path]:
    """Give a directory in which a mapped user may look."""
    directory = Path("/tmp") / f"jd-attack-{os.getpid()}"
    directory.mkdir(mode=0o711)
    assert tmp_path.exists()
    yield directory
    shutil.rmtree(directory)


@pytest.mark.parametrize("case", CASES)
def test_the_socket_in_a_jail_serves_nobody_there(
    case: str, make_cage: Make, public: Path, tally: Tally
) -> None:
    plan, root, why = CASES[case]
    binds = {"/": root} if root else {str(public): "/ctl"}
    where = str(public) if root else "/ctl"
    daemon = Daemon(public)
    naive = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        naive.bind(str(public / "naive"))
        naive.listen(1)
        naive.settimeout(LONGEST_SECONDS)
        cage = make_cage(Plan(plan.caps, plan.user, same=plan.same, binds=binds))
        if not plan.user:
            # Who looks at the uid alone is had by every root of every jail.
            cage.tell(f"call {where}/naive {root or ''}")
            sock, _ = naive.accept()
            cred = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            assert int.from_bytes(cred[4:8], sys.byteorder) == 0
            sock.close()
            assert "answer" in cage.answer()[0]
            tally.control(f"socket in {case}", 1)
        answer = _called(cage, f"{where}/pipe", root)
        rules = daemon.call("List")["parameters"]["rules"]
        tally.attack(f"socket in {case}", 1, len(rules) + ("probe_pid" in answer), answer)
        if why is None:
            assert answer == "connect: Permission denied"  # 0600, and not its root's
        else:
            assert "org.jaildaemon.NotPermitted" in answer, answer
            assert why in answer
            daemon.wait_log(rf"denied uid 0 pid \d+ at the socket: .*{why}")
        # The administrator is served as ever.
        assert daemon.attach(cage.init, "BELL") if "pid" not in plan.same else True
    finally:
        naive.close()
        daemon.close()


# --- the environment of the daemon's start ----------------------------------------------

POISON = {
    "LD_PRELOAD": "/nonexistent/evil.so",
    "LD_LIBRARY_PATH": "/nonexistent",
    "LD_AUDIT": "/nonexistent/audit.so",
    "PYTHONSTARTUP": "/nonexistent/startup.py",
    "PYTHONINSPECT": "",
    "BASH_ENV": "/nonexistent/bash_env",
    "ENV": "/nonexistent/env",
    "SHELLOPTS": "xtrace",
    "PS4": "$(touch /tmp/poisoned)",
    "IFS": "x",
    "PATH": f"/nonexistent/bin:{os.environ['PATH']}",
    "BASH_FUNC_true%%": "() { touch /tmp/poisoned; }",
    "BASH_FUNC_echo%%": "() { touch /tmp/poisoned; }",
    "GCONV_PATH": "/nonexistent",
    "LOCPATH": "/nonexistent",
    "NLSPATH": "/nonexistent",
    "TMPDIR": "/nonexistent",
    "HOME": "/nonexistent",
    "LANG": "xx_XX",
    "LC_ALL": "C.UTF-8",
    "SECRET": SECRET,
}


def test_nothing_of_the_daemons_environment_reaches_the_command_or_the_probe(
    make_cage: Make, tmp_path: Path, tally: Tally
) -> None:
    told = tmp_path / "told"
    os.mkfifo(told)
    told_fd = os.open(told, os.O_RDWR)
    naive = subprocess.run(
        ["/bin/sh", "-c", "env"], env=POISON, capture_output=True, text=True, check=True
    )
    assert SECRET in naive.stdout
    tally.control("poisoned environment", 1)
    daemon = Daemon(tmp_path, environment=POISON)
    try:
        cage = make_cage(Plan())
        pid = daemon.attach(cage.init, "BELL", command=f"tr '\\0' '\\n' </proc/$$/environ >{told}")
        assert Path(f"/proc/{pid}/environ").read_bytes() == b""
        os.kill(pid, signal.SIGHUP)
        daemon.wait_log("run .* ended: exit 0")
        lines = os.read(told_fd, 65536).decode().splitlines()
    finally:
        daemon.close()
        os.close(told_fd)
    names = {line.partition("=")[0] for line in lines}
    ours = {f"JAILDAEMON_{name}" for name in ("JID", "JAIL", "TITLE", "RULE", "RUN")}
    assert names == {"PATH", "HOME", "LANG"} | ours
    values = dict(line.partition("=")[::2] for line in lines)
    assert values["PATH"] == "/sbin:/bin:/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"
    leaked = [line for line in lines if "nonexistent" in line or SECRET in line]
    assert not Path("/tmp/poisoned").exists()
    tally.attack("poisoned environment", 2 * len(POISON), len(leaked), str(leaked))


# --- the daemon itself ----------------------------------------------------------------------


def test_the_daemon_gives_a_command_no_terminal_and_no_descriptor(
    make_cage: Make, daemon: Daemon, tmp_path: Path, tally: Tally
) -> None:
    """Attack 8, TIOCSTI: neither probe nor command has a controlling terminal."""
    cage = make_cage(Plan(DOCKER_CAPS))
    told = tmp_path / "told"
    os.mkfifo(told)
    told_fd = os.open(told, os.O_RDWR)
    command = f"{{ cut -d' ' -f5-7 /proc/$$/stat; echo $$; ls /proc/$$/fd; }} >{told}"
    pid = daemon.attach(cage.init, "BELL", command=command)
    assert status(pid)["NSsid"].split()[0] == str(pid)
    os.kill(pid, signal.SIGHUP)
    daemon.wait_log("run .* ended: exit 0")
    words = os.read(told_fd, 65536).decode().split()
    os.close(told_fd)
    group, session, terminal, shell, *descriptors = words
    assert (group, session, terminal) == (shell, shell, "0")
    tally.attack("terminal", 2, len(set(descriptors) - {"0", "1", "2", "10"}), str(descriptors))
