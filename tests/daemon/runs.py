# SPDX-License-Identifier: BSD-2-Clause
"""Rules and runs on the fake backend: the commands are fake processes too."""

import signal
from collections.abc import Callable

from jaildaemon.backends.base import Death
from jaildaemon.daemon.commands import Command
from tests.contract.fake_watcher import FakeProcess
from tests.daemon.server import Message, Server, Wire

DONE = Death(None, 0)


class Commands:
    """Stands in for Command.start: every run is a fake process, to be ended by the test."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.running: list[FakeProcess] = []
        self.values: list[dict[str, str]] = []
        self.error: OSError | None = None

    def start(
        self, made: Command, command: str, values: dict[str, str], ended: Callable[[Death], None]
    ) -> None:
        """Start one."""
        if self.error is not None:
            raise self.error
        process = self._server.backend.add_process(title=command, asleep=True)
        self._server.backend.watcher.watch_process(process.pid, ended)
        self.running.append(process)
        self.values.append(values)
        made.pid = process.pid

    def end(self, death: Death = DONE) -> None:
        """End the oldest."""
        self._server.backend.end(self.running.pop(0), death)
        self._server.settle()


def attach(server: Server, respawn: str = "no", **more: object) -> Wire:
    """Attach one rule; return the client."""
    client = server.connect()
    answer = client.ask(
        "Attach", command="true", jail=server.jail, policy={"respawn": respawn}, **more
    )
    assert "error" not in answer
    return client


def probes(server: Server) -> list[FakeProcess]:
    """Return the probes that stand in the jail."""
    return [p for p in server.backend.processes.values() if p.jail == server.jail]


def ring(server: Server, signum: int = signal.SIGHUP) -> None:
    """Signal the one probe, from inside the jail."""
    (probe,) = probes(server)
    server.backend.kill(probe.pid, signum)
    server.settle()


def rule(client: Wire) -> Message:
    """Return the one rule, as it is listed."""
    (found,) = client.ask("List")["parameters"]["rules"]
    listed: Message = found
    return listed
