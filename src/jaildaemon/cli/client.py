# SPDX-License-Identifier: BSD-2-Clause
"""The client's end of the control socket.

Loaded by every -c: it imports errors and core.wire, and nothing that is slow.
"""

import os
import socket
import struct

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


QUERY_SECONDS = 5.0
"""How long the daemon may take for what it knows at once: it is never busy for so long."""
ORDER_SECONDS = 60.0
"""For what has to happen first: a probe that is armed, or gone."""
RESTART_SECONDS = 150.0
"""Its rehearsal alone may take 120 s (daemon/handover.py)."""


class Silent(NoDaemon):
    """There is a daemon, and it does not answer in time."""


def _silent(what: str, path: str, pid: int, seconds: float) -> Silent:
    who = f"the daemon (pid {pid})" if pid else "the daemon"
    hint = f"after {seconds:.0f} s; it is stopped, or hangs: see jaildaemon(1), BUGS"
    return Silent(what, path, f"{who} does not answer", hint)


def _connect(path: str, what: str, seconds: float | None) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if seconds is not None:
            # The kernel's own: with Python's, a full queue would be an error at once (unix(7)).
            limit = struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        sock.connect(path)
    except BlockingIOError:
        sock.close()
        raise _silent(what, path, 0, seconds or 0.0) from None
    except (FileNotFoundError, ConnectionRefusedError) as error:
        sock.close()
        pid = _who_has_locked(path)
        if pid:
            why = f"the socket is gone, and its daemon still runs: pid {pid}"
            raise NoDaemon(what, path, why, f"kill -HUP {pid} makes it again") from error
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


def _who_has_locked(path: str) -> str:
    """Return the pid of a daemon that lives on though nothing answers at its socket; else ""."""
    import fcntl

    try:
        fd = os.open(f"{path}.lock", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.read(fd, 16).decode("ascii", "replace")
        return pid if pid.isdecimal() else ""
    finally:
        os.close(fd)
    return ""


def _server(sock: socket.socket) -> tuple[int, int]:
    """Return the uid and the pid of who listens; 0 for a pid that is not told."""
    if hasattr(socket, "SO_PEERCRED"):  # Linux, unix(7): struct ucred, pid uid gid
        pid, uid, _ = struct.unpack(
            "iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        )
        return uid, pid
    # FreeBSD, unix(4): LOCAL_PEERCRED, struct xucred, version uid ...; cr_pid since 13.
    found = sock.getsockopt(0, 1, 128)
    pid = int.from_bytes(found[80:84], "little") if len(found) >= 84 else 0  # noqa: PLR2004
    return int.from_bytes(found[4:8], "little"), pid


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
    path: str,
    method: str,
    parameters: dict[str, object],
    seconds: float | None,
    *,
    more: bool,
) -> "Iterator[tuple[dict[str, object], bool]]":
    """Call a method; give each answer, and whether others follow."""
    what = "log" if method == "Entries" else method.lower()
    with _connect(path, what, seconds) as sock:
        uid, pid = _server(sock)
        if uid not in (0, os.geteuid()):  # it may be anybody's trap
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
        except BlockingIOError:
            raise _silent(what, path, pid, seconds or 0.0) from None
        except (OSError, wire.ProtocolError) as error:
            raise NoDaemon(what, path, f"the daemon does not answer: {error}") from error


def call(
    path: str, method: str, parameters: dict[str, object], seconds: float = QUERY_SECONDS
) -> dict[str, object]:
    """Call a method of org.jaildaemon at the socket `path`; return its reply.

    Raises what the daemon answered, NoDaemon where none does within `seconds`.
    """
    for result, _ in _answers(path, method, parameters, seconds, more=False):
        return result
    raise AssertionError("an answer or an error")


def stream(
    path: str, method: str, parameters: dict[str, object], seconds: float | None = QUERY_SECONDS
) -> "Iterator[dict[str, object]]":
    """Call a method that has many answers; give each as it comes."""
    for result, _ in _answers(path, method, parameters, seconds, more=True):
        yield result
