# SPDX-License-Identifier: BSD-2-Clause
"""Users and groups of a host that come, go, and have other numbers, under a real daemon."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.faults.world import JAILDAEMON, Daemon, Fifo, World

ROOT = "root:x:0:0:root:/root:/bin/sh\n"


class Host:
    """The users and groups that a daemon sees, changed while it runs."""

    def __init__(self, world: World) -> None:
        self.daemon, self._directory = world.daemon, world.directory
        self._directory.chmod(0o755)  # other users must reach the fifo
        self._passwd, self._group = self._directory / "passwd", self._directory / "group"
        self.has("")
        self._group.write_text("root:x:0:\n", encoding="ascii")
        switch = self._directory / "nsswitch"
        switch.write_text("passwd: files\ngroup: files\n", encoding="ascii")
        mounts = [(self._passwd, "passwd"), (self._group, "group"), (switch, "nsswitch.conf")]
        script = " && ".join(f"mount --bind {ours} /etc/{name}" for ours, name in mounts)
        self.before = ("unshare", "--mount", "sh", "-c", f'{script} && exec "$@"', "sh")
        self.rules = self._directory / "rules.toml"
        self.rules.write_text("", encoding="ascii")

    def has(self, *users: str) -> None:
        """Have these users of "NAME:NUMBER", and root."""
        lines = [f"{name}:x:{uid}:{uid}::/:/bin/sh\n" for name, _, uid in
                 (user.partition(":") for user in users if user)]  # fmt: skip
        # In place: what is mounted is this very file.
        self._passwd.write_text(ROOT + "".join(lines), encoding="ascii")

    def has_group(self, name: str, gid: int) -> None:
        """Have a group."""
        self._group.write_text(f"root:x:0:\n{name}:x:{gid}:\n", encoding="ascii")

    def start(self) -> Daemon:
        """Start the daemon on it."""
        self.daemon.start(*self.before, env={"JAILDAEMON_CONFIG": f"{self.rules}"})
        return self.daemon

    def check(self, *options: str) -> "subprocess.CompletedProcess[str]":
        """Run `check` on it."""
        words = [*self.before, *JAILDAEMON, "check", "--config", f"{self.rules}", *options]
        return subprocess.run(words, capture_output=True, text=True, check=False)


@pytest.fixture
def host(world: World) -> Host:
    """Give a host."""
    return Host(world)


def who(fifo: Fifo) -> str:
    """Return the command that says who runs it."""
    return f"echo $(id -u) $(id -g) > {fifo.path}"


def test_a_command_never_runs_as_who_has_got_the_number(world: World, host: Host) -> None:
    fifo = world.fifo()
    host.has("svc:2001")
    daemon = host.start()
    rule = daemon.attach(world.jail().jail, who(fifo), respawn="after", run_as="svc", limit="none")
    daemon.ring(rule)
    assert fifo.line() == "2001 2001"
    daemon.armed_probe(rule)
    host.has("svc:2002")
    daemon.call("Reload")
    daemon.ring(rule)
    assert fifo.line() == "2002 2002"
    daemon.armed_probe(rule)
    host.has("mallory:2002")
    daemon.ring(rule)
    daemon.wait("refused: run_as svc: the host has no such user")
    daemon.wait(f"{rule}: not armed, another try in ")
    assert daemon.rule(rule)["state"] == "failing"
    assert daemon.rule(rule)["reason"] == "attach: run_as svc: the host has no such user"
    host.has("mallory:2002", "svc:2003")
    daemon.call("Reload")
    daemon.armed_probe(rule)
    daemon.ring(rule)
    assert fifo.line() == "2003 2003"
    assert fifo.waiting() == []


def test_a_restart_takes_the_number_of_then(world: World, host: Host) -> None:
    fifo = world.fifo()
    host.has("svc:2001")
    daemon = host.start()
    rule = daemon.attach(world.jail().jail, who(fifo), respawn="after", run_as="svc")
    probe = daemon.probe(rule)
    host.has("svc:2002")
    daemon.launch_restart()
    assert daemon.restarted() == 0
    daemon.wait(" serves ")
    daemon.call("Reload")  # behind it whoever stands has been looked up
    assert daemon.probe(rule) == probe
    daemon.ring(rule)
    assert fifo.line() == "2002 2002"


def test_a_user_that_comes_late_concerns_its_own_rule_alone(world: World, host: Host) -> None:
    host.rules.write_text(
        "".join(
            f"[[rule]]\njail = 'docker:{name}'\ntitle = 'A'\ncommand = 'true'\nrun_as = '{user}'\n"
            for name, user in (("a", "root"), ("b", "late"))
        ),
        encoding="ascii",
    )
    done = host.check()
    assert done.returncode == 0
    where = f"{host.rules}: docker:b/A: run_as: late: the host has no such user"
    assert done.stdout == f"warning: {where}\nok: 2 rules in {host.rules}\n"
    assert host.check("--strict").returncode == 6
    (warning,) = json.loads(host.check("--json").stdout)["warnings"]
    assert (warning["rule"], warning["field"]) == ("docker:b/A", "run_as")
    daemon = host.start()
    assert sorted(daemon.rules()) == ["docker:a/A", "docker:b/A"]
    late = daemon.attach(world.jail().jail, "true", respawn="after")
    assert daemon.rule(late)["state"] == "armed"
    host.has("late:2001")
    assert host.check("--strict").returncode == 0


def test_readers_that_come_late(world: World, host: Host) -> None:
    host.rules.write_text("[daemon]\nreaders = 'lookers'\n", encoding="ascii")
    assert host.check().returncode == 0
    assert host.check("--strict").returncode == 6
    daemon = host.start()
    (warning,) = daemon.call("Status")["warnings"]
    why = "readers lookers: the host has no such group: only root may look, until a reload"
    assert warning == why
    assert any(why in line for line in daemon.log)
    assert os.stat(daemon.socket).st_mode & 0o777 == 0o600
    host.has_group("lookers", 4711)
    daemon.call("Reload")
    assert daemon.call("Status")["warnings"] == []
    found = os.stat(daemon.socket)
    assert (found.st_mode & 0o777, found.st_gid) == (0o660, 4711)
    host.has_group("others", 4711)
    daemon.call("Reload")
    assert os.stat(daemon.socket).st_mode & 0o777 == 0o600


def test_a_database_file_that_is_gone_changes_nothing_for_root(world: World, host: Host) -> None:
    fifo = world.fifo()
    daemon = host.start()
    rule = daemon.attach(world.jail().jail, who(fifo))
    Path(host.rules.parent / "passwd").write_text("", encoding="ascii")
    daemon.ring(rule)
    assert fifo.line() == "0 0"
