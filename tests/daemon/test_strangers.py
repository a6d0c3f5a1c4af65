# SPDX-License-Identifier: BSD-2-Clause
"""A storm at the control socket: who is not root costs little, and root has its turn."""

import json
import os
import socket
from collections.abc import Callable

import pytest

from jaildaemon.backends.base import Peer
from jaildaemon.daemon.control import STRANGERS, STRANGERS_SECONDS
from tests.daemon.conftest import need_root
from tests.daemon.server import Server, Wire, call

ROOT = Peer(os.geteuid(), 7, None)
JAILED = Peer(0, 8, "it is in another PID namespace")
READER = Peer(os.geteuid() + 1, 9, None)


class Storm:
    """Who connects, in their order, and how many of them were looked at."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.looked = 0
        self._peers: list[Peer] = []
        server.backend.peer = self._peer  # type: ignore[method-assign]

    def _peer(self, fd: int) -> Peer:
        os.fstat(fd)
        self.looked += 1
        return self._peers[self.looked - 1]

    def knock(self, peer: Peer, count: int) -> Wire:
        """Connect so many times, and serve nobody yet; return the last client."""
        assert count > 0
        for _ in range(count):
            self._peers.append(peer)
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.server._clients.append(sock)
            sock.connect(self.server._path)
            sock.setblocking(False)
        return Wire(self.server, sock)

    def until(self, done: Callable[[], bool]) -> float:
        """Let time pass until then; return how much did."""
        passed = 0.0
        while not done():
            assert passed < 60.0
            self.server.pass_time(STRANGERS_SECONDS)
            passed += STRANGERS_SECONDS
        return passed


@pytest.mark.parametrize("peer", [JAILED, READER], ids=["root of a jail", "a reader"])
def test_who_is_not_root_is_looked_at_64_times_in_100_ms(server: Server, peer: Peer) -> None:
    storm = Storm(server)
    storm.knock(peer, 100)
    server.settle()
    assert storm.looked == STRANGERS == 64
    server.pass_time(STRANGERS_SECONDS)
    assert storm.looked == 100
    # Not while nobody comes, and then as many as before.
    server.pass_time(10.0)
    storm.knock(peer, 70)
    server.settle()
    assert storm.looked == 164
    server.pass_time(10.0)


def test_root_at_the_end_of_a_full_queue_is_served_within_a_second(server: Server) -> None:
    storm = Storm(server)
    storm.knock(JAILED, 128)
    root = storm.knock(ROOT, 1)
    root.socket.send(json.dumps(call("Status")).encode() + b"\0")
    server.settle()
    assert storm.looked == 64
    assert storm.until(lambda: storm.looked == 129) <= 1.0
    (answer,) = root.heard()
    assert answer["parameters"]["rules"] == 0


def test_root_is_looked_at_as_often_as_it_comes(server: Server) -> None:
    need_root()  # another user has fewer places, and is looked at less often
    storm = Storm(server)
    storm.knock(ROOT, 120)
    server.settle()
    assert storm.looked == 120


def test_a_server_that_was_closed_in_a_pause_accepts_nothing_after_it(server: Server) -> None:
    storm = Storm(server)
    storm.knock(JAILED, 100)
    server.settle()
    server.control.close()
    server.pass_time(10.0)
    assert storm.looked == 64
