# SPDX-License-Identifier: BSD-2-Clause
"""The man page's three examples, as they are written there, with stand-ins for their programs."""

import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kernel.events import Bell
from tests.kernel.jails.base import Jail
from tests.kernel.place import Place
from tests.kernel.product import Daemon

PATH = "/sbin:/bin:/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"
SBIN = Path("/usr/local/sbin")

StandIn = Callable[[str], str]


def _link(path: Path, program: Path) -> bool:
    """Have a program under another name too, where there is nothing yet."""
    try:
        path.symlink_to(program)
    except OSError:
        return False
    return True


@pytest.fixture
def stand_in(place: Place, directory: Path, bell: Bell) -> Iterator[StandIn]:
    """Install programs that ring the bell with their own name and arguments.

    On the commands' PATH, in /usr/local/sbin, and gone after the test; by
    absolute path where the machine has a program of that name.
    """
    made: list[Path] = []

    def install(name: str) -> str:
        program = directory / name
        program.write_text(f"#!/bin/sh\necho \"${{0##*/}} $*\" > '{bell.path}'\n", encoding="utf-8")
        program.chmod(0o755)
        if shutil.which(name, path=PATH) is None and SBIN.is_dir():
            place.note("link", str(SBIN / name), str(program))
            if _link(SBIN / name, program):
                made.append(SBIN / name)
                return name
        return str(program)

    yield install
    for path in made:
        path.unlink()


@pytest.mark.manpage("example-restart", "purpose")
def test_restart_the_jail(jail: Jail, daemon: Daemon, bell: Bell, stand_in: StandIn) -> None:
    daemon.arm(f"{stand_in('ezjail-admin')} restart example.com", jail, "RESTART")
    jail.ring("RESTART")
    assert bell.wait() == "ezjail-admin restart example.com"


@pytest.mark.manpage("example-zfs", "purpose")
def test_snapshot_the_jail(jail: Jail, daemon: Daemon, bell: Bell, stand_in: StandIn) -> None:
    program = stand_in("zfs")
    daemon.arm(f"{program} snapshot jails/example.com@`date +%s`", jail, "SNAPSHOT", "-r")
    armed = time.time()
    for _ in range(2):
        old = daemon.probe("SNAPSHOT")
        jail.ring("SNAPSHOT")
        found = re.fullmatch(r"zfs snapshot jails/example\.com@([0-9]+)", bell.wait())
        assert found
        assert int(armed) <= int(found[1]) <= time.time() + 1
        daemon.wait_new_probe("SNAPSHOT", old)


@pytest.mark.manpage("example-routes", "purpose")
def test_reload_the_routes(jail: Jail, daemon: Daemon, bell: Bell, stand_in: StandIn) -> None:
    program = stand_in("reload_routing_table.sh")
    daemon.arm(f"{program} example.com", jail, "ROUTES", "-R", "-u", "1234", "-g", "1234")
    old = daemon.probe("ROUTES")
    done = jail.inside("pkill", "-HUP", "-f", "^jaildaemon: ROUTES", uid=1234)
    assert done.returncode == 0, done.stderr
    assert bell.wait() == "reload_routing_table.sh example.com"
    daemon.wait_new_probe("ROUTES", old)
