# SPDX-License-Identifier: BSD-2-Clause
"""backends/probe.py against the fake: every report, and whatever a jail's root may forge."""

import errno
import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaildaemon.backends.base import (
    RECORD,
    RECORD_ERROR,
    RECORD_PID,
    RECORD_READY,
    STEPS,
    ArmingError,
    Death,
)
from jaildaemon.backends.probe import Probe
from tests.contract.fake import FakeBackend, record
from tests.contract.fake_watcher import FakeProcess
from tests.contract.stage import Stage, WatchfulOwner, pid_record, report
from tests.contract.worlds import Owner

READY = record(RECORD_READY)


@pytest.fixture
def stage() -> Iterator[Stage]:
    """Give an arming of the two-process kind, under way."""
    made = Stage()
    yield made
    made.end()


# --- the honest ways ------------------------------------------------------------


def test_ready_may_come_before_the_pid_and_in_pieces(stage: Stage) -> None:
    whole = READY + pid_record(stage.backend.birth(stage.helper))
    for n, byte in enumerate(whole):
        assert report(stage, bytes([byte])) == ("armed" if n == len(whole) - 1 else "")


def test_ready_without_a_pid_arms_nothing(stage: Stage) -> None:
    stage.backend.birth(stage.helper)
    assert report(stage, READY) == ""


def test_a_pid_without_ready_arms_nothing(stage: Stage) -> None:
    assert report(stage, pid_record(stage.backend.birth(stage.helper))) == ""


def test_a_helper_that_takes_too_long_is_ended(stage: Stage) -> None:
    stage.backend.watcher.pass_time(4.99)
    assert stage.owner.told == []
    stage.backend.watcher.pass_time(0.02)
    assert stage.owner.told == ["failed"]
    assert str(stage.owner.error) == "attach: jail1: the helper was not done after 5 s"
    assert stage.backend.processes == {}


def test_a_helper_that_cannot_be_started_is_told_later_not_at_once() -> None:
    backend = FakeBackend()
    backend.spawn_error = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    owner = Owner()
    Probe(backend, backend.resolve(backend.add_jail()), owner).arm("jaildaemon", 0, 0)
    assert owner.told == []
    backend.watcher.settle()
    why = "attach: jail1: the helper cannot be started: Resource temporarily unavailable"
    assert (owner.told, str(owner.error)) == (["failed"], why)


@pytest.mark.parametrize("step", STEPS)
def test_each_step_is_reported_by_its_name(stage: Stage, step: int) -> None:
    why = report(stage, record(RECORD_ERROR, step, errno.EPERM))
    name = STEPS[step]
    assert why == f"attach: jail1: step {name} of the helper failed: Operation not permitted"


def test_a_signal_that_came_before_go_kills_after_it_and_counts(stage: Stage) -> None:
    process = stage.backend.birth(stage.helper)
    stage.backend.kill(process.pid, signal.SIGHUP)
    stage.helper.tell(READY + pid_record(process))
    stage.backend.end(stage.helper.process, Death(None, 0))
    stage.settle()
    assert stage.owner.told == ["armed", "ended"]
    assert stage.owner.death == Death(signal.SIGHUP, None)


# --- lies, and bad moments --------------------------------------------------------


NOT_ONE = "attach: jail1: the helper's report is not one"


@pytest.mark.parametrize(
    "untrusted",
    [
        b"\0" * 8,
        b"\xff" * 8,
        b"G" * 8,
        READY + READY,
        record(RECORD_ERROR, 0, 1),
        record(RECORD_ERROR, 24, 1),
        record(RECORD_ERROR, 255, -1),
        READY + b"X" * 8,
    ],
)
def test_what_is_no_report_ends_the_arming(stage: Stage, untrusted: bytes) -> None:
    assert report(stage, untrusted) == NOT_ONE


@pytest.mark.parametrize("pid", [-(2**31), -1, 0, 1, 99, 2**22 + 1, 2**31 - 1])
def test_a_pid_that_is_no_child_of_ours_is_refused(stage: Stage, pid: int) -> None:
    why = report(stage, record(RECORD_PID, 0, pid))
    assert why == "attach: jail1: the helper reported a pid that is not its own"


def test_the_helpers_own_pid_is_no_probe(stage: Stage) -> None:
    why = report(stage, pid_record(stage.helper.process))
    assert why == "attach: jail1: the helper reported a pid that is not its own"


def test_another_rules_probe_cannot_be_claimed_and_is_not_killed(stage: Stage) -> None:
    told: list[Death] = []
    other = stage.backend.add_process(jail=stage.jail_name)
    stage.backend.watcher.watch_process(other.pid, told.append)
    why = report(stage, pid_record(other) + READY)
    assert why == "attach: jail1: the helper reported a pid that is not its own"
    assert (other.death, told) == (None, [])
    stage.backend.kill(other.pid, signal.SIGKILL)


def test_a_second_pid_is_refused_and_both_are_ended(stage: Stage) -> None:
    process = stage.backend.birth(stage.helper)
    assert report(stage, pid_record(process) * 2) == NOT_ONE
    assert stage.backend.processes == {}


def test_a_probe_that_is_not_in_the_jail_is_refused(stage: Stage) -> None:
    process = stage.backend.birth(stage.helper)
    process.jail = stage.backend.add_jail()
    why = report(stage, READY + pid_record(process))
    assert why == "attach: jail1: the probe is not in the jail"


def test_garbage_behind_a_good_report_undoes_it(stage: Stage) -> None:
    good = READY + pid_record(stage.backend.birth(stage.helper))
    assert report(stage, good + b"X" * 8) == NOT_ONE


def test_a_probe_killed_between_ready_and_go_fails(stage: Stage) -> None:
    process = stage.backend.birth(stage.helper)
    stage.helper.tell(READY + pid_record(process))
    stage.backend.kill(process.pid, signal.SIGKILL)
    stage.backend.end(stage.helper.process, Death(None, 0))
    stage.settle()
    assert stage.owner.told == ["failed"]
    assert str(stage.owner.error) == "attach: jail1: the probe was killed while arming"


def test_a_probe_reaped_before_its_ready_is_read_is_not_looked_for_by_its_old_number(
    stage: Stage,
) -> None:
    process = stage.backend.birth(stage.helper)
    assert report(stage, pid_record(process)) == ""
    stage.backend.kill(process.pid, signal.SIGKILL)
    stage.settle()
    # The number is somebody else's now, in the same jail.
    stage.backend.processes[process.pid] = FakeProcess(process.pid, jail=stage.jail_name)
    assert report(stage, READY) == "attach: jail1: the probe was killed while arming"
    assert stage.backend.processes.pop(process.pid).death is None


def test_the_end_of_the_jail_between_ready_and_go_is_lost(stage: Stage) -> None:
    process = stage.backend.birth(stage.helper)
    stage.helper.tell(READY + pid_record(process))
    stage.backend.jails.clear()
    stage.settle()
    assert stage.owner.told == ["failed"]
    assert str(stage.owner.error) == "attach: jail1: the jail has ended"
    assert getattr(stage.owner.error, "lost", False) is True


def test_a_helper_that_ends_without_a_word_in_an_ended_jail_is_lost(stage: Stage) -> None:
    stage.backend.jails.clear()
    stage.backend.end(stage.helper.process, Death(None, 1))
    stage.settle()
    assert stage.owner.told == ["failed"]
    assert getattr(stage.owner.error, "lost", False) is True


def test_the_first_reason_is_the_one_that_is_told(stage: Stage) -> None:
    stage.helper.tell(b"X" * 8)
    stage.backend.watcher.wait()
    stage.probe.kill()
    stage.settle()
    assert (stage.owner.told, str(stage.owner.error)) == (["failed"], NOT_ONE)


def test_a_probe_killed_twice_is_told_once(stage: Stage) -> None:
    good = READY + pid_record(stage.backend.birth(stage.helper))
    assert report(stage, good) == "armed"
    stage.probe.kill()
    stage.probe.kill()
    stage.backend.end(stage.helper.process, Death(None, 0))
    stage.settle()
    stage.probe.kill()
    stage.settle()
    assert stage.owner.told == ["armed", "ended"]


# --- ended by the daemon, whatever it is doing -------------------------------------

FULL = ArmingError("attach", "jail1", "the journal cannot be written")


def test_a_probe_that_fails_before_anything_was_started_is_told_later_not_at_once() -> None:
    backend = FakeBackend()
    owner = WatchfulOwner(backend)
    probe = Probe(backend, backend.resolve(backend.add_jail()), owner)
    probe.fail(FULL)
    assert owner.told == []
    backend.watcher.settle()
    assert (owner.told, owner.error) == (["failed"], FULL)
    assert (backend.helpers, backend.watcher.idle) == ([], True)


def test_a_probe_that_fails_before_anything_in_an_ended_jail_is_lost() -> None:
    backend = FakeBackend()
    owner = Owner()
    probe = Probe(backend, backend.resolve(backend.add_jail()), owner)
    probe.fail(FULL)
    backend.jails.clear()
    backend.watcher.settle()
    assert (owner.told, getattr(owner.error, "lost", False)) == (["failed"], True)


def test_a_failure_while_arming_ends_the_helper_and_the_probe(stage: Stage) -> None:
    process = stage.backend.birth(stage.helper)
    assert report(stage, pid_record(process)) == ""
    stage.probe.fail(FULL)
    stage.settle()
    assert (stage.owner.told, stage.owner.error) == (["failed"], FULL)
    assert (stage.owner.left, stage.backend.processes) == (set(), {})


def test_a_failure_of_an_armed_probe_ends_it_and_is_told_as_its_death(stage: Stage) -> None:
    assert report(stage, READY + pid_record(stage.backend.birth(stage.helper))) == "armed"
    stage.probe.fail(FULL)
    stage.backend.end(stage.helper.process, Death(None, 0))
    stage.settle()
    assert stage.owner.told == ["armed", "ended"]
    assert stage.owner.death == Death(signal.SIGKILL, None)


def test_an_adopted_probe_needs_no_helper_and_no_jail_to_be_told_of() -> None:
    backend = FakeBackend()
    jail = backend.resolve(backend.add_jail())
    owner = Owner()
    child = backend.add_process(jail=jail.name, asleep=True)
    Probe(backend, jail, owner).adopt(child.pid)
    backend.jails.clear()
    backend.kill(child.pid, signal.SIGHUP)
    assert owner.told == []
    backend.watcher.settle()
    assert (owner.told, owner.death) == (["ended"], Death(signal.SIGHUP, None))
    assert backend.watcher.idle


# --- everything at once -------------------------------------------------------------


@st.composite
def records(draw: st.DrawFn) -> tuple[str, bytes]:
    """Give bytes to send: honest, forged or arbitrary; "pid" stands for the probe's own."""
    value = draw(st.integers(-(2**31), 2**31 - 1) | st.integers(95, 110))
    return draw(
        st.sampled_from(
            [
                ("pid", b""),
                ("raw", READY),
                ("raw", record(RECORD_PID, 0, value)),
                ("raw", record(RECORD_ERROR, draw(st.integers(0, 255)), value)),
                ("raw", RECORD.pack(draw(st.integers(0, 255)), 0, 0xFFFF, value)),
            ]
        )
        | st.tuples(st.just("raw"), st.binary(max_size=40))
    )


EVENTS = ("birth", "helper ends", "hup", "killed", "jail ends", "eof", "time", "withdraw", "split")
SCRIPTS = st.lists(records() | st.tuples(st.sampled_from(EVENTS), st.just(b"")), max_size=14)


def honest(sent: bytes, probe_pid: int, *, one_process: bool) -> bool:
    """Read independently whether `sent` may arm: whole records, READY and the pid once each."""
    kinds = [sent[n] for n in range(0, len(sent) - len(sent) % 8, 8)]
    pids = [RECORD.unpack(sent[n : n + 8])[3] for n in range(0, 8 * len(kinds), 8)]
    expected = [RECORD_READY] if one_process else [RECORD_PID, RECORD_READY]
    if sorted(kinds) != expected:
        return False
    return one_process or pids[kinds.index(RECORD_PID)] == probe_pid


class Play:
    """Carries out a script, and keeps what the verdict needs."""

    def __init__(self, *, one_process: bool) -> None:
        self.stage = Stage(one_process=one_process)
        self.backend, self.helper = self.stage.backend, self.stage.helper
        self.sent = b""
        self.armed_after: bytes | None = None
        self.bystander = self.backend.add_process(jail=self.stage.jail_name)
        self.deaths: list[Death] = []
        self.backend.watcher.watch_process(self.bystander.pid, self.deaths.append)
        self.waiting = b""

    def _process(self) -> FakeProcess:
        return self.helper.probe or self.helper.process

    def _tell(self, untrusted: bytes) -> None:
        if self.helper.status_fd >= 0:
            try:
                self.helper.tell(untrusted)
            except BrokenPipeError:
                return  # the daemon has closed its end
            self.sent += untrusted

    def act(self, what: str, untrusted: bytes) -> None:
        """Do one thing, and let the daemon take it."""
        process, helper = self._process(), self.helper
        living = process.pid in self.backend.processes
        match what:
            case "raw":
                # In two pieces, so that records are torn.
                self._tell(untrusted[:5])
                self.stage.settle()
                self.note()
                self._tell(untrusted[5:])
            case "pid":
                self._tell(pid_record(process))
            case "birth" if helper.probe is None and helper.process.death is None:
                self.backend.birth(helper)
            case "helper ends" if helper.process.pid in self.backend.processes:
                self.backend.end(helper.process, Death(None, 0))
            case "hup" if living:
                self.backend.kill(process.pid, signal.SIGHUP)
            case "killed" if living:
                self.backend.kill(process.pid, signal.SIGKILL)
            case "jail ends":
                self.backend.jails.clear()
            case "eof":
                helper.close_status()
            case "time":
                self.backend.watcher.pass_time(3)
            case "withdraw":
                self.stage.probe.kill()
        self.stage.settle()
        self.note()

    def note(self) -> None:
        """Keep what had been sent when the owner heard of the arming."""
        if self.armed_after is None and "armed" in self.stage.owner.told:
            self.armed_after = self.sent


@pytest.mark.parametrize("one_process", [False, True])
@settings(max_examples=300, deadline=None)
@given(script=SCRIPTS)
def test_no_bytes_and_no_moment_arm_what_is_not_verified(
    one_process: bool,
    script: list[tuple[str, bytes]],
) -> None:
    play = Play(one_process=one_process)
    stage, helper = play.stage, play.helper
    for what, untrusted in script:
        play.act(what, untrusted)
    if play.armed_after is not None:
        assert helper.probe is not None
        assert honest(play.armed_after, helper.probe.pid, one_process=one_process)
    stage.end()
    assert stage.owner.told in (["failed"], ["armed", "ended"])
    assert stage.owner.left <= {play.bystander.pid}, "told too early that nothing is left"
    assert play.bystander.death is None, "another rule's process was ended"
    assert set(stage.backend.processes) == {play.bystander.pid}, "something was left"
