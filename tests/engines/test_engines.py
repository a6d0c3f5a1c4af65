# SPDX-License-Identifier: BSD-2-Clause
"""A rule in a file follows a real container by ENGINE:NAME, through all that it goes through."""

import os
import signal
import time
from collections.abc import Callable

import pytest

from tests.daemon.product import run, wait_until
from tests.engines.makers import DockerMaker, Maker, age, removed
from tests.engines.ruled import Ruled, new_name, streams_of
from tests.kernel.events import wait_gone

Delays = dict[str, list[tuple[float, float]]]
Note = Callable[[str, float, float], None]
QUESTIONS = 6
"""Three are asked before a container is armed, and its engine has its start to finish."""


def noted(ruled: Ruled, maker: Maker, name: str, note_delay: Note) -> int:
    """Wait until a container's rule is armed; return its init, how old it then was noted."""
    init = ruled.armed(f"{maker.engine}:{name}/BELL")
    old, began = age(init), time.monotonic()
    assert init == maker.pid(name)
    note_delay(maker.engine, old, time.monotonic() - began)
    return init


def test_a_rule_follows_its_container(ruled: Ruled, maker: Maker, note_delay: Note) -> None:
    name = new_name(maker.host)
    jail = f"{maker.engine}:{name}"
    rule = f"{jail}/BELL"
    ruled.write(jail)
    assert ruled.rules()[rule]["state"] == "waiting"
    with removed(maker, name):
        maker.run(name)
        first = noted(ruled, maker, name, note_delay)

        ruled.ring(rule)
        ruled.daemon.lines.wait_for(" ended: exit 0 ")
        assert (ruled.directory / "rung").read_text(encoding="ascii") == f"{name} {rule}\n"
        assert ruled.armed(rule) == first

        maker.again(name)
        second = noted(ruled, maker, name, note_delay)
        assert second != first

        maker.remove(name)
        assert ruled.wait(rule, "waiting")["reason"] == "no such jail runs"
        maker.run(name)
        assert noted(ruled, maker, name, note_delay) != second


def test_it_is_armed_before_its_container_is_a_second_old(delays: Delays) -> None:
    if not delays:
        pytest.skip("cannot: no engine ran")
    if "JAILDAEMON_TEST_PATIENCE" in os.environ:
        pytest.skip("cannot: an emulated machine's second is none; see its figures below")
    # The best of each: the machine may be busy with something else, and the engine slow for that.
    slow = {
        engine: seconds
        for engine, seconds in delays.items()
        if not any(armed < max(1, QUESTIONS * asked) for armed, asked in seconds)
    }
    assert slow == {}


def test_a_container_that_is_paused_holds_nothing_up(ruled: Ruled, maker: Maker) -> None:
    name = new_name(maker.host)
    jail = f"{maker.engine}:{name}"
    with removed(maker, name):
        maker.run(name)
        ruled.write(jail)
        ruled.armed(f"{jail}/BELL")
        maker.pause(name)
        try:
            # Another rule, for which the engine is asked again, and a probe is put in.
            ruled.write(jail, title="GONG")
            ruled.armed(f"{jail}/GONG")
            assert ruled.rules()[f"{jail}/GONG"]["state"] == "armed"
        finally:
            maker.unpause(name)
        maker.remove(name)
        ruled.wait(f"{jail}/GONG", "waiting")


def test_a_pattern_has_a_probe_in_each_container_that_it_fits(ruled: Ruled, maker: Maker) -> None:
    names = [f"{new_name(maker.host)}-{which}" for which in "ab"]
    other = new_name(maker.host)
    ruled.write(f"{maker.engine}:jail*-?", more='name = "bell"')
    with removed(maker, *names, other):
        for name in (*names, other):
            maker.run(name)
        for _ in names:
            ruled.armed("")
        pids = {rule["jid"] for rule in ruled.rules().values()}
        assert pids == {maker.pid(name) for name in names}
        assert set(ruled.rules()) == {f"bell@{name}" for name in names}
        maker.remove(names[0])
        wait_until(lambda: {*ruled.rules()} == {f"bell@{names[1]}"}, "one is left")


def test_minus_c_takes_the_name_of_an_engine(ruled: Ruled, maker: Maker) -> None:
    name = new_name(maker.host)
    socket = ruled.daemon.socket
    words = ("-c", "true", "-j", f"{maker.engine}:{name}", "-t", "ONCE", "-f", socket)
    done = run(*words)
    assert (done.returncode, done.stderr) == (
        4,
        f"jaildaemon: attach: {maker.engine}:{name}: there is no such container\n",
    )
    with removed(maker, name):
        maker.run(name)
        done = run(*words)
        assert (done.returncode, done.stderr) == (0, "")
        (rule,) = ruled.rules().values()
        assert (rule["jail"], rule["jid"]) == (f"{maker.engine}:{name}", maker.pid(name))
        # And so does explain, of a rule that was asked for by a number.
        run("-c", "true", "-j", str(rule["jid"]), "-t", "OTHER", "-f", socket)
        done = run("explain", f"{maker.engine}:{name}", "OTHER", "-f", socket)
        assert (done.returncode, done.stderr) == (0, "")
        assert "\narmed       yes, " in done.stdout


def test_it_is_there_again_after_the_daemons_death(ruled: Ruled, maker: Maker) -> None:
    name = new_name(maker.host)
    jail = f"{maker.engine}:{name}"
    ruled.write(jail)
    with removed(maker, name):
        maker.run(name)
        init = ruled.armed(f"{jail}/BELL")
        ruled.replace()
        assert ruled.wait(f"{jail}/BELL", "armed")["jid"] == init


def test_a_jail_restarts_itself_and_may_do_it_again(ruled: Ruled, maker: Maker) -> None:
    if maker.engine not in ("docker", "podman"):
        pytest.skip(f"cannot: {maker.engine} has no restart")
    name = new_name(maker.host)
    rule = f"{maker.engine}:{name}/BELL"
    ruled.write(f"{maker.engine}:{name}", command=f"{maker.engine} restart --time=1 {name}")
    inits = []
    with removed(maker, name):
        maker.run(name)
        for _ in range(3):
            inits.append(ruled.armed(rule))
            ruled.ring(rule)
        inits.append(ruled.armed(rule))
        assert inits[-1] == maker.pid(name)
        assert len(set(inits)) == 4
        seen = ruled.rules()[rule]
        assert (seen["triggers"], seen["state"]) == (3, "armed")


def test_a_reload_leaves_a_running_command_alone(ruled: Ruled, maker: Maker) -> None:
    name = new_name(maker.host)
    jail = f"{maker.engine}:{name}"
    fifo = ruled.directory / "fifo"
    os.mkfifo(fifo)
    named = 'name = "bell"'
    ruled.write(jail, command=f"cat {fifo}", more=named)
    with removed(maker, name):
        maker.run(name)
        init = ruled.armed("bell")
        for _ in range(2):
            # Changed, and then removed and written again, while it runs.
            ruled.ring("bell")
            ruled.daemon.lines.wait_for("signal from jail")
            ruled.write(jail, title="GONG", command=f"cat {fifo}", more=named)
            ruled.write(more=named)
            assert ruled.rules()["bell"]["state"] == "running"
            ruled.write(jail, command=f"cat {fifo}", more=named)
            assert ruled.rules()["bell"]["state"] == "running"
            fifo.write_text("", encoding="ascii")
            ruled.daemon.lines.wait_for(" ended: exit 0 ")
            assert ruled.armed("bell") == init
        seen = ruled.rules()["bell"]
        assert (seen["state"], seen["title"]) == ("armed", "BELL")


def test_a_rename_takes_the_probe_away(ruled: Ruled, maker: Maker) -> None:
    if maker.engine not in ("docker", "podman"):
        pytest.skip(f"cannot: {maker.engine} has no rename")
    name, other = new_name(maker.host), new_name(maker.host)
    rule = f"{maker.engine}:{name}/BELL"
    ruled.write(f"{maker.engine}:{name}")
    with removed(maker, name, other):
        maker.run(name)
        init = ruled.armed(rule)
        maker.host.must(maker.engine, "rename", name, other)
        ruled.wait(rule, "waiting")
        maker.host.must(maker.engine, "rename", other, name)
        assert ruled.armed(rule) == init


def test_the_engines_daemon_may_be_restarted(ruled: Ruled, maker: Maker) -> None:
    if not isinstance(maker, DockerMaker) or maker.engine != "docker":
        pytest.skip(f"cannot: {maker.engine} has no daemon of its own")
    name = new_name(maker.host)
    rule = f"docker:{name}/BELL"
    ruled.write(f"docker:{name}")
    with removed(maker, name):
        maker.run(name)
        first = ruled.armed(rule)
        maker.stop()
        ruled.wait(rule, "waiting")
        ruled.daemon.lines.wait_for("docker: ")
        maker.start()
        maker.host.must("docker", "start", name)
        assert ruled.armed(rule) == maker.pid(name) != first


def test_restart_leaves_the_probe_where_it_is(ruled: Ruled, maker: Maker) -> None:
    name = new_name(maker.host)
    rule = f"{maker.engine}:{name}/BELL"
    ruled.write(f"{maker.engine}:{name}")
    with removed(maker, name):
        maker.run(name)
        ruled.armed(rule)
        before = ruled.rules()[rule]
        done = run("restart", "-f", ruled.daemon.socket)
        assert (done.returncode, done.stderr) == (0, "")
        ruled.daemon.lines.wait_for(" serves ")
        after = ruled.rules()[rule]
        assert (after["state"], after["probe_pid"]) == ("armed", before["probe_pid"])
        maker.again(name)
        assert ruled.armed(rule) == maker.pid(name)
        # The old one was killed before the exec, and may take a moment to die.
        wait_until(lambda: len(streams_of(ruled.daemon.pid)) <= 1, "one stream at most")


def test_a_killed_daemon_leaves_no_follower_behind(ruled: Ruled, maker: Maker) -> None:
    if maker.engine in ("nspawn", "runc", "crun"):
        pytest.skip(f"cannot: {maker.engine} is followed by its directory, not by a command")
    name = new_name(maker.host)
    ruled.write(f"{maker.engine}:{name}")
    with removed(maker, name):
        maker.run(name)
        ruled.armed(f"{maker.engine}:{name}/BELL")
        # Whoever starts it on its leash may not have come to its exec.
        wait_until(lambda: len(streams_of(ruled.daemon.pid)) == 1, "it is followed")
        (follower,) = streams_of(ruled.daemon.pid)
        ruled.daemon.stop(signal.SIGKILL)
        wait_gone(follower)
