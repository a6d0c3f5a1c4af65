# SPDX-License-Identifier: BSD-2-Clause
"""backends/probe.py against the fake: an arming that another way may help."""

import errno
from collections.abc import Iterator

import pytest

from jaildaemon.backends.base import RECORD_ERROR, RECORD_READY, Death
from tests.contract.fake import record
from tests.contract.stage import Stage, pid_record, report

READY = record(RECORD_READY)


@pytest.fixture
def stage() -> Iterator[Stage]:
    """Give an arming of the two-process kind, under way."""
    made = Stage()
    yield made
    made.end()


FAILED = record(RECORD_ERROR, 15, errno.ETXTBSY)


def fail_again(stage: Stage) -> None:
    """Let the helper that is there fail, and end."""
    (helper,) = stage.backend.helpers
    helper.tell(FAILED)
    stage.backend.end(helper.process, Death(None, 1))
    stage.settle()


def test_where_another_way_is_known_it_is_tried_at_once(stage: Stage) -> None:
    stage.backend.other_ways = 1
    first = stage.helper.process.pid
    fail_again(stage)
    assert stage.owner.told == []
    (helper,) = stage.backend.helpers
    assert helper.process.pid != first
    assert (helper.title, helper.ids) == ("jaildaemon: BELL", (0, 0))
    assert stage.backend.over_helpers == [first]
    helper.tell(READY + pid_record(stage.backend.birth(helper)))
    stage.settle()
    assert stage.owner.told == ["armed"]
    assert stage.backend.over_helpers == [first, helper.process.pid]
    stage.backend.end(helper.process, Death(None, 0))


def test_the_third_try_is_the_last(stage: Stage) -> None:
    stage.backend.other_ways = 100
    fail_again(stage)
    fail_again(stage)
    assert stage.owner.told == []
    fail_again(stage)
    assert stage.owner.told == ["failed"]
    assert stage.backend.other_ways == 97
    assert "step exec of the helper failed: Text file busy" in str(stage.owner.error)


def test_what_was_withdrawn_is_not_tried_again(stage: Stage) -> None:
    stage.backend.other_ways = 1
    stage.helper.tell(FAILED)
    stage.backend.watcher.wait()  # read, and the helper is not reaped yet
    stage.probe.kill()
    stage.settle()
    assert stage.owner.told == ["failed"]
    assert "withdrawn before it was armed" in str(stage.owner.error)


def test_a_helper_that_says_nothing_is_asked_for_what_holds_it(stage: Stage) -> None:
    stage.backend.holds = True
    first = stage.helper.process.pid
    stage.backend.watcher.pass_time(0.99)
    assert [helper.process.pid for helper in stage.backend.helpers] == [first]
    stage.backend.watcher.pass_time(0.02)
    (helper,) = stage.backend.helpers
    assert helper.process.pid != first
    assert stage.owner.told == []
    stage.backend.holds = False
    stage.backend.watcher.pass_time(4.9)
    assert stage.owner.told == []
    stage.backend.watcher.pass_time(0.2)
    assert stage.owner.told == ["failed"]


def test_a_helper_whose_probe_was_born_is_not_held(stage: Stage) -> None:
    stage.backend.holds = True
    assert report(stage, pid_record(stage.backend.birth(stage.helper))) == ""
    stage.backend.watcher.pass_time(4.9)
    assert stage.owner.told == []


def test_a_probe_that_clones_before_it_is_ready_is_not_armed(stage: Stage) -> None:
    assert report(stage, pid_record(stage.backend.birth(stage.helper))) == ""
    clone = stage.backend.birth(stage.helper)
    stage.backend.watcher.pass_time(0.3)
    assert stage.owner.told == ["failed"]
    assert "somebody in the jail makes it clone" in str(stage.owner.error)
    assert clone.pid not in stage.backend.processes
