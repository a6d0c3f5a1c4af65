# SPDX-License-Identifier: BSD-2-Clause
"""Real engines' containers with a user namespace: those that map the host's uid 0, too."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("cannot: the Linux attacker", allow_module_level=True)
assert sys.platform == "linux"

from tests.attacks.cage import Cage, Plan
from tests.attacks.linux_fixtures import MakeNaive
from tests.attacks.rig import Daemon, wait_counts
from tests.attacks.tally import Tally
from tests.attacks.test_attack_proc import looked
from tests.daemon.product import wait_until
from tests.helper.parent import status
from tests.kernel.jails import cannot_have
from tests.kernel.jails.base import NoSuchKind
from tests.kernel.jails.engines import Dockerd, DockerUser, PodmanUser
from tests.kernel.jails.linux import BusyboxJail, rootfs
from tests.kernel.jails.lxc import LxcUser
from tests.kernel.place import Place

IDENTITY = (0, 65536)


class PodmanRootOnly(PodmanUser):
    """podman --uidmap 0:0:1."""

    kind = "podman, the host's root alone"

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.first_id, self.ids = 0, 1


class LxcIdentity(LxcUser):
    """LXC's identity map."""

    kind = "lxc, identity"

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.first_id, self.ids = IDENTITY


KINDS: list[type[BusyboxJail]] = [DockerUser, PodmanRootOnly, LxcIdentity]


class Inside(Cage):
    """The attacker in a container, started by the engine."""

    def __init__(self, command: list[str], init: int | None = None) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        assert self._line() == "ready"
        self.init = _first_process(self._process.pid) if init is None else init
        self.pidfd = os.pidfd_open(self.init)
        self.plan = Plan(int(status(self.init)["CapBnd"], 16), user=True)


def _first_process(parent: int) -> int:
    """Return the descendant that is the first process of a PID namespace."""
    found: list[int] = []

    def look(pid: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            words = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
            for child in map(int, words.split()):
                if status(child)["NSpid"].split()[-1] == "1":
                    found.append(child)
                look(child)

    def known() -> bool:
        look(parent)
        return bool(found)

    wait_until(known, "its first process")
    return found[0]


@pytest.fixture
def place(attacker: Path) -> Iterator[Place]:
    """Give a place with a tree that has the attacker in it."""
    made = Place()
    try:
        shutil.copy(attacker, rootfs(made) / "attacker")
    except NoSuchKind as error:
        made.close()
        pytest.skip(str(error))
    yield made
    Dockerd.stop_all()
    made.close()


MakeInside = Callable[..., Inside]


@pytest.fixture
def make_inside(place: Place) -> Iterator[MakeInside]:
    """Give what starts attackers; to be asked for before the daemons, which end first."""
    assert place.directory.exists()
    with contextlib.ExitStack() as stack:

        def make(command: list[str], init: int | None = None) -> Inside:
            cage = Inside(command, init)
            stack.callback(cage.close)
            return cage

        yield make


def _attack(cage: Cage, daemon: Daemon, tally: Tally, name: str) -> None:
    pid = daemon.attach(cage.init, "BELL")
    won, tries = looked(cage, pid, cage.number(pid))
    tally.attack(f"look {name}", tries, len(won), " ".join(sorted(won)))
    cage.ask(f"start image {cage.number(pid)} mode")
    wait_counts(cage, "seen", 1)
    daemon.detach_all()
    wait_counts(cage, "seen", 2)
    found = cage.counts("stop")
    reached = {*found["won"].split(",")} - {"", "inotify"}
    tally.attack(f"image {name}", int(found["attempts"]), len(reached), " ".join(reached))
    assert daemon.triggers() == 0


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_no_engines_user_namespace_lets_root_look_into_its_probe(
    kind: type[BusyboxJail],
    place: Place,
    make_inside: MakeInside,
    make_naive: MakeNaive,
    daemon: Daemon,
    tally: Tally,
) -> None:
    jail = kind(place)
    try:
        jail.start()
    except NoSuchKind as error:
        excuse = cannot_have(kind)
        pytest.skip(f"cannot: {excuse}" if excuse else str(error))
    command = jail.argv("/attacker")
    if "exec" in command:
        command.insert(command.index("exec") + 1, "--interactive")
    cage = make_inside(command, jail.init)
    naive = make_naive(cage)
    won, _ = looked(cage, pid := naive.standing(), cage.number(pid))
    # By docker's capabilities and shifted ids not even that one is reached.
    assert won or kind is DockerUser
    if won:
        tally.control(f"look {kind.kind}", len(won))
    _attack(cage, daemon, tally, kind.kind)


def test_nspawns_identity_lets_root_not_look_into_its_probe(
    place: Place, make_inside: MakeInside, make_naive: MakeNaive, daemon: Daemon, tally: Tally
) -> None:
    """systemd-nspawn --private-users=identity."""
    nspawn = shutil.which("systemd-nspawn")
    if nspawn is None:
        pytest.skip("systemd-nspawn is missing; install the package systemd-container")
    command = [nspawn, "--quiet", "--pipe", "--register=no", "--keep-unit"]
    command += ["--private-users=identity", "-D", str(rootfs(place)), "/attacker"]
    (rootfs(place) / "usr").mkdir()  # or it is no system's tree
    try:
        cage = make_inside(command)
    except AssertionError:
        pytest.skip("cannot: systemd-nspawn starts no container here")
    naive = make_naive(cage)
    won, _ = looked(cage, pid := naive.standing(), cage.number(pid))
    tally.control("look nspawn identity", len(won))
    _attack(cage, daemon, tally, "nspawn identity")
