# SPDX-License-Identifier: BSD-2-Clause
"""Programs of ours on FreeBSD: each opened once, a file that only root can change, and held."""

import os
import signal
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jaildaemon.backends import trust
from jaildaemon.core.text import utf8
from jaildaemon.errors import Refused

assert sys.platform.startswith("freebsd")

NOT_STARTED = 127
"""The exit status of a child that could not become the program, as a shell's."""


def unnamed_file(directory: Path) -> int:
    """Return an empty file without a name, in a directory of ours; OSError."""
    with tempfile.TemporaryFile(dir=directory) as file:
        return os.dup(file.fileno())


class Program:
    """A program of ours; what is started is what was examined, for good."""

    def __init__(self, name: str, path: Path) -> None:
        """Open it; Refused."""
        self.path = path
        try:
            self._fd = trust.open_trusted(path)
        except trust.Untrusted as error:
            raise error.refused("start", name) from error
        except OSError as error:
            why = f"the {name} cannot be used: {error.strerror or error}"
            hint = "build it with make, or install it again"
            raise Refused("start", str(path), why, hint) from error
        self._examined = _shape(os.fstat(self._fd))

    def start(
        self,
        argv: list[str],
        file_actions: Sequence[tuple[Any, ...]],
        setsigmask: Iterable[int] = (),
    ) -> int:
        """Start it without an environment; return its pid, OSError where it cannot be.

        By its path while that is what was examined: posix_spawn(3) knows no descriptor, and
        a fork of the daemon costs many times as much.  Where an upgrade has put another
        program there, or none, by fexecve(2); then a failure is an exit status of 127.
        """
        words = [utf8(word) for word in argv]
        if self._in_place():
            return os.posix_spawn(
                self.path, words, {}, file_actions=file_actions, setsigmask=setsigmask
            )
        pid = os.fork()
        if pid == 0:
            self._become(words, file_actions, setsigmask)
        return pid

    def close(self) -> None:
        """Let it go."""
        os.close(self._fd)

    def _in_place(self) -> bool:
        try:
            return _shape(os.stat(self.path, follow_symlinks=False)) == self._examined
        except OSError:
            return False

    def _become(
        self,
        argv: list[bytes],
        file_actions: Sequence[tuple[Any, ...]],
        setsigmask: Iterable[int],
    ) -> None:
        """Be the program, in the child of a fork; nothing of the daemon may go on in it."""
        try:
            for kind, *words in file_actions:
                if kind == os.POSIX_SPAWN_DUP2:
                    os.dup2(*words)
                else:
                    fd, path, flags, mode = words
                    opened = os.open(path, flags, mode)
                    os.dup2(opened, fd)
            signal.pthread_sigmask(signal.SIG_SETMASK, setsigmask)
            os.execve(self._fd, argv, {})  # noqa: S606 - no shell is meant
        finally:
            os._exit(NOT_STARTED)


def _shape(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
