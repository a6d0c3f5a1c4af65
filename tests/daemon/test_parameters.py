# SPDX-License-Identifier: BSD-2-Clause
"""Every parameter of every method, wrong in every way; nothing is converted."""

import re
from pathlib import Path
from typing import Any

import pytest

import jaildaemon
from tests.daemon.server import Message, Server

SERVICE = "org.varlink.service"

# The interface's own table, written out: method, parameter, type, whether it must be there.
PARAMETERS = [
    ("Attach", "command", "string", True),
    ("Attach", "jail", "string", True),
    ("Attach", "title", "string", False),
    ("Attach", "policy", "object", False),
    ("Attach", "policy.respawn", "string", False),
    ("Attach", "policy.uid", "int", False),
    ("Attach", "policy.gid", "int", False),
    ("Attach", "policy.signal", "string", False),
    ("Attach", "policy.limit", "string", False),
    ("Attach", "policy.cooldown", "string", False),
    ("Attach", "policy.timeout", "string", False),
    ("Attach", "policy.settle", "string", False),
    ("Attach", "policy.concurrency", "int", False),
    ("Attach", "policy.run_as", "string", False),
    ("Attach", "replace", "bool", False),
    ("Detach", "rule", "string", False),
    ("Detach", "jail", "string", False),
    ("Detach", "title", "string", False),
    ("Detach", "all", "bool", False),
    ("List", "jail", "string", False),
    ("Log", "rule", "string", False),
    ("Log", "last", "int", False),
    ("Entries", "rule", "string", False),
    ("Entries", "last", "int", False),
    ("Explain", "jail", "string", True),
    ("Explain", "title", "string", False),
    ("Fire", "rule", "string", True),
    ("Fire", "dry_run", "bool", False),
    ("Hold", "rule", "string", False),
    ("Hold", "all", "bool", False),
    ("Release", "rule", "string", False),
    ("Release", "all", "bool", False),
    (f"{SERVICE}.GetInterfaceDescription", "interface", "string", True),
]
VALUES: dict[str, Any] = {
    "string": "7",
    "int": 7,
    "bool": True,
    "float": 7.0,
    "fraction": 0.5,
    "zero": 0,
    "array": [],
    "full array": ["7"],
    "object": {},
    "null": None,
}
FITS = {
    "string": {"string"},
    "int": {"int", "zero"},
    "bool": {"bool"},
    "object": {"object"},
}
WRONG = [
    (method, name, kind, value)
    for method, name, kind, required in PARAMETERS
    for value in VALUES
    if value not in FITS[kind] and (required or value != "null")
]


def good(server: Server, method: str) -> dict[str, Any]:
    """Return parameters that a method takes."""
    return {
        "Attach": {"command": "true", "jail": server.jail},
        "Explain": {"jail": server.jail},
        "Fire": {"rule": "t1"},
        f"{SERVICE}.GetInterfaceDescription": {"interface": "org.jaildaemon"},
    }.get(method, {})


def invalid(name: str) -> Message:
    """Return the answer that names a parameter."""
    return {"error": f"{SERVICE}.InvalidParameter", "parameters": {"parameter": name}}


def put(parameters: dict[str, Any], name: str, value: object) -> None:
    """Set a parameter by its dotted name."""
    *outer, last = name.split(".")
    for part in outer:
        parameters = parameters.setdefault(part, {})
    parameters[last] = value


@pytest.mark.parametrize(("method", "name", "kind", "value"), WRONG)
def test_a_value_of_another_type_is_refused_by_its_name(
    server: Server, method: str, name: str, kind: str, value: str
) -> None:
    parameters = good(server, method)
    put(parameters, name, VALUES[value])
    assert server.connect().ask(method, **parameters) == invalid(name), kind
    assert server.methods.fleet.members == {}


@pytest.mark.parametrize(
    ("method", "name"), [(method, name) for method, name, _, required in PARAMETERS if required]
)
def test_a_parameter_that_is_missing_is_named(server: Server, method: str, name: str) -> None:
    parameters = good(server, method)
    del parameters[name]
    assert server.connect().ask(method, **parameters) == invalid(name)


@pytest.mark.parametrize(
    "method",
    [
        *("Attach", "Detach", "List", "Status"),
        *("Log", "Entries", "Explain", "Fire", "Hold", "Release"),
        *(f"{SERVICE}.GetInfo", f"{SERVICE}.GetInterfaceDescription"),
    ],
)
def test_a_parameter_that_is_not_the_methods_is_refused(server: Server, method: str) -> None:
    client = server.connect()
    for extra in ("Command", "jails", "", "__class__", "policy.uid"):
        parameters = {**good(server, method), extra: "x"}
        client.say({"method": server_name(method), "parameters": parameters})
        assert client.heard() == [invalid(extra or "parameters")]
    for parameters in ([], "text", 7, True, None):  # type: ignore[assignment]
        client.say({"method": server_name(method), "parameters": parameters})
        assert client.heard() == [invalid("parameters")]


def server_name(method: str) -> str:
    """Return the whole name of a method."""
    return method if "." in method else f"org.jaildaemon.{method}"


def test_an_unknown_field_of_the_policy_is_refused(server: Server) -> None:
    client = server.connect()
    answer = client.ask("Attach", **good(server, "Attach"), policy={"Uid": 0})
    assert answer == invalid("policy.Uid")


def test_a_null_is_the_same_as_nothing_where_nothing_may_be(server: Server) -> None:
    client = server.connect()
    names = [
        name for method, name, _, required in PARAMETERS if method == "Attach" and not required
    ]
    parameters = good(server, "Attach")
    for name in names:
        if name != "policy":
            put(parameters, name, None)
    assert client.ask("Attach", **parameters)["parameters"]["id"] == "t1"
    assert client.ask("Attach", **good(server, "Attach"), policy=None)["parameters"]["id"] == "t2"


def test_parameters_may_be_left_out_where_none_is_needed(server: Server) -> None:
    client = server.connect()
    client.say({"method": "org.jaildaemon.List"}, {"method": "org.jaildaemon.Attach"})
    assert client.heard() == [{"parameters": {"rules": []}}, invalid("command")]


@pytest.mark.parametrize(
    ("policy", "on", "why"),
    [
        ({"uid": -1}, "uid -1", "is not a number from 0 to 4294967294"),
        ({"uid": 2**32 - 1}, "uid 4294967295", "is not a number from 0 to 4294967294"),
        ({"gid": 10**30}, f"gid {10**30}", "is not a number from 0 to 4294967294"),
        ({"respawn": "maybe"}, "respawn 'maybe'", 'is none of "no", "after", "now"'),
        ({"respawn": ""}, "respawn ''", 'is none of "no", "after", "now"'),
    ],
)
def test_a_value_that_cannot_be_is_refused(
    server: Server, policy: dict[str, Any], on: str, why: str
) -> None:
    answer = server.connect().ask("Attach", **good(server, "Attach"), policy=policy)
    assert answer["error"] == "org.jaildaemon.Refused"
    assert answer["parameters"] == {"what": "attach", "on": on, "why": why}
    assert server.methods.fleet.members == {}


@pytest.mark.parametrize(
    ("parameters", "on", "why"),
    [
        ({"command": ""}, "command", "is empty"),
        ({"command": "a\0b"}, "command", "has a NUL character"),
        ({"command": "\ud800"}, "command", "is not text"),
        (
            {"command": "x" * 32769},
            "command",
            "is 32769 bytes long, at most 32768 are possible",
        ),
        ({"title": ""}, "title", "is empty"),
        ({"title": "a\nb"}, "title", "has a control or other unprintable character"),
        ({"title": "\udc80"}, "title", "is not UTF-8"),
        ({"title": "x" * 181}, "title", "is 181 bytes long, at most 180 are possible"),
    ],
)
def test_the_daemon_checks_what_the_command_line_checks(
    server: Server, parameters: dict[str, Any], on: str, why: str
) -> None:
    answer = server.connect().ask("Attach", **{**good(server, "Attach"), **parameters})
    assert answer == {
        "error": "org.jaildaemon.Refused",
        "parameters": {"what": "attach", "on": on, "why": why},
    }
    assert server.backend.open_handles == 0


@pytest.mark.parametrize(
    ("field", "value", "on", "why"),
    [
        ("signal", "TERM", "signal TERM", "is neither HUP nor USR1"),
        ("limit", "30", "limit", "'30' is neither \"none\" nor N/DUR"),
        ("limit", "1001/1m", "limit", "N up to 1000"),
        ("cooldown", "5", "cooldown", "'5' is no duration"),
        ("timeout", "-1s", "timeout", "'-1s' is no duration"),
        ("settle", "2 s", "settle", "'2 s' is no duration"),
        ("concurrency", 0, "concurrency 0", "is not from 1 to 64"),
        ("concurrency", 65, "concurrency 65", "is not from 1 to 64"),
        ("run_as", "a b", "run_as a b", "is no user name"),
        ("run_as", "no-such-user", "run_as no-such-user", "the host has no such user"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(
    server: Server, field: str, value: object, on: str, why: str
) -> None:
    answer = server.connect().ask("Attach", **good(server, "Attach"), policy={field: value})
    assert answer["error"] == "org.jaildaemon.Refused"
    assert answer["parameters"]["on"] == on
    assert why in answer["parameters"]["why"]
    assert server.backend.open_handles == 0


def test_this_table_is_the_interfaces() -> None:
    text = (Path(jaildaemon.__file__).parent / "org.jaildaemon.varlink").read_text("ascii")
    served = {method for method, *_ in PARAMETERS if "." not in method}
    found = set()
    for method, inside in re.findall(r"^method (\w+)\((.*?)\)", text, re.MULTILINE):
        for name, optional, kind in re.findall(r"(\w+): (\??)(\w+)", inside):
            if method in served:
                found.add((method, name, {"Policy": "object"}.get(kind, kind), not optional))
    (policy,) = re.findall(r"^type Policy \((.*?)\)", text, re.MULTILINE | re.DOTALL)
    for name, _, kind in re.findall(r"(\w+): (\??)(\w+)", policy):
        found.add(("Attach", f"policy.{name}", kind, False))
    assert found == {row for row in PARAMETERS if "." not in row[0]}
