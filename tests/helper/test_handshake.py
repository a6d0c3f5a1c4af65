# SPDX-License-Identifier: BSD-2-Clause
"""What passes between the daemon and the helper, on either system, and what is refused."""

import errno
import os
import signal
import struct
import sys

import pytest

from jaildaemon.backends.base import pack_params
from tests.helper.conftest import Starter
from tests.helper.parent import Target, ignore_signals, params, status, wait_child

STEP_PARAMS = 1
REFUSED = [("E", STEP_PARAMS, errno.EINVAL)]


def test_a_probe_sleeps_until_the_signal_kills_it(start: Starter, target: Target) -> None:
    pid = start().armed(params(target.number))
    os.kill(pid, signal.SIGHUP)
    assert wait_child(pid) == ("signal", signal.SIGHUP)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1, signal.SIGKILL])
def test_a_probe_dies_of_any_other_signal_as_what_it_is(
    start: Starter, target: Target, signum: int
) -> None:
    pid = start().armed(params(target.number))
    os.kill(pid, signum)
    assert wait_child(pid) == ("signal", signum)


def test_a_daemon_that_was_started_with_signals_ignored_gets_a_working_probe(
    start: Starter, target: Target
) -> None:
    pid = start(prepare=ignore_signals).armed(params(target.number))
    os.kill(pid, signal.SIGHUP)
    assert wait_child(pid) == ("signal", signal.SIGHUP)


def test_a_signal_before_go_waits_and_kills_after_it(start: Starter, target: Target) -> None:
    parent = start()
    parent.send(params(target.number))
    pid = parent.ready()
    os.kill(pid, signal.SIGHUP)
    if sys.platform == "linux":
        fields = status(pid)
        waits = int(fields["SigBlk"], 16) & int(fields["ShdPnd"], 16)
        assert waits == 1 << signal.SIGHUP - 1
    assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    parent.send(b"G")
    assert wait_child(pid) == ("signal", signal.SIGHUP)


def test_a_signal_before_the_parameters_waits_too(start: Starter, target: Target) -> None:
    # Linux: the helper is not the probe, and a signal to it is no trigger.
    # Ignored, as under nohup(1), it would be lost instead of pending.
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
    try:
        parent = start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP])
        signal.signal(signal.SIGHUP, before)
    os.kill(parent.pid, signal.SIGHUP)
    parent.send(params(target.number))
    pid = parent.ready()
    parent.send(b"G")
    if pid == parent.pid:
        assert wait_child(pid) == ("signal", signal.SIGHUP)
    else:
        os.kill(pid, signal.SIGKILL)
        assert wait_child(pid) == ("signal", signal.SIGKILL)


def test_the_end_of_the_daemon_before_go_is_no_trigger_even_with_a_signal_waiting(
    start: Starter, target: Target
) -> None:
    parent = start()
    parent.send(params(target.number))
    pid = parent.ready()
    os.kill(pid, signal.SIGHUP)
    parent.close_go()
    assert wait_child(pid) == ("exit", 1)


@pytest.mark.parametrize("byte", [b"X", b"g", b"\0", b"\n", b"XG"])
def test_another_byte_than_go_ends_the_probe(start: Starter, target: Target, byte: bytes) -> None:
    parent = start()
    parent.send(params(target.number))
    pid = parent.ready()
    os.kill(pid, signal.SIGHUP)
    parent.send(byte)
    assert wait_child(pid) == ("exit", 1)


GOOD = pack_params(flags=0, target=1, uid=0, gid=0)
NO_RECORDS = [
    b"\0",
    b"GARBAGE" * 5,
    GOOD[:-1],
    b"JDP2" + GOOD[4:],
    GOOD[:4] + struct.pack("<I", 8) + GOOD[8:],  # a flag of another version
    pack_params(flags=0, target=1, uid=2**32 - 1, gid=0),
    pack_params(flags=0, target=1, uid=0, gid=2**32 - 1),
    pack_params(flags=0, target=1, uid=0, gid=0, label_kind=1),
    pack_params(flags=0, target=1, uid=0, gid=0, label=b"x"),
    pack_params(flags=0, target=1, uid=0, gid=0, label_kind=3, label=b"x"),
    pack_params(flags=0, target=1, uid=0, gid=0, label_kind=1, label=b"x" * 1001),
]
TOO_LONG = [] if sys.platform == "linux" else [GOOD + b"\0", GOOD * 1000]
"""On Linux what follows is the second stage's."""


@pytest.mark.parametrize(
    "record", NO_RECORDS + TOO_LONG, ids=lambda record: f"{len(record)} bytes {record[:28].hex()}"
)
def test_a_record_that_is_not_one_is_refused_before_anything_is_done(
    start: Starter, record: bytes
) -> None:
    parent = start()
    parent.send(record)
    assert parent.records_to_the_end() == REFUSED
    assert wait_child(parent.pid) == ("exit", 1)


LABELLED = pack_params(flags=0, target=1, uid=0, gid=0, label_kind=1, label=b"x" * 8)
"""The label is the first stage's: the second has no room for one."""


@pytest.mark.skipif(sys.platform != "linux", reason="cannot: one record is all")
@pytest.mark.parametrize(
    "record", [*NO_RECORDS, LABELLED], ids=lambda record: f"{len(record)} bytes {record[:28].hex()}"
)
def test_a_second_record_that_is_not_one_is_refused_before_the_birth(
    start: Starter, target: Target, record: bytes
) -> None:
    parent = start()
    parent.send(pack_params(flags=0, target=target.number, uid=0, gid=0) + record)
    assert parent.records_to_the_end() == REFUSED
    assert wait_child(parent.pid) == ("exit", 1)


def test_the_end_of_the_daemon_before_the_parameters_is_an_end(start: Starter) -> None:
    parent = start()
    parent.close_go()
    assert parent.records_to_the_end() == REFUSED
    assert wait_child(parent.pid) == ("exit", 1)


def test_a_helper_that_nobody_listens_to_ends_and_leaves_no_probe(
    start: Starter, target: Target
) -> None:
    for record in (params(target.number), b"garbage"):
        parent = start()
        parent.close_status()
        parent.send(record)
        assert wait_child(parent.pid) == ("exit", 1)
        start.reap_strays()


def test_a_probe_dies_with_its_daemon(start: Starter, target: Target) -> None:
    read_fd, write_fd = os.pipe()
    daemon = os.fork()
    if daemon == 0:
        try:
            pid = start().armed(params(target.number))
            os.write(write_fd, str(pid).encode())
            signal.pause()
        finally:
            os._exit(1)
    os.close(write_fd)
    probe = int(os.read(read_fd, 16))
    os.close(read_fd)
    ended = start.watch(probe)
    os.kill(daemon, signal.SIGKILL)
    assert wait_child(daemon) == ("signal", signal.SIGKILL)
    ended()
