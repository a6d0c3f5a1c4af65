# SPDX-License-Identifier: BSD-2-Clause
"""The contract between the daemon and a kernel, stated once.

`freebsd.py` and `linux.py` keep it; `tests/contract` holds them to it.  All of
it is for one thread, the main one: on Linux a probe dies with the thread that
started it (PR_SET_PDEATHSIG, prctl(2)).
"""

import abc
import heapq
import itertools
import os
import re
import signal
import struct
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar

from jaildaemon.errors import JaildaemonError, Refused

# --- the helper's numbers: helper/helper.h, compared by tests/helper -------

RECORD = struct.Struct("<BBHi")
RECORD_PID, RECORD_READY, RECORD_ERROR = b"PRE"
PARAMS_HEAD = struct.Struct("<IIIIIHH")
PARAMS_MAGIC = 0x3150444A
LABEL_MAX = 1000
FD_STATUS, FD_GO, FD_JAIL, FD_IMAGE, FD_USERNS = 3, 4, 5, 6, 7
FLAG_KEEP_GROUPS, FLAG_AT_ONCE = 2, 4
LABEL_NONE, LABEL_APPARMOR, LABEL_SELINUX = 0, 1, 2
_STEPS = """
    params signals close chdir session rlimit keyring dumpable label groups enter caps gid uid
    exec nnp seccomp clone deathsig name sandbox untrace userns
"""
STEPS = dict(enumerate(_STEPS.split(), 1))

EVERY_SIGNAL = signal.valid_signals()
"""For the helper's mask: HUP is blocked from its first instruction on."""
LONGEST_WAIT = 86400.0
"""A longer wait is made in pieces: epoll_wait(2) takes 2**31 - 1 ms, 24.8 days."""
ARMING_SECONDS = 5.0
"""How long a helper may take: a machine that is slower is better asked again later."""


def pack_params(
    *, flags: int, target: int, uid: int, gid: int, label_kind: int = 0, label: bytes = b""
) -> bytes:
    """Return the parameter record of helper.h."""
    return PARAMS_HEAD.pack(PARAMS_MAGIC, flags, target, uid, gid, label_kind, len(label)) + label


def reserve_helper_descriptors() -> None:
    """Occupy 3 to 7 for good: what is moved there for the helper never lies there already."""
    while (fd := os.open(os.devnull, os.O_RDONLY)) < FD_USERNS:
        continue
    if fd > FD_USERNS:
        os.close(fd)


# --- what the contract speaks of -------------------------------------------


@dataclass(frozen=True, slots=True)
class Death:
    """How a process ended: by a signal, or with an exit status; neither is known of a stranger."""

    signal: int | None
    status: int | None

    def __str__(self) -> str:
        """Return it as `list` and the log show it."""
        if self.signal is None:
            return "with an unknown status" if self.status is None else f"exit {self.status}"
        try:
            return signal.Signals(self.signal).name
        except ValueError:
            return f"signal {self.signal}"


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of a control connection; `outside` says why not ours."""

    uid: int
    pid: int
    outside: str | None


class Jail(abc.ABC):
    """One jail: this very one, whatever its name or number comes to mean later."""

    key: str
    """The same for every handle of the same jail, never for another."""
    name: str
    """As the host knows it, for people."""
    number: int
    """FreeBSD: the jid.  Linux: the host pid of its init."""

    def safe_name(self) -> str:
        """Return the name where it is plain, else the number: what a command is told."""
        return self.name if re.fullmatch(r"[A-Za-z0-9._-]+", self.name) else str(self.number)

    @abc.abstractmethod
    def alive(self) -> bool:
        """Say whether this very jail still runs."""

    @abc.abstractmethod
    def identity(self) -> dict[str, object]:
        """Return what a later daemon needs to tell whether it is this very jail: JSON."""

    def cgroups(self) -> list[tuple[str, str]]:
        """Return controllers and path of each control group of its init (Linux); OSError."""
        return []

    def started(self) -> int | None:
        """Return when its init was started, in clock ticks since the boot (Linux)."""
        return None

    def parent(self) -> str:
        """Return the title of its init's parent, a process of the host's root (Linux); OSError."""
        return ""

    @abc.abstractmethod
    def unsettled(self) -> str | None:
        """Say why it is ending or has ended; None while it lives on with processes of its own."""

    @abc.abstractmethod
    def close(self) -> None:
        """Give back what the handle holds."""


class EndedJail(Jail):
    """A jail that is no more, for what of it still goes on: a command it started."""

    def __init__(self, name: str, key: str) -> None:
        self.name, self.key, self.number = name, key, 0

    def alive(self) -> bool:
        """Say no."""
        return False

    def identity(self) -> dict[str, object]:
        """Return what no jail has."""
        return {}

    def unsettled(self) -> str | None:
        """Say that it has ended."""
        return "the jail has ended"

    def close(self) -> None:
        """Hold nothing, give back nothing."""


class ArmingError(JaildaemonError):
    """A probe could not be armed; `lost` when its jail is gone."""

    lost = False


class OursToo(Refused):
    """A process is in the namespaces of the daemon itself, so in no jail."""


class Again(ArmingError):
    """The try failed, and the backend knows another way: try again at once."""


class JailLost(ArmingError):
    """The jail ended, or is no longer the same."""

    lost = True
    exit_code = 4
    varlink = "org.jaildaemon.NoSuchJail"


class Watcher(abc.ABC):
    """The event loop of the kernel at hand: descriptors, processes, deadlines."""

    def __init__(self) -> None:
        self._deadlines: list[tuple[float, int]] = []
        """A heap of times and handles; a handle without a call was cancelled."""
        self._due: dict[int, Callable[[], None]] = {}
        self._ids = itertools.count()

    @abc.abstractmethod
    def watch_fd(self, fd: int, ready: Callable[[], None], *, write: bool = False) -> None:
        """Call `ready` whenever `fd` can be read (or, with `write`, written)."""

    @abc.abstractmethod
    def unwatch_fd(self, fd: int) -> None:
        """Stop.  To be called before `fd` is closed."""

    @abc.abstractmethod
    def watch_process(self, pid: int, ended: Callable[[Death], None]) -> None:
        """Reap our child `pid` when it has ended, then call `ended`.

        Safe however early it ends: an unreaped child keeps its pid.
        """

    @abc.abstractmethod
    def children(self) -> list[int]:
        """Return the pids of the children that are watched and not reaped yet."""

    @abc.abstractmethod
    def watch_other(self, pid: int, ended: Callable[[Death], None]) -> None:
        """Call `ended` when `pid`, which is not our child, has ended.

        How it ended may be unknown: a Death of None and None (Linux).
        """

    @abc.abstractmethod
    def signal_process(self, pid: int, signum: int) -> None:
        """Signal a watched process.  One that has ended already is left alone."""

    @abc.abstractmethod
    def _wait(self, seconds: float | None) -> None:
        """Wait once and make the calls that are due; None waits for good."""

    @abc.abstractmethod
    def close(self) -> None:
        """Give back the kernel's objects."""

    def call_in(self, seconds: float, call: Callable[[], None]) -> int:
        """Call after `seconds`, on the monotonic clock; returns a handle to cancel."""
        handle = next(self._ids)
        self._due[handle] = call
        heapq.heappush(self._deadlines, (time.monotonic() + seconds, handle))
        return handle

    def cancel(self, handle: int) -> None:
        """Forget a deadline; one that is past or cancelled already is no error."""
        self._due.pop(handle, None)

    def wait(self) -> None:
        """Wait for the next event or deadline, and make the calls that are due.

        There may be none: of a long wait this is a piece.
        """
        while self._deadlines and self._deadlines[0][1] not in self._due:
            heapq.heappop(self._deadlines)
        seconds = self._deadlines[0][0] - time.monotonic() if self._deadlines else None
        self._wait(None if seconds is None else min(max(0.0, seconds), LONGEST_WAIT))
        now = time.monotonic()
        while self._deadlines and self._deadlines[0][0] <= now:
            call = self._due.pop(heapq.heappop(self._deadlines)[1], None)
            if call is not None:
                call()


class Backend(abc.ABC):
    """One kernel's jails and probes."""

    watcher: Watcher
    tell: Callable[[str], None] = staticmethod(lambda _: None)  # what no rule can be told
    signals: ClassVar[dict[str, int]]
    """The numbers of the signals that a rule may have."""
    state_directory: ClassVar[str]
    """Where a daemon at the default socket keeps its state."""
    most_probes: ClassVar[int | None] = None
    """How many may end at the same instant without harm to the host, if that is bounded."""
    spawns_sessions: ClassVar[bool]
    """Whether posix_spawn(3) can begin a session (POSIX_SPAWN_SETSID; not on FreeBSD)."""

    @abc.abstractmethod
    def boot_id(self) -> str:
        """Return what tells this boot of the system from any other."""

    @abc.abstractmethod
    def recover(self, identity: dict[str, object], probe: int | None = None) -> Jail:
        """Return the very jail that had this identity in this boot; NoSuchJail says why not.

        `probe` is a child of ours, not reaped, that was verified to be in that jail.
        """

    @abc.abstractmethod
    def adopt(self, jail: Jail, pid: int) -> None:
        """Take note of a probe that stood in `jail` before the daemon replaced itself by exec."""

    @abc.abstractmethod
    def watch_end(self, jail: Jail, ended: Callable[[], None]) -> Callable[[], None]:
        """Call `ended`, once and never within this call, when `jail` has ended.

        Returns what stops it.  A kernel that does not tell (FreeBSD before 15) never
        calls: then who arms a probe, or loses one, finds it out.
        """

    def jail_names(self) -> list[str]:
        """Return the full names of the running jails that are children of our own one.

        Where the kernel does not name jails (Linux) there are none.
        """
        return []

    def watch_jails(self, begun: Callable[[], None]) -> Callable[[], None] | None:
        """Call `begun` whenever a jail may have begun; returns what stops it.

        None where the kernel does not tell: then who wants to know has to look.
        """
        del begun
        return None

    @abc.abstractmethod
    def start_time(self, pid: int) -> int:
        """Return what with its pid names a process within a boot; OSError."""

    @abc.abstractmethod
    def find_run(
        self, run: str, pid: int | None, *, uid: int | None, start_time: int | None = None
    ) -> int | None:
        """Return the pid of the shell that runs `run`, by `pid` and `start_time`, if it lives.

        Without both: who has JAILDAEMON_RUN, leads a session, is `uid`'s and in no jail.
        """

    @abc.abstractmethod
    def resolve(self, text: str) -> Jail:
        """Turn what -j was given into a jail; NoSuchJail, Refused."""

    @abc.abstractmethod
    def spawn(self, jail: Jail, title: str, uid: int, gid: int) -> "Spawned":
        """Start the helper; OSError where it cannot be started."""

    @abc.abstractmethod
    def probe_reported(self, jail: Jail, untrusted_pid: int, helper: int) -> int:
        """Check a pid that came up the status pipe of `helper`; returns it, or ArmingError."""

    def held_up(self, jail: Jail, helper: int) -> ArmingError | None:  # noqa: ARG002
        """Say what in the jail holds the helper up, if anything; another try gets by it."""
        return None

    @abc.abstractmethod
    def verify(self, jail: Jail, pid: int) -> None:
        """Check that probe `pid` is where it must be, now; JailLost, ArmingError."""

    @abc.abstractmethod
    def explain(self, jail: Jail, step: str, error: int) -> JaildaemonError:
        """Say what a helper's failed step means, and what can be done."""

    @abc.abstractmethod
    def strays(self, helper: int) -> list[int]:
        """Kill, and return to be reaped, what came of this helper and nobody watches (Linux)."""

    def over(self, helper: int) -> None:  # noqa: B027 - FreeBSD has no strays
        """Take note that the arming of this helper is over: what else came of it is a stray."""

    def reap_orphans(self) -> None:  # noqa: B027 - most have none
        """Reap children that others left to us, where we are PID 1 of a PID namespace (Linux)."""

    @abc.abstractmethod
    def first_limits(self, *, room: bool = False) -> AbstractContextManager[None]:
        """Within it what we start gets the limits we were started with, where we raised our own.

        With `room` two more descriptors can be opened under them.
        """

    @abc.abstractmethod
    def peer(self, fd: int) -> Peer:
        """Say who is at the other end of a connected Unix-domain socket."""


@dataclass(frozen=True, slots=True)
class Spawned:
    """A started helper: its pid, and our ends of its two pipes."""

    helper_pid: int
    probe_pid: int | None
    """Known from the start where the helper becomes the probe itself (FreeBSD)."""
    status_fd: int
    go_fd: int


class ProbeOwner(abc.ABC):
    """Who is told of a probe's life: `armed`, then `ended`; or `failed` alone."""

    __slots__ = ()

    @abc.abstractmethod
    def armed(self) -> None:
        """Take note that the probe sleeps in the jail."""

    @abc.abstractmethod
    def failed(self, error: JaildaemonError) -> None:
        """Take note that no probe came of it, and that nothing is left of the try."""

    @abc.abstractmethod
    def ended(self, death: Death) -> None:
        """Take note that the armed probe ended, and is reaped."""
