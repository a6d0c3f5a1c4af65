# SPDX-License-Identifier: BSD-2-Clause
"""What root of a container does to its probe, and to the image that it runs from.

By every kind of user namespace, with and without CAP_SYS_PTRACE: it changes nothing for
another jail, for the daemon's loop, or for its own next probe.  Who may trace by right of
the first user namespace reaches the image of its own jail, and that is all.
"""

import itertools
import os
import signal
import sys
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("cannot: the Linux attacker", allow_module_level=True)
assert sys.platform == "linux"

from jaildaemon.backends.linux_strays import OUR_IMAGE
from tests.attacks.cage import MAPPED_CAGES, PLANS, TRACES, Cage
from tests.attacks.linux_fixtures import Make, MakeCareless, MakeNaive
from tests.attacks.rig import Daemon, wait_counts
from tests.attacks.tally import Tally
from tests.attacks.test_attack_proc import ALWAYS_WON, looked
from tests.daemon.product import wait_until
from tests.helper.parent import status, wait_readable

CONFINED = [name for name in MAPPED_CAGES if name != TRACES]
BY_TRACING = [name for name in CONFINED if name.endswith("SYS_PTRACE") and name[:7] != "shifted"]
"""Where the way of 0.1.0 loses: its exec came after the user namespace, which has the host's 0."""
WAYS = ["open", "lease", "mode"]
NOBODYS = 2**32 - 2
NUMBERS = itertools.count()


@pytest.mark.parametrize("kind", CONFINED)
def test_no_map_of_ids_lets_root_look_into_its_probe(
    kind: str, make_cage: Make, make_naive: MakeNaive, daemon: Daemon, tally: Tally
) -> None:
    cage = make_cage(MAPPED_CAGES[kind])
    naive = make_naive(cage)
    won, _ = looked(cage, pid := naive.standing(), cage.number(pid))
    # Who is another uid there and may not trace reaches not even that one.
    assert won >= ALWAYS_WON or kind == "shifted"
    if won:
        tally.control(f"look {kind}", len(won))
    pid = daemon.attach(cage.init, "BELL")
    won, tries = looked(cage, pid, cage.number(pid))
    tally.attack(f"look {kind}", tries, len(won), " ".join(sorted(won)))
    assert daemon.triggers() == 0


@pytest.mark.parametrize("kind", BY_TRACING)
def test_an_exec_in_the_user_namespace_would_lose_the_probe(
    kind: str, make_cage: Make, make_careless: MakeCareless, tally: Tally
) -> None:
    """The negative control of the one above, by the order of 0.1.0."""
    cage = make_cage(MAPPED_CAGES[kind])
    pid = make_careless("shared", "once").attach(cage.init, "BELL")
    won, _ = looked(cage, pid, cage.number(pid))
    assert {"exe", "root", "mem", "seize", "attach"} <= won
    tally.control(f"exec in the user namespace, {kind}", len(won), " ".join(sorted(won)))


class Attacked:
    """A rule whose probe was rung when its image was reached; its command runs until `go_on`."""

    def __init__(self, cage: Cage, daemon: Daemon, how: str, directory: Path) -> None:
        fifo = directory / f"fifo{next(NUMBERS)}"
        os.mkfifo(fifo)
        self._fd, self._daemon = os.open(fifo, os.O_RDWR), daemon
        pid = daemon.attach(cage.init, "BELL", f"read x < {fifo}", respawn="after")
        daemon.wait_log(rf"armed in jail {cage.init} as pid {pid}")
        pidfd = os.pidfd_open(pid)
        cage.ask(f"start image {cage.number(pid)} {how}")
        wait_counts(cage, "seen", 1)
        signal.pidfd_send_signal(pidfd, signal.SIGHUP)
        os.close(pidfd)
        wait_counts(cage, "seen", 2)
        self.found = cage.counts()

    def go_on(self) -> None:
        """End the command: the rule gets its next probe, by the image that is held."""
        os.write(self._fd, b"x\n")

    def close(self) -> None:
        """Close the FIFO."""
        os.close(self._fd)


def _image(pid: int) -> tuple[object, ...]:
    """Return what there is of an image, from outside."""
    path = f"/proc/{pid}/exe"
    found = os.stat(path)
    return found.st_mode & 0o7777, found.st_uid, found.st_gid, found.st_mtime, os.listxattr(path)


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("kind", MAPPED_CAGES)
def test_the_image_of_a_probe_is_its_own_jails_affair(
    kind: str, how: str, make_cage: Make, daemon: Daemon, tally: Tally, tmp_path: Path
) -> None:
    """Its control: test_an_image_that_all_share_is_everybodys."""
    cage, other = make_cage(MAPPED_CAGES[kind]), make_cage(PLANS["docker"])
    standing = daemon.attach(other.init, "STANDING")
    before = _image(standing)
    attacked = Attacked(cage, daemon, how, tmp_path)
    reached = {*attacked.found["won"].split(",")} - {"", "inotify"}
    if kind == TRACES:
        # Cannot be prevented: its own jail's image is open to it, but its content is not.
        assert {"path", "flock"} <= reached
        assert {"open": "open", "lease": "lease", "mode": "chmod"}[how] in reached
        reached &= {"write", "truncate"}
    tries = int(attacked.found["attempts"])
    tally.attack(f"image {kind} {how}", tries, len(reached), " ".join(reached))
    # While it is held: another jail, the daemon, and its own next probe.
    assert _image(standing) == before
    assert before[:3] == (0o111, NOBODYS, NOBODYS)
    daemon.attach(other.init, "ANOTHER")
    attacked.go_on()
    again = int(daemon.wait_log(rf"armed in jail {cage.init} as pid (\d+)").group(1))
    if kind != TRACES or how != "mode":
        assert _image(again)[:3] == before[:3]
    assert cage.ask(f"kill {cage.number(again)} {signal.SIGHUP:d}") == ["ok"]
    wait_until(lambda: daemon.triggers() == 2, "the second run")
    cage.ask("stop")
    attacked.close()


def test_an_image_that_all_share_is_everybodys(
    make_cage: Make, make_careless: MakeCareless, tally: Tally, tmp_path: Path
) -> None:
    """The negative control: what befell 0.1.0, from a container that may trace."""
    cage, other = make_cage(MAPPED_CAGES[TRACES]), make_cage(PLANS["docker"])
    daemon = make_careless("wait")
    attacked = Attacked(cage, daemon, "open", tmp_path)
    answer = daemon.call("Attach", jail=str(other.init), command="true", title="OTHER")
    tally.control("a shared image, open", "error" in answer, str(answer))
    cage.ask("stop")
    attacked.close()
    daemon.close()
    daemon = make_careless("wait", "mode")
    pid = daemon.attach(other.init, "STANDING")
    attacked = Attacked(cage, daemon, "mode", tmp_path)
    tally.control("a shared image, mode", _image(pid)[0] == 0o555)
    cage.ask("stop")
    attacked.close()


def test_a_lease_on_a_shared_image_stops_the_daemon(
    make_cage: Make, make_careless: MakeCareless, tally: Tally, tmp_path: Path
) -> None:
    """The negative control: it sleeps in posix_spawn(2), for 45 s, with every container's end."""
    cage, other = make_cage(MAPPED_CAGES[TRACES]), make_cage(PLANS["docker"])
    daemon = make_careless("wait")
    attacked = Attacked(cage, daemon, "lease", tmp_path)
    assert "lease" in attacked.found["won"]
    with daemon.asked("Attach", jail=str(other.init), command="true", title="OTHER"):
        wait_until(lambda: status(daemon.pid)["State"].startswith("D"), "it hangs")
        tally.control("a lease on a shared image", 1)
        cage.ask("stop")
    attacked.close()


def test_a_lease_is_waited_for_by_nobody(
    make_cage: Make, daemon: Daemon, tally: Tally, tmp_path: Path
) -> None:
    """The others are served while the arming in that very jail is held, and that is renewed."""
    cage, other = make_cage(MAPPED_CAGES[TRACES]), make_cage(PLANS["docker"])
    attacked = Attacked(cage, daemon, "lease", tmp_path)
    assert "lease" in attacked.found["won"]
    attacked.go_on()
    helper = os.pidfd_open(_held_helper(daemon))
    daemon.attach(other.init, "OTHER")
    wait_readable(helper)  # it was ended, and the next one has another image
    os.close(helper)
    daemon.wait_log(rf"armed in jail {cage.init} as pid \d+")
    assert not [line for line in daemon.lines if "not armed" in line]
    tally.attack("a lease on the image of a jail", 1, 0)
    cage.ask("stop")
    attacked.close()


def _held_helper(daemon: Daemon) -> int:
    found: list[int] = []

    def held() -> bool:
        names = {pid: status(pid) for pid in _unwatched(daemon) if _exe(pid) == OUR_IMAGE}
        # Stage 1 is in our PID namespace still, and honestly it never sleeps.
        inside = [pid for pid, fields in names.items() if len(fields["NSpid"].split()) == 1]
        found[:] = [pid for pid in inside if names[pid]["State"][0] == "S"]
        return bool(found)

    wait_until(held, "stage 1 sleeps in its exec")
    return found[0]


# --- children that nobody asked for ----------------------------------------------------

CHILDREN = 40


def _unwatched(daemon: Daemon) -> list[int]:
    path = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children")
    return [int(word) for word in path.read_text(encoding="ascii").split()]


def _bred(cage: Cage, daemon: Daemon) -> int:
    """Arm until a newborn was caught before its first system call, and cloned."""
    cage.ask(f"start breed {CHILDREN}")
    for _ in range(200):
        daemon.call("Attach", jail=str(cage.init), command="true", title="BELL")
        daemon.detach_all()
        if int(cage.counts()["wins"]):
            break
    return int(cage.counts("stop")["wins"])


def test_children_that_a_tracer_makes_of_a_newborn_do_not_stay(
    make_cage: Make, make_careless: MakeCareless, daemon: Daemon, tally: Tally
) -> None:
    """A rootful container that was given SYS_PTRACE; and its end is held up by none."""
    cage = make_cage(MAPPED_CAGES[TRACES])
    careless = make_careless("leave")
    made = _bred(cage, careless)
    left = [pid for pid in _unwatched(careless) if "jailprobe" in _exe(pid)]
    tally.control("children of a newborn", made and len(left), f"{made} made, {len(left)} left")
    careless.close()

    made = _bred(cage, daemon)
    assert made
    daemon.wait_log(r"ended \d+ processes that somebody in a jail had made of a probe")
    wait_until(lambda: not any("jailprobe" in _exe(pid) for pid in _unwatched(daemon)), "none")
    tally.attack("children of a newborn", made, len(_unwatched(daemon)))
    daemon.attach(cage.init, "NEXT")
    cage.close()


def _exe(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except FileNotFoundError:
        return "jailprobe, a zombie"
