# SPDX-License-Identifier: BSD-2-Clause
"""What -j takes on FreeBSD, and what the host sees of a probe there."""

import subprocess

import pytest

from tests.kernel.events import Bell
from tests.kernel.jails.freebsd import HostTreeJail
from tests.kernel.processes import environment, look, open_files
from tests.kernel.product import Daemon

pytestmark = pytest.mark.every_kind


def _procstat(*words: str) -> list[list[str]]:
    done = subprocess.run(["procstat", "-h", *words], capture_output=True, text=True, check=True)
    return [line.split() for line in done.stdout.splitlines()]


def test_j_takes_the_jid_and_the_name(jail: HostTreeJail, daemon: Daemon, bell: Bell) -> None:
    for number, name in enumerate((jail.jid, jail.jail_name)):
        done = daemon.attach(bell.command("$JAILDAEMON_JAIL"), name, f"BY {number}")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        rule = daemon.rule(f"BY {number}")
        assert rule["jid"] == int(jail.jid)
        jail.ring(f"BY {number}")
        assert bell.wait() == jail.jail_name


def test_the_probe_is_a_child_of_the_daemon_in_a_session_of_its_own(
    jail: HostTreeJail, daemon: Daemon
) -> None:
    daemon.arm("true", jail, "CHILD")
    seen = look(daemon.probe("CHILD"))
    assert seen.parent == daemon.process.pid
    assert seen.session == seen.pid
    assert seen.comm == "jailprobe"


def test_the_probe_holds_nothing_and_is_in_capability_mode(
    jail: HostTreeJail, daemon: Daemon
) -> None:
    for title, options in (("ROOT", ()), ("USER", ("-u", "1234", "-g", "1234"))):
        daemon.arm("true", jail, title, *options)
        pid = daemon.probe(title)
        assert open_files(pid) == []
        assert environment(pid) == {}
        # PID COMM EUID RUID SVUID EGID RGID SVGID UMASK FLAGS GROUPS
        assert "C" in _procstat("-s", str(pid))[0][9]


def test_roots_debugger_inside_may_not_touch_the_probe(jail: HostTreeJail, daemon: Daemon) -> None:
    daemon.arm("true", jail, "TRACED")
    (pid,) = jail.find("TRACED")
    done = jail.inside("procstat", "-f", str(pid))
    assert done.returncode != 0 or str(pid) not in done.stdout
