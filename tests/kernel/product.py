# SPDX-License-Identifier: BSD-2-Clause
"""The installed command, and daemons of it.  Nothing of the product is imported here."""

import contextlib
import fcntl
import functools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.kernel.events import PATIENCE_SECONDS, TooLate, wait_gone
from tests.kernel.jails.base import Done, Jail
from tests.kernel.place import Place
from tests.kernel.processes import children, look

JAILDAEMON = os.environ.get("JAILDAEMON") or str(Path(sys.executable).parent / "jaildaemon")
DEFAULT_SOCKET, DEFAULT_PIDFILE = "/var/run/jaildaemon.pipe", "/var/run/jaildaemon.pid"
NOBODY = 65534
"""A uid without any right, on both systems."""
LOOK_AGAIN_SECONDS = 0.5
"""How long without a line in the log until a condition is looked at anyway."""

Rule = dict[str, Any]


@functools.cache
def as_user(uid: int) -> tuple[list[str], dict[str, Any]] | None:
    """Return a prefix and options that run the command as another user; None if nothing does.

    Where the command lies in a home of root's, the user gets the one right to
    pass through it: CAP_DAC_READ_SEARCH opens no socket.
    """
    ids: dict[str, Any] = {"user": uid, "group": uid, "extra_groups": []}
    capability = "+dac_read_search"
    setpriv = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    setpriv += [f"--inh-caps={capability}", f"--ambient-caps={capability}", "--"]
    options: dict[str, Any]
    for prefix, options in (([], ids), (setpriv, {})):
        with contextlib.suppress(OSError):
            argv = [*prefix, JAILDAEMON, "--version"]
            if subprocess.run(argv, capture_output=True, check=False, **options).returncode == 0:
                return prefix, options
    return None


def run(*arguments: str, uid: int | None = None) -> Done:
    """Run the installed command to its end."""
    way = ([], {}) if uid is None else as_user(uid)
    assert way is not None
    prefix, options = way
    return subprocess.run(
        [*prefix, JAILDAEMON, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
        cwd="/",
        **options,
    )


def read_pid(path: Path) -> int:
    """Return the pid in a pidfile."""
    return int(path.read_text(encoding="ascii"))


def is_locked(path: Path) -> bool:
    """Say whether somebody holds a pidfile as pidfile(3) does, by flock(2)."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


class Client:
    """What may be asked of a daemon, through its socket."""

    def __init__(self, directory: Path, socket: str = "pipe", pidfile: str = "pid") -> None:
        self.directory = directory
        self.socket, self.pidfile = directory / socket, directory / pidfile
        self.options = ("-p", str(self.pidfile), "-f", str(self.socket))

    def cli(self, *arguments: str, uid: int | None = None) -> Done:
        """Run the command with this daemon's socket."""
        return run(*arguments, "-f", str(self.socket), uid=uid)

    def _json(self, *arguments: str) -> dict[str, Any]:
        done = self.cli(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def rules(self) -> list[Rule]:
        """Return what `list` shows."""
        rules: list[Rule] = self._json("list")["rules"]
        return rules

    def rule(self, title: str | None) -> Rule:
        """Return the one rule with this title."""
        (found,) = (rule for rule in self.rules() if rule.get("title") == title)
        return found

    def titles(self) -> set[str | None]:
        """Return the titles of the rules that there are."""
        return {rule.get("title") for rule in self.rules()}

    def status(self) -> dict[str, Any]:
        """Return what `status` shows."""
        return self._json("status")

    def triggers(self) -> int:
        """Return how many triggers the daemon has counted."""
        return int(self.status()["triggers"])

    def attach(self, command: str, jail: Jail | str, title: str | None, *options: str) -> Done:
        """Run -c, without a look at how it ends."""
        name = jail if isinstance(jail, str) else jail.name
        titled = [] if title is None else ["-t", title]
        return self.cli("-c", command, "-j", name, *titled, *options)

    def arm(self, command: str, jail: Jail, title: str | None, *options: str) -> None:
        """Run -c; it must succeed, and say nothing."""
        done = self.attach(command, jail, title, *options)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def probe(self, title: str | None) -> int:
        """Return the host's pid of the armed probe with this title."""
        return int(self.rule(title)["probe_pid"])


class Daemon(Client):
    """A daemon in the foreground, whose log is read as it is written."""

    def __init__(
        self, place: Place, directory: Path, *, prefix: Sequence[str] = (), name: str = ""
    ) -> None:
        super().__init__(directory, f"pipe{name}", f"pid{name}")
        self.process = subprocess.Popen(
            [*prefix, JAILDAEMON, "-D", "-F", *self.options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        place.note_process(self.process.pid)
        self.log: list[str] = []
        self._told = threading.Condition()
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        # It can be connected to earlier, before its pidfile is written and its signals are caught.
        self.wait_until(lambda: any(" serves " in line for line in self.log), "the daemon to serve")

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._told:
                self.log.append(line.rstrip("\n"))
                self._told.notify_all()

    def wait_until(self, condition: Callable[[], bool], words: str) -> None:
        """Wait for a condition.  It is looked at whenever the daemon has said something."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            seen = len(self.log)
            if condition():
                return
            alive = self.process.poll() is None
            if time.monotonic() > deadline or not alive:
                log = "\n".join(self.log)
                msg = f"waited in vain for {words}; daemon alive: {alive}; its log:\n{log}"
                raise TooLate(msg)
            with self._told:
                if len(self.log) == seen:
                    self._told.wait(LOOK_AGAIN_SECONDS)

    def wait_no_command(self) -> None:
        """Wait until the commands that the test has triggered are over."""

        def over() -> bool:
            with contextlib.suppress(OSError, ValueError, subprocess.CalledProcessError):
                return all(look(pid).comm == "jailprobe" for pid in children(self.process.pid))
            return False  # one ended in this instant

        self.wait_until(over, "the end of the commands")

    def wait_rule_gone(self, title: str | None) -> None:
        """Wait until nothing is left of a rule: no probe, and no run of its command."""
        self.wait_until(lambda: title not in self.titles(), f"the end of rule {title}")

    def wait_new_probe(self, title: str | None, old: int) -> int:
        """Wait until another probe stands in place of the `old` one; return its pid."""
        found: list[int] = []

        def stands() -> bool:
            pid = self.rule(title).get("probe_pid", old)
            found.append(pid)
            return bool(pid != old)

        self.wait_until(stands, f"a new probe of {title}")
        return found[-1]

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End the daemon; return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(timeout=PATIENCE_SECONDS)
        self._reader.join(timeout=PATIENCE_SECONDS)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code


@contextlib.contextmanager
def foreground(
    place: Place, directory: Path, *, prefix: Sequence[str] = (), name: str = ""
) -> Iterator[Daemon]:
    """Run a daemon that the test may end as it likes."""
    daemon = Daemon(place, directory, prefix=prefix, name=name)
    try:
        yield daemon
    finally:
        daemon.end(signal.SIGKILL)


class Background(Client):
    """A daemon that went to the background by itself, as rc(8) starts it."""

    def __init__(self, place: Place, directory: Path, *options: str) -> None:
        super().__init__(directory)
        self.started = run("-D", *self.options, *options)
        assert self.started.returncode == 0, self.started.stderr
        self.pid = read_pid(self.pidfile)
        place.note_process(self.pid)

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the daemon, and wait for it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)
        wait_gone(self.pid)


@contextlib.contextmanager
def background(place: Place, directory: Path, *options: str) -> Iterator[Background]:
    """Run a daemon in the background."""
    daemon = Background(place, directory, *options)
    try:
        yield daemon
    finally:
        daemon.end()


def pids_in(text: str) -> set[int]:
    """Return every number that a message names as a pid."""
    return {int(number) for number in re.findall(r"\bpid (\d+)", text)}
