# SPDX-License-Identifier: BSD-2-Clause
"""That an engine does not answer, or a container cannot be taken, is where one looks first."""

import pytest

from jaildaemon.cli import doctor, metrics
from tests.daemon.server import Server

DOWN = "docker does not answer: Cannot connect to the Docker daemon"
CANNOT = "it runs, and cannot be taken: it was started with --pid=host"


@pytest.fixture
def troubled(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Give a server whose docker is down, and whose podman has one that cannot be taken."""
    names = server.hub.roster.names
    monkeypatch.setattr(names, "engines", lambda: {"docker": DOWN, "podman": None})
    monkeypatch.setattr(names, "refused", lambda: {"podman:mon": CANNOT})
    return server


def test_status_warns_of_an_engine_and_of_a_container(troubled: Server) -> None:
    status = troubled.connect().ask("Status")["parameters"]
    assert status["warnings"] == [DOWN, f"podman:mon: {CANNOT}"]
    assert status["engines"] == [
        {"name": "docker", "up": False, "reason": DOWN},
        {"name": "podman", "up": True},
    ]


def test_without_engines_status_is_as_it_was(server: Server) -> None:
    assert "engines" not in server.connect().ask("Status")["parameters"]


def test_doctor_finds_an_engine_that_does_not_answer(troubled: Server) -> None:
    found = doctor._asked(troubled.connect().ask("Status")["parameters"])
    assert [(one.name, one.ok, one.found) for one in found] == [
        ("engine", False, DOWN),
        ("engine", True, "podman answers"),
    ]
    assert all("jaildaemon.toml(5)" in str(one.hint) for one in found)
    assert doctor._asked({}) == []


def test_doctor_finds_a_container_that_cannot_be_taken() -> None:
    rule = {"id": "x", "source": "/f", "state": "waiting"}
    assert doctor._rules([rule | {"reason": "no such jail runs"}]).ok
    found = doctor._rules([rule | {"reason": CANNOT}])
    assert (found.ok, found.found) == (False, f"x from /f is not armed: {CANNOT}")


def test_metrics_count_an_engine_that_does_not_answer(troubled: Server) -> None:
    status = troubled.connect().ask("Status")["parameters"]
    lines = metrics._text(status, []).decode().splitlines()
    assert 'jaildaemon_engine_up{engine="docker"} 0.0' in lines
    assert 'jaildaemon_engine_up{engine="podman"} 1.0' in lines
    assert "jaildaemon_warnings 2.0" in lines
