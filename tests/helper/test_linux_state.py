# SPDX-License-Identifier: BSD-2-Clause
"""What stands in the jail at the end, as /proc shows it, and the way it got there."""

import contextlib
import errno
import fcntl
import os
import re
import signal
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest

from jaildaemon.backends.base import FD_IMAGE, FD_USERNS
from tests.contract.linux_jail import FIRST_MAPPED
from tests.helper.conftest import Starter
from tests.helper.faults import NAMESPACES, strace
from tests.helper.parent import Target, ignore_signals, params, status, wait_asleep, wait_child

if sys.platform != "linux":
    pytest.skip("cannot: the Linux helper", allow_module_level=True)

TITLE = "jaildaemon: BELL"
NONE = "0" * 16


@pytest.fixture
def secret(tmp_path: Path) -> Iterator[int]:
    """Give a descriptor that a careless daemon might leave to the helper."""
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    os.set_inheritable(fd, True)
    yield fd
    os.close(fd)


def leaky() -> None:
    """Be a daemon with a terminal's habits: a group, a umask, limits, signals ignored."""
    ignore_signals()
    os.umask(0)
    os.setgroups([0, 4, 10])
    os.environ["SECRET"] = "in the environment"


@pytest.fixture(params=["target", "user_target"])
def where(request: pytest.FixtureRequest) -> Target:
    """Give a jail without and one with a user namespace."""
    found: Target = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def probe(start: Starter, where: Target, secret: int) -> Iterator[int]:
    """Give a sleeping probe, made by a careless daemon."""
    os.fstat(secret)
    pid = start(target=where, prepare=leaky).armed(params(where.number, 1234, 5678))
    yield pid
    os.kill(pid, signal.SIGHUP)
    assert wait_child(pid) == ("signal", signal.SIGHUP)


def test_it_holds_nothing_of_the_host(probe: int, where: Target) -> None:
    proc = Path(f"/proc/{probe}")
    assert os.listdir(proc / "fd") == []
    assert (proc / "environ").read_bytes() == b""
    assert (proc / "cmdline").read_bytes() == TITLE.encode() + b"\0"
    assert (proc / "comm").read_bytes() == b"jailprobe\n"
    for link in ("root", "cwd"):
        assert os.path.samestat(os.stat(proc / link), os.stat(f"/proc/{where.init}/root"))
        assert not os.path.samestat(os.stat(proc / link), os.stat("/"))
    mapped = (proc / "maps").read_text(encoding="ascii")
    files = {line.split(maxsplit=5)[5] for line in mapped.splitlines() if len(line.split()) > 5}
    assert {file for file in files if not file.startswith("[")} == {"/memfd:jailprobe (deleted)"}


@pytest.mark.parametrize("above", [1, 2])
def test_the_first_descriptors_that_it_does_not_need_are_closed(
    start: Starter, where: Target, secret: int, above: int
) -> None:
    first = FD_IMAGE if where.user_fd is None else FD_USERNS

    def leak() -> None:
        os.dup2(secret, first + above)

    pid = start(target=where, prepare=leak).armed(params(where.number))
    assert os.listdir(f"/proc/{pid}/fd") == []
    os.kill(pid, signal.SIGKILL)
    assert wait_child(pid) == ("signal", signal.SIGKILL)


def test_it_is_in_every_namespace_of_the_jail(probe: int, where: Target) -> None:
    for kind in NAMESPACES:
        name = "pid" if kind == "pid" else kind
        theirs = os.stat(f"/proc/{where.init}/ns/{name}")
        assert os.path.samestat(os.stat(f"/proc/{probe}/ns/{name}"), theirs), kind


def test_it_may_do_nothing(probe: int, where: Target) -> None:
    fields = status(probe)
    caps = {name: value for name, value in fields.items() if name.startswith("Cap")}
    assert caps == dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), NONE)
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
    assert fields.get("Seccomp_filters", "2") == "2"
    same = os.path.samestat(os.stat(f"/proc/{where.init}/ns/user"), os.stat("/proc/self/ns/user"))
    shift = 0 if same else FIRST_MAPPED
    assert fields["Uid"].split() == [str(1234 + shift)] * 4
    assert fields["Gid"].split() == [str(5678 + shift)] * 4
    assert fields["Groups"].split() == []
    limits = (Path(f"/proc/{probe}") / "limits").read_text(encoding="ascii")
    assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE)


def test_it_takes_every_signal_as_the_kernel_does_by_default(probe: int) -> None:
    fields = status(probe)
    for name in ("SigIgn", "SigCgt", "SigBlk", "SigPnd", "ShdPnd"):
        assert (name, fields[name]) == (name, NONE)


def _processes() -> Iterator[int]:
    """Give every process that goes on while it is looked at."""
    for name in os.listdir("/proc"):
        with contextlib.suppress(ProcessLookupError):
            if name.isdecimal() and os.getsid(int(name)) >= 0:
                yield int(name)


def test_it_is_our_child_and_alone_in_a_session_of_its_own(probe: int) -> None:
    fields = status(probe)
    assert (int(fields["PPid"]), fields["Threads"]) == (os.getpid(), "1")
    assert int(fields["Umask"], 8) == 0o077
    stat = Path(f"/proc/{probe}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    group, session, terminal = (int(word) for word in stat[2:5])
    assert (group, terminal) == (session, 0)
    assert session not in (probe, os.getsid(0))
    # Its leader, the helper, has ended: nobody else is in it.
    assert [pid for pid in _processes() if os.getsid(pid) == session] == [probe]


def test_it_cannot_be_dumped_or_looked_into(probe: int) -> None:
    # Files of a dumpable process are its own user's; of another, the host's root's.
    for name in ("fd", "environ", "mem", "maps"):
        assert os.stat(f"/proc/{probe}/{name}").st_uid == 0


def test_its_user_cannot_read_what_is_secret_of_it(probe: int) -> None:
    uid = int(status(probe)["Uid"].split()[0])
    reader = os.fork()
    if reader == 0:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        denied = 0
        for name in ("root", "cwd", "exe"):
            try:
                os.readlink(f"/proc/{probe}/{name}")
            except PermissionError:
                denied += 1
        for name in ("environ", "mem", "maps"):
            try:
                os.close(os.open(f"/proc/{probe}/{name}", os.O_RDONLY))
            except PermissionError:
                denied += 1
        os._exit(denied)
    assert wait_child(reader) == ("exit", 6)


def test_its_image_can_be_changed_neither_while_it_lives_nor_after(
    start: Starter, target: Target
) -> None:
    """CVE-2019-5736."""
    pid = start().armed(params(target.number))
    exe = f"/proc/{pid}/exe"
    kept = [os.open(exe, os.O_RDONLY), os.open(exe, os.O_PATH)]
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
        with pytest.raises(OSError) as busy:
            os.open(exe, flags)
        assert busy.value.errno == errno.ETXTBSY
    os.kill(pid, signal.SIGHUP)
    assert wait_child(pid) == ("signal", signal.SIGHUP)
    before = os.stat(kept[0])
    for fd in kept:
        try:
            again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
        except PermissionError:
            continue
        for attempt in (
            lambda fd=again: os.write(fd, b"evil"),
            lambda fd=again: os.ftruncate(fd, 0),
            lambda fd=again: os.ftruncate(fd, 1 << 20),
        ):
            with pytest.raises(PermissionError):
                attempt()
        os.close(again)
    # Whoever owns the file may not make it executable in other ways either.
    assert fcntl.fcntl(kept[0], 1034) & 0x0F == 0x0F  # F_GET_SEALS: all of the old four
    assert os.stat(kept[0]).st_size == before.st_size
    for fd in kept:
        os.close(fd)


# --- the way ----------------------------------------------------------------------------

HELPER_CALLS = """
execve rt_sigprocmask rt_sigaction read close close_range setsid chdir umask prlimit64 keyctl
prctl setgroups setns close prctl setresgid setresuid capset execveat prctl close read prctl
clone write exit_group
""".split()
LATER_CALLS = """
execve rt_sigprocmask rt_sigaction read close close_range setsid chdir umask prlimit64 keyctl
prctl setgroups setns close execveat prctl close read setns close prctl setresgid setresuid capset
prctl clone write exit_group
""".split()
PROBE_CALLS = "prctl prctl write close read close rt_sigsuspend".split()
LINE = re.compile(r"^(\d+) +(\w+)\((.*)$")


def test_no_path_is_looked_up_after_the_jail_is_joined(
    start: Starter, where: Target, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    parent = start(target=where, wrap=strace("-o", str(log)))
    parent.send(params(where.number))
    pid = parent.ready()
    parent.send(b"G")
    wait_asleep(pid)
    os.kill(pid, signal.SIGHUP)
    assert wait_child(pid) == ("signal", signal.SIGHUP)
    assert parent.records_to_the_end()  # strace held the pipe: it has written everything
    matches = [LINE.match(line) for line in log.read_text(encoding="ascii").splitlines()]
    calls = [match.groups() for match in matches if match]
    ours = [(name, rest) for who, name, rest in calls if int(who) == parent.pid]
    probes = [(name, rest) for who, name, rest in calls if int(who) == pid]
    # The whole way, in full: a call that is new here was thought about.
    later = where.user_fd is not None
    whole = LATER_CALLS if later else HELPER_CALLS
    assert [name for name, _ in groupby(name for name, _ in ours)] == whole
    assert [name for name, _ in probes] == PROBE_CALLS
    no_path = ("read", "write", "prctl")  # what they name in quotes is data
    paths = [(name, rest.split('"')[1]) for name, rest in ours + probes if '"' in rest]
    assert [(name, path) for name, path in paths if name not in no_path] == [
        ("execve", "/proc/self/fd/6"),
        ("chdir", "/"),
        ("execveat", ""),
    ]
    after = [name for name, _ in ours]
    after = after[after.index("setns") :]
    assert not {"chdir", "execve", "openat"} & set(after)
    (image,) = [rest for name, rest in ours if name == "execveat"]
    assert image.startswith(f'6, "", ["{TITLE}"], 0x')
    assert image.endswith("/* 0 vars */, AT_EMPTY_PATH) = 0")
    # The user namespace comes last and alone, after the exec, by its own descriptor.
    first, *second = [rest for name, rest in ours if name == "setns"]
    assert first.startswith("5, ")
    assert "CLONE_NEWUSER" not in first
    assert [" ".join(rest.split()) for rest in second] == ["7, CLONE_NEWUSER) = 0"] * later
    # Before the jail is joined, after the exec, and again when the ids are new.
    undumpable = [n for n, (_, rest) in enumerate(ours) if "PR_SET_DUMPABLE" in rest]
    places = [n for n, (name, _) in enumerate(ours) if name in ("setns", "execveat", "capset")]
    order = sorted([(n, "0") for n in undumpable] + [(n, ours[n][0]) for n in places])
    assert [what for _, what in order] == (
        ["0", "setns", "execveat", "0", "setns", "capset", "0"]
        if later
        else ["0", "setns", "capset", "execveat", "0"]
    )
    assert all("SUID_DUMP_DISABLE) = 0" in ours[n][1] for n in undumpable)
