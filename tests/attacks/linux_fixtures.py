# SPDX-License-Identifier: BSD-2-Clause
"""Linux jails with an attacker in them, and a daemon to attack."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

assert sys.platform == "linux"

from tests.attacks.cage import PLANS, Cage, Plan
from tests.attacks.linux_naive import Naive
from tests.attacks.naive_linux import naive_command
from tests.attacks.rig import HERE, STRICT, Daemon, build
from tests.attacks.tally import Tally
from tests.daemon.product import wait_until
from tests.helper.parent import wait_readable


@pytest.fixture(scope="session")
def attacker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the attacker."""
    if os.geteuid() != 0:
        pytest.skip("only root may make the jails: run the tests as root")
    program = tmp_path_factory.mktemp("attacker") / "attacker"
    names = ("attacker", "attack_race", "attack_look", "attack_trace", "attack_image")
    return build(program, *STRICT, *(HERE / f"{name}.c" for name in names))


Make = Callable[[Plan], Cage]


@pytest.fixture
def make_cage(attacker: Path) -> Iterator[Make]:
    """Give what makes jails."""
    with contextlib.ExitStack() as stack:

        def make(plan: Plan) -> Cage:
            cage = Cage(attacker, plan)
            stack.callback(cage.close)
            return cage

        yield make


@pytest.fixture
def jail(make_cage: Make) -> int:
    """Give a jail, as the daemon calls it."""
    return make_cage(PLANS["docker"]).init


@pytest.fixture
def daemon(tmp_path: Path, attacker: Path) -> Iterator[Daemon]:
    """Give a daemon."""
    assert attacker.exists()
    running = Daemon(tmp_path)
    yield running
    running.close()


MakeCareless = Callable[..., Daemon]


@pytest.fixture
def make_careless(tmp_path: Path, attacker: Path) -> Iterator[MakeCareless]:
    """Give what makes daemons without some of the product's cares: naive_linux.py."""
    assert attacker.exists()
    with contextlib.ExitStack() as stack:

        def make(*ways: str) -> Daemon:
            directory = tmp_path / f"careless-{'-'.join(ways)}"
            directory.mkdir()
            running = Daemon(directory, command=naive_command(*ways))
            stack.callback(running.close)
            return running

        yield make


MakeNaive = Callable[..., Naive]


@pytest.fixture
def make_naive(tmp_path: Path) -> Iterator[MakeNaive]:
    """Give what makes naive daemons."""
    with contextlib.ExitStack() as stack:

        def make(cage: Cage, wrap: Iterable[str | Path] = ()) -> Naive:
            directory = tmp_path / "naive"
            directory.mkdir(exist_ok=True)
            naive = Naive(cage, directory, wrap)
            stack.callback(naive.close)
            return naive

        yield make


@pytest.fixture
def freezer() -> Iterator[Path]:
    """Give a cgroup that can be frozen."""
    old = Path("/sys/fs/cgroup/freezer")
    unified = Path("/sys/fs/cgroup/unified")
    roots = [root for root in (old, unified, Path("/sys/fs/cgroup")) if root.is_dir()]
    for root in roots:
        group = root / f"jaildaemon-attack-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        if (group / "freezer.state").exists() or (group / "cgroup.freeze").exists():
            yield group
            freeze(group, frozen=False)
            for pid in (group / "cgroup.procs").read_text(encoding="ascii").split():
                (root / "cgroup.procs").write_text(pid, encoding="ascii")
            group.rmdir()
            return
        group.rmdir()
    pytest.skip("cannot: no cgroup here can be frozen")


def freeze(group: Path, *, frozen: bool) -> None:
    """Freeze a cgroup or let it go; return when it is so."""
    old, new = group / "freezer.state", group / "cgroup.freeze"
    if old.exists():
        wanted = "FROZEN" if frozen else "THAWED"
        old.write_text(wanted, encoding="ascii")
        wait_until(lambda: old.read_text(encoding="ascii").strip() == wanted, wanted)
        return
    new.write_text(str(int(frozen)), encoding="ascii")
    wanted, events = f"frozen {frozen:d}", group / "cgroup.events"
    wait_until(lambda: wanted in events.read_text(encoding="ascii"), wanted)


class Bell:
    """A rule in a jail of its own, whose command is heard."""

    def __init__(self, cage: Cage, daemon: Daemon, fifo: Path) -> None:
        os.mkfifo(fifo)
        self.cage, self.daemon = cage, daemon
        self._fd = os.open(fifo, os.O_RDWR)
        self._command = f"echo x > {fifo}"
        self._fifo = fifo

    def ring(self) -> float:
        """Arm, ring from inside, and return the milliseconds until it was heard."""
        pid = self.daemon.attach(self.cage.init, "OTHER", command=self._command)
        number = self.cage.number(pid)
        began = time.perf_counter()
        assert self.cage.ask(f"kill {number} {signal.SIGHUP:d}") == ["ok"]
        wait_readable(self._fd)
        os.read(self._fd, 64)
        return (time.perf_counter() - began) * 1000

    def close(self) -> None:
        """Hear no more."""
        os.close(self._fd)


@pytest.fixture
def other(make_cage: Make, daemon: Daemon, tmp_path: Path) -> Iterator[Bell]:
    """Give another jail's rule."""
    bell = Bell(make_cage(PLANS["docker"]), daemon, tmp_path / "heard")
    yield bell
    bell.close()


def served(other: Bell, tally: Tally, what: str) -> None:
    """Ring another jail's rule, which must be heard as ever."""
    before = other.daemon.triggers()
    figures = sorted(other.ring() for _ in range(5))
    assert other.daemon.triggers() == before + 5
    tally.note(f"{what}: another rule is served meanwhile, median {figures[2]:.1f} ms")
    tally.attack(what, 1, 0)
