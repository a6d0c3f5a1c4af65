# SPDX-License-Identifier: BSD-2-Clause
"""The journal on a disk that takes half a line, or nothing: nothing is lost, nothing is torn."""

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jaildaemon.core.fleet import Now
from jaildaemon.core.journal import decode
from jaildaemon.daemon.journal import MAX_UNWRITTEN, Journal
from tests.logged import logger_into

Write = Callable[[int, bytes], int]


def opened(directory: Path) -> Journal:
    """Open it."""
    return Journal(directory, logger_into([]), lambda: Now(time.time(), time.monotonic()))


def begun(directory: Path) -> Journal:
    """Begin one with a rule."""
    journal = opened(directory)
    journal.write(journal.record("boot", boot="here"))
    journal.write(
        journal.record("rule", rule="t1", jail="1", command="x", policy={"limit": "5/1h"})
    )
    return journal


def test_of_a_short_write_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = begun(tmp_path)
    before = (tmp_path / "journal.jsonl").read_bytes()
    whole: Write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: whole(fd, data[: len(data) // 2]))
    with pytest.raises(OSError, match="No space left"):
        journal.write(journal.record("hold", rule="t1", reason="x"))
    monkeypatch.undo()
    assert (tmp_path / "journal.jsonl").read_bytes() == before
    assert journal.history.rules["t1"].held is None
    journal.write(journal.record("trigger", rule="t1", run="r1"))
    journal.close()
    again = opened(tmp_path)
    assert list(again.history.rules["t1"].runs) == ["r1"]
    again.close()


def test_what_cannot_be_written_has_happened_and_is_written_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = begun(tmp_path)

    def full(_fd: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    journal.keep(journal.record("hold", rule="t1", reason="a loop?"))
    assert journal.history.rules["t1"].held == "a loop?"
    assert journal.unwritten == 1
    for _ in range(2 * MAX_UNWRITTEN):
        journal.keep(journal.record("refused", rule="t1", reason="x"))
    assert journal.unwritten == MAX_UNWRITTEN
    monkeypatch.undo()
    journal.write(journal.record("trigger", rule="t1", run="r1"))
    assert journal.unwritten == 0
    journal.close()
    lines = (tmp_path / "journal.jsonl").read_bytes().splitlines()
    kinds = [str(decode(line)["kind"]) for line in lines]
    assert kinds[:3] == ["boot", "rule", "hold"]
    assert kinds[-1] == "trigger"
    assert len(kinds) == 3 + MAX_UNWRITTEN
