# SPDX-License-Identifier: BSD-2-Clause
"""The client's end of the control socket.

Loaded by every -c: it imports errors and core.wire, and nothing that is slow.
"""

import os
import socket

from jaildaemon.core import wire
from jaildaemon.errors import (
    BY_VARLINK,
    Ambiguous,
    JaildaemonError,
    NoDaemon,
    NotPermitted,
    Refused,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_START_HINT = "start one with jaildaemon -D, or name its socket with -f"


def _connect(path: str, what: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(path)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        sock.close()
        raise NoDaemon(what, path, "no daemon is running", _START_HINT) from error
    except PermissionError as error:
        sock.close()
        raise NotPermitted(
            what, path, "permission denied", "only root may ask the daemon"
        ) from error
    except OSError as error:
        sock.close()
        raise NoDaemon(what, path, error.strerror or str(error), _START_HINT) from error
    return sock


def _server_is_ours(sock: socket.socket) -> bool:
    """Say whether the server runs as root or as ourselves: else it may be anybody's trap."""
    if hasattr(socket, "SO_PEERCRED"):  # Linux, unix(7): struct ucred, pid uid gid
        uid = int.from_bytes(
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[4:8], "little"
        )
    else:  # FreeBSD, unix(4): LOCAL_PEERCRED, struct xucred, version uid ...
        uid = int.from_bytes(sock.getsockopt(0, 1, 128)[4:8], "little")
    return uid in (0, os.geteuid())


def _error(what: str, name: str, parameters: dict[str, object]) -> JaildaemonError:
    kind = BY_VARLINK.get(name)
    if kind is None:
        return Refused(what, "", f"the daemon answered {name} {parameters}")
    if issubclass(kind, Ambiguous):
        candidates = parameters.get("candidates")
        names = [str(c) for c in candidates] if isinstance(candidates, list) else []
        return kind(str(parameters.get("what")), str(parameters.get("on")), names)
    hint = parameters.get("hint")
    asked, on, why = (str(parameters.get(key, "")) for key in ("what", "on", "why"))
    return kind(asked, on, why, None if hint is None else str(hint))


def _answers(
    path: str, method: str, parameters: dict[str, object], *, more: bool
) -> "Iterator[tuple[dict[str, object], bool]]":
    """Call a method; give each answer, and whether others follow."""
    what = "log" if method == "Entries" else method.lower()
    with _connect(path, what) as sock:
        if not _server_is_ours(sock):
            raise NotPermitted(what, path, "the server is neither root's nor yours")
        decoder = wire.Decoder(limit=None)
        continues = True
        try:
            try:  # noqa: SIM105 - contextlib would be one more module to load
                sock.sendall(wire.call(f"{wire.INTERFACE}.{method}", parameters, more=more))
            except BrokenPipeError:
                pass  # hung up on before we were heard: what it said lies there to be read
            while continues:
                while (answer := decoder.next()) is None:
                    data = sock.recv(65536)
                    if not data:
                        why = "the daemon ended the connection without an answer"
                        raise NoDaemon(what, path, why)
                    decoder.feed(data)
                result = answer.get("parameters", {})
                if not isinstance(result, dict):
                    raise Refused(what, path, "the daemon's answer is not one")
                if "error" in answer:
                    raise _error(what, str(answer["error"]), result)
                continues = answer.get("continues") is True
                yield result, continues
        except (OSError, wire.ProtocolError) as error:
            raise NoDaemon(what, path, f"the daemon does not answer: {error}") from error


def call(path: str, method: str, parameters: dict[str, object]) -> dict[str, object]:
    """Call a method of org.jaildaemon at the socket `path`; return its reply.

    Raises what the daemon answered, NoDaemon where none does.
    """
    for result, _ in _answers(path, method, parameters, more=False):
        return result
    raise AssertionError("an answer or an error")


def stream(path: str, method: str, parameters: dict[str, object]) -> "Iterator[dict[str, object]]":
    """Call a method that has many answers; give each as it comes."""
    for result, _ in _answers(path, method, parameters, more=True):
        yield result
