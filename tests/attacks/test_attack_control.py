# SPDX-License-Identifier: BSD-2-Clause
"""Attack 7: the control socket in a jail."""

import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("cannot: the Linux attacker", allow_module_level=True)
assert sys.platform == "linux"

from tests.attacks.cage import ALL_CAPS, Cage, Plan
from tests.attacks.linux_fixtures import Make
from tests.attacks.rig import LONGEST_SECONDS, Daemon
from tests.attacks.tally import Tally

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
def public() -> Iterator[Path]:
    """Give a directory in which a mapped user may look."""
    directory = Path(tempfile.mkdtemp(prefix="jd-attack-"))
    directory.chmod(0o711)
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
        # Who looks at the uid alone is had by every root of every jail; and in a user
        # namespace by who may connect, where that is left to the uid, as docker's group is.
        (public / "naive").chmod(0o666)
        cage.tell(f"call {where}/naive {root or ''}")
        sock, _ = naive.accept()
        cred = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        is_root = int.from_bytes(cred[4:8], sys.byteorder) == 0
        sock.close()
        assert "answer" in cage.answer()[0]
        tally.control(f"socket in {case}", is_root or plan.user)
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
