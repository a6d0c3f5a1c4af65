# SPDX-License-Identifier: BSD-2-Clause
"""What a test may ask of a jail, of whatever kind."""

import abc
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import ClassVar

from tests.kernel.events import PATIENCE_SECONDS
from tests.kernel.place import Place

Done = subprocess.CompletedProcess[str]


class NoSuchKind(Exception):
    """This kind of jail cannot be made here; the text says why."""


def is_package(name: str) -> bool:
    """Say whether apt knows a package."""
    if shutil.which("apt-cache") is None:
        return False
    shown = subprocess.run(["apt-cache", "show", name], capture_output=True, check=False)
    return shown.returncode == 0


def package_of(names: str) -> str:
    """Return that of the packages, "docker-cli|docker.io", which this system has; else the last."""
    *others, last = names.split("|")
    return next((name for name in others if is_package(name)), last)


def must_have(programs: Mapping[str, str]) -> None:
    """NoSuchKind, with the package that is missing, where a program is not here."""
    for program, packages in programs.items():
        if shutil.which(program) is None:
            msg = f"no {program} here: install the package {package_of(packages)}"
            raise NoSuchKind(msg)


def must(argv: Sequence[str], **options: object) -> Done:
    """Run what makes a jail; NoSuchKind with its last words where it fails."""
    try:
        done = subprocess.run(  # type: ignore[call-overload]
            argv,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_SECONDS,
            **options,
        )
    except subprocess.TimeoutExpired:
        msg = f"{argv[0]} was not done in {PATIENCE_SECONDS:.0f} s"
        raise NoSuchKind(msg) from None
    assert isinstance(done, subprocess.CompletedProcess)
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip().splitlines()
        msg = f"{argv[0]} failed: {words[-1] if words else done.returncode}"
        raise NoSuchKind(msg)
    return done


class Jail(abc.ABC):
    """One jail.  `start` makes it, `stop` ends it in its engine's own gentle way."""

    kind: ClassVar[str]
    programs: ClassVar[dict[str, str]] = {}
    """What it needs, and the package that has it: "docker-cli|docker.io" is the first there is."""
    full: ClassVar[bool] = False
    """Whether every behaviour is tested in it, or the core only."""
    first_id: int = 0
    """The host's id of the jail's uid 0 and gid 0."""
    ids: int = 2**32 - 1
    """How many ids the jail has."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._ended = False

    @abc.abstractmethod
    def start(self) -> None:
        """Make it; NoSuchKind."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """What -j takes."""

    @property
    @abc.abstractmethod
    def space(self) -> str:
        """Its PID namespace, or jid, as processes.look() shows it."""

    @abc.abstractmethod
    def argv(self, *inside: str, uid: int = 0) -> list[str]:
        """Return the command that runs `inside` in the jail, as `uid` of the jail."""

    @abc.abstractmethod
    def _stop(self) -> None:
        """End it in its engine's own gentle way."""

    def stop(self) -> None:
        """End it, once."""
        if not self._ended:
            self._ended = True
            self._stop()

    @abc.abstractmethod
    def ps(self) -> dict[int, str]:
        """Return what ps(1) shows inside: the arguments by pid."""

    def inside(self, *argv: str, uid: int = 0) -> Done:
        """Run a command in the jail."""
        return subprocess.run(
            self.argv(*argv, uid=uid),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_SECONDS,
        )

    def inside_sh(self, script: str, uid: int = 0) -> Done:
        """Run a script by sh(1) in the jail."""
        return self.inside("sh", "-c", script, uid=uid)

    def shown(self, title: str | None) -> str:
        """Return what ps(1) inside must show of a probe."""
        return "jaildaemon" if title is None else f"jaildaemon: {title}"

    def find(self, title: str | None) -> list[int]:
        """Return the pids, as inside, of the probes with exactly this title."""
        return [pid for pid, args in self.ps().items() if args == self.shown(title)]

    def ring(self, title: str | None) -> None:
        """Send the signal from inside to the one probe with this title."""
        pids = self.find(title)
        assert len(pids) == 1, self.ps()
        done = self.inside_sh(f"kill -HUP {pids[0]}")
        assert done.returncode == 0, done.stderr

    plain_sh_ring: ClassVar[str]
    """Sends the signal by plain sh(1), without pkill(1); TITLE stands for the title."""


def parse_ps(text: str) -> dict[int, str]:
    """Return the arguments by pid, from lines of a pid and arguments."""
    rows = (line.strip().partition(" ") for line in text.splitlines())
    return {int(pid): args.strip() for pid, _, args in rows if pid.isdecimal()}
