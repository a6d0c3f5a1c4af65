# SPDX-License-Identifier: BSD-2-Clause
"""The public varlink client (PyPI) knows nothing of us, and works against us."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import jaildaemon
from tests.daemon.product import Daemon

with warnings.catch_warnings():
    # A docstring of it has an escape sequence that is none: an error here, when it is compiled.
    warnings.simplefilter("ignore")
    import varlink

# What the client itself demands before it sends.
FEWEST: dict[str, dict[str, object]] = {
    "org.jaildaemon.Explain": {"jail": "1"},
    "org.jaildaemon.Fire": {"rule": "t1"},
}
DESCRIPTIONS = Path(jaildaemon.__file__).parent


@pytest.fixture
def public(served: Daemon) -> Iterator[Any]:
    """Give the public client, connected."""
    with varlink.Client(f"unix:{served.socket}") as client:
        yield client


def test_it_introspects_the_service(public: Any) -> None:
    with public.open("org.varlink.service") as service:
        info = service.GetInfo()
        assert (info["vendor"], info["product"]) == ("jaildaemon", "jaildaemon")
        assert info["version"] == jaildaemon.__version__
        assert info["interfaces"] == ["org.varlink.service", "org.jaildaemon"]
        for name in info["interfaces"]:
            told = service.GetInterfaceDescription(name)["description"]
            assert told == (DESCRIPTIONS / f"{name}.varlink").read_text(encoding="ascii")


def test_it_finds_every_method_by_the_description_alone(public: Any) -> None:
    with public.open("org.jaildaemon") as connection:
        for method in (
            *("Attach", "Detach", "List", "Status", "Log", "Explain"),
            *("Fire", "Hold", "Release", "Reload", "Restart"),
        ):
            assert callable(getattr(connection, method)), method


def test_it_attaches_lists_and_detaches(public: Any, jail: str) -> None:
    with public.open("org.jaildaemon") as connection:
        made = connection.Attach(
            command="true", jail=jail, title="PUBLIC", policy={"respawn": "after", "uid": 5}
        )
        (rule,) = connection.List()["rules"]
        assert (rule["id"], rule["probe_pid"]) == (made["id"], made["probe_pid"])
        assert (rule["title"], rule["state"]) == ("PUBLIC", "armed")
        policy = rule["policy"]
        assert (policy["respawn"], policy["uid"], policy["gid"]) == ("after", 5, 0)
        assert (policy["limit"], policy["run_as"]) == ("30/1m", "root")
        status = connection.Status()
        assert (status["rules"], status["probes"]) == (1, 1)
        assert isinstance(status["uptime_seconds"], float)
        assert connection.Detach(rule=made["id"])["ids"] == [made["id"]]
        assert connection.List(jail=jail)["rules"] == []


def test_it_gets_errors_as_varlink_has_them(public: Any) -> None:
    with public.open("org.jaildaemon") as connection:
        with pytest.raises(varlink.VarlinkError) as refused:
            connection.Detach(rule="t99")
        assert refused.value.error() == "org.jaildaemon.NoSuchRule"
        assert refused.value.parameters() == {
            "what": "detach",
            "on": "t99",
            "why": "no such rule",
            "hint": "see jaildaemon list",
        }
    with public.open("org.jaildaemon") as connection, pytest.raises(varlink.InvalidParameter):
        connection.Attach(command="true", jail="1", policy={"uid": "root"})
