# SPDX-License-Identifier: BSD-2-Clause
"""A real daemon in a directory of its own, real jails, and waits for events, never for time."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jaildaemon.backends import throwaway_jail
from jaildaemon.backends.throwaway import ThrowawayJail
from jaildaemon.cli import client
from jaildaemon.errors import JaildaemonError
from tests.kernel.events import PATIENCE_SECONDS, wait_gone
from tests.kernel.processes import alive, children, environment, open_files

__all__ = ["Daemon", "Fifo", "World", "alive", "changed", "wait_gone", "world_in"]

JAILDAEMON = [sys.executable, "-m", "jaildaemon"]


def changed(module: str, change: str) -> list[str]:
    """Return the program with one constant of a module changed, so that a test is quick."""
    name = f"jaildaemon.{module}"
    script = f"import sys, {name} as m; m.{change}; from jaildaemon.cli.main import main; "
    return [sys.executable, "-c", f"{script}sys.exit(main())"]


def wait_readable(fd: int, end: float, what: str) -> None:
    """Return when `fd` can be read; an assertion error at `end`."""
    left = max(0.0, end - time.monotonic())
    assert select.select([fd], [], [], left)[0], f"nothing happened: {what}"


class Fifo:
    """What commands write to, to tell that they run, or read from, to go on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path, 0o666)
        path.chmod(0o666)
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self._buffer = b""

    def line(self) -> str:
        """Wait for a line, and return it."""
        end = time.monotonic() + PATIENCE_SECONDS
        while b"\n" not in self._buffer:
            wait_readable(self._fd, end, f"nobody wrote to {self.path.name}")
            self._buffer += os.read(self._fd, 65536)
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()

    def waiting(self) -> list[str]:
        """Return the lines that are there already."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self._buffer += os.read(self._fd, 65536)
        *lines, self._buffer = self._buffer.split(b"\n")
        return [line.decode() for line in lines]

    def write(self, text: str) -> None:
        """Let a command that reads here go on."""
        os.write(self._fd, text.encode())

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)


class Daemon:
    """A daemon in the foreground; its log is what is waited for."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = str(directory / "pipe")
        self.state = directory / "state"
        self.log: list[str] = []
        """Every line of every life."""
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = b""
        self._seen = 0
        self.pid = self.fds_at_start = 0
        self._restart: subprocess.Popen[bytes] | None = None

    # --- its life ----------------------------------------------------------------

    def arguments(self) -> list[str]:
        """Return what it is started with."""
        words = ["-D", "-F", "-f", self.socket, "-p", str(self.directory / "pid")]
        return [*words, "--state-dir", str(self.state)]

    def launch(
        self,
        *before: str,
        program: list[str] | None = None,
        env: dict[str, str] | None = None,
    ) -> None:
        """Start it, `before` in front (strace and the like), and do not wait."""
        self._buffer, self._seen = b"", len(self.log)
        self._process = subprocess.Popen(
            [*before, *(program or JAILDAEMON), *self.arguments()],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, **(env or {})},
        )
        self.pid = self._process.pid  # if it never serves, this is whom to end

    def start(
        self,
        *before: str,
        program: list[str] | None = None,
        env: dict[str, str] | None = None,
    ) -> None:
        """Start it, and wait until it serves."""
        self.launch(*before, program=program, env=env)
        begin = self._seen
        self.pid = int(self.wait(" serves ").rpartition(" ")[2])
        self.fds_at_start = self.fds()
        self._seen = begin  # what it took up before it served may be waited for

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        """The process we started: the daemon, or what stands before it."""
        assert self._process is not None
        return self._process

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal it and wait for its end; return its status."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)
        return self.ended()

    def ended(self) -> int:
        """Wait for its end, and take the rest of the log."""
        pipe = self.process.stderr
        assert pipe is not None
        wait_gone(self.process.pid)
        os.set_blocking(pipe.fileno(), False)
        # Not to the end of the file: nobody else should hold it, but a test must not hang.
        with contextlib.suppress(BlockingIOError):
            while data := os.read(pipe.fileno(), 65536):
                self._take(data)
        pipe.close()
        status = self.process.wait()
        self._process = None
        return status

    def forget(self) -> None:
        """Take note that it has ended, its log unread."""
        self.process.wait()
        self._process = None

    def crash(self) -> None:
        """Kill it, as the kernel would for want of memory."""
        self.end(signal.SIGKILL)

    def again(self) -> None:
        """Crash it and start it again."""
        self.crash()
        self.start()

    def close(self) -> None:
        """End it, and everything that it left running."""
        if self._process is not None:
            with contextlib.suppress(JaildaemonError):
                self.call("Detach", all=True)
            self.end()
        for record in self.journal("pid"):
            if in_run(record["pid"], record["run"]):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(record["pid"], signal.SIGKILL)

    # --- its restart ------------------------------------------------------------------

    def launch_restart(self) -> None:
        """Ask for a restart, and do not wait."""
        self._restart = subprocess.Popen([*JAILDAEMON, "restart", "-f", self.socket])

    def restarted(self) -> int:
        """Wait for what was asked for by `launch_restart`; return its status."""
        assert self._restart is not None
        wait_gone(self._restart.pid)
        status = self._restart.wait()
        self._restart = None
        return status

    # --- its log --------------------------------------------------------------------

    def _take(self, data: bytes) -> None:
        self._buffer += data
        *lines, self._buffer = self._buffer.split(b"\n")
        self.log += [line.decode().removeprefix("jaildaemon: ") for line in lines]

    def wait(self, *texts: str) -> str:
        """Wait for the next line that has one of `texts`; what was waited for is behind us."""
        end = time.monotonic() + PATIENCE_SECONDS
        pipe = self.process.stderr
        assert pipe is not None
        while True:
            while self._seen < len(self.log):
                line = self.log[self._seen]
                self._seen += 1
                if any(text in line for text in texts):
                    return line
            wait_readable(pipe.fileno(), end, f"{texts} in the log:\n" + "\n".join(self.log[-40:]))
            data = os.read(pipe.fileno(), 65536)
            assert data, "the daemon died:\n" + "\n".join(self.log[-40:])
            self._take(data)

    def pass_over(self) -> None:
        """Have `wait` look only at what is said from now on."""
        self._drain()
        self._seen = len(self.log)

    def _drain(self) -> None:
        pipe = None if self._process is None else self._process.stderr
        while pipe is not None and not pipe.closed and select.select([pipe], [], [], 0)[0]:
            data = os.read(pipe.fileno(), 65536)
            if not data:
                return
            self._take(data)

    def settled(self) -> None:
        """Return when the daemon has taken up everything that happened before this call."""
        self._drain()  # a log that nobody reads loses lines
        os.kill(self.pid, signal.SIGUSR1)
        self.wait("status: ")

    # --- its rules ------------------------------------------------------------------

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """Call a method."""
        return client.call(self.socket, method, parameters)

    def attach(self, jail: str, command: str, title: str | None = None, **policy: object) -> str:
        """Arm a rule; return its id."""
        self._drain()
        wish: dict[str, object] = {"command": command, "jail": jail}
        if title is not None:
            wish["title"] = title
        if policy:
            wish["policy"] = policy
        return str(self.call("Attach", **wish)["id"])

    def rules(self) -> dict[str, dict[str, Any]]:
        """Return every rule by its id."""
        return {rule["id"]: rule for rule in self.call("List")["rules"]}

    def rule(self, rule: str) -> dict[str, Any]:
        """Return one rule."""
        return self.rules()[rule]

    def probe(self, rule: str) -> int:
        """Return a rule's probe."""
        return int(self.rule(rule)["probe_pid"])

    def ring(self, rule: str, number: signal.Signals = signal.SIGHUP) -> int:
        """Signal a rule's probe; return the pid it had."""
        pid = self.probe(rule)
        os.kill(pid, number)
        return pid

    def run(self, rule: str) -> str:
        """Ring, wait for the start, and return the run's id."""
        self.ring(rule)
        return self.started(rule)[0]

    def started(self, rule: str) -> tuple[str, int]:
        """Wait for the start of a run of `rule`; return its id and pid."""
        words = self.wait(f"{rule}: signal from").split("; run ")[1].split()
        return words[0], int(words[3].rstrip(":"))

    def armed(self, rule: str) -> int:
        """Wait until `rule` is armed once more; return its probe."""
        return int(self.wait(f"{rule}: armed").split(" as pid ")[1].split(":")[0])

    def all_armed(self, *rules: str) -> None:
        """Wait until each of `rules` is armed once more, in whatever order."""
        left = set(rules)
        while left:
            left.discard(self.wait(": armed in").split(":")[0])

    def until_armed(self, rules: list[str]) -> None:
        """Wait until each of `rules` has a probe that has not been rung."""
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            found = self.rules()
            probes = [found[rule].get("probe_pid", 0) for rule in rules]
            if all(probe and alive(probe) for probe in probes):
                return
            assert time.monotonic() < end, f"not armed: {found}"
            self.settled()

    def armed_probe(self, rule: str) -> int:
        """Wait until `rule` is armed, and return its probe."""
        self.until_armed([rule])
        return self.probe(rule)

    def _until(self, is_so: Callable[[], bool], why: Callable[[], str]) -> None:
        """Wait until it is so; `why` says what is so instead."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not is_so():
            assert time.monotonic() < end, why()
            self.settled()

    def until_fds(self, most: int) -> None:
        """Wait until it has `most` descriptors at most: those of an ended run close after it."""
        self._until(lambda: self.fds() <= most, lambda: f"{self.fds()} descriptors, not {most}")

    def until_read(self, run: str, words: bytes) -> None:
        """Wait until the reader of its output has kept `words` of a run that goes on."""
        path = self.state / f"{run}.output"
        self._until(lambda: words in path.read_bytes(), lambda: f"{words!r} was not read")

    def until_children(self, count: int) -> None:
        """Wait until it has `count` children."""
        self._until(lambda: len(self.children()) == count, lambda: f"has {self.children()}")

    # --- its files --------------------------------------------------------------------

    @property
    def journal_path(self) -> Path:
        """The journal."""
        return self.state / "journal.jsonl"

    def journal(self, *kinds: str) -> list[dict[str, Any]]:
        """Return the journal's records, those of `kinds` where any is given.

        What the log has said is in it by then: the daemon says first, and writes after.
        """
        if self._process is not None:
            self.call("Status")  # answered when it is done with what it was at
        found = []
        path = self.journal_path
        for line in path.read_bytes().splitlines() if path.is_file() else ():
            with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
                record = json.loads(line)
                if not kinds or record["kind"] in kinds:
                    found.append(record)
        return found

    def times(self, kind: str, rule: str) -> list[float]:
        """Return when each record was made: how late we hear of it is the host's affair."""
        return [float(record["s"]) for record in self.journal(kind) if record["rule"] == rule]

    def rewrite(self, records: list[dict[str, Any]]) -> None:
        """Replace the journal, as only a test may."""
        lines = "".join(json.dumps(record) + "\n" for record in records)
        self.journal_path.write_text(lines, encoding="ascii")

    def fds(self) -> int:
        """Return how many descriptors it has."""
        return len(open_files(self.pid))

    def children(self) -> list[int]:
        """Return its children, zombies among them."""
        return children(self.pid)


def in_run(pid: int, run: str) -> bool:
    """Say whether `pid` is (still) the shell of `run`."""
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        return environment(pid).get("JAILDAEMON_RUN") == run
    return False


class World:
    """What one test has."""

    def __init__(self, directory: Path, stack: contextlib.ExitStack) -> None:
        self.directory, self._stack = directory, stack
        self.daemon = Daemon(directory)
        stack.callback(self.daemon.close)

    def jail(self) -> ThrowawayJail:
        """Make a jail."""
        jail = throwaway_jail()
        self._stack.callback(jail.close)
        return jail

    def fifo(self, name: str = "fifo") -> Fifo:
        """Make a fifo."""
        fifo = Fifo(self.directory / name)
        self._stack.callback(fifo.close)
        return fifo


@contextlib.contextmanager
def world_in(directory: Path) -> Iterator[World]:
    """Give a world; afterwards its daemon and jails are no more."""
    with contextlib.ExitStack() as stack:
        yield World(directory, stack)
