# SPDX-License-Identifier: BSD-2-Clause
"""What the host sees of a probe: that it holds nothing, may nothing, and is all in the jail."""

import os
from pathlib import Path

import pytest

from tests.kernel.jails.linux import LinuxJail
from tests.kernel.processes import environment, look, open_files
from tests.kernel.processes_linux import status
from tests.kernel.product import Daemon

NO_CAPABILITY = "0000000000000000"
NAMESPACES = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"]
TITLE = "Zur\u00fccksetzen \u2013 jetzt"

pytestmark = pytest.mark.every_kind


def test_the_probe_holds_nothing_and_may_nothing(jail: LinuxJail, daemon: Daemon) -> None:
    for title, options in (("ROOT", ()), ("USER", ("-u", "1234", "-g", "1234"))):
        daemon.arm("true", jail, title, *options)
        pid = daemon.probe(title)
        found = status(pid)
        capabilities = {found[f"Cap{name}"] for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")}
        assert capabilities == {NO_CAPABILITY}
        assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")
        assert found["Groups"] == ""
        assert found["Threads"] == "1"
        assert open_files(pid) == []
        assert environment(pid) == {}


def test_the_probe_is_a_child_of_the_daemon_in_a_session_of_its_own(
    jail: LinuxJail, daemon: Daemon
) -> None:
    daemon.arm("true", jail, "CHILD")
    daemon.arm("true", jail, "OTHER")
    seen = look(daemon.probe("CHILD"))
    assert seen.parent == daemon.process.pid
    # The helper of each arming begins one, and ends.
    others = [daemon.process.pid, os.getpid(), daemon.probe("OTHER")]
    assert seen.session not in [look(pid).session for pid in others]
    assert seen.comm == "jailprobe"


def test_the_probe_is_in_every_namespace_of_the_jail(jail: LinuxJail, daemon: Daemon) -> None:
    daemon.arm("true", jail, "INSIDE")
    pid = daemon.probe("INSIDE")
    for kind in NAMESPACES:
        spaces = [os.readlink(f"/proc/{which}/ns/{kind}") for which in (pid, jail.init)]
        assert spaces[0] == spaces[1], kind
    root = os.stat(f"/proc/{jail.init}/root")
    for link in ("root", "cwd"):
        assert os.path.samestat(os.stat(f"/proc/{pid}/{link}"), root), link
    assert len(status(pid)["NSpid"].split()) == 2


def test_the_probe_is_the_sealed_image_and_shows_the_titles_very_bytes(
    jail: LinuxJail, daemon: Daemon
) -> None:
    daemon.arm("true", jail, TITLE)
    pid = daemon.probe(TITLE)
    assert Path(f"/proc/{pid}/cmdline").read_bytes() == f"jaildaemon: {TITLE}\0".encode()
    assert os.readlink(f"/proc/{pid}/exe").startswith("/memfd:jailprobe")


def test_the_probe_stays_in_the_daemons_cgroup(jail: LinuxJail, daemon: Daemon) -> None:
    daemon.arm("true", jail, "CGROUP")
    groups = [
        Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii")
        for pid in (daemon.probe("CGROUP"), daemon.process.pid)
    ]
    assert groups[0] == groups[1]
