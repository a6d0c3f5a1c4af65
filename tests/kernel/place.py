# SPDX-License-Identifier: BSD-2-Clause
"""Where a session works, and the ledger of what must be undone, kept for a crash.

Everything that outlives a process is written into the ledger before it is made.
The end of a session and the start of the next one after a crash undo it by the
same code.
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from tests.kernel.events import TooLate, wait_gone
from tests.kernel.processes import birth

HOME = Path(tempfile.gettempdir()) / f"jaildaemon-kernel.{os.getuid()}"
CGROUPS = Path("/sys/fs/cgroup")
UNDO_SECONDS = 60


def _end_process(pid: int, born: str) -> None:
    """End a process, if it is still the same."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if birth(pid) != born:
            return
        with contextlib.suppress(ProcessLookupError, TooLate):
            os.kill(pid, number)
            wait_gone(pid)


def _remove_cgroup(name: str) -> None:
    hierarchies = [CGROUPS, *CGROUPS.iterdir()] if CGROUPS.exists() else []
    for top in (hierarchy / name for hierarchy in hierarchies):
        for path, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):  # busy: somebody else's after all
                os.rmdir(path)


def undo(what: str, *words: str) -> None:
    """Undo one entry of a ledger; what is undone already is no error."""
    match what:
        case "run":
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(words, capture_output=True, check=False, timeout=UNDO_SECONDS)
        case "process":
            _end_process(int(words[0]), words[1])
        case "file":
            Path(words[0]).unlink(missing_ok=True)
        case "link":  # while it leads where ours did: another session may have its own there
            with contextlib.suppress(OSError):
                if os.readlink(words[0]) == words[1]:
                    os.unlink(words[0])
        case "cgroup":
            _remove_cgroup(words[0])


class Place:
    """The session's directory.  Others may look into it, as ids of a user namespace must."""

    def __init__(self) -> None:
        HOME.mkdir(mode=0o755, exist_ok=True)
        if HOME.stat().st_uid != os.getuid():
            msg = f"{HOME} is not ours"
            raise PermissionError(msg)
        self._count = 0
        # Another session that starts now must not take ours for a dead one's.
        home_fd = os.open(HOME, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(home_fd, fcntl.LOCK_EX)
        try:
            names = sorted(HOME.iterdir())
            self.leftovers = [name.name for name in names if self._clean_up(name)]
            self.directory = Path(tempfile.mkdtemp(prefix="s.", dir=HOME))
            self._lock = self._try_lock(self.directory)
        finally:
            os.close(home_fd)
        self.directory.chmod(0o755)

    @staticmethod
    def _try_lock(directory: Path) -> int | None:
        """Lock a session's directory; None while the session lives."""
        fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        return fd

    @classmethod
    def _clean_up(cls, directory: Path) -> bool:
        """Undo what a session left; False while it lives."""
        fd = cls._try_lock(directory)
        if fd is None:
            return False
        with contextlib.suppress(FileNotFoundError):
            lines = (directory / "ledger").read_text(encoding="utf-8").splitlines()
            for line in reversed(lines):
                with contextlib.suppress(json.JSONDecodeError):  # torn by the crash
                    undo(*json.loads(line))
        shutil.rmtree(directory, ignore_errors=True)
        os.close(fd)
        return True

    def note(self, what: str, *words: str) -> None:
        """Note how to undo what is about to be done."""
        with (self.directory / "ledger").open("a", encoding="utf-8") as file:
            file.write(json.dumps([what, *words]) + "\n")

    def note_process(self, pid: int) -> None:
        """Note that a process must end with the session."""
        born = birth(pid)
        if born is not None:
            self.note("process", str(pid), born)

    def name(self, prefix: str) -> str:
        """Return a name that nothing else has, on this machine or in this session."""
        self._count += 1
        return f"{prefix}{os.getpid()}x{self._count}"

    @property
    def cgroup(self) -> str:
        """The cgroup under which the session's containers are."""
        return f"jaildaemon-kernel-{os.getpid()}"

    def new_directory(self, prefix: str = "d") -> Path:
        """Make a directory with a short path: a socket's has at most 103 bytes."""
        self._count += 1
        made = self.directory / f"{prefix}{self._count}"
        made.mkdir(mode=0o755)
        return made

    def close(self) -> None:
        """Undo everything."""
        if self._lock is not None:
            os.close(self._lock)
        self._clean_up(self.directory)
