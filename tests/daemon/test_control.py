# SPDX-License-Identifier: BSD-2-Clause
"""Messages on the control socket: whole, torn, too long, too slow, too many, and in order."""

import contextlib
import errno
import json
import os
import socket

import pytest

from jaildaemon.backends.base import Peer
from tests.daemon.conftest import need_root
from tests.daemon.server import Message, Server, call

SERVICE = "org.varlink.service"
GET_INFO = call(f"{SERVICE}.GetInfo")
DESCRIBE = call(f"{SERVICE}.GetInterfaceDescription", interface="org.jaildaemon")


def error(name: str, **parameters: str) -> Message:
    """Return an error of org.varlink.service."""
    return {"error": f"{SERVICE}.{name}", "parameters": parameters}


# --- whole and torn ---------------------------------------------------------------------


def test_a_message_may_come_byte_by_byte(server: Server) -> None:
    client = server.connect()
    for byte in json.dumps(GET_INFO).encode():
        client.send(bytes([byte]))
    assert client.heard() == []
    client.send(b"\0")
    (answer,) = client.heard()
    assert answer["parameters"]["product"] == "jaildaemon"


def test_pipelined_calls_are_answered_in_their_order(server: Server) -> None:
    client = server.connect()
    client.say(GET_INFO, call("Frob"), DESCRIBE, call("Status"), call("x.Y"), GET_INFO)
    keys = [sorted({**answer, **answer["parameters"]}) for answer in client.heard()]
    kinds = ["error" if "error" in k else k[0] for k in keys]
    assert kinds == ["interfaces", "error", "description", "parameters", "error", "interfaces"]


def test_calls_behind_an_attach_wait_for_its_answer(server: Server) -> None:
    client = server.connect()
    server.backend.passive = True
    client.say(call("Attach", command="true", jail=server.jail), call("Status"))
    assert client.heard() == []
    # More than one message's worth: it is not all read, and not lost.
    data = (json.dumps(GET_INFO).encode() + b"\0") * 2000
    data = data[client.socket.send(data) :]
    server.settle()
    assert client.heard() == []
    server.backend.passive = False
    server.settle()
    answers = client.heard()
    while data:  # FreeBSD's buffers take 8 KiB: answers must be read for more calls to fit
        with contextlib.suppress(BlockingIOError):
            data = data[client.socket.send(data) :]
        server.settle()
        answers += client.heard()
    attached, status, *rest = answers
    assert attached["parameters"]["id"] == "t1"
    assert status["parameters"]["probes"] == 1
    assert len(rest) == 2000


def test_a_client_that_goes_on_talking_while_its_call_waits_fills_no_memory(
    server: Server,
) -> None:
    client = server.connect()
    server.backend.passive = True
    client.say(call("Attach", command="true", jail=server.jail))
    sent = 0
    while sent < 1 << 24:
        try:
            sent += client.socket.send(b"x" * 4096)
        except BlockingIOError:
            break
        server.settle()
    assert sent < 1 << 22, "everything is taken"
    (connection,) = server.control._connections
    assert connection._decoder.size < 2 * 65536
    client.socket.close()  # not noticed before the answer: it is not read from
    server.pass_time(5.1)
    assert server.methods.fleet.members == {}


def test_a_call_with_oneway_is_carried_out_and_not_answered(server: Server) -> None:
    client = server.connect()
    client.say({**call("Attach", command="true", jail=server.jail), "oneway": True})
    for bad in (
        call("Attach", command="", jail=server.jail),  # refused
        call("Attach", jail=server.jail),  # a parameter is missing
        call("Frob"),  # no such method
        call("Log"),  # not implemented
        call("no.such.Interface"),
    ):
        client.say({**bad, "oneway": True})
    assert client.heard() == []
    assert client.ask("Status")["parameters"]["probes"] == 1


def test_what_the_interface_has_not_is_named(server: Server) -> None:
    client = server.connect()
    client.say(
        call("Frob"),
        call("com.example.Frob"),
        {"method": "Frob"},
        {"method": ""},
        {"method": 7},
        {"method": None},
        {},
        {"parameters": {}},
    )
    assert client.heard() == [
        error("MethodNotFound", method="org.jaildaemon.Frob"),
        error("InterfaceNotFound", interface="com.example"),
        error("InterfaceNotFound", interface=""),
        error("InterfaceNotFound", interface=""),
        error("InvalidParameter", parameter="method"),
        error("InvalidParameter", parameter="method"),
        error("InvalidParameter", parameter="method"),
        error("InvalidParameter", parameter="method"),
    ]
    assert not client.closed


# --- what is no message ------------------------------------------------------------------


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"hello",
        b"[]",
        b"7",
        b'"text"',
        b"null",
        b"{",
        b"{}{}",
        b'{"method":"a","method":"b"}',
        b'{"method": NaN}',
        b'{"method": 1e999}',
        b'{"method": ' + b"9" * 5000 + b"}",
        b"\xff\xfe",
        b'{"method": "\xc3\x28"}',
        b"[" * 60000,
        b'{"a":' * 9000,
        b"GET / HTTP/1.0\r\n\r\n",
    ],
    ids=lambda garbage: repr(garbage[:20]),
)
def test_garbage_ends_that_connection_and_no_other(server: Server, garbage: bytes) -> None:
    other, client = server.connect(), server.connect()
    client.send(json.dumps(GET_INFO).encode() + b"\0" + garbage + b"\0")
    assert len(client.heard()) == 1  # what came before it was answered
    assert client.closed
    assert len(server.log) == 1
    assert server.log[0].startswith(f"closed the connection of uid {os.geteuid()}: ")
    assert other.ask("Status")["parameters"]["rules"] == 0


def test_a_message_of_64_kib_is_taken_and_one_byte_more_ends_the_connection(
    server: Server,
) -> None:
    whole = json.dumps(GET_INFO).encode()
    client = server.connect()
    client.send(whole.ljust(65535) + b"\0")
    assert len(client.heard()) == 1
    client.send(whole.ljust(65536) + b"\0")
    assert client.heard() == []
    assert client.closed
    who = f"closed the connection of uid {os.geteuid()}"
    assert server.log == [f"{who}: a message is longer than 65536 bytes"]


def test_no_more_than_a_message_is_ever_kept_of_a_client(server: Server) -> None:
    client = server.connect()
    client.send(b"x" * (1 << 20))
    assert client.closed


def test_answers_are_made_only_as_fast_as_they_are_read(server: Server) -> None:
    client = server.connect()
    flood = json.dumps(DESCRIBE).encode() + b"\0"
    calls = 0
    # The server stops reading, so at some point nothing more can be sent.
    while True:
        try:
            client.socket.send(flood * 100)
        except BlockingIOError:
            break
        calls += 100
        server.settle()
        assert calls < 100_000, "everything is taken from one who reads nothing"
    (connection,) = server.control._connections
    assert len(connection._out) < 8192, "more than one answer waits"
    assert len(client.heard()) >= calls - 200  # the last piece may have been cut


# --- too slow ----------------------------------------------------------------------------


def test_half_a_message_is_waited_for_five_seconds(server: Server) -> None:
    client = server.connect()
    client.send(b'{"method"')
    server.pass_time(4.9)
    assert not client.closed
    server.pass_time(0.2)
    assert client.closed
    assert server.log == [f"closed the connection of uid {os.geteuid()}: too slow"]


def test_dripping_bytes_gain_no_time(server: Server) -> None:
    client = server.connect()
    for byte in b'{"met':
        client.send(bytes([byte]))
        server.pass_time(0.9)
    assert not client.closed
    server.pass_time(0.6)
    assert client.closed


def test_every_message_has_five_seconds_of_its_own(server: Server) -> None:
    client = server.connect()
    whole = json.dumps(GET_INFO).encode()
    client.send(whole[:9])
    for _ in range(10):
        server.pass_time(3)
        client.send(whole[9:] + b"\0" + whole[:9])
        assert len(client.heard()) == 1
    assert not client.closed


def test_a_client_that_says_nothing_may_stay(server: Server) -> None:
    client = server.connect()
    server.pass_time(3600)
    assert client.ask("Status")["parameters"]["rules"] == 0


def test_an_answer_is_waited_for_longer_than_a_message(server: Server) -> None:
    client = server.connect()
    server.backend.passive = True
    client.say(call("Attach", command="true", jail=server.jail))
    server.pass_time(4.9)
    assert client.heard() == []
    assert not client.closed
    server.pass_time(0.2)
    (answer,) = client.heard()
    assert answer["error"] == "org.jaildaemon.Refused"
    assert answer["parameters"]["why"] == "the helper was not done after 5 s"
    assert not client.closed


def test_who_does_not_read_its_answer_is_closed_after_five_seconds(server: Server) -> None:
    client = server.connect()
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    flood = json.dumps(DESCRIBE).encode() + b"\0"
    for _ in range(200):
        try:
            client.socket.send(flood * 10)
        except BlockingIOError:
            break
        server.settle()
    server.pass_time(4.9)
    assert len(server.control._connections) == 1
    server.pass_time(0.2)
    assert len(server.control._connections) == 0
    assert server.log == [f"closed the connection of uid {os.geteuid()}: too slow"]


# --- too many, and who they are --------------------------------------------------------------


def test_sixty_four_clients_are_served_and_the_next_is_closed(server: Server) -> None:
    need_root()  # another user has fewer places, and is looked at less often
    clients = [server.connect() for _ in range(100)]
    assert [client.closed for client in clients] == [False] * 64 + [True] * 36
    line = f"closed a connection of uid {os.geteuid()}: 64 clients are served"
    assert server.log == [line] * 5  # the rest is counted, and told when a minute is over
    clients[0].socket.close()
    server.settle()
    assert server.connect().ask("Status")["parameters"]["rules"] == 0


def test_eight_places_are_kept_for_root(server: Server) -> None:
    server.backend.the_peer = Peer(1000, 7, None)
    others = [server.connect() for _ in range(60)]
    assert [client.closed for client in others] == [False] * 56 + [True] * 4
    server.backend.the_peer = Peer(0, 8, None)
    roots = [server.connect() for _ in range(9)]
    assert [client.closed for client in roots] == [False] * 8 + [True]


@pytest.mark.parametrize("uid", [0, 1000])
def test_a_peer_that_is_not_in_our_own_namespaces_is_told_no_and_closed(
    server: Server, uid: int
) -> None:
    server.backend.the_peer = Peer(uid, 7, "it is in another PID namespace")
    client = server.connect()
    assert client.heard() == [
        {
            "error": "org.jaildaemon.NotPermitted",
            "parameters": {
                "what": "connect",
                "on": f"uid {uid} pid 7",
                "why": "it is in another PID namespace",
            },
        }
    ]
    assert client.closed
    denied = f"denied uid {uid} pid 7 at the socket: it is in another PID namespace"
    assert server.log == [denied]


@pytest.mark.skipif(os.geteuid() != 0, reason="cannot: is itself not root")
def test_another_user_may_only_ask_who_we_are(server: Server) -> None:
    server.backend.the_peer = Peer(1000, 7, None)
    client = server.connect()
    client.say(GET_INFO, DESCRIBE)
    assert all("error" not in answer for answer in client.heard())
    calls: list[tuple[str, dict[str, object]]] = [
        ("Attach", {"command": "true", "jail": server.jail}),
        ("Detach", {"all": True}),
        *((name, {}) for name in ("List", "Status", "Log", "Entries", "Hold", "Release")),
        ("Explain", {"jail": server.jail}),
        ("Fire", {"rule": "t1"}),
        ("Restart", {}),
    ]
    for method, parameters in calls:
        assert client.ask(method, **parameters) == {
            "error": "org.jaildaemon.NotPermitted",
            "parameters": {
                "what": f"org.jaildaemon.{method}",
                "on": "uid 1000",
                "why": "only root may do this",
            },
        }


class NoDescriptors:
    """Stands for the listener of a process that may open nothing more."""

    def __init__(self, listener: socket.socket, number: int) -> None:
        self._listener, self._number = listener, number
        self.fileno = listener.fileno
        self.tries = 0

    def accept(self) -> tuple[socket.socket, object]:
        """Fail once, as accept(2) does."""
        self.tries += 1
        if self.tries == 1:
            raise OSError(self._number, os.strerror(self._number))
        return self._listener.accept()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_out_of_descriptors_it_waits_a_second_and_does_not_spin(
    server: Server, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    listener = NoDescriptors(server.control._listener, number)
    monkeypatch.setattr(server.control, "_listener", listener)
    client = server.connect()
    assert (listener.tries, server.log) == (
        1,
        [f"accepting nothing for 1 s: {os.strerror(number)}"],
    )
    server.pass_time(0.9)
    assert listener.tries == 1
    server.pass_time(0.2)
    assert listener.tries == 2
    assert client.ask("Status")["parameters"]["rules"] == 0
