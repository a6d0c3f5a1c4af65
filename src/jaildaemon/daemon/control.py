# SPDX-License-Identifier: BSD-2-Clause
"""The control socket: accepts, reads, answers in order, and never waits.

Every client is hostile until its kernel-given credentials say otherwise; what
it may make us keep is bounded (docs/protocol.md).
"""

import errno
import socket
from collections import deque
from collections.abc import Callable

from jaildaemon.backends.base import Backend, Peer
from jaildaemon.core import wire
from jaildaemon.daemon.call import Call, Parameters, Pull
from jaildaemon.daemon.logs import Logger
from jaildaemon.daemon.methods import Methods
from jaildaemon.daemon.schema import BadParameter
from jaildaemon.errors import JaildaemonError, NotPermitted

MAX_CLIENTS = 64
ROOT_PLACES = 8
"""Of MAX_CLIENTS, kept for uid 0: the administrator is never locked out."""
MESSAGE_SECONDS = 5.0
"""How long a client may take to finish a message, or to take an answer."""
PAUSE_SECONDS = 1.0
"""How long nothing is accepted when we are out of descriptors."""
MAX_OVERLAPPING = 16
"""Armings of one connection at a time."""
READ_BYTES = 16384
STREAM_BYTES = 65536
"""Of a long answer: what is made at a time, and no more before that has been taken."""
STRANGERS, STRANGERS_SECONDS = 64, 0.1
"""How many connections of who is not root are taken in how long.

Each costs a look at who it is, and a jail that sees the socket may connect as fast as it
can.  The rest waits in the kernel's queue, and root with them: for less than a second.
"""
COMPLAINTS, COMPLAINT_SECONDS = 5, 10.0
"""How many lines about bad clients the log takes in how long: it is read by people."""


class Connection:
    """One client.  Its calls are answered in order; what waits meanwhile is bounded.

    Of calls that were sent one behind the other only armings overlap: several
    helpers are at work then.  Whatever else is asked for waits until they are done.
    """

    def __init__(self, server: "ControlServer", sock: socket.socket, peer: Peer) -> None:
        self._server, self._sock, self.peer = server, sock, peer
        self._watcher = server.backend.watcher
        self._decoder = wire.Decoder()
        self._out = bytearray()
        self._calls: deque[Call] = deque()
        """Not answered yet; more than one only where all are armings."""
        self._held: dict[str, object] | None = None
        """Read, but its turn has not come."""
        self._pull: Pull | None = None
        self._ending = self._taking = False
        self._deadline: int | None = None
        self._watcher.watch_fd(sock.fileno(), self._readable)

    def refuse(self, reason: str) -> None:
        """Say no, then close."""
        self._ending = True
        error = NotPermitted("connect", f"uid {self.peer.uid} pid {self.peer.pid}", reason)
        self._out += _error(error)
        self._writable()

    def close(self) -> None:
        """End the connection; a call that is still under way is told so."""
        if self._sock.fileno() < 0:
            return
        self._set_deadline(wanted=False)
        self._watcher.unwatch_fd(self._sock.fileno())
        self._sock.close()
        self._server.closed(self)
        for call in self._calls:
            call.hung_up()

    # --- in --------------------------------------------------------------------

    def _readable(self) -> None:
        try:
            untrusted = self._sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if not untrusted:
            self.close()
            return
        self._decoder.feed(untrusted)
        self._next_calls()

    def _next_calls(self) -> None:
        """Take calls until one must wait for its turn, or an answer for its reader."""
        self._taking = True
        try:
            while not (self._ending or self._out) and self._sock.fileno() >= 0:
                untrusted, self._held = self._held, None
                if untrusted is None and (untrusted := self._decoder.next()) is None:
                    break
                if self._calls and not self._may_overlap(untrusted):
                    self._held = untrusted
                    break
                self._take(untrusted)
        except wire.ProtocolError as error:
            self._server.complain(f"closed the connection of uid {self.peer.uid}: {error}")
            self._ending = True  # what was asked for before that is still answered
        finally:
            self._taking = False
        if self._sock.fileno() < 0:
            return
        if self._ending and not (self._calls or self._out):
            self.close()
            return
        if self._calls and (self._ending or self._decoder.size > wire.MAX_MESSAGE):
            self._watcher.unwatch_fd(self._sock.fileno())  # until the answer is out
        elif not self._out:
            self._watcher.watch_fd(self._sock.fileno(), self._readable)
        self._set_deadline(wanted=bool(self._out) or (not self._calls and self._decoder.pending))

    def _may_overlap(self, untrusted: dict[str, object]) -> bool:
        return (
            len(self._calls) < MAX_OVERLAPPING and self._calls[-1].overlaps and _overlaps(untrusted)
        )

    def _take(self, untrusted: dict[str, object]) -> None:
        self._set_deadline(wanted=False)  # each message has its own
        method, parameters = untrusted.get("method"), untrusted.get("parameters", {})
        call = Call(self.peer, lambda result: self._answered(call, result))
        call.oneway = untrusted.get("oneway") is True
        call.overlaps = _overlaps(untrusted)
        if untrusted.get("more") is True and not call.oneway:
            call.stream = self._begin_stream
        self._calls.append(call)
        if not isinstance(method, str):
            error = _invalid("method")
        elif method not in wire.ACCESS:
            error = _unknown(method)
        else:
            try:
                self._server.methods.call(method, parameters, call)
            except BadParameter as bad:
                error = _invalid(bad.name)
            else:
                return
        self._settle(call, wire.error(*error))

    # --- out -------------------------------------------------------------------

    def _answered(self, call: Call, result: Parameters | JaildaemonError) -> None:
        if self._sock.fileno() < 0 or call.reply is not None:
            return
        if isinstance(result, JaildaemonError):
            self._settle(call, _error(result))
        else:
            self._settle(call, wire.reply(result))

    def _settle(self, call: Call, reply: bytes) -> None:
        """Send an answer, once those to earlier calls are sent."""
        call.reply = b"" if call.oneway else reply
        while self._calls and self._calls[0].reply is not None:
            self._out += self._calls.popleft().reply or b""
            self._pull = None
        if self._out:
            self._writable()
        elif not self._taking:
            self._watcher.call_in(0, self._next_calls)

    def _begin_stream(self, pull: Pull) -> Callable[[], None]:
        self._pull = pull
        self._watcher.call_in(0, self._pump)
        return self._pump

    def _pump(self) -> None:
        """Send what there is of a long answer, as much as the client takes."""
        if self._out or self._sock.fileno() < 0:
            return
        while self._pull is not None and len(self._out) < STREAM_BYTES:
            reply = self._pull()
            if reply is None:
                break
            self._out += wire.reply(reply, continues=True)
        if self._out:
            self._writable()

    def _writable(self) -> None:
        try:
            sent = self._sock.send(self._out)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        del self._out[:sent]
        if self._out:
            # A slow reader: nothing more is read from it until it has read.
            self._watcher.watch_fd(self._sock.fileno(), self._writable, write=True)
            self._set_deadline(wanted=True)
        elif self._ending and not self._calls:
            self.close()
        elif not self._taking:
            self._watcher.watch_fd(self._sock.fileno(), self._readable)
            self._watcher.call_in(0, self._next_calls)
            self._watcher.call_in(0, self._pump)

    def _set_deadline(self, *, wanted: bool) -> None:
        if wanted and self._deadline is None:
            self._deadline = self._watcher.call_in(MESSAGE_SECONDS, self._too_slow)
        elif not wanted and self._deadline is not None:
            self._watcher.cancel(self._deadline)
            self._deadline = None

    def _too_slow(self) -> None:
        self._deadline = None
        self._server.complain(f"closed the connection of uid {self.peer.uid}: too slow")
        self.close()


def _overlaps(untrusted: dict[str, object]) -> bool:
    """Say whether a call arms a new probe and does nothing else."""
    parameters = untrusted.get("parameters")
    if untrusted.get("method") != f"{wire.INTERFACE}.Attach" or untrusted.get("more") is True:
        return False
    return isinstance(parameters, dict) and not parameters.get("replace")


def _error(error: JaildaemonError) -> bytes:
    return wire.error(error.varlink or f"{wire.INTERFACE}.Refused", error.parameters())


def _invalid(parameter: str) -> tuple[str, Parameters]:
    return f"{wire.SERVICE}.InvalidParameter", {"parameter": parameter}


def _unknown(method: str) -> tuple[str, Parameters]:
    interface = method.rpartition(".")[0]
    if interface not in (wire.SERVICE, wire.INTERFACE):
        return f"{wire.SERVICE}.InterfaceNotFound", {"interface": interface}
    return f"{wire.SERVICE}.MethodNotFound", {"method": method}


class ControlServer:
    """The listener and its connections."""

    def __init__(
        self, backend: Backend, listener: socket.socket, methods: Methods, log: Logger
    ) -> None:
        self.backend, self.methods, self.log = backend, methods, log
        self._listener = listener
        self._connections: set[Connection] = set()
        self._complaints = 0
        """In these COMPLAINT_SECONDS."""
        self._strangers = 0
        """In these STRANGERS_SECONDS."""
        self._closed = False
        self._paused = False
        """Whether nothing is accepted for now."""
        backend.watcher.watch_fd(listener.fileno(), self._accept)

    def listen(self, listener: socket.socket) -> None:
        """Accept at another socket: the name of the one before was removed, and it is closed."""
        if not self._paused:
            self.backend.watcher.unwatch_fd(self._listener.fileno())
        self._listener.close()
        self._listener = listener
        if not self._paused:
            self.backend.watcher.watch_fd(listener.fileno(), self._accept)

    def complain(self, what: str) -> None:
        """Log what a client did wrong; of a storm, COMPLAINTS lines and then how many more."""
        self._complaints += 1
        if self._complaints == 1:
            self.backend.watcher.call_in(COMPLAINT_SECONDS, self._sum_up)
        if self._complaints <= COMPLAINTS:
            self.log.warning(what)

    def _sum_up(self) -> None:
        more, self._complaints = self._complaints - COMPLAINTS, 0
        if more > 0:
            self.log.warning(f"{more} more connections were closed in {COMPLAINT_SECONDS:.0f} s")

    def closed(self, connection: Connection) -> None:
        """Take note that a connection has ended."""
        self._connections.discard(connection)

    def close(self) -> None:
        """Accept nothing more, and end every connection."""
        self._closed = True
        self.backend.watcher.unwatch_fd(self._listener.fileno())
        for connection in list(self._connections):
            connection.close()

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                raise
            # The listener stays readable: without a pause we would spin.
            self.log.error(f"accepting nothing for {PAUSE_SECONDS:.0f} s: {error.strerror}")
            self.backend.watcher.unwatch_fd(self._listener.fileno())
            self._paused = True
            self.backend.watcher.call_in(PAUSE_SECONDS, self._resume)
            return
        sock.setblocking(False)
        peer = self.backend.peer(sock.fileno())
        others = sum(c.peer.uid != 0 for c in self._connections)
        root = peer.uid == 0 and peer.outside is None
        if not root:
            self._count_stranger()
        full = len(self._connections) >= MAX_CLIENTS
        if full or (not root and others >= MAX_CLIENTS - ROOT_PLACES):
            self.complain(
                f"closed a connection of uid {peer.uid}: {MAX_CLIENTS} clients are served"
            )
            sock.close()
            return
        try:
            connection = Connection(self, sock, peer)
        except OSError as error:
            self.complain(f"closed a connection of uid {peer.uid}: {error.strerror}")
            sock.close()
            return
        self._connections.add(connection)
        if peer.outside is not None:
            self.complain(f"denied uid {peer.uid} pid {peer.pid} at the socket: {peer.outside}")
            connection.refuse(peer.outside)

    def _count_stranger(self) -> None:
        self._strangers += 1
        if self._strangers == 1:
            self.backend.watcher.call_in(STRANGERS_SECONDS, self._count_anew)
        elif self._strangers == STRANGERS:
            self._paused = True
            self.backend.watcher.unwatch_fd(self._listener.fileno())

    def _count_anew(self) -> None:
        paused, self._strangers = self._strangers >= STRANGERS, 0
        if paused:
            self._resume()

    def _resume(self) -> None:
        if self._closed:
            return
        try:
            self.backend.watcher.watch_fd(self._listener.fileno(), self._accept)
            self._paused = False
        except OSError:
            self.backend.watcher.call_in(PAUSE_SECONDS, self._resume)
