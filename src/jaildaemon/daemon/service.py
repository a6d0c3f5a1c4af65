# SPDX-License-Identifier: BSD-2-Clause
"""The daemon's own life: start in the right order, serve, end cleanly."""

import contextlib
import os
import signal
import socket
import sys
import syslog
from collections.abc import Callable, Iterator
from pathlib import Path

from jaildaemon import __version__
from jaildaemon.backends import this_system
from jaildaemon.backends.base import Backend
from jaildaemon.core.text import shown
from jaildaemon.daemon.control import ControlServer
from jaildaemon.daemon.files import ControlSocket, lock_pidfile
from jaildaemon.daemon.keeper import Log
from jaildaemon.daemon.methods import Methods
from jaildaemon.errors import JaildaemonError, Refused

WITHDRAW_SECONDS = 5.0
"""How long the end waits for the last probe to be reaped.  A tracer in a jail
may hold a zombie for good; the probe itself is dead by then."""

Ready = Callable[[], None]


def log_to_stderr(line: str) -> None:
    """Log one line for a supervisor: journald, daemon(8), a terminal."""
    # A lost supervisor must not end the daemon.
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"jaildaemon: {shown(line)}\n")
        sys.stderr.flush()


def log_to_syslog(line: str) -> None:
    """Log one line to syslog(3)."""
    syslog.syslog(syslog.LOG_NOTICE, shown(line))


def _default_signals() -> None:
    """Undo what we were started with: nohup(1) and careless parents ignore signals."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE}:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


class _Signals:
    """SIGTERM and its like, told by a descriptor: none is lost, none interrupts."""

    def __init__(self, backend: Backend, calls: dict[signal.Signals, Callable[[], None]]) -> None:
        self._calls = calls
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)
        for number in calls:
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        backend.watcher.watch_fd(self._read.fileno(), self._readable)

    def _readable(self) -> None:
        with contextlib.suppress(BlockingIOError):
            for number in self._read.recv(64):
                call = self._calls.get(signal.Signals(number))
                if call is not None:
                    call()


class Service:
    """One daemon."""

    def __init__(self, backend: Backend, control: ControlSocket, log: Log) -> None:
        self._backend, self._log = backend, log
        self._methods = Methods(backend, log)
        self._server = ControlServer(backend, control.listener, self._methods, log)
        self._ending = self._over = False
        _Signals(
            backend,
            {
                signal.SIGTERM: self._end,
                signal.SIGINT: self._end,
                signal.SIGHUP: lambda: log("SIGHUP: there are no rules in files to reload"),
                signal.SIGUSR1: self._log_status,
            },
        )

    def run(self) -> None:
        """Serve until the end."""
        while not self._over:
            self._backend.watcher.wait()

    def _end(self) -> None:
        if self._ending:
            return
        self._ending = True
        self._log("ending: no new rules, withdrawing the probes")
        self._server.close()
        self._backend.watcher.call_in(WITHDRAW_SECONDS, self._finish)
        self._methods.withdraw_all(self._finish)

    def _finish(self) -> None:
        self._over = True

    def _log_status(self) -> None:
        fleet = self._methods.fleet
        self._log(
            f"status: {len(fleet.members)} rules, {fleet.runs} running, "
            f"{fleet.triggers} triggers, {fleet.refused} refused"
        )


@contextlib.contextmanager
def _files(pidfile: str, socket_path: str, backend: Backend) -> Iterator[ControlSocket]:
    """Lock and make our files, in the one right order; remove them at the end."""
    control = ControlSocket(socket_path, backend)
    try:
        lock = lock_pidfile(pidfile)
        try:
            control.bind()
            lock.write_pid()
            yield control
        finally:
            lock.remove()
    finally:
        control.remove()


def serve(pidfile: str, socket_path: str, log: Log, ready: Ready) -> None:
    """Be the daemon, in this process.  `ready` is called when the socket answers."""
    _default_signals()
    backend = this_system()
    with _files(pidfile, socket_path, backend) as control:
        service = Service(backend, control, log)
        os.chdir("/")
        os.umask(0o077)
        log(f"version {__version__} serves {socket_path} as pid {os.getpid()}")
        ready()
        service.run()
        log("ended")


def _absolute(path: str) -> str:
    """Keep what was given relative to here: the daemon works in /."""
    return str(Path(path).absolute())


def start(pidfile: str, socket_path: str, *, foreground: bool) -> int:
    """Start the daemon; return the exit code.

    In the background the caller returns when the socket answers, or when it is
    known why it never will: the child tells by a pipe.
    """
    pidfile, socket_path = _absolute(pidfile), _absolute(socket_path)
    # Whatever our parent left open is none of ours: it would stay open for years.
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    if foreground:
        serve(pidfile, socket_path, log_to_stderr, lambda: None)
        return 0
    read_fd, write_fd = os.pipe()
    if os.fork() > 0:
        os.close(write_fd)
        with os.fdopen(read_fd, "rb") as pipe:
            code = pipe.read()
        if not code:
            raise Refused("start", socket_path, "the daemon ended before it answered")
        return code[0]
    os.close(read_fd)
    os.setsid()
    told = [False]

    def tell(code: int) -> None:
        os.write(write_fd, bytes([code]))
        os.close(write_fd)
        told[0] = True

    def ready() -> None:
        null_fd = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null_fd, fd)
        os.close(null_fd)
        tell(0)

    syslog.openlog("jaildaemon", syslog.LOG_PID, syslog.LOG_DAEMON)
    try:
        serve(pidfile, socket_path, log_to_syslog, ready)
    except JaildaemonError as error:
        if told[0]:
            log_to_syslog(str(error))
        else:
            sys.stderr.write(f"jaildaemon: {error}\n")
            tell(error.exit_code)
        return error.exit_code
    return 0
