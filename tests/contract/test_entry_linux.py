# SPDX-License-Identifier: BSD-2-Clause
"""The way into a container as it is at that moment, and what is told of one that changes."""

import errno
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("cannot: Linux namespaces", allow_module_level=True)
assert sys.platform == "linux"

from jaildaemon.backends import HELPER, linux, linux_entry
from jaildaemon.backends.base import LABEL_APPARMOR, LABEL_NONE, Again, ArmingError, JailLost
from jaildaemon.backends.linux import LinuxBackend
from jaildaemon.backends.linux_entry import explained, may_join_at_once
from jaildaemon.backends.linux_jail import LinuxJail, namespace, namespaces
from jaildaemon.backends.probe import Probe
from jaildaemon.errors import NoSuchJail, NotPermitted
from tests.contract.linux_jail import NamespaceJail
from tests.contract.moving_jail import MovingJail
from tests.contract.worlds import Owner
from tests.daemon.product import wait_until
from tests.helper.parent import children, wait_child

KINDS = ("mnt", "cgroup", "uts", "ipc", "user", "pid", "net", "time")


@pytest.fixture
def backend() -> Iterator[LinuxBackend]:
    """Give the real one."""
    if os.geteuid() != 0:
        pytest.skip("cannot: only root may enter a jail")
    made = LinuxBackend(HELPER)
    yield made
    made.watcher.close()


@pytest.fixture
def moving(backend: LinuxBackend) -> Iterator[MovingJail]:
    """Give a jail that changes."""
    assert backend.watcher.children() == []
    made = MovingJail()
    before = children()
    yield made
    for pid in children() - before:  # of a failed test: or the jail could not end
        os.kill(pid, signal.SIGKILL)
        wait_child(pid)
    made.close()


def _armed(backend: LinuxBackend, jail: LinuxJail) -> tuple[Probe, Owner]:
    owner = Owner()
    probe = Probe(backend, jail, owner)
    probe.arm("jaildaemon: BELL", 0, 0)
    while not owner.told:
        backend.watcher.wait()
    assert owner.told == ["armed"], owner.error
    return probe, owner


def _end(backend: LinuxBackend, probe: Probe, owner: Owner) -> None:
    probe.kill()
    while owner.told != ["armed", "ended"]:
        backend.watcher.wait()


def test_the_namespaces_are_those_of_the_moment(backend: LinuxBackend, moving: MovingJail) -> None:
    jail = backend.resolve(str(moving.init))
    before = namespaces(moving.init)
    moving.tell("move")
    assert {kind for kind in KINDS if namespaces(moving.init)[kind] != before[kind]} == {
        "uts",
        "ipc",
        "net",
    }
    probe, owner = _armed(backend, jail)
    assert probe.pid is not None
    assert namespaces(probe.pid) == namespaces(moving.init)
    # Those of a moment ago are not let go.
    moving.tell("move")
    with pytest.raises(ArmingError, match="namespaces became others meanwhile"):
        backend.verify(jail, probe.pid)
    _end(backend, probe, owner)
    jail.close()


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"pid"}))
def test_every_namespace_of_a_probe_is_looked_at(
    backend: LinuxBackend, moving: MovingJail, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    jail = backend.resolve(str(moving.init))
    probe, owner = _armed(backend, jail)
    pid = probe.pid
    assert pid is not None
    backend.verify(jail, pid)

    def elsewhere(path: int | str) -> dict[str, tuple[int, int] | None]:
        return {**namespaces(path), **({kind: (0, 0)} if path == pid else {})}

    monkeypatch.setattr(linux_entry, "namespaces", elsewhere)
    with pytest.raises(ArmingError, match="namespaces became others meanwhile"):
        backend.verify(jail, pid)
    _end(backend, probe, owner)
    jail.close()


def test_a_probe_in_no_jail_is_not_let_go(backend: LinuxBackend, moving: MovingJail) -> None:
    jail = backend.resolve(str(moving.init))
    with pytest.raises(ArmingError, match="the probe is not in the container"):
        backend.verify(jail, os.getpid())
    jail.close()


def test_an_init_whose_first_thread_has_ended_goes_on(
    backend: LinuxBackend, moving: MovingJail
) -> None:
    jail = backend.resolve(str(moving.init))
    moving.tell("part")
    wait_until(lambda: namespace(moving.init, "net") is None, "its first thread has ended")
    thread = max(int(name) for name in os.listdir(f"/proc/{moving.init}/task"))
    assert jail.alive()
    probe, owner = _armed(backend, jail)
    assert probe.pid is not None
    assert namespaces(probe.pid) == namespaces(f"{moving.init}/task/{thread}")
    _end(backend, probe, owner)
    jail.close()
    # And it is found by its number again.
    backend.resolve(str(moving.init)).close()


def test_before_6_9_such_an_init_is_refused_and_not_called_ended(
    backend: LinuxBackend, moving: MovingJail, monkeypatch: pytest.MonkeyPatch
) -> None:
    jail = backend.resolve(str(moving.init))
    moving.tell("part")
    wait_until(lambda: namespace(moving.init, "net") is None, "its first thread has ended")

    def old(_: int, flags: int = 0) -> int:
        raise OSError(errno.EINVAL if flags else errno.ESRCH, "as an old kernel says")

    monkeypatch.setattr(os, "pidfd_open", old)
    with pytest.raises(ArmingError, match=r"before Linux 6\.9") as told:
        backend.spawn(jail, "jaildaemon: BELL", 0, 0)
    assert not isinstance(told.value, JailLost)
    monkeypatch.undo()
    why = explained(jail, "enter", errno.ESRCH)
    assert not isinstance(why, JailLost)
    jail.close()


def test_an_init_that_is_no_more_is_lost(backend: LinuxBackend) -> None:
    made = NamespaceJail()
    jail = backend.resolve(str(made.init))
    made.close()
    with pytest.raises(JailLost):
        backend.spawn(jail, "jaildaemon: BELL", 0, 0)
    assert isinstance(explained(jail, "enter", errno.ESRCH), JailLost)
    with pytest.raises(JailLost):
        backend.verify(jail, os.getpid())
    jail.close()


# --- who it is ---------------------------------------------------------------------------


def _denied(*_: object) -> None:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def test_a_process_that_just_ended_is_no_question_of_rights(
    backend: LinuxBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its namespaces are refused for a moment: 37 times of 13,818."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    monkeypatch.setattr(linux, "namespace", _denied)
    with pytest.raises(NoSuchJail, match="the process has ended"):
        backend.resolve(str(pid))
    assert wait_child(pid) == ("exit", 0)
    with pytest.raises(NotPermitted, match="its namespaces cannot be read"):
        backend.resolve(str(os.getpid()))


def test_the_init_is_looked_at_again_when_it_is_held(
    backend: LinuxBackend, moving: MovingJail, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number may be another's by then: that of another container's init, or of no init."""
    other = MovingJail()
    monkeypatch.setattr(linux, "find_init", lambda *_: other.init)
    with pytest.raises(NoSuchJail, match="the container has ended"):
        backend.resolve(str(moving.init))
    other.close()
    monkeypatch.setattr(linux, "find_init", lambda *_: moving.init)
    monkeypatch.setattr(linux, "is_init", lambda _: False)
    with pytest.raises(NoSuchJail, match="the container has ended"):
        backend.resolve(str(moving.init))


def test_a_reported_pid_that_is_watched_already_is_refused(
    backend: LinuxBackend, moving: MovingJail
) -> None:
    jail = backend.resolve(str(moving.init))
    pid = os.fork()
    if pid == 0:
        os.setsid()
        signal.pause()
    told: list[object] = []
    backend.watcher.watch_process(pid, told.append)
    try:
        for untrusted in (pid, 0, -1, 2**22 + 1):
            with pytest.raises(ArmingError, match="a pid that is not its own"):
                backend.probe_reported(jail, untrusted, pid)
        with pytest.raises(ArmingError, match="a process that is not ours"):
            backend.probe_reported(jail, moving.init, pid)
    finally:
        os.kill(pid, signal.SIGKILL)
        while not told:
            backend.watcher.wait()
    jail.close()


# --- security modules ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ids", "release", "may"),
    [
        ("0 100000 65536", "6.6.1", True),
        ("0 100000 65536", "5.10.0-amd64", True),
        ("0 100000 65536", "6.7.0", False),  # binary formats of its own
        ("0 100000 65536", "unknown", False),
        ("0 0 4294967295", "6.6.1", False),
        ("0 0 4294967294", "6.6.1", True),
        ("0 0 1\n1 4294967294 1", "6.6.1", False),
        ("7 4294967290 5", "5.10", False),
    ],
)
def test_a_user_namespace_is_joined_before_the_exec_only_where_that_is_safe(
    ids: str,
    release: str,
    may: bool,
    backend: LinuxBackend,
    moving: MovingJail,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jail = backend.resolve(str(moving.init))
    shown = {"uid_map": ids, "gid_map": "0 100000 1", "osrelease": release}
    monkeypatch.setattr(Path, "read_text", lambda path, **_: shown[path.name])
    assert may_join_at_once(jail) is may
    shown.update(uid_map="0 100000 1", gid_map=ids)
    assert may_join_at_once(jail) is may
    jail.close()


@pytest.mark.parametrize("step", ["userns", "caps", "gid", "uid"])
@pytest.mark.parametrize("error", [errno.EPERM, errno.EACCES])
def test_what_a_profile_forbids_is_named(
    step: str,
    error: int,
    backend: LinuxBackend,
    moving: MovingJail,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jail = backend.resolve(str(moving.init))
    monkeypatch.setattr(linux_entry, "may_join_at_once", lambda _: True)
    monkeypatch.setattr(LinuxJail, "label", lambda _: (LABEL_NONE, b""))
    why = explained(jail, step, error)
    assert isinstance(why, NotPermitted)
    assert "the daemon must be root" in str(why)
    # With a label there is another way, once, for the first step alone.
    monkeypatch.setattr(LinuxJail, "label", lambda _: (LABEL_APPARMOR, b"mean"))
    why = explained(jail, step, error)
    assert isinstance(why, Again) is (step == "userns")
    assert jail.image.at_once is (step == "userns")
    why = explained(jail, step, error)
    assert isinstance(why, NotPermitted)
    assert step in str(why)
    assert "sys_admin" in str(why.__dict__)
    # Nor where that way is not safe.
    jail.image.at_once = False
    monkeypatch.setattr(linux_entry, "may_join_at_once", lambda _: False)
    assert isinstance(explained(jail, step, error), NotPermitted)
    jail.close()


@pytest.mark.parametrize("error", [errno.ETXTBSY, errno.EACCES, errno.EPERM])
def test_an_image_that_cannot_be_executed_is_replaced(
    error: int, backend: LinuxBackend, moving: MovingJail
) -> None:
    jail = backend.resolve(str(moving.init))
    before = os.fstat(jail.image.fd()).st_ino
    assert isinstance(explained(jail, "exec", error), Again)
    assert os.fstat(jail.image.fd()).st_ino != before
    for other in (errno.EAGAIN, errno.ENOMEM):
        before = os.fstat(jail.image.fd()).st_ino
        assert not isinstance(explained(jail, "exec", other), Again)
        assert os.fstat(jail.image.fd()).st_ino == before
    jail.close()


def test_each_jail_has_an_image_and_all_its_handles_have_the_same(
    backend: LinuxBackend, moving: MovingJail
) -> None:
    other = MovingJail()
    first, again = backend.resolve(str(moving.init)), backend.resolve(str(moving.init))
    second = backend.resolve(str(other.init))
    inodes = {os.fstat(jail.image.fd()).st_ino for jail in (first, again)}
    assert len(inodes) == 1
    assert os.fstat(second.image.fd()).st_ino not in inodes
    assert os.fstat(backend._image).st_ino not in {*inodes, os.fstat(second.image.fd()).st_ino}
    fd = first.image.fd()
    again.close()
    assert os.fstat(fd).st_ino in inodes  # another handle needs it
    first.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    second.close()
    other.close()
