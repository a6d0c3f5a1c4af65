# SPDX-License-Identifier: BSD-2-Clause
"""As long as its first process lives a container keeps its probe, whatever its engine calls it."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.daemon.product import run, wait_until
from tests.engines.makers import DockerMaker, LxcMaker, Maker, removed
from tests.engines.ruled import Ruled, new_name
from tests.kernel.place import CGROUPS

FIRST = """ring() {
    for p in /proc/[0-9]*; do
        t=; { IFS= read -r t <"$p/cmdline"; } 2>/dev/null || :
        [ "$t" != "jaildaemon: BELL" ] || { kill -HUP "${p#/proc/}"; return; }
    done
    false
}
until ring; do sleep 1; done
exec sleep 9999"""
"""Rings as the first thing that it does, and tries until it has."""
DEAF = ["/bin/busybox", "sh", "-c", "trap '' TERM; while :; do sleep 1; done"]
"""A first process that takes its time to end, as one that writes out its data does."""


def hierarchies() -> list[Path]:
    """Return where control groups are made."""
    if (CGROUPS / "cgroup.procs").exists():
        return [CGROUPS]
    tops = [top for top in CGROUPS.iterdir() if top.name != "unified"]
    return [top for top in tops if (top / "cgroup.procs").exists()]


def run_deaf(maker: Maker, name: str) -> None:
    """Run a container that does not end when it is asked to."""
    if isinstance(maker, LxcMaker):
        maker.run(name, "lxc.init.cmd = /bin/busybox sleep 9999\n")  # a first one is deaf
    elif isinstance(maker, DockerMaker):
        options = [*maker.options, f"--name={name}", "--network=none"]
        maker.host.must(maker.engine, "run", "--detach", *options, "jail", *DEAF)


def state(maker: Maker, name: str) -> str:
    """Ask the engine."""
    if isinstance(maker, LxcMaker):
        return maker.host.must("lxc-info", f"--name={name}", "--state", "--no-humanize").strip()
    return maker.host.must(maker.engine, "inspect", "--format={{.State.Status}}", name).strip()


@contextmanager
def stopping(maker: Maker, name: str) -> Iterator[None]:
    """Have the engine wait for its end."""
    words = {
        "docker": ["docker", "stop", "--time=600", name],
        "podman": ["podman", "stop", "--time=600", name],
        "lxc": ["lxc-stop", f"--name={name}", "--timeout=600"],
    }[maker.engine]
    quiet = subprocess.DEVNULL
    stopper = subprocess.Popen([*maker.prefix, *words], stdout=quiet, stderr=quiet)
    try:
        if maker.engine == "podman":  # the others call it running until the end
            wait_until(lambda: state(maker, name).lower() == "stopping", "it is stopping")
        yield
    finally:
        stopper.kill()
        stopper.wait()


def entries(ruled: Ruled, rule: str) -> list[dict[str, str]]:
    """Return what `log` shows of a rule."""
    done = run("log", "--json", rule, "-f", ruled.daemon.socket)
    assert done.returncode == 0, done.stderr
    return [json.loads(line)["entry"] for line in done.stdout.splitlines()]


def lost(ruled: Ruled, rule: str) -> list[str]:
    """Return why a rule lost its jail, each time."""
    return [entry["reason"] for entry in entries(ruled, rule) if entry["kind"] == "left"]


def test_a_container_that_is_stopping_keeps_its_probe(ruled: Ruled, maker: Maker) -> None:
    if maker.engine not in ("docker", "podman", "lxc"):
        pytest.skip(f"cannot: {maker.engine} does not wait for an end")
    name, other = new_name(maker.host), new_name(maker.host)
    rule = f"{maker.engine}:{name}/BELL"
    with removed(maker, name, other):
        run_deaf(maker, name)
        ruled.write(f"{maker.engine}:{name}", f"{maker.engine}:{other}")
        ruled.armed(rule)
        before = ruled.rules()[rule]
        with stopping(maker, name):
            # Another one, for which all are looked at.
            maker.run(other)
            ruled.armed(f"{maker.engine}:{other}/BELL")
            assert ruled.rules()[rule]["probe_pid"] == before["probe_pid"]
            ruled.ring(rule)
            ruled.daemon.lines.wait_for(" ended: exit 0 ")
            os.kill(maker.pid(name), signal.SIGKILL)
        ruled.wait(rule, "waiting")
        assert lost(ruled, rule) == ["its jail ended"]


def test_a_container_that_is_stopping_gets_a_probe(ruled: Ruled, maker: Maker) -> None:
    """A rule that comes late, or a daemon that is started meanwhile."""
    if maker.engine not in ("docker", "podman", "lxc"):
        pytest.skip(f"cannot: {maker.engine} does not wait for an end")
    name = new_name(maker.host)
    with removed(maker, name):
        run_deaf(maker, name)
        with stopping(maker, name):
            ruled.write(f"{maker.engine}:{name}")
            assert ruled.armed(f"{maker.engine}:{name}/BELL") == maker.pid(name)
            if maker.engine == "podman":  # its 4 forgets one that is stopping, and lets it live
                os.kill(maker.pid(name), signal.SIGKILL)


def test_a_rename_is_an_entry_of_the_log(ruled: Ruled, maker: Maker) -> None:
    if maker.engine not in ("docker", "podman"):
        pytest.skip(f"cannot: {maker.engine} has no rename")
    name, other = new_name(maker.host), new_name(maker.host)
    rule = f"{maker.engine}:{name}/BELL"
    ruled.write(f"{maker.engine}:{name}")
    with removed(maker, name, other):
        maker.run(name)
        ruled.armed(rule)
        maker.host.must(maker.engine, "rename", name, other)
        ruled.wait(rule, "waiting")
        why = f"its container is called {other} now"
        assert lost(ruled, rule) == [why]
        ruled.daemon.lines.wait_for(f"{rule}: {why}")


def test_two_containers_that_change_names_change_bells(ruled: Ruled, maker: Maker) -> None:
    if maker.engine not in ("docker", "podman"):
        pytest.skip(f"cannot: {maker.engine} has no rename")
    blue, green = new_name(maker.host), new_name(maker.host)
    rule = f"{maker.engine}:{blue}/BELL"
    ruled.write(f"{maker.engine}:{blue}")
    with removed(maker, blue, green, f"{blue}-old"):
        maker.run(blue)
        maker.run(green)
        first = ruled.armed(rule)
        maker.host.must(maker.engine, "rename", blue, f"{blue}-old")
        maker.host.must(maker.engine, "rename", green, blue)
        second = ruled.armed(rule)
        assert second == maker.pid(blue) != first
        # One look may see one of the two names changed, or both.
        renamed = f"its container is called {blue}-old now"
        assert lost(ruled, rule) in ([renamed], ["another container has its name now"])
        assert ruled.daemon.call("Status")["parameters"]["probes"] == 1


def test_a_container_that_does_not_run_is_told_from_one_that_is_not_there(
    ruled: Ruled, maker: Maker
) -> None:
    if maker.engine not in ("docker", "podman", "lxc"):
        pytest.skip(f"cannot: {maker.engine} keeps none that has ended")
    name = new_name(maker.host)
    words = ("-c", "true", "-j", f"{maker.engine}:{name}", "-t", "ONCE", "-f", ruled.daemon.socket)
    with removed(maker, name):
        maker.run(name)
        if isinstance(maker, LxcMaker):
            maker.remove(name)  # its directory stays
        else:
            maker.host.must(maker.engine, "kill", name)
            wait_until(lambda: state(maker, name) == "exited", "it has ended")
        done = run(*words)
        assert done.returncode == 4
        called = "stopped" if maker.engine == "lxc" else "exited"
        on = f"jaildaemon: attach: {maker.engine}:{name}"
        assert done.stderr == f"{on}: it does not run: it is {called} (start it first)\n"


SHARED = {"host": "it was started with --pid=host", "other": "it shares the PID namespace of"}


@pytest.mark.parametrize("space", SHARED)
def test_a_container_that_runs_and_cannot_be_taken_is_not_one_that_does_not_run(
    ruled: Ruled, maker: Maker, space: str
) -> None:
    if not isinstance(maker, DockerMaker):
        pytest.skip(f"cannot: {maker.engine} is not made with another's PID namespace here")
    name, other = new_name(maker.host), new_name(maker.host)
    jail = f"{maker.engine}:{name}"
    with removed(maker, name, other):
        maker.run(other)
        mode = "host" if space == "host" else f"container:{other}"
        options = [*maker.options, f"--name={name}", "--network=none", f"--pid={mode}"]
        words = ["jail", "/bin/busybox", "sleep", "9999"]
        maker.host.must(maker.engine, "run", "--detach", *options, *words)
        ruled.write(jail)
        why = f"it runs, and cannot be taken: {SHARED[space]}"
        wait_until(lambda: ruled.rules()[f"{jail}/BELL"]["reason"].startswith(why), why)
        assert ruled.rules()[f"{jail}/BELL"]["state"] == "waiting"
        (warning,) = ruled.daemon.call("Status")["parameters"]["warnings"]
        assert warning.startswith(f"{jail}: {why}")
        ruled.daemon.lines.wait_for(f"{jail}: not taken: {SHARED[space]}")
        done = run("-c", "true", "-j", jail, "-t", "ONCE", "-f", ruled.daemon.socket)
        assert done.returncode == 1
        assert done.stderr.startswith(f"jaildaemon: attach: {jail}: {why}")
        done = run("doctor", "-f", ruled.daemon.socket)
        assert f"{jail}/BELL from {ruled.file} is not armed: {why}" in done.stdout


def test_an_engine_that_is_down_is_told_and_its_return_noticed(ruled: Ruled, maker: Maker) -> None:
    if not isinstance(maker, DockerMaker) or maker.engine != "docker":
        pytest.skip(f"cannot: {maker.engine} has no daemon of its own")
    name = new_name(maker.host)
    rule = f"docker:{name}/BELL"
    with removed(maker, name):
        maker.run(name)
        maker.stop()
        try:
            ruled.write(f"docker:{name}")
            down = "docker does not answer: "
            wait_until(lambda: ruled.rules()[rule]["reason"].startswith(down), "it is down")
            status = ruled.daemon.call("Status")["parameters"]
            assert status["warnings"][0].startswith(down)
            assert [engine["up"] for engine in status["engines"]] == [False]
            done = run("doctor", "-f", ruled.daemon.socket)
            assert done.returncode == 6
            assert down in done.stdout
            done = run("metrics", "-f", ruled.daemon.socket)
            assert 'jaildaemon_engine_up{engine="docker"} 0.0' in done.stdout.splitlines()
        finally:
            maker.start()
        maker.host.must("docker", "start", name)
        assert ruled.armed(rule) == maker.pid(name)
        assert ruled.daemon.call("Status")["parameters"]["warnings"] == []


def test_a_rule_that_was_asked_for_says_that_its_container_ended(
    ruled: Ruled, maker: Maker
) -> None:
    name = new_name(maker.host)
    jail = f"{maker.engine}:{name}"
    with removed(maker, name):
        maker.run(name)
        done = run("-c", "true", "-j", jail, "-t", "ONCE", "-f", ruled.daemon.socket)
        assert (done.returncode, done.stderr) == (0, "")
        maker.remove(name)
        ruled.daemon.lines.wait_for("; a rule in a file would follow its next start")
        (entry,) = (one for one in entries(ruled, "t1") if one["kind"] == "died")
        assert entry["reason"].startswith("the container ")


def test_an_entry_point_rings_that_tries_until_it_has(ruled: Ruled, maker: Maker) -> None:
    if not isinstance(maker, DockerMaker):
        pytest.skip(f"cannot: {maker.engine} is given no command of the test's here")
    name = new_name(maker.host)
    ruled.write(f"{maker.engine}:{name}")
    with removed(maker, name):
        options = [*maker.options, f"--name={name}", "--network=none"]
        words = ["jail", "/bin/busybox", "sh", "-c", FIRST]
        maker.host.must(maker.engine, "run", "--detach", *options, *words)
        ruled.daemon.lines.wait_for(" ended: exit 0 ")
        assert (ruled.directory / "rung").exists()


def test_a_control_group_that_was_left_behind_does_not_stand_in_the_way(
    ruled: Ruled, maker: Maker
) -> None:
    if not isinstance(maker, LxcMaker):
        pytest.skip(f"cannot: {maker.engine} has an id of its own for each container")
    name = new_name(maker.host)
    left = [f"{top}/{maker.place.cgroup}/{name}/lxc.payload.{name}" for top in hierarchies()]
    maker.host.must("mkdir", "-p", *left)
    ruled.write(f"lxc:{name}")
    with removed(maker, name):
        maker.run(name)
        init = ruled.armed(f"lxc:{name}/BELL")
        assert init == maker.pid(name)
        cgroup = Path(f"/proc/{init}/cgroup").read_text(encoding="ascii")
        assert f"lxc.payload.{name}-1" in cgroup


def test_docker_that_is_podmans_script_is_followed_as_podman(ruled: Ruled, maker: Maker) -> None:
    if maker.engine != "podman":
        pytest.skip(f"cannot: {maker.engine} is not what the script starts")
    script = ruled.directory / "docker"
    script.write_text('#!/bin/sh\n# as in podman-docker\nexec /usr/bin/podman "$@"\n', "ascii")
    script.chmod(0o755)
    name = new_name(maker.host)
    ruled.write(f"docker:{name}", before=f'[engines.docker]\nclient = "{script}"\n')
    with removed(maker, name):
        maker.run(name)
        first = ruled.armed(f"docker:{name}/BELL")
        maker.again(name)
        assert ruled.armed(f"docker:{name}/BELL") == maker.pid(name) != first
