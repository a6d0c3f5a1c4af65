# SPDX-License-Identifier: BSD-2-Clause
"""Changes of a directory, by inotify(7): for engines without a stream of events of their own."""

import contextlib
import ctypes
import os
from collections.abc import Callable

from jaildaemon.engines.base import Loop, Stream
from jaildaemon.engines.endpoint import EngineError

IN_CREATE, IN_DELETE, IN_MOVED_FROM, IN_MOVED_TO = 0x100, 0x200, 0x40, 0x80
IN_CLOSE_WRITE, IN_DELETE_SELF, IN_MOVE_SELF, IN_ONLYDIR = 0x8, 0x400, 0x800, 0x01000000
IN_NONBLOCK, IN_CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC
CHANGES = IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_CLOSE_WRITE
READ_BYTES = 65536

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: int | bytes) -> int:
    result: int = getattr(_libc, name)(*arguments)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), name)
    return result


class DirectoryStream(Stream):
    """Pokes when something changes in `path`; with a `depth` of 2 in its directories, too.

    One that is not there yet is waited for in the nearest directory that is.
    """

    def __init__(
        self,
        loop: Loop,
        path: str,
        poke: Callable[[], None],
        ended: Callable[[str], None],
        *,
        depth: int = 1,
    ) -> None:
        self._loop, self._path, self._poke, self._ended = loop, path, poke, ended
        self._depth = depth
        self._above = -1
        """The watch of a directory above, while `path` is not there."""
        try:
            self._fd = _call("inotify_init1", IN_NONBLOCK | IN_CLOEXEC)
        except (OSError, AttributeError) as error:
            raise EngineError(f"{path} cannot be watched: {error}") from error
        try:
            self._watch_all()
            loop.watch_fd(self._fd, self._readable)
        except OSError as error:
            os.close(self._fd)
            raise EngineError(f"{path} cannot be watched: {error.strerror}") from error

    def _nearest(self) -> str:
        path = self._path
        while not os.path.isdir(path):
            path = os.path.dirname(path)
        return path

    def _watch_all(self) -> None:
        """Watch what there is; to watch something again changes nothing (inotify(7))."""
        path, above = "", self._above
        # Once more if meanwhile there is something nearer.
        while path != self._nearest():
            path = self._nearest()
            self._above = self._add(path)
        if path == self._path:
            self._above = -1
        if above not in (-1, self._above):
            with contextlib.suppress(OSError):  # EINVAL: it went with its directory
                _call("inotify_rm_watch", self._fd, above)
        if path == self._path and self._depth > 1:
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        self._add(entry.path)

    def _add(self, path: str) -> int:
        flags = CHANGES | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR
        try:
            return _call("inotify_add_watch", self._fd, os.fsencode(path), flags)
        except (FileNotFoundError, NotADirectoryError):
            return -1  # gone in this instant: its parent tells

    def _readable(self) -> None:
        try:
            while os.read(self._fd, READ_BYTES):
                continue
        except BlockingIOError:
            pass
        try:
            self._watch_all()
        except OSError as error:
            self.stop()
            self._ended(f"{self._path} cannot be watched: {error.strerror}")
            return
        if self._above < 0:
            self._poke()

    def stop(self) -> None:
        """Close it."""
        if self._fd >= 0:
            self._loop.unwatch_fd(self._fd)
            os.close(self._fd)
            self._fd = -1


def reappearance(loop: Loop, path: str, back: Callable[[], None]) -> Stream | None:
    """Call `back` when a file is made at `path`, or made anew; None where that cannot be watched.

    Whoever waits for it tries again after a while in any case.
    """
    stream: DirectoryStream | None = None
    before = _made(path)

    def changed() -> None:
        nonlocal before
        now = _made(path)
        if now not in (None, before):
            back()
        before = now

    try:
        place = os.path.realpath(os.path.dirname(path))
        stream = DirectoryStream(loop, place, changed, lambda _: None)
    except EngineError:
        return None
    return stream


def _made(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_ctime_ns
