# SPDX-License-Identifier: BSD-2-Clause
"""The unit of packaging/systemd under a systemd: starts, crashes, broken files, and its log."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jaildaemon.cli import client
from tests.daemon.product import JAILDAEMON, LONGEST_SECONDS

UNIT = Path(__file__).parents[2] / "packaging/systemd/jaildaemon.service"
NAME = "jaildaemon-under-test.service"


def systemctl(*words: str) -> "subprocess.CompletedProcess[str]":
    """Call systemctl."""
    return subprocess.run(["systemctl", *words], capture_output=True, text=True, check=False)


class Unit:
    """The unit, with a daemon of the tree in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.rules, self.socket = directory / "rules.toml", directory / "pipe"
        self.rules.write_text("", encoding="ascii")
        self._place = Path("/etc/systemd/system") / NAME
        text = UNIT.read_text(encoding="utf-8").replace("RestartSec=2\n", "RestartSec=10ms\n")
        text = text.replace("/usr/local/bin/jaildaemon", f"{JAILDAEMON}")
        config = f"--config {self.rules}"
        places = f"-f {self.socket} -p {directory}/pid --state-dir {directory}/state"
        text = text.replace(" check &&", f" check {config} &&")
        text = text.replace(" -D -F'", f" -D -F {config} {places}'")
        text = text.replace(" reload\n", f" reload -f {self.socket}\n")
        self._place.write_text(text, encoding="utf-8")
        assert systemctl("daemon-reload").returncode == 0

    def show(self, name: str) -> str:
        """Return a property."""
        return systemctl("show", NAME, f"--property={name}", "--value").stdout.strip()

    def until(self, name: str, *values: str) -> str:
        """Wait until a property has one of the values."""
        end = time.monotonic() + LONGEST_SECONDS
        while (found := self.show(name)) not in values:
            assert time.monotonic() < end, f"{name} is {found}:\n{self.log()}"
        return found

    def pid(self) -> int:
        """Return the daemon's pid, as itself says."""
        pid = client.call(str(self.socket), "Status", {})["pid"]
        assert isinstance(pid, int)
        return pid

    def log(self, *words: str) -> str:
        """Return the journal of the unit."""
        subprocess.run(["journalctl", "--sync"], check=False)
        argv = ["journalctl", "--no-pager", f"--unit={NAME}", *words]
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout

    def close(self) -> None:
        """Stop it, and remove it."""
        systemctl("stop", NAME)
        self._place.unlink()
        systemctl("daemon-reload")
        systemctl("reset-failed", NAME)


@pytest.fixture
def beside_systemd(tmp_path: Path) -> Iterator[Unit]:
    """Give the unit, loaded by a systemd."""
    tmp_path.chmod(0o700)
    made = Unit(tmp_path)
    yield made
    made.close()


def test_it_starts_reloads_and_stops(beside_systemd: Unit) -> None:
    unit = beside_systemd
    done = systemctl("start", NAME)
    assert done.returncode == 0, done.stderr + unit.log()
    pid = unit.pid()  # it answers when systemctl has returned
    assert (unit.show("MainPID"), unit.show("NRestarts")) == (str(pid), "0")
    assert systemctl("reload", NAME).returncode == 0
    assert systemctl("stop", NAME).returncode == 0
    assert unit.show("Result") == "success"
    assert not unit.socket.exists(), unit.log("--output=short-monotonic")
    assert "remains running" not in unit.log()


def test_its_log_has_severities_and_fields(beside_systemd: Unit) -> None:
    unit = beside_systemd
    unit.rules.write_text(
        "[[rule]]\njail = 'runc:none'\ntitle = 'HELLO'\ncommand = 'secret words'\n"
        "run_as = 'no-such-user'\n[daemon]\nreaders = 'no-such-group'\n",
        encoding="ascii",
    )
    assert systemctl("start", NAME).returncode == 0
    with contextlib.suppress(Exception):
        client.call(str(unit.socket), "Hold", {"rule": "runc:none/HELLO"})
    lines = [json.loads(line) for line in unit.log("--output=json").splitlines()]
    ours = [line for line in lines if line.get("SYSLOG_IDENTIFIER") == "jaildaemon"]
    (held,) = [line for line in ours if "held by" in line["MESSAGE"]]
    found = {name: held[f"JAILDAEMON_{name}"] for name in ("RULE", "JAIL", "TITLE")}
    assert found == {"RULE": "runc:none/HELLO", "JAIL": "runc:none", "TITLE": "HELLO"}
    assert held["PRIORITY"] == "6"
    assert any("readers" in line["MESSAGE"] and line["PRIORITY"] == "4" for line in ours)
    assert not any("secret words" in str(line) for line in ours)


def test_it_is_started_again_however_often_it_is_killed(beside_systemd: Unit) -> None:
    unit = beside_systemd
    assert systemctl("start", NAME).returncode == 0
    for times in range(1, 8):  # systemd's own limit is five in ten seconds
        os.kill(unit.pid(), signal.SIGKILL)
        unit.until("NRestarts", str(times))
        unit.until("ActiveState", "active")


def test_a_broken_file_is_said_and_not_tried_again(beside_systemd: Unit) -> None:
    unit = beside_systemd
    unit.rules.write_text("[[rule]\n", encoding="ascii")
    assert systemctl("start", NAME).returncode != 0
    assert unit.show("ActiveState") == "failed"
    assert (unit.show("NRestarts"), unit.show("ExecMainStatus")) == ("0", "6")
    assert f"{unit.rules}: " in unit.log()
    unit.rules.write_text("", encoding="ascii")
    assert systemctl("start", NAME).returncode == 0, "it wants a reset-failed first"


def test_what_fails_otherwise_is_tried_again_and_leaves_nothing(beside_systemd: Unit) -> None:
    unit = beside_systemd
    unit.socket.mkdir()  # whatever it is that is in the way for now
    assert systemctl("start", "--no-block", NAME).returncode == 0
    end = time.monotonic() + LONGEST_SECONDS
    while int(unit.show("NRestarts")) < 6:
        assert time.monotonic() < end, unit.log()
    unit.socket.rmdir()
    unit.until("ActiveState", "active")
    assert unit.pid() == int(unit.show("MainPID"))
    assert "remains running" not in unit.log()
