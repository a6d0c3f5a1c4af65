# SPDX-License-Identifier: BSD-2-Clause
"""What a command finds around it: the host, by /bin/sh -c, with nothing chosen inside the jail."""

import pwd
import re
import shlex
import time

import pytest

from tests.kernel.events import Bell, Gate
from tests.kernel.jails.base import Jail
from tests.kernel.processes import environment, ignored_signals, look, own_space
from tests.kernel.product import Daemon

PATH = "/sbin:/bin:/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"


LINES = {
    """printf '%s|' `echo one` "two  three" 'four $HOME'""": "one|two  three|four $HOME|",
    "printf '3\\n1\\n2\\n' | sort | tr -d '\\n'": "123",
    'x=$(( 6 * 7 )); for i in a b; do printf %s "$i$x"; done # a comment': "a42b42",
    "true && false || printf '%s' \"it's\"": "it's",
}


@pytest.mark.manpage("example-zfs")
def test_the_command_is_a_line_of_sh(jail: Jail, daemon: Daemon, bell: Bell) -> None:
    for line, expected in LINES.items():
        daemon.arm(f"{{ {line}\necho; }} > {shlex.quote(str(bell.path))}", jail, "LINE")
        jail.ring("LINE")
        assert bell.wait() == expected
        daemon.wait_rule_gone("LINE")


def test_the_date_in_backquotes_is_that_of_the_run(jail: Jail, daemon: Daemon, bell: Bell) -> None:
    daemon.arm(f"echo `date +%s` > {shlex.quote(str(bell.path))}", jail, "DATE")
    armed = time.time()
    jail.ring("DATE")
    assert int(armed) <= int(bell.wait()) <= time.time() + 1


def test_a_command_is_bytes_whatever_they_mean(jail: Jail, daemon: Daemon, bell: Bell) -> None:
    raw = b"\xff\xfe".decode(errors="surrogateescape")
    path = shlex.quote(str(bell.path))
    daemon.arm(f"printf %s '{raw}' | od -An -tx1 | tr -d ' ' > {path}", jail, "BYTES")
    jail.ring("BYTES")
    assert bell.wait() == "fffe"


def test_the_environment_is_exactly_the_documented_one(
    jail: Jail, daemon: Daemon, bell: Bell, gate: Gate
) -> None:
    daemon.arm(f"{bell.command('$$')}; {gate.command}", jail, "ENVIRONMENT")
    rule = daemon.rule("ENVIRONMENT")
    jail.ring("ENVIRONMENT")
    found = environment(int(bell.wait()))
    gate.open()
    assert next(iter(found)) == "JAILDAEMON_RUN"  # FreeBSD 15 does not show the last of some
    name, run = found.pop("JAILDAEMON_JAIL"), found.pop("JAILDAEMON_RUN")
    assert re.fullmatch(r"[A-Za-z0-9._-]+", name)
    assert run
    assert found == {
        "PATH": PATH,
        "HOME": pwd.getpwuid(0).pw_dir,
        "LANG": "C.UTF-8",
        "JAILDAEMON_JID": str(rule["jid"]),
        "JAILDAEMON_TITLE": "ENVIRONMENT",
        "JAILDAEMON_RULE": rule["id"],
    }


def test_without_a_title_the_variable_is_empty(jail: Jail, daemon: Daemon, bell: Bell) -> None:
    daemon.arm(bell.command("[$JAILDAEMON_TITLE]"), jail, None)
    jail.ring(None)
    assert bell.wait() == "[]"


@pytest.mark.manpage("purpose")
def test_the_command_is_a_process_of_the_host_in_a_session_of_its_own(
    jail: Jail, daemon: Daemon, bell: Bell, gate: Gate
) -> None:
    daemon.arm(f"{bell.command('$$')}; {gate.command}", jail, "HOST")
    jail.ring("HOST")
    pid = int(bell.wait())
    seen = look(pid)
    ignored = ignored_signals(pid)
    gate.open()
    assert seen.space == own_space()
    assert seen.session == pid
    assert seen.parent == daemon.process.pid
    assert (seen.uids, seen.gids) == ((0, 0, 0), (0, 0, 0))
    assert ignored == set()


def test_the_command_is_in_the_root_directory_with_the_usual_umask(
    jail: Jail, daemon: Daemon, bell: Bell
) -> None:
    daemon.arm(bell.command("$(pwd) $(umask)"), jail, "PLACE")
    jail.ring("PLACE")
    directory, umask = bell.wait().split()
    assert directory == "/"
    assert int(umask, 8) == 0o022


def test_the_commands_standard_input_is_empty(jail: Jail, daemon: Daemon, bell: Bell) -> None:
    daemon.arm(f"read -r line; {bell.command('$? [$line]')}", jail, "INPUT")
    jail.ring("INPUT")
    assert bell.wait() == "1 []"


def test_the_command_gets_no_descriptor_besides_its_three(
    jail: Jail, daemon: Daemon, bell: Bell
) -> None:
    # /dev/fd on FreeBSD without fdescfs(5) shows 0, 1 and 2 whatever there is.
    daemon.arm(bell.command("$(ls /dev/fd/ | tr '\\n' ' ')"), jail, "FILES", "-r")
    jail.ring("FILES")
    # One more is ls's own, of the directory that it lists; 1 is the pipe of $().
    assert set(bell.wait().split()) <= {"0", "1", "2", "3"}


def test_a_command_that_talks_without_end_does_not_block(
    jail: Jail, daemon: Daemon, bell: Bell
) -> None:
    talk = "i=0; while [ $i -lt 2000 ]; do echo 0123456789012345678901234567890123456789; "
    talk += "echo error >&2; i=$((i + 1)); done"
    daemon.arm(f"{talk}; {bell.command('done')}", jail, "TALK")
    jail.ring("TALK")
    assert bell.wait() == "done"


def test_a_run_is_over_when_its_shell_ends_whatever_it_left_running(
    jail: Jail, daemon: Daemon, bell: Bell, gate: Gate
) -> None:
    left = f"({gate.command}; {bell.command('left')}) &"
    daemon.arm(f"{left} {bell.command('shell')}", jail, "LEFT", "-r")
    old = daemon.probe("LEFT")
    jail.ring("LEFT")
    assert bell.wait() == "shell"
    daemon.wait_new_probe("LEFT", old)
    gate.open()
    assert bell.wait() == "left"
