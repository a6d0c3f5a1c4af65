# SPDX-License-Identifier: BSD-2-Clause
"""The daemon's files: the locks, the pidfile, the socket."""

import contextlib
import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import attrs

from jaildaemon.backends import trust
from jaildaemon.backends.base import Backend
from jaildaemon.core import wire
from jaildaemon.errors import JaildaemonError, NotPermitted, Refused

ANSWER_SECONDS = 5.0
"""How long another instance may take to answer the test command."""

RENEW_SECONDS = 0.1
"""The same in a daemon that serves, where the lock is ours already."""

_START = "start"


MAX_SOCKET_BYTES = 103
"""Of a socket's path: FreeBSD's sockaddr_un; Linux takes four more (unix(4), unix(7))."""


def _refuse(path: str, error: OSError) -> JaildaemonError:
    why = error.strerror or str(error)
    if isinstance(error, PermissionError):
        return NotPermitted(_START, path, why, "the daemon must be root")
    if error.errno == errno.ENOENT:
        why = "its directory does not exist"
    elif error.errno in (errno.ELOOP, errno.EMLINK):  # O_NOFOLLOW on Linux, on FreeBSD
        why = "is a symbolic link"
    return Refused(_START, path, why)


def _open(path: str, mode: int) -> int:
    """Open or make a file of ours, in a place where nobody else can put anything."""
    try:
        fd = trust.open_trusted(path, os.O_RDWR | os.O_CREAT, mode)
    except trust.Untrusted as error:
        if error.place != path:
            raise error.refused(_START) from error
        # What is not a regular file is not to be removed: /dev/null.
        hint = None if error.hint is None else "remove it, or choose another place"
        raise Refused(_START, path, error.why, hint) from error
    except OSError as error:
        raise _refuse(path, error) from error
    if os.fstat(fd).st_nlink > 1:
        # Emptied and written, it would be the other name's contents that are lost.
        os.close(fd)
        why = "has another name (a hard link)"
        raise Refused(_START, path, why, "remove it, or choose another place")
    return fd


def _is_in_place(path: str, ours: os.stat_result) -> bool:
    try:
        return os.path.samestat(ours, os.lstat(path))
    except (FileNotFoundError, NotADirectoryError):
        return False


class LockedFile:
    """A file that is locked while we live, and removed when we end well.

    flock(2) as pidfile(3) takes it, so that FreeBSD's own tools see it too.
    """

    def __init__(self, path: str, mode: int) -> None:
        self.path = path
        while True:
            fd = _open(path, mode)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                raise Locked(path) from None
            except BaseException:
                os.close(fd)
                raise
            self.fd = fd
            if self.in_place():
                return
            os.close(fd)  # whom it belonged to removed it in this instant; try again

    @classmethod
    def adopt(cls, path: str, fd: int) -> "LockedFile":
        """Take up a file that was locked before the daemon replaced itself by exec."""
        self = cls.__new__(cls)
        self.path, self.fd = path, fd
        os.set_inheritable(fd, False)
        return self

    def in_place(self) -> bool:
        """Say whether its name still means it."""
        return _is_in_place(self.path, os.fstat(self.fd))

    def renew(self) -> None:
        """Make and lock it anew, with our pid; Locked, Refused."""
        fresh = LockedFile(self.path, 0o600)
        os.close(self.fd)
        self.fd = fresh.fd
        self.write_pid()

    def write_pid(self) -> None:
        """Write our pid, as pidfile_write(3) does; Refused."""
        try:
            os.ftruncate(self.fd, 0)
            os.pwrite(self.fd, f"{os.getpid()}".encode(), 0)
        except OSError as error:
            raise _refuse(self.path, error) from error

    def remove(self) -> None:
        """Remove the file, if it is still ours, and unlock."""
        if self.in_place():
            os.unlink(self.path)
        os.close(self.fd)


class Locked(Exception):
    """Somebody else holds the lock on `path`."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def pid(self) -> str | None:
        """Return the pid in the file; None while it has not been written yet."""
        with contextlib.suppress(OSError):
            text = Path(self.path).read_text(encoding="ascii", errors="replace").strip()
            if text.isdecimal():
                return text
        return None


def lock_pidfile(path: str) -> LockedFile:
    """Lock `path`; Refused, naming the pid, where another daemon has it."""
    try:
        return LockedFile(path, 0o600)
    except Locked as locked:
        pid = locked.pid()
        who = f"pid {pid}" if pid else "a daemon that is just starting"
        raise Refused(_START, path, f"jaildaemon is already running: {who}") from None


def _running_instance(path: str, backend: Backend, seconds: float = ANSWER_SECONDS) -> str | None:
    """Send the test command to the socket; return who answers, None if nobody can."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(seconds)
        try:
            sock.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        except BlockingIOError:  # its queue is full, and a timeout is no wait for that
            return "something that does not answer"
        except OSError as error:
            raise _refuse(path, error) from error
        pid = backend.peer(sock.fileno()).pid
        try:
            sock.sendall(wire.call(f"{wire.SERVICE}.GetInfo", {}))
            answer = sock.recv(wire.MAX_MESSAGE)
        except OSError:
            answer = b""
        if answer:
            return f"pid {pid}"
        return f"pid {pid}, which does not answer"


@contextlib.contextmanager
def _umask(mask: int) -> Iterator[None]:
    old = os.umask(mask)
    try:
        yield
    finally:
        os.umask(old)


class ControlSocket:
    """The listening socket, and the lock beside it under which all else is made."""

    listener: socket.socket

    def __init__(self, path: str, backend: Backend) -> None:
        self.path, self._backend = path, backend
        self._made: os.stat_result | None = None
        size = len(os.fsencode(path))
        if size > MAX_SOCKET_BYTES:
            why = f"is {size} bytes long, a socket's path has at most {MAX_SOCKET_BYTES}"
            raise Refused(_START, path, why)
        try:
            self.lock = LockedFile(f"{path}.lock", 0o600)
            self.lock.write_pid()
        except Locked as locked:
            # Another daemon holds it for life, or another start is under way.
            pid = locked.pid()
            starting = "a daemon that is just starting"
            gone = f"pid {pid}, whose socket is gone: kill -HUP {pid} makes it again"
            who = _running_instance(path, backend) or (starting if pid is None else gone)
            raise Refused(_START, path, f"jaildaemon is already running: {who}") from None

    @classmethod
    def adopt(cls, path: str, listener_fd: int, lock_fd: int, backend: Backend) -> "ControlSocket":
        """Take up the socket as it was before the daemon replaced itself by exec."""
        self = cls.__new__(cls)
        self.path, self.lock = path, LockedFile.adopt(f"{path}.lock", lock_fd)
        self.lock.write_pid()  # which 0.1.0 does not
        self.listener = socket.socket(fileno=listener_fd)
        os.set_inheritable(listener_fd, False)
        self._backend = backend
        self._made = os.lstat(path) if os.path.lexists(path) else None
        return self

    @property
    def descriptors(self) -> tuple[int, int]:
        """The listener's and the lock's."""
        return self.listener.fileno(), self.lock.fd

    def bind(self, seconds: float = ANSWER_SECONDS) -> None:
        """Make the socket; one that nobody serves is replaced."""
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISSOCK(os.lstat(self.path).st_mode):
                raise Refused(
                    _START,
                    self.path,
                    "exists and is not a socket",
                    "remove it, or choose another with -f",
                )
            who = _running_instance(self.path, self._backend, seconds)
            if who:
                raise Refused(_START, self.path, f"jaildaemon is already running: {who}")
            os.unlink(self.path)  # a dead one's
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with _umask(0o177):
                listener.bind(self.path)
            listener.listen(128)
            listener.setblocking(False)
            self._made = os.lstat(self.path)
        except OSError as error:
            listener.close()
            raise _refuse(self.path, error) from error
        self.listener = listener

    def in_place(self) -> bool:
        """Say whether its name still means it."""
        return self._made is not None and _is_in_place(self.path, self._made)

    def renew(self) -> None:
        """Bind it anew, under the lock; Refused.  Who is connected stays so.

        The listener before this one is to be closed by who accepts at it.
        """
        self.bind(RENEW_SECONDS)

    def open_to(self, group: int | None) -> None:
        """Let `group` connect too, or nobody but root; OSError.

        By its path: nobody else can put anything there.
        """
        if group is None:
            if os.lstat(self.path).st_mode & 0o060:
                os.chmod(self.path, 0o600)
        else:
            os.chown(self.path, -1, group)
            os.chmod(self.path, 0o660)

    def remove(self) -> None:
        """Close and remove the socket, if it is still ours, and the lock."""
        if self._made is not None:
            self.listener.close()
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(self._made, os.lstat(self.path)):
                    os.unlink(self.path)
        self.lock.remove()


def state_directory(default: str, socket_path: str, default_socket: str) -> Path:
    """Return where a daemon at `socket_path` keeps its state, so that a second one just works.

    $JAILDAEMON_STATE_DIR takes the place of the system's directory.
    """
    base = Path(os.environ.get("JAILDAEMON_STATE_DIR") or default)
    if socket_path == default_socket:
        return base
    return base / "by-socket" / quote(os.fsencode(socket_path), safe="")


class StateDirectory:
    """The daemon's state: its own directory, mode 0700, locked while it lives."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with _umask(0o077):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.fd = trust.open_directory(path)
        except trust.Untrusted as error:
            raise error.refused(_START) from error
        except OSError as error:
            raise _refuse(str(path), error) from error
        try:
            if os.fstat(self.fd).st_uid != os.geteuid():
                raise Refused(_START, str(path), "must belong to us")
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self.fd)
            raise Refused(_START, str(path), "another jaildaemon keeps its state here") from None
        except BaseException:
            os.close(self.fd)
            raise

    @classmethod
    def adopt(cls, path: Path, fd: int) -> "StateDirectory":
        """Take up the directory as it was before the daemon replaced itself by exec."""
        self = cls.__new__(cls)
        self.path, self.fd = path, fd
        os.set_inheritable(fd, False)
        return self

    def in_place(self) -> bool:
        """Say whether its name still means it."""
        return _is_in_place(str(self.path), os.fstat(self.fd))

    def renew(self) -> None:
        """Make and lock it anew; Refused."""
        fresh = StateDirectory(self.path)
        os.close(self.fd)
        self.fd = fresh.fd

    def release(self) -> None:
        """Unlock it; what is in it stays."""
        os.close(self.fd)


@attrs.frozen
class Held:
    """What a daemon holds while it lives."""

    control: ControlSocket
    pidfile: LockedFile
    state: StateDirectory
