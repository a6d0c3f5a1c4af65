# SPDX-License-Identifier: BSD-2-Clause
"""One call at the control socket: who asks for what, and where the answers go."""

from collections.abc import Callable

from jaildaemon.backends.base import Peer
from jaildaemon.errors import JaildaemonError

Parameters = dict[str, object]
Answer = Callable[[Parameters | JaildaemonError], None]
"""Called once: with the reply's parameters, or with the error."""
Pull = Callable[[], Parameters | None]
"""Gives the next reply of a long answer; None where there is none at the moment."""


class Call:
    """One call: who asks, and where the answer goes.  `hung_up` is set by the caller's end."""

    def __init__(self, peer: Peer, answer: Answer) -> None:
        self.peer, self.answer = peer, answer
        self.hung_up: Callable[[], None] = lambda: None
        self.oneway = self.overlaps = False
        self.reply: bytes | None = None
        """The answer, as it goes out when those to earlier calls are out."""
        self.stream: Callable[[Pull], Callable[[], None]] | None = None
        """Begins a long answer, where the caller wants "more"; returns what says that there
        is some again.  It ends with `answer`."""

    @property
    def who(self) -> str:
        """Say who asks, for the log."""
        return f"by uid {self.peer.uid} pid {self.peer.pid}"
