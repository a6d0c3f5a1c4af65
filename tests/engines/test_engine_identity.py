# SPDX-License-Identifier: BSD-2-Clause
"""A pid and an id belong together: by the control group, or by the runtime's own state file."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jaildaemon.engines import made
from jaildaemon.engines.answers import Found
from jaildaemon.engines.docker import Docker, Podman
from jaildaemon.engines.endpoint import Endpoint
from jaildaemon.engines.identity import Cgroups, in_cgroup_of, in_state_file, outermost, unit
from jaildaemon.engines.lxc import Lxc
from tests.daemon.product import wait_until

assert sys.platform == "linux"

from jaildaemon.backends import linux_jail  # noqa: E402 - see above
from jaildaemon.backends.linux_jail import LinuxJail  # noqa: E402 - see above
from jaildaemon.backends.linux_watcher import LinuxWatcher  # noqa: E402 - see above
from jaildaemon.daemon.confirmation import vet  # noqa: E402 - see above

ID = "4a09db700cf67c497b58669edc57709927e2c1b411b92183e3b33e72b81d190e"
OTHER = ID[::-1]


class Process:
    """A process as the kernel shows it."""

    title = ""

    def __init__(self, *cgroups: tuple[str, str], number: int = 7, start: int = 99) -> None:
        self.number, self._start, self._cgroups = number, start, list(cgroups)

    def cgroups(self) -> Cgroups:
        """Return what the test wants."""
        return self._cgroups

    def started(self) -> int:
        """Return what the test wants."""
        return self._start

    def parent(self) -> str:
        """Return what the test wants."""
        return self.title


@pytest.mark.parametrize(
    ("path", "whose"),
    [
        (f"/docker/{ID}", ID),
        (f"/system.slice/docker-{ID}.scope", ID),
        (f"/parent/{ID}/init.scope", ID),
        (f"/machine.slice/libpod-{ID}.scope/container", ID),
        (f"/libpod_parent/libpod-{ID}", ID),
        (f"/system.slice/web.service/libpod-payload-{ID}", ID),
        (f"/kubepods.slice/kubepods-pod12.slice/cri-containerd-{ID}.scope", ID),
        (f"/machine.slice/machine-libpod_pod_{OTHER}.slice/libpod-{ID}.scope", ID),
        ("/lxc.payload.web", "web"),
        ("/mine/lxc.payload.web-1/system.slice", "web-1"),
        # What is below is made by whoever is root in the container.
        (f"/docker/{ID}/docker/{OTHER}", ID),
        (f"/docker/{ID}/docker-{OTHER}.scope", ID),
        (f"/docker/{ID}/lxc.payload.web", ID),
        (f"/lxc.payload.web/docker/{ID}", "web"),
        (f"/machine.slice/machine-db.scope/payload/docker/{ID}", "db"),
        # Not whole, or more than it.
        (f"/docker/{ID[:-1]}", None),
        (f"/docker/{ID}0", None),
        (f"/docker/{ID.upper()}", None),
        (f"/docker/{ID}.service", None),
        (f"/docker/x{ID}", None),
        ("/", None),
        ("/user.slice/user-0.slice/session-1.scope", None),
    ],
)
def test_the_outermost_container_in_a_path_is_whose_it_is(path: str, whose: str | None) -> None:
    assert outermost(path) == whose


def test_every_hierarchy_that_names_a_container_names_this_one() -> None:
    assert in_cgroup_of(ID, Process(("cpu", f"/docker/{ID}"), ("pids", f"/docker/{ID}"), ("", "/")))
    assert not in_cgroup_of(ID, Process(("cpu", f"/docker/{ID}"), ("pids", f"/docker/{OTHER}")))
    assert not in_cgroup_of(ID, Process(("", f"/docker/{OTHER}/docker/{ID}")))
    assert not in_cgroup_of(ID, Process(("", "/user.slice")))
    assert not in_cgroup_of(ID, Process())


def test_a_unit_is_below_all_slices_and_nowhere_else() -> None:
    assert unit(Process(("", "/machine.slice/machine-web.scope/payload"))) == "machine-web.scope"
    cgroups = (
        ("cpu", "/machine.slice/web.scope"),
        ("name=systemd", "/a.slice/b.service/web.scope"),
    )
    assert unit(Process(*cgroups)) == "b.service"
    assert unit(Process(("", "/"), ("name=systemd", "/x.scope"))) == "x.scope"
    assert unit(Process(("", "/docker/machine-web.scope"))) == "docker"
    assert unit(Process(("cpu", "/x.scope"))) is None


RUNC = {"init_process_pid": 7, "init_process_start": 99}
CRUN = {"pid": 7, "process-start-time": 99}


@pytest.mark.parametrize(
    ("state", "names"),
    [
        (RUNC, True),
        (CRUN, True),
        ({**RUNC, "init_process_pid": 8}, False),
        ({**RUNC, "init_process_start": 98}, False),
        ({**CRUN, "process-start-time": 98}, False),
        ({"pid": 7, "init_process_start": 99}, False),
        ({}, False),
        ([RUNC], False),
        ("[" * 100_000, False),
    ],
)
def test_a_state_file_names_pid_and_start(tmp_path: Path, state: object, names: bool) -> None:
    path = tmp_path / "state.json"
    path.write_text(state if isinstance(state, str) else json.dumps(state), encoding="ascii")
    path.chmod(0o600)
    assert in_state_file(str(path), Process()) is names


def test_a_state_file_is_roots_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text(json.dumps(RUNC), encoding="ascii")
    path.chmod(0o600)
    assert in_state_file(str(path), Process())
    path.chmod(0o620)
    assert not in_state_file(str(path), Process())
    path.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(path, 65534, -1)
        assert not in_state_file(str(path), Process())
        os.chown(path, 0, -1)
    (tmp_path / "link").symlink_to(path)
    assert not in_state_file(str(tmp_path / "link"), Process())
    os.mkfifo(tmp_path / "fifo", 0o600)
    assert not in_state_file(str(tmp_path / "fifo"), Process())
    assert not in_state_file(str(tmp_path / "missing"), Process())


def test_a_pod_of_podman_is_known_by_its_runtimes_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the cgroupfs driver: the pod's id is the outermost, and no container's."""
    monkeypatch.setattr(Podman, "states", (f"{tmp_path}/{{}}.json",))
    podman = Podman(LinuxWatcher())
    init = Process(("", f"/libpod_parent/{OTHER}/libpod-{ID}"))
    found = Found("web", ID, 7)
    assert str(podman.doubt(found, init)).startswith("process 7 is not in the control group of ")
    (tmp_path / f"{ID}.json").write_text(json.dumps(RUNC), encoding="ascii")
    assert podman.doubt(found, init) is None


def test_a_container_of_lxc_is_known_by_its_monitor_too() -> None:
    """The control group of a name that was left behind has a number more."""
    lxc, found = Lxc(LinuxWatcher()), Found("web", "web", 7)
    init = Process(("", "/lxc.payload.web-1"))
    assert str(lxc.doubt(found, init)) == "process 7 is not in a control group lxc.payload.web"
    init.title = "[lxc monitor] /var/lib/lxc web"
    assert lxc.doubt(found, init) is None
    for other in ("web-1", "x web", "web x", "webx", ""):
        init.title = f"[lxc monitor] /var/lib/lxc {other}"
        assert lxc.doubt(found, init) is not None, other
    init.title = "sh -c [lxc monitor] /var/lib/lxc web"
    assert lxc.doubt(found, init) is not None


def test_only_a_parent_of_the_hosts_root_counts() -> None:
    jail = LinuxJail.__new__(LinuxJail)
    jail.number = os.getpid()
    parent = Path(f"/proc/{os.getppid()}/cmdline").read_text(errors="replace").strip("\0 ")
    assert jail.parent() == parent
    inner = ["unshare", "--user", "--fork", "sleep", "9999"]
    with subprocess.Popen(inner, process_group=0) as outer:
        try:
            jail.number = first_child(outer.pid)
            assert jail.parent() == "", "the parent is in a user namespace of its own"
        finally:
            os.killpg(outer.pid, signal.SIGKILL)


def first_child(pid: int) -> int:
    """Wait for a process's first child; return its number."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    wait_until(lambda: children.read_text(encoding="ascii").split() != [], "it has a child")
    return int(children.read_text(encoding="ascii").split()[0])


def test_a_host_in_a_container_sees_its_own_name_in_every_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jail = LinuxJail.__new__(LinuxJail)
    jail.number = 7
    seen = {7: {"": f"/docker/{OTHER}/docker/{ID}"}, 1: {"": f"/docker/{OTHER}/init.scope"}}
    monkeypatch.setattr(linux_jail, "cgroups_of", lambda pid: seen[pid])
    assert jail.cgroups() == [("", f"/docker/{ID}")]
    seen[1] = {"": "/init.scope"}
    assert jail.cgroups() == [("", f"/docker/{OTHER}/docker/{ID}")]
    seen[1] = {"": f"/docker/{OTHER[:-1]}"}
    assert jail.cgroups() == [("", f"/docker/{OTHER}/docker/{ID}")]


def test_our_own_control_groups_are_read_as_they_are() -> None:
    text = Path("/proc/self/cgroup").read_text(encoding="ascii")
    found = linux_jail.cgroups_of(os.getpid())
    assert [f"{key}:{path}" for key, path in found.items()] == [
        line.partition(":")[2] for line in text.splitlines()
    ]


# --- where an engine is ------------------------------------------------------------------


def test_docker_is_asked_at_a_socket_of_this_host_whatever_is_configured() -> None:
    watcher = LinuxWatcher()
    docker = Docker(watcher)
    assert docker.command("ps") == ["docker", "--host=unix:///var/run/docker.sock", "ps"]
    docker = Docker(watcher, Endpoint(socket="/run/other.sock"))
    assert docker.command("ps") == ["docker", "--host=unix:///run/other.sock", "ps"]
    assert Podman(watcher).command("ps") == ["podman", "--remote=false", "ps"]


def test_docker_that_is_podman_by_another_name_is_asked_as_podman(tmp_path: Path) -> None:
    watcher, script = LinuxWatcher(), tmp_path / "docker"
    script.write_text('#!/bin/sh\n# as of podman-docker\nexec /usr/bin/podman "$@"\n', "ascii")
    engine = made("docker", watcher, Endpoint(client=str(script)))
    assert isinstance(engine, Podman)
    assert engine.name == "docker"
    assert engine.command("ps") == ["docker", "--remote=false", "ps"]
    engine = made("docker", watcher, Endpoint(client=str(script), socket="/run/x"))
    assert not isinstance(engine, Podman)
    script.write_text('#!/bin/sh\nexec /opt/docker "$@"\n', "ascii")
    assert not isinstance(made("docker", watcher, Endpoint(client=str(script))), Podman)


def test_a_podman_that_is_made_remote_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jaildaemon.engines.docker.CONFIGURATION", (f"{tmp_path}/*.conf",))
    podman, file = Podman(LinuxWatcher()), tmp_path / "a.conf"
    for text in ("[engine]\n#remote = true\n", "remote=false\n", "remote_x = true\n"):
        file.write_text(text, encoding="ascii")
        assert podman.endpoint.vet("/usr/bin/podman") is None
    for text in ("[engine]\nremote = true\n", "[engine]\n  remote=true # x\n"):
        file.write_text(text, encoding="ascii")
        why = f"is made another machine's, by remote = true in {file}"
        assert podman.endpoint.vet("/usr/bin/podman") == why


def test_a_client_that_others_can_change_is_not_started(tmp_path: Path) -> None:
    client, above = tmp_path / "docker", tmp_path / "bin"
    client.touch(0o755)
    above.mkdir(0o755)
    link = above / "docker"
    link.symlink_to(client)
    assert vet(str(client)) is None
    assert vet(str(link)) is None
    above.chmod(0o777)
    assert vet(str(link)) == f"is in {above}, which can be written by others than root"
    above.chmod(0o755)
    client.chmod(0o757)
    assert vet(str(link)) == "can be written by others than root"
    client.unlink()
    assert vet(str(link)) == "cannot be examined: No such file or directory"
    client.symlink_to(link)
    assert vet(str(link)) == "cannot be examined: Too many levels of symbolic links"
