# SPDX-License-Identifier: BSD-2-Clause
"""The daemon's own life: start in the right order, serve, end cleanly."""

import contextlib
import gc
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import attrs

from jaildaemon import __version__
from jaildaemon.backends import OUTPUT_READER, Program, configuration, this_system
from jaildaemon.backends.base import Backend, Peer
from jaildaemon.backends.trial import HINT, trial
from jaildaemon.core import wire
from jaildaemon.core.config import Configuration
from jaildaemon.core.lifecycle import Phase
from jaildaemon.core.text import shown
from jaildaemon.daemon import config, program
from jaildaemon.daemon.accounts import Found
from jaildaemon.daemon.barrier import unforeseen
from jaildaemon.daemon.call import Call
from jaildaemon.daemon.control import ControlServer
from jaildaemon.daemon.files import (
    ControlSocket,
    Held,
    LockedFile,
    StateDirectory,
    lock_pidfile,
    state_directory,
)
from jaildaemon.daemon.handover import (
    FORMAT,
    Handover,
    Restart,
    check_descriptors,
    inherited,
    load_journal,
    read,
)
from jaildaemon.daemon.hub import Hub
from jaildaemon.daemon.inquiry import warnings
from jaildaemon.daemon.methods import Methods
from jaildaemon.daemon.notify import notify_ready
from jaildaemon.daemon.recovery import recover, users
from jaildaemon.daemon.signals import Signals, default_signals
from jaildaemon.daemon.sinks import Sink
from jaildaemon.daemon.surroundings import absolute, close_the_rest
from jaildaemon.daemon.upkeep import Upkeep
from jaildaemon.errors import JaildaemonError, Refused

WITHDRAW_SECONDS = 5.0
"""How long the end waits for the last probe to be reaped.  A tracer in a jail
may hold a zombie for good; the probe itself is dead by then."""

INIT = 1
STATUS_SIGNALS = [s for s in signal.Signals if s.name in ("SIGUSR1", "SIGINFO")]
"""SIGINFO is the BSDs': what ^T sends."""

Ready = Callable[[], None]


class Service:
    """One daemon."""

    def __init__(
        self,
        backend: Backend,
        held: Held,
        sink: Sink,
        handover: Handover | None,
        loaded: "Loaded",
    ) -> None:
        self._backend, self._held, self._sink = backend, held, sink
        self._log = log = sink.log
        self._files = loaded.files
        self._ending = self._over = self._restarting = False
        self._hub = Hub(backend, held.state.path, log, engines=bool(loaded.files.engines))
        # Before anything is served: a host whose accounts do not answer costs a start 5 s.
        found = self._hub.accounts.wait(users(self._hub), config.names(loaded.configuration)[1])
        self._signals = Signals(
            backend,
            {
                signal.SIGTERM: self._end,
                signal.SIGINT: self._end,
                signal.SIGHUP: self._reload_by_signal,
                **dict.fromkeys(STATUS_SIGNALS, self._log_status),
                # In a container of our own what commands leave behind is left to us.
                **({signal.SIGCHLD: backend.reap_orphans} if os.getpid() == INIT else {}),
            },
            self._log,
        )
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        self._upkeep = Upkeep(held, self._hub.journal, log)
        self._hub.upkeep = self._upkeep.warnings
        self._hub.roster.take(loaded.configuration)
        self._methods = Methods(self._hub, self._restart, self._reload, self._open_to_readers)
        self._upkeep.mend()  # what was removed before a restart
        self._open_to_readers(loaded.configuration, found, must=handover is None)
        if handover is None:
            recover(self._hub, {}, [])
        else:
            for fd in handover.outputs.values():
                os.set_inheritable(fd, False)
            self._hub.runner.inherited = dict(handover.outputs)
            recover(self._hub, handover.probes, handover.children)
            self._hub.look_up((), (), self._hub.looked_up)
        self._server = ControlServer(backend, held.control.listener, self._methods, log)
        self._upkeep.listen = self._server.listen

    def run(self) -> None:
        """Serve until the end."""
        while not self._over:
            self._backend.watcher.wait()

    def _end(self) -> None:
        if self._ending:
            return
        self._ending = True
        self._log.info("ending: no new rules, withdrawing the probes")
        self._hub.ending = True
        self._hub.roster.stop()
        self._server.close()
        self._backend.watcher.call_in(WITHDRAW_SECONDS, self._finish)
        self._methods.withdraw_all(self._finish)

    def _finish(self) -> None:
        self._over = True

    def _reload(self) -> Configuration:
        """Read the files anew; BadConfiguration, and the old rules stay."""
        self._upkeep.mend()
        made = config.load(self._files, "reload", "nothing has changed: the old rules stay")
        for warning in made.warnings:
            self._log.warning(f"warning: {warning}")
        return made

    def _open_to_readers(self, made: Configuration, found: Found, *, must: bool = False) -> None:
        group, self._hub.readers_trouble = config.readers(made, found)
        if self._hub.readers_trouble is not None:
            self._log.warning(f"warning: {self._hub.readers_trouble}")
        try:
            self._held.control.open_to(group)
        except OSError as error:
            refused = Refused("start", "readers", f"the socket cannot be opened: {error}")
            if must:
                raise refused from error
            self._log.warning(f"warning: {refused}")  # the rules can be taken all the same

    def _reload_by_signal(self) -> None:
        def told(result: object) -> None:
            if isinstance(result, JaildaemonError):
                for line in result.lines():
                    self._log.error(f"reload: {line}")

        us = Peer(os.geteuid(), os.getpid(), None)
        if not self._ending:
            self._methods.call(f"{wire.INTERFACE}.Reload", {}, Call(us, told))

    def _restart(self, answer: Callable[[JaildaemonError | None], None]) -> None:
        """Replace ourselves by exec; `answer` is told why not, or None just before."""
        if self._restarting or self._ending:
            answer(Refused("restart", "the daemon", "it is restarting or ending already"))
            return
        try:
            self._hub.journal.check()  # what is only in memory would be lost
        except OSError as error:
            why = f"the journal cannot be written: {error.strerror}"
            answer(Refused("restart", "the daemon", why, "the old one runs on"))
            return
        self._restarting = True

        def told(error: JaildaemonError | None) -> None:
            self._restarting = False
            if error is None:
                self._log.info("restarting")
                self._signals.keep()
                self._hub.roster.names.stop()  # an engine's stream must not outlive us
            else:
                self._log.error(str(error))
                self._hub.roster.start()
            answer(error)

        Restart(self._backend, self._handover, told)

    def _handover(self) -> Handover | None:
        if self._ending or not self._hub.quiet:
            return None
        listener_fd, lock_fd = self._held.control.descriptors
        probes = self._hub.probes
        return Handover(
            format=FORMAT,
            pidfile=self._held.pidfile.path,
            socket=self._held.control.path,
            state=str(self._held.state.path),
            foreground=self._sink.foreground,
            listener_fd=listener_fd,
            socket_lock_fd=lock_fd,
            pidfile_fd=self._held.pidfile.fd,
            state_fd=self._held.state.fd,
            probes=probes,
            config=self._files.path if self._files.named else None,
            outputs=self._hub.runner.pipes,
            children=[p for p in self._backend.watcher.children() if p not in probes.values()],
        )

    def _log_status(self) -> None:
        fleet = self._hub.fleet
        self._log.info(
            f"status: {len(fleet.members)} rules, {fleet.count(Phase.ARMED)} probes, "
            f"{fleet.running} running, {fleet.queued} queued, "
            f"{fleet.triggers} triggers, {fleet.refused} refused"
        )
        for warning in warnings(self._hub, commands=True):
            self._log.warning(f"warning: {warning}")


@attrs.frozen
class Places:
    """Where a daemon keeps what it has: its pidfile, its socket, its state."""

    pidfile: str
    socket: str
    state: str | None
    default_socket: str
    config: str | None = None

    def absolute(self) -> "Places":
        """Return them for a daemon that works in /."""
        state = None if self.state is None else absolute(self.state)
        return attrs.evolve(
            self,
            pidfile=absolute(self.pidfile),
            socket=absolute(self.socket),
            state=state,
            config=None if self.config is None else absolute(self.config),
        )

    def load(self, what: str) -> "Loaded":
        """Read the rules in files; BadConfiguration."""
        default, engines = configuration()
        if self.socket != self.default_socket:
            # The default files are the default daemon's: two would each ring for one signal.
            default = ""
        files = config.Files.of(self.config, default, engines)
        return Loaded(files, config.load(files, what))

    def take(self, backend: Backend, stack: contextlib.ExitStack) -> Held:
        """Lock and make our files, in the one right order; the stack removes them."""
        control = ControlSocket(self.socket, backend)
        stack.callback(control.remove)
        pidfile = lock_pidfile(self.pidfile)
        stack.callback(pidfile.remove)
        default = state_directory(backend.state_directory, self.socket, self.default_socket)
        state = StateDirectory(default if self.state is None else Path(self.state))
        stack.callback(state.release)
        control.bind()
        pidfile.write_pid()
        return Held(control, pidfile, state)


@attrs.frozen
class Loaded:
    """The rules in files, and where they were read."""

    files: config.Files
    configuration: Configuration


def take_over(handover: Handover, backend: Backend, stack: contextlib.ExitStack) -> Held:
    """Take up what we held before we replaced ourselves; the stack removes it."""
    control = ControlSocket.adopt(
        handover.socket, handover.listener_fd, handover.socket_lock_fd, backend
    )
    stack.callback(control.remove)
    pidfile = LockedFile.adopt(handover.pidfile, handover.pidfile_fd)
    stack.callback(pidfile.remove)
    state = StateDirectory.adopt(Path(handover.state), handover.state_fd)
    stack.callback(state.release)
    return Held(control, pidfile, state)


def serve(places: Places, sink: Sink, ready: Ready, handover: Handover | None = None) -> None:
    """Be the daemon, in this process.  `ready` is called when the socket answers."""
    try:
        _serve(places, sink, ready, handover)
    except OSError as error:
        on = str(error.filename or places.socket)
        hint = "is /proc mounted?" if on.startswith(("/proc/", "/dev/fd")) else None
        raise Refused("start", on, error.strerror or str(error), hint) from error


def _serve(places: Places, sink: Sink, ready: Ready, handover: Handover | None) -> None:
    default_signals()
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        # Until the loop takes it: what has been made by then is removed.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Told to reload or for the status before we can: that waits, and does not end us.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGHUP, signal.SIGUSR1))
    loaded = places.load("start")
    backend = this_system()
    sink.attach(backend.watcher)
    log = sink.log
    with contextlib.ExitStack() as stack:
        stack.callback(sink.close)
        if handover is None:
            held = places.take(backend, stack)
        else:
            held = take_over(handover, backend, stack)
        os.chdir("/")
        os.umask(0o077)
        service = Service(backend, held, sink, handover, loaded)
        for warning in loaded.configuration.warnings:
            log.warning(f"warning: {warning}")
        # What is here by now stays: no later collection need look at it.
        gc.freeze()
        log.info(f"version {__version__} serves {held.control.path} as pid {os.getpid()}")
        ready()
        try:
            service.run()
        except Exception as error:
            raise unforeseen(log, "the daemon", error) from error
        log.info("ended")


def resume(places: Places, fd: int, *, rehearsal: bool) -> int:
    """Go on as the new program of a daemon that replaced itself, or only try to."""
    handover = read(fd)
    os.close(fd)
    places = attrs.evolve(places, config=handover.config)
    if rehearsal:
        this_system()
        why = trial(Program("output reader", OUTPUT_READER))
        if why is not None:
            raise Refused("restart", str(OUTPUT_READER), why, HINT)
        load_journal(Path(handover.state), handover.probes)
        places.load("restart")
        return 0
    check_descriptors(handover)
    serve(places, Sink(foreground=handover.foreground), lambda: None, handover)
    return 0


def start(places: Places, *, foreground: bool) -> int:
    """Start the daemon; return the exit code.

    In the background the caller returns when the socket answers, or when it is
    known why it never will: the child tells by a pipe.
    """
    places = places.absolute()
    program.remember()
    handed = inherited()
    if handed is not None:
        return resume(places, handed[0], rehearsal=handed[1])
    close_the_rest()
    if foreground:
        serve(places, Sink(foreground=True), notify_ready)
        return 0
    read_fd, write_fd = os.pipe()
    child = os.fork()
    if child > 0:
        os.close(write_fd)
        with os.fdopen(read_fd, "rb") as pipe:
            code = pipe.read()
        if code != b"\0":
            os.waitpid(child, 0)  # systemd complains of what is left of a unit that failed
        if not code:
            raise Refused("start", places.socket, "the daemon ended before it answered")
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

    sink = Sink(foreground=False)
    try:
        serve(places, sink, ready)
    except JaildaemonError as error:
        if told[0]:
            for line in error.lines():
                sink.log.error(line)
        else:
            sys.stderr.writelines(f"jaildaemon: {shown(line)}\n" for line in error.lines())
            tell(error.exit_code)
        return error.exit_code
    return 0
