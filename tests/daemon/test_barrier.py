# SPDX-License-Identifier: BSD-2-Clause
"""What nobody foresaw in one call or signal ends that alone; what comes together is one."""

import os
import signal

import pytest

from jaildaemon.core.config import Configuration
from jaildaemon.daemon.logs import Logger, Record, Severity
from jaildaemon.daemon.signals import Signals
from tests.contract.fake import FakeBackend
from tests.daemon.server import Server, call

FAULTS = [
    (KeyError("nothing"), "internal error: KeyError: 'nothing' (the daemon's log says where)"),
    (OverflowError("too\nlarge"), "internal error: OverflowError: too large"),
    (OSError(28, "No space left on device", "/tmp/x"), "/tmp/x: No space left on device"),
    (MemoryError(), "internal error: MemoryError: "),
]


@pytest.mark.parametrize(("error", "told"), FAULTS, ids=[type(e).__name__ for e, _ in FAULTS])
@pytest.mark.parametrize("method", ["Status", "List", "Attach", "Reload", "Restart", "Hold"])
def test_an_error_that_nobody_foresaw_is_the_answer_and_the_daemon_goes_on(
    server: Server, monkeypatch: pytest.MonkeyPatch, method: str, error: Exception, told: str
) -> None:
    def broken(*_: object) -> None:
        raise error

    if method == "Reload":
        monkeypatch.setattr(server.methods.reloading, "read", broken)
    else:
        name = f"org.jaildaemon.{method}"
        cls, _ = server.methods._table[name]
        monkeypatch.setitem(server.methods._table, name, (cls, broken))
    client = server.connect()
    parameters: dict[str, dict[str, object]] = {"Hold": {"all": True}}
    parameters["Attach"] = {"command": "true", "jail": server.jail}
    answer = client.ask(method, **parameters.get(method, {}))
    assert answer["error"] == "org.jaildaemon.Refused"
    assert told.startswith(answer["parameters"]["on"])
    shown = ": ".join(filter(None, (answer["parameters"]["on"], answer["parameters"]["why"])))
    assert shown in told or told in shown
    lines = [record for record in server.records if record.severity is Severity.ERROR]
    assert [told.partition(" (")[0] in record.text for record in lines] == [True]
    assert any("test_barrier.py" in line for line in server.log)  # where it came from
    assert "interfaces" in client.ask("org.varlink.service.GetInfo")["parameters"]


def test_reloads_that_come_together_are_one(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    def reload() -> Configuration:
        read.append(len(read))
        return Configuration()

    monkeypatch.setattr(server.methods.reloading, "read", reload)
    clients = [server.connect() for _ in range(10)]
    for client in clients:
        client.socket.send(b'{"method":"org.jaildaemon.Reload","parameters":{}}\0')
    server.settle()
    answers = [client.heard() for client in clients]
    assert answers == [[{"parameters": {"added": [], "removed": [], "kept": 0}}]] * 10
    assert read == [0]
    assert clients[0].ask("Reload")["parameters"]["kept"] == 0
    assert read == [0, 1]


def test_a_list_behind_a_reload_is_of_what_was_read(server: Server) -> None:
    client = server.connect()
    client.say(call("Reload"), call("List"))
    assert [list(answer["parameters"]) for answer in client.heard()] == [
        ["added", "removed", "kept"],
        ["rules"],
    ]


def test_signals_that_come_together_are_one_and_a_broken_one_ends_nothing() -> None:
    backend, told, records = FakeBackend(), [], list[Record]()
    before = {n: signal.getsignal(n) for n in (signal.SIGUSR1, signal.SIGUSR2)}

    def broken() -> None:
        told.append("USR1")
        raise KeyError("nothing")

    signals = Signals(
        backend,
        {signal.SIGUSR1: broken, signal.SIGUSR2: lambda: told.append("USR2")},
        Logger(records.append),
    )
    try:
        for number in (signal.SIGUSR1, signal.SIGUSR2) * 10:
            os.kill(os.getpid(), number)
        backend.watcher.settle()
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)
        for end in (signals._read, signals._write):
            end.close()
    assert told == ["USR1", "USR2"]
    errors = [record.text for record in records if record.severity is Severity.ERROR]
    assert errors == ["SIGUSR1: internal error: KeyError: 'nothing' (the daemon's log says where)"]
