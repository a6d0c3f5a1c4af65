# SPDX-License-Identifier: BSD-2-Clause
"""The control server in this process, with the fake backend: time is moved by hand."""

import json
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from jaildaemon.backends.base import Watcher
from jaildaemon.daemon.accounts import Account, Accounts, Found
from jaildaemon.daemon.control import ControlServer
from jaildaemon.daemon.hub import Hub
from jaildaemon.daemon.logs import Logger, Record
from jaildaemon.daemon.methods import Methods
from tests.contract.fake import FakeBackend
from tests.logged import words

Message = dict[str, Any]


class Wire:
    """One client's end of a connection."""

    def __init__(self, server: "Server", sock: socket.socket) -> None:
        self._server, self.socket = server, sock
        self._buffer = b""

    def send(self, data: bytes) -> None:
        """Send bytes, and let the server take them, until it hangs up."""
        while data:
            try:
                data = data[self.socket.send(data) :]
            except BlockingIOError as error:
                raise AssertionError("it takes no more") from error
            except BrokenPipeError:
                return
            self._server.settle()

    def say(self, *messages: Message) -> None:
        """Send whole messages in one piece."""
        self.send(b"".join(json.dumps(message).encode() + b"\0" for message in messages))

    def heard(self) -> list[Message]:
        """Return what has been answered so far."""
        try:
            while data := self.socket.recv(1 << 20):
                self._buffer += data
                self._server.settle()
        except (BlockingIOError, ConnectionResetError):
            pass
        *messages, self._buffer = self._buffer.split(b"\0")
        return [json.loads(message) for message in messages]

    def ask(self, method: str, **parameters: object) -> Message:
        """Call a method of org.jaildaemon; return the one answer."""
        self.say(call(method, **parameters))
        (answer,) = self.heard()
        return answer

    @property
    def closed(self) -> bool:
        """Whether the server has hung up; to be asked when everything was heard."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True
        except BlockingIOError:
            return False


def call(method: str, **parameters: object) -> Message:
    """Return a call, of org.jaildaemon unless another interface is named."""
    name = method if "." in method else f"org.jaildaemon.{method}"
    return {"method": name, "parameters": parameters}


class FakeAccounts(Accounts):
    """The host's users, as a test has them: each look-up is answered in the next turn."""

    def __init__(self, watcher: Watcher) -> None:
        super().__init__(watcher)
        self._loop = watcher
        self.users: dict[str, Account] = {}
        self.trouble: str | None = None

    def ask(
        self, users: Iterable[str], groups: Iterable[str], answer: Callable[[Found], None]
    ) -> None:
        """Answer in the next turn."""
        asked = frozenset(users)
        del groups

        def found() -> None:
            answer(Found(dict(self.users), {}, self.trouble, asked))

        self._loop.call_in(0, found)


class Server:
    """The daemon's control server."""

    def __init__(self, directory: Path) -> None:
        self.backend = FakeBackend()
        self.jail = self.backend.add_jail()
        self.log: list[str] = []
        self.records: list[Record] = []
        self._path = str(directory / "pipe")
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self._path)
        self._listener.listen(128)
        self._listener.setblocking(False)
        state = directory / "state"
        state.mkdir(exist_ok=True)
        log = Logger(self._say)
        self.hub = Hub(self.backend, state, log)
        self.hub.accounts = self.accounts = FakeAccounts(self.backend.watcher)
        self.methods = Methods(self.hub, lambda answer: answer(None))
        self.control = ControlServer(self.backend, self._listener, self.methods, log)
        self._clients: list[socket.socket] = []

    def _say(self, record: Record) -> None:
        self.records.append(record)
        self.log.append(words(record))

    def settle(self) -> None:
        """Let it serve until nothing but time could bring more."""
        self.backend.watcher.settle()

    def pass_time(self, seconds: float) -> None:
        """Let time pass."""
        self.backend.watcher.pass_time(seconds)

    def connect(self) -> Wire:
        """Connect a client."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._clients.append(sock)
        sock.connect(self._path)
        sock.setblocking(False)
        self.settle()
        return Wire(self, sock)

    def close(self) -> None:
        """End everything; nothing may be left."""
        for sock in self._clients:
            sock.close()
        self.settle()
        self.methods.withdraw_all(lambda: None)
        self.control.close()
        self.pass_time(3600)  # what was only to be logged, or read, later
        self.settle()
        self._listener.close()
        self.hub.journal.close()
        assert self.backend.processes == {}
        assert self.backend.open_handles == 0
        assert self.methods.fleet.members == {}
        assert self.backend.watcher.idle
