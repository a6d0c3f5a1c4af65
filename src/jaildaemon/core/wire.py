# SPDX-License-Identifier: BSD-2-Clause
"""The codec of the control socket: varlink messages to bytes and back.

Varlink (varlink.org) is JSON objects, each ended by a NUL.  No socket is
touched here, and every buffer has a limit.  Imported by the client too, so it
must stay quick to load: json and nothing else.
"""

import json

MAX_MESSAGE = 64 * 1024
"""Bytes in one message, its NUL included.  The largest honest message is an
Attach with a command of 32 KiB, which JSON may double."""

SERVICE = "org.varlink.service"
INTERFACE = "org.jaildaemon"

ACCESS = {
    f"{SERVICE}.GetInfo": "any",
    f"{SERVICE}.GetInterfaceDescription": "any",
    f"{INTERFACE}.Attach": "root",
    f"{INTERFACE}.Detach": "root",
    f"{INTERFACE}.List": "reader",
    f"{INTERFACE}.Status": "reader",
    f"{INTERFACE}.Log": "root",
    f"{INTERFACE}.Entries": "root",
    f"{INTERFACE}.Explain": "root",
    f"{INTERFACE}.Fire": "root",
    f"{INTERFACE}.Hold": "root",
    f"{INTERFACE}.Release": "root",
    f"{INTERFACE}.Restart": "root",
    f"{INTERFACE}.Reload": "root",
}
"""Who may call what: "any" peer that may connect at all, "reader" is root and
the group that a file names, "root" uid 0 of the daemon's own user namespace.
What is not here is not implemented."""


class ProtocolError(Exception):
    """The peer sent what is not a varlink message; the connection is lost."""


def _no_constant(name: str) -> object:
    msg = f"{name} is not JSON"
    raise ProtocolError(msg)


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        msg = "a number is too large"
        raise ProtocolError(msg)
    return number


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        # Which of the two counts is a matter of the reader: nobody may care.
        msg = "a name is given twice in one object"
        raise ProtocolError(msg)
    return found


_MESSAGES = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


def encode(message: dict[str, object]) -> bytes:
    """Return `message` as bytes, NUL included; ValueError for NaN and the infinities."""
    return _MESSAGES.encode(message).encode() + b"\0"


def decode(data: bytes) -> dict[str, object]:
    """Return the object in `data`, one message without its NUL."""
    try:
        message = json.loads(
            data.decode(),
            parse_constant=_no_constant,
            parse_float=_finite,
            object_pairs_hook=_object,
        )
    except (ValueError, RecursionError) as error:
        msg = f"not JSON: {error}"
        raise ProtocolError(msg) from error
    if not isinstance(message, dict):
        msg = "not a JSON object"
        raise ProtocolError(msg)
    return message


class Decoder:
    """Takes bytes as they come and gives whole messages.

    `limit` is in bytes, None for a client, which trusts its daemon: the list of
    10,000 rules is one message.
    """

    def __init__(self, limit: int | None = MAX_MESSAGE) -> None:
        self._buffer = bytearray()
        self._limit = limit
        self._searched = 0

    def feed(self, data: bytes) -> None:
        """Add what was received."""
        self._buffer += data

    @property
    def size(self) -> int:
        """How many bytes are held."""
        return len(self._buffer)

    @property
    def pending(self) -> bool:
        """Whether bytes of an unfinished or unread message are held."""
        return bool(self._buffer)

    def next(self) -> dict[str, object] | None:
        """Return the next whole message, or None; ProtocolError if it is bad."""
        end = self._buffer.find(b"\0", self._searched)
        if end < 0:
            self._searched = len(self._buffer)
        size = len(self._buffer) if end < 0 else end
        if self._limit is not None and size >= self._limit:
            msg = f"a message is longer than {self._limit} bytes"
            raise ProtocolError(msg)
        if end < 0:
            return None
        data = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._searched = 0
        return decode(data)


def call(method: str, parameters: dict[str, object], *, more: bool = False) -> bytes:
    """Return a call of `method`; with `more`, one that may have many answers."""
    message: dict[str, object] = {"method": method, "parameters": parameters}
    return encode({**message, "more": True} if more else message)


def reply(parameters: dict[str, object], *, continues: bool = False) -> bytes:
    """Return the answer to a call; with `continues`, one that others follow."""
    message: dict[str, object] = {"parameters": parameters}
    return encode({**message, "continues": True} if continues else message)


def error(name: str, parameters: dict[str, object]) -> bytes:
    """Return an error, `name` fully qualified."""
    return encode({"error": name, "parameters": parameters})
