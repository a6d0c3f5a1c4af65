# SPDX-License-Identifier: BSD-2-Clause
"""LXC: containers of root's default lxcpath.  They have no id but their name."""

import re
from collections.abc import Callable

from jaildaemon.engines.answers import NAME, Found, found, stopped
from jaildaemon.engines.base import Engine, EventStream, LookedUp, Scanned, Stream
from jaildaemon.engines.endpoint import EngineError
from jaildaemon.engines.identity import Init, in_cgroup_of


class Lxc(Engine):
    """Containers of LXC."""

    name = "lxc"

    def doubt(self, found: Found, init: Init) -> str | None:
        """Look for lxc.payload.NAME, and for the monitor of that name as the parent.

        The control group gets a number more where one of that name was left behind.
        Whoever is in the host's network namespace can answer in a monitor's place: its
        socket is an abstract one.
        """
        monitor = re.fullmatch(rf"\[lxc monitor\] /\S+ {re.escape(found.name)}", init.parent())
        if in_cgroup_of(found.id, init) or monitor:
            return None
        return f"process {found.pid} is not in a control group lxc.payload.{found.name}"

    def scan(self, wants: Callable[[str], bool], done: Scanned) -> None:
        """List those that run, then ask for each pid, one after the other."""

        def listed(answer: str | EngineError) -> None:
            if isinstance(answer, EngineError):
                done(answer)
                return
            listed = {name: name for name in answer.split() if NAME.fullmatch(name)}
            self.look_up_all([name for name in listed if wants(name)], listed, done)

        self.ask(["lxc-ls", "-1", "--active"], listed)

    def lookup(self, name: str, done: LookedUp) -> None:
        """Ask for the pid of its init."""

        def answered(answer: str | EngineError) -> None:
            if isinstance(answer, EngineError):
                gone = "doesn't exist" in str(answer)
                done(None if gone else answer)
                return
            done(found(name, name, answer.strip()) or stopped("stopped"))

        self.ask(["lxc-info", f"--name={name}", "--pid", "--no-humanize"], answered)

    def watch(self, poke: Callable[[], None], ended: Callable[[str], None]) -> Stream:
        """Follow the states of all containers."""
        argv = ["lxc-monitor", "--name=.*"]
        return EventStream(self._loop, argv, poke, ended, self.endpoint)
