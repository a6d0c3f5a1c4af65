# SPDX-License-Identifier: BSD-2-Clause
"""The journal's file as somebody else left it: torn, full of garbage, unreadable, in use."""

import pytest

from jaildaemon.errors import JaildaemonError
from tests.faults.world import Daemon, World


def test_a_torn_last_line_is_cut_off(world: World, daemon: Daemon) -> None:
    rule = daemon.attach(world.jail().jail, "true")
    daemon.crash()
    whole = daemon.journal_path.read_bytes()
    daemon.journal_path.write_bytes(whole + b'{"kind":"unrule","rule":"t1"')
    daemon.start()
    assert any("cut off a torn line of 28 bytes" in line for line in daemon.log)
    daemon.armed(rule)
    assert daemon.journal_path.read_bytes().startswith(whole + b'{"kind":"boot"')


GARBAGE = [
    b"\x00\xff\xfe",
    b"{}",
    b'{"kind":7}',
    b"[]",
    b"{" * 100_000,
    b'{"kind":"boot"}',
    b'{"kind":"pid","rule":"t1","run":"r","pid":1e999}',
    b'{"kind":"trigger","rule":"t1","run":"r","t":NaN,"s":-1e999}',
    b'{"kind":"rule","rule":"t9","triggers":Infinity}',
    b'{"kind":"rule","rule":"t8","jail":"1","command":"x","policy":{"uid":"0"}}',
    b'{"kind":"rule","rule":"t7","jail":"1","command":"x","policy":{},"identity":7}',
    b'{"kind":"rule","rule":["t6"]}',
    b'{"kind":"nonsense","rule":"t1"}',
]


def test_garbage_starts_nothing_and_stops_nothing(world: World, daemon: Daemon) -> None:
    fifo = world.fifo()
    rule = daemon.attach(world.jail().jail, f"echo ran > {fifo.path}")
    daemon.crash()
    with daemon.journal_path.open("ab") as file:
        file.write(b"".join(line + b"\n" for line in GARBAGE))
    daemon.start()
    daemon.armed(rule)
    assert daemon.journal("start") == []
    assert fifo.waiting() == []
    assert set(daemon.rules()) == {rule}
    assert any("is skipped: " in line for line in daemon.log)


def test_a_strange_trigger_has_expired(world: World, daemon: Daemon) -> None:
    rule = daemon.attach(world.jail().jail, "true", respawn="after")
    daemon.crash()
    with daemon.journal_path.open("ab") as file:
        file.write(b'{"kind":"trigger","rule":"t1","run":{"a":[]},"t":"x"}\n')
    daemon.start()
    daemon.wait(" expired: ")
    daemon.armed(rule)


def test_a_journal_that_cannot_be_read_is_a_reason_not_to_start(world: World) -> None:
    world.daemon.state.mkdir(mode=0o700)
    world.daemon.journal_path.mkdir()
    world.daemon.launch()
    assert world.daemon.ended() == 1
    assert "journal" in world.daemon.log[-1]
    world.daemon.journal_path.rmdir()


def test_another_daemon_has_another_state(world: World, daemon: Daemon) -> None:
    other = Daemon(world.directory / "other")
    other.directory.mkdir()
    other.state = daemon.state
    other.launch()
    assert other.ended() == 1
    assert "another jaildaemon keeps its state here" in other.log[-1]
    with pytest.raises(JaildaemonError):
        other.call("Status")
