# SPDX-License-Identifier: BSD-2-Clause
"""A real daemon to attack, and the naive one."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from tests.daemon.product import wait_until
from tests.helper.parent import wait_asleep
from tests.kernel.events import PATIENCE_SECONDS

LONGEST_SECONDS = max(60.0, PATIENCE_SECONDS)
ENDED = "gone: the (probe died of SIGKILL|container (is ending|has ended))"
"""How the log tells of the end of a container: its probe or its init is seen first."""
"""A failure's bound, never a wait."""
SECRET = "hunter2-of-the-host"
HERE = Path(__file__).parent
STRICT = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-static"]


def build(program: Path, *arguments: str | Path) -> Path:
    """Compile a program of ours."""
    subprocess.run(["cc", "-o", program, *arguments], check=True)
    return program


def build_helper(directory: Path, flags: str) -> Path:
    """Compile a helper that differs from the product's by what `flags` say."""
    script = HERE.parents[1] / "helper" / "build.sh"
    subprocess.run(["sh", script, directory], check=True, env={**os.environ, "CFLAGS": flags})
    return directory / "jailprobe"


def jaildaemon(helper: Path | None = None) -> list[str]:
    """Return the command; with another helper, and output reader beside it, if one is given."""
    script = (
        "import sys; from pathlib import Path; import jaildaemon.backends as b;"
        "b.HELPER = Path(sys.argv.pop(1)); b.this_system.__defaults__ = (b.HELPER,);"
        "o = b.HELPER.with_name('jailoutput');"
        "b.OUTPUT_READER = o if o.exists() else b.OUTPUT_READER;"
        "from jaildaemon.cli.main import main; sys.exit(main())"
    )
    if helper is None:
        return [sys.executable, "-m", "jaildaemon"]
    return [sys.executable, "-c", script, str(helper)]


class Daemon:
    """`jaildaemon -D -F` with a socket of its own."""

    def __init__(
        self,
        directory: Path,
        *,
        wrap: Iterable[str | Path] = (),
        environment: Mapping[str, str] | None = None,
        helper: Path | None = None,
        command: Iterable[str] = (),
    ) -> None:
        self.socket = str(directory / "pipe")
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._at = 0
        files = ["-f", self.socket, "-p", str(directory / "pid")]
        program = [*(command or jaildaemon(helper)), "-D", "-F", *files]
        self._process = subprocess.Popen(
            [*wrap, *program],
            cwd=HERE.parents[1],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "JAILDAEMON_SECRET": SECRET, **(environment or {})},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.pid = int(self.wait_log(r" serves \S+ as pid (\d+)").group(1))
        except AssertionError:
            self._process.kill()  # nobody else knows of it
            raise

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            with self._news:
                self.lines.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self.lines.append("THE END")
            self._news.notify_all()

    def wait_log(self, pattern: str, *, again: bool = False) -> "re.Match[str]":
        """Return when the log has a line with `pattern`, after the last one found so."""
        at = 0 if again else self._at

        def found() -> bool:
            nonlocal at
            while at < len(self.lines):
                at += 1
                if re.search(pattern, self.lines[at - 1]) or self.lines[at - 1] == "THE END":
                    return True
            return False

        with self._news:
            assert self._news.wait_for(found, LONGEST_SECONDS), (pattern, self.lines[-20:])
        match = re.search(pattern, self.lines[at - 1])
        assert match, (pattern, self.lines[-20:])
        self._at = at
        return match

    # --- calls -----------------------------------------------------------------

    def _connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(LONGEST_SECONDS)
        sock.connect(self.socket)
        return sock

    @staticmethod
    def _send(sock: socket.socket, method: str, parameters: dict[str, Any]) -> None:
        message = {"method": f"org.jaildaemon.{method}", "parameters": parameters}
        sock.sendall(json.dumps(message).encode() + b"\0")

    @staticmethod
    def _receive(sock: socket.socket) -> dict[str, Any]:
        data = b""
        while not data.endswith(b"\0"):
            more = sock.recv(65536)
            assert more, "the daemon hung up"
            data += more
        answer: dict[str, Any] = json.loads(data[:-1])
        return answer

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call; return what is answered, an error too."""
        with self._connect() as sock:
            self._send(sock, method, parameters)
            return self._receive(sock)

    @contextlib.contextmanager
    def asked(self, method: str, **parameters: Any) -> Iterator[Callable[[], dict[str, Any]]]:
        """Call, and give what waits for the answer."""
        with self._connect() as sock:
            self._send(sock, method, parameters)
            yield lambda: self._receive(sock)

    def attach(self, jail: int, title: str, command: str = "true", respawn: str = "no") -> int:
        """Arm a probe; return its pid, when it sleeps."""
        wish: dict[str, Any] = {"jail": str(jail), "command": command, "title": title}
        answer = self.call("Attach", **wish, policy={"respawn": respawn})
        assert "error" not in answer, answer
        pid = int(answer["parameters"]["probe_pid"])
        wait_asleep(pid)
        return pid

    def attach_many(self, jail: int, count: int, **wish: Any) -> list[int]:
        """Arm probes at once, as many as there may be clients."""
        answers = self.attach_each(jail, [wish] * count)
        armed = [answer for answer in answers if "error" not in answer]
        return [int(answer["parameters"]["probe_pid"]) for answer in armed]

    def attach_each(self, jail: int, wishes: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """Wish for all at once; return the answers."""
        with contextlib.ExitStack() as stack:
            socks = []
            for n, wish in enumerate(wishes):
                socks.append(stack.enter_context(self._connect()))
                wanted = {"jail": str(jail), "command": "true", "title": f"T{n:03}x", **wish}
                self._send(socks[-1], "Attach", wanted)
            return [self._receive(sock) for sock in socks]

    def detach_all(self) -> None:
        """Withdraw every probe."""
        self.call("Detach", all=True)

    def status(self) -> dict[str, Any]:
        """Return the counters."""
        found: dict[str, Any] = self.call("Status")["parameters"]
        return found

    def triggers(self) -> int:
        """Return how many triggers there ever were."""
        return int(self.status()["triggers"])

    def cpu_seconds(self) -> float:
        """Return what it has used of a processor, without its children."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2]
        ticks = sum(int(word) for word in fields.split()[11:13])
        return ticks / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """End it."""
        if self._process.poll() is None:
            os.kill(self.pid, signal.SIGTERM)
        self._process.wait(LONGEST_SECONDS)
        self._reader.join(LONGEST_SECONDS)
        assert self._process.stderr is not None
        self._process.stderr.close()


class Attacker(Protocol):
    """Who counts in a jail what it has tried."""

    def counts(self, command: str = "counts") -> dict[str, str]:
        """Return the counters."""


def wait_counts(attacker: Attacker, name: str, wanted: int) -> None:
    """Return when the attacker has counted so far."""
    wait_until(lambda: int(attacker.counts()[name]) >= wanted, f"{wanted} {name}")


def arm_under(attacker: Attacker, daemon: Daemon, jail: int, wanted: int, at_once: int) -> int:
    """Arm and withdraw probes until the attacker has seen so many; return how many there were."""
    armed = 0
    while (seen := int(attacker.counts()["seen"])) < wanted:
        armed += len(daemon.attach_many(jail, at_once))
        # Who stands is seen by whoever runs: the attacker is never left behind the numbers.
        wait_counts(attacker, "seen", seen + 1)
        daemon.detach_all()
    return armed
