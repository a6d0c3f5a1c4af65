# SPDX-License-Identifier: BSD-2-Clause
"""The journal's file: read once at the start, then appended to, a write a decision.

No fsync: what was written survives the daemon's death, not the host's, and
across boots no trigger is replayed.
"""

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path

from jaildaemon.backends import trust
from jaildaemon.core.fleet import Now
from jaildaemon.core.journal import BadRecord, History, Record, decode, encode
from jaildaemon.daemon.logs import Logger
from jaildaemon.errors import Refused

NAME = "journal.jsonl"
OLD_NAME = "journal.1.jsonl"
FOUND_NAME = "journal.found.jsonl"
"""What somebody else put in the journal's place."""
MAX_BYTES = 10_000_000
"""Then a new journal is begun; the old one stays as OLD_NAME."""
READ_BYTES = 65536
"""Read at a time for somebody who wants the log: the probes are not kept waiting."""
MAX_UNWRITTEN = 1000
"""Records kept in memory while nothing can be written: the first ones tell enough."""
MAX_COMPLAINTS = 20
"""Lines of the log about lines that are no record: all of 10 MB may be garbage."""


class Journal:
    """The journal in `directory`, which is ours alone and locked."""

    def __init__(self, directory: Path, log: Logger, now: Callable[[], Now]) -> None:
        self.directory, self._log, self._now = directory, log, now
        self.history = History()
        self._begun = 0
        """How long the file was when it was begun: many rules alone may be MAX_BYTES."""
        self.written: Callable[[], None] = lambda: None
        """Called after what was written: somebody may be reading along."""
        self._unwritten: list[Record] = []
        """What could not be written: refusals that somebody will ask for."""
        self.remake: Callable[[], None] = lambda: None
        """Makes the directory anew; OSError."""
        self.moved: str | None = None
        """That the file was moved, removed or cut short, and what was done."""
        try:
            self._fd = self._open(NAME)
            self._size = self._load()
        except OSError as error:
            path = directory / NAME
            raise Refused("start", str(path), f"the journal: {error.strerror}") from error

    def _open(self, name: str) -> int:
        # What it says is run: who could write it is asked of what is open.
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
            return trust.open_trusted(self.directory / name, flags)
        except trust.Untrusted as error:
            raise PermissionError(errno.EPERM, error.why) from error

    def _load(self) -> int:
        """Read it all; return its size, a torn last line cut off."""
        with os.fdopen(os.dup(self._fd), "rb") as file:
            data = file.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            self._log.warning(f"journal: cut off a torn line of {len(data) - whole} bytes")
            os.ftruncate(self._fd, whole)
        skipped = 0
        for number, line in enumerate(data[:whole].splitlines(), 1):
            try:
                self.history.read(decode(line))
            except BadRecord as error:
                # Fail closed: a record that cannot be read starts nothing.
                self.history.skip()
                skipped += 1
                if skipped <= MAX_COMPLAINTS:
                    self._log.warning(f"journal: line {number} is skipped: {error}")
        if skipped > MAX_COMPLAINTS:
            self._log.warning(f"journal: {skipped - MAX_COMPLAINTS} more lines are skipped")
        return whole

    def record(self, kind: str, **values: object) -> Record:
        """Return a record of `kind`, made now; what is None is left out."""
        now = self._now()
        present = {name: value for name, value in values.items() if value is not None}
        return {"kind": kind, "t": round(now.wall, 3), "s": round(now.steady, 6), **present}

    def write(self, *records: Record) -> None:
        """Append `records` in one write, after what could not be written before; OSError."""
        self.append(*records)
        self.learn(*records)

    def append(self, *records: Record) -> None:
        """Do the first half of `write`, for who has no time: `learn` must follow."""
        self.stay()
        data = encode([*self._unwritten, *records])
        written = os.write(self._fd, data)
        if written < len(data):
            # Half a line would be taken for a torn one, and what follows with it.
            os.ftruncate(self._fd, self._size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._unwritten.clear()
        self._size += written

    def learn(self, *records: Record) -> None:
        """Know what `append` has written."""
        for record in records:
            self.history.read(dict(record))
        if self._size > self._begun + MAX_BYTES:
            self._begin_anew()
        self.written()

    def keep(self, record: Record) -> None:
        """Write `record` now, or with the next that can be written."""
        try:
            self.write(record)
        except OSError as error:
            self._log.error(f"journal: {error.strerror}; kept in memory: {record['kind']}")
            # It has happened all the same: what is decided next must know of it.
            self.history.read(dict(record))
            if len(self._unwritten) < MAX_UNWRITTEN:
                self._unwritten.append(record)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def sync(self) -> None:
        """Have what was written survive the host too (fsync(2))."""
        os.fsync(self._fd)

    @property
    def unwritten(self) -> int:
        """How many records wait until something can be written again."""
        return len(self._unwritten)

    def reader(self) -> "Reader":
        """Return what reads the journal, from the oldest record there is."""
        return Reader(self.directory)

    def check(self) -> None:
        """Raise OSError while nothing can be written."""
        self.stay()
        if self._unwritten:
            self.write()

    def stay(self) -> None:
        """Begin anew where the file is no longer what its name means; OSError.

        Moved by a log rotation, removed, cut short: at the next start all would be lost.
        """
        what = self._missing()
        if what is None:
            return
        path = self.directory / NAME
        if not self.directory.is_dir():
            self.remake()
        self._keep_the_rest()
        self._replace()
        self._unwritten.clear()  # the new one begins with what came of it
        kept = "begun anew, with all rules, holds and limits"
        self.moved = f"the journal {path} {what}: it was {kept}"
        self._log.error(self.moved)

    def _missing(self) -> str | None:
        try:
            there = os.lstat(self.directory / NAME)
        except (FileNotFoundError, NotADirectoryError):
            return "was moved or removed"
        ours = os.fstat(self._fd)
        if not os.path.samestat(ours, there):
            return "was replaced"
        return "was cut short" if ours.st_size < self._size else None

    def _keep_the_rest(self) -> None:
        """Keep what was moved away for `log`, and what was put in its place."""
        path, old_path = self.directory / NAME, self.directory / OLD_NAME
        # Whatever fails here, the new one is more important.
        with contextlib.suppress(OSError):
            if not os.path.samestat(os.lstat(path), os.fstat(self._fd)):
                os.replace(path, self.directory / FOUND_NAME)
        # ENOENT: it has no name any more, or descriptors have none here (FreeBSD).  The
        # directory's descriptor means nothing: with one, Python follows the link.
        with contextlib.suppress(OSError):
            os.link(f"/proc/self/fd/{self._fd}", f"{old_path}.new", src_dir_fd=self._fd)
            os.replace(f"{old_path}.new", old_path)

    def _begin_anew(self) -> None:
        """Replace a file that has become long; where that fails go on with it."""
        try:
            path, old_path = self.directory / NAME, self.directory / OLD_NAME
            # A link, and then the new one in its place: there is a journal at any moment.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(old_path)
            os.link(path, old_path)
            self._replace()
        except OSError as error:
            self._log.error(f"journal: no new one could be begun: {error.strerror}")
            self._begun = self._size  # another try when as much again has been written

    def _replace(self) -> None:
        """Put a new file with what still lives in the place of the journal; OSError."""
        data = encode(self.history.snapshot())
        new_fd = self._open(f"{NAME}.new")
        try:
            os.ftruncate(new_fd, 0)
            if os.write(new_fd, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.replace(self.directory / f"{NAME}.new", self.directory / NAME)
        except OSError:
            os.close(new_fd)
            raise
        os.close(self._fd)
        self._fd, self._size, self._begun = new_fd, len(data), len(data)


class Reader:
    """Reads both files from the first record on, some at a time, and then what is added.

    It keeps a place in a file, not the records, so one that is slow costs no memory.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._buffer = b""
        try:
            self._fd = self._open(OLD_NAME)
        except FileNotFoundError:
            self._fd = self._open(NAME)

    def _open(self, name: str) -> int:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        return os.open(self._directory / name, flags)

    def read(self) -> list[Record] | None:
        """Return the next records; None when there are no more for now; OSError."""
        data = os.read(self._fd, READ_BYTES)
        if not data and not self._next_file():
            return None
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        records = []
        for line in lines:
            with contextlib.suppress(BadRecord):  # logged when the daemon read it
                records.append(decode(line))
        return records

    def _next_file(self) -> bool:
        """Go on where this file went on, once all of it is read."""
        ours = os.fstat(self._fd)
        if os.path.samestat(ours, os.stat(self._directory / NAME)):
            return False
        try:
            follows = NAME if os.path.samestat(ours, os.stat(self._directory / OLD_NAME)) else None
        except FileNotFoundError:
            follows = NAME
        # A reader that slept through a whole file finds it under the old name.
        fd = self._open(follows or OLD_NAME)
        os.close(self._fd)
        self._fd, self._buffer = fd, b""
        return True

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)
