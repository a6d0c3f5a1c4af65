# SPDX-License-Identifier: BSD-2-Clause
"""Attacks 27, 32: what others can write, or could have put in the place of the daemon's files."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jaildaemon.backends import HELPER, OUTPUT_READER
from tests.attacks.rig import HERE, LONGEST_SECONDS, jaildaemon
from tests.attacks.tally import Tally

USER = 1000
EVIL = "id -u >victim"
CHANGED = "! grep -q precious victim"
JOURNAL = "var/state/journal.jsonl"


@dataclass(frozen=True)
class Case:
    """What lies there, and how a user has the naive daemon by it; scripts of sh(1)."""

    spoil: str
    """Done by root, as an administrator who does not think of it."""
    why: str
    """What ours says."""
    lost: str | None = CHANGED
    """True when the naive daemon has lost; None where it loses nothing (docs/attacks.md)."""
    plant: str = "true"
    """What the user does before the naive daemon starts."""
    fifo: str | None = None
    """What is made a fifo after that; not by mkfifo(1), which a small system may lack."""
    meet: str | None = None
    """What the user does meanwhile: the other end of a fifo."""
    strike: str = "true"
    """What the user does afterwards."""
    group: int = USER
    """The user's."""


OTHERS = "can be written by others than root"
USERS = f"belongs to uid {USER}, not to root"
IRREGULAR = "is not a regular file"
REPLACED: dict[str, Any] = {"strike": "mv pipe old && ln -s /nowhere pipe", "lost": "test -L pipe"}
LISTED = OTHERS if sys.platform == "linux" else "has an access control list"
NO_LISTS = "cannot: the file system has no access control lists"
GRANT = f"{sys.executable} {HERE / 'acl.py'} {USER}"
LINES = f"echo '{EVIL}' >"
TOLD = "test -s told"

CASES = {
    "the directory is anybody's": Case("chmod 777 .", OTHERS, **REPLACED),
    "the directory is a group's": Case(f"chgrp {USER} . && chmod 770 .", OTHERS, **REPLACED),
    "the directory is a user's": Case(f"chown {USER} .", USERS, **REPLACED),
    "the lock is a link": Case("ln -s victim pipe.lock", "is a symbolic link"),
    "the pidfile is a link": Case("ln -s victim pid", "is a symbolic link"),
    "the pidfile has another name": Case("ln victim pid", "has another name (a hard link)"),
    "the lock is a fifo": Case("true", IRREGULAR, TOLD, fifo="pipe.lock", meet="cat pipe.lock"),
    "the pidfile is a fifo": Case("true", IRREGULAR, TOLD, fifo="pid", meet="cat pid"),
    "the pidfile is a directory": Case("mkdir pid", "Is a directory", None),
    "the lock is a user's": Case(
        f": >pipe.lock; chown {USER} pipe.lock",
        USERS,
        "grep -qx 1 pipe.lock",
        strike="echo 1 >pipe.lock",
    ),
    "the pidfile is anybody's": Case(
        ": >pid; chmod 666 pid", OTHERS, "grep -qx 1 pid", strike="echo 1 >pid"
    ),
    "the socket is a link": Case(
        "ln -s victim pipe", "exists and is not a socket", "test ! -L pipe"
    ),
    "the socket is a fifo": Case(
        "true", "exists and is not a socket", "test ! -p pipe", fifo="pipe"
    ),
    "the socket is a file": Case("cp victim pipe", "exists and is not a socket", "test ! -f pipe"),
    "the state is anybody's": Case("mkdir -m 777 var/state", OTHERS, plant=LINES + JOURNAL),
    "the state is a user's": Case(
        f"mkdir var/state; chown {USER} var/state",
        USERS,
        plant=LINES + JOURNAL,
    ),
    "above the state others may write": Case(
        "chmod 777 var; mkdir -m 700 var/state",
        f"/var {OTHERS}",
        plant=f"mv var/state var/old; mkdir var/state; {LINES}{JOURNAL}",
    ),
    "the state is a link": Case(
        "mkdir -m 777 more; ln -s ../more var/state",
        "Not a directory" if sys.platform == "linux" else "is a symbolic link",
        plant=f"{LINES}more/journal.jsonl",
    ),
    "the state is a fifo": Case("true", "File exists", None, fifo="var/state"),
    "the journal is a fifo": Case(
        "mkdir var/state",
        f"the journal: {IRREGULAR}",
        fifo=JOURNAL,
        meet=LINES + JOURNAL,
    ),
    "the journal is a user's": Case(
        f"mkdir var/state; : >{JOURNAL}; chown {USER} {JOURNAL}",
        f"the journal: {USERS}",
        plant=LINES + JOURNAL,
    ),
    "the journal is a link": Case(
        f": >notes; chmod 666 notes; mkdir var/state; ln -s ../../notes {JOURNAL}",
        "the journal: is a symbolic link",
        plant=f"{LINES}notes",
    ),
    "the rules are anybody's": Case(
        "chmod 666 etc/rules.toml", OTHERS, plant=f"{LINES}etc/rules.toml"
    ),
    "the rules are a user's": Case(
        f"chown {USER} etc/rules.toml", USERS, plant=f"{LINES}etc/rules.toml"
    ),
    "above the rules others may write": Case(
        "chmod 777 etc", f"/etc {OTHERS}", plant=f"rm -f etc/rules.toml; {LINES}etc/rules.toml"
    ),
    "the rules are a link": Case(
        ": >notes; chmod 666 notes; rm etc/rules.toml; ln -s ../notes etc/rules.toml",
        "is a symbolic link",
        plant=f"{LINES}notes",
    ),
    "the rules are the group's of number 0": Case(
        "chgrp 0 etc/rules.toml; chmod 664 etc/rules.toml",
        OTHERS,
        plant=f"{LINES}etc/rules.toml",
        group=0,
    ),
    "the rules have a list": Case(
        f"chmod 600 etc/rules.toml; {GRANT} rw etc/rules.toml",
        LISTED,
        plant=f"{LINES}etc/rules.toml",
    ),
    "the rules' directory has a list": Case(
        f"{GRANT} rwx etc", LISTED, plant=f"rm -f etc/rules.toml; {LINES}etc/rules.toml"
    ),
    "the directory has a list": Case(f"{GRANT} rwx .", LISTED, **REPLACED),
    "above the state there is a list": Case(
        f"{GRANT} rwx var; mkdir -m 700 var/state",
        LISTED,
        plant=f"mv var/state var/old; mkdir var/state; {LINES}{JOURNAL}",
    ),
    "the journal has a list": Case(
        f"mkdir var/state; : >{JOURNAL}; chmod 600 {JOURNAL}; {GRANT} rw {JOURNAL}",
        LISTED,
        plant=LINES + JOURNAL,
    ),
    "the way to the rules is a user's to turn": Case(
        "mv etc real; mkdir theirs; ln -s ../real theirs/way; ln -s theirs/way etc; "
        f"chown {USER} theirs",
        f"/theirs {USERS}",
        plant=f"mkdir theirs/mine; rm theirs/way; ln -s mine theirs/way; {LINES}etc/rules.toml",
    ),
    "the rules are a fifo": Case(
        "rm etc/rules.toml",
        IRREGULAR,
        fifo="etc/rules.toml",
        meet=f"{LINES}etc/rules.toml",
    ),
}


class Place:
    """A directory for one daemon's files, which others may reach."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        path.chmod(0o755)
        (path / "victim").write_text("precious", encoding="ascii")
        for name in ("etc", "var"):
            (path / name).mkdir()
        (path / "etc/rules.toml").touch()

    def spoil(self, case: Case) -> bool:
        """Do what the administrator does; say whether it succeeds."""
        done = self.root(case.spoil)
        if case.fifo is not None:
            os.mkfifo(self.path / case.fifo)
            (self.path / case.fifo).chmod(0o666)
        return done

    def root(self, script: str) -> bool:
        """Say whether it succeeds."""
        return subprocess.run(["/bin/sh", "-c", script], cwd=self.path, check=False).returncode == 0

    def user(self, script: str, group: int = USER) -> subprocess.Popen[bytes]:
        """Begin it as somebody else."""
        with (self.path / "told").open("ab") as told:
            return subprocess.Popen(
                ["/bin/sh", "-c", script],
                cwd=self.path,
                stdout=told,
                user=USER,
                group=group,
                extra_groups=[],
            )

    def begin_naive(self, case: Case) -> None:
        """Have the naive daemon start, with a user in its way."""
        assert self.user(case.plant, case.group).wait(LONGEST_SECONDS) == 0
        with ExitStack() as stack:
            if case.meet:
                waiting = stack.enter_context(self.user(case.meet))
                stack.callback(waiting.kill)  # where nobody met it
            subprocess.run(
                [sys.executable, HERE / "naive_start.py", self.path],
                check=True,
                timeout=LONGEST_SECONDS,
            )
            if case.meet:
                assert waiting.wait(LONGEST_SECONDS) == 0
        assert self.user(case.strike).wait(LONGEST_SECONDS) == 0

    def running(self, helper: Path | None = None) -> subprocess.Popen[str]:
        """Have ours start."""
        files = ["-f", str(self.path / "pipe"), "-p", str(self.path / "pid")]
        files += ["--config", str(self.path / "etc/rules.toml")]
        arguments = ["-D", "-F", *files, "--state-dir", str(self.path / "var/state")]
        command = [*jaildaemon(helper), *arguments]
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def refused(self, helper: Path | None = None) -> tuple[int, str]:
        """Have ours start, which it must not; return its status and what it says."""
        with self.running(helper) as daemon:
            try:
                said = daemon.communicate(timeout=LONGEST_SECONDS)[1]
            finally:
                daemon.kill()
            return daemon.returncode, said


@pytest.fixture
def places(attacker: Path) -> Iterator[tuple[Place, Place]]:
    """Give one for the naive daemon, and one like it for ours."""
    assert attacker.exists()  # or this is not root
    above = Path(tempfile.mkdtemp(prefix="jdfiles"))
    above.chmod(0o755)
    mask = os.umask(0o022)
    yield Place(above / "naive"), Place(above / "ours")
    os.umask(mask)
    shutil.rmtree(above)


@pytest.mark.parametrize("how", CASES)
def test_what_others_could_have_put_there_is_refused(
    how: str, places: tuple[Place, Place], tally: Tally
) -> None:
    case, (naive, ours) = CASES[how], places
    for place in places:
        if not place.spoil(case):
            pytest.skip(NO_LISTS)
    if case.lost:
        naive.begin_naive(case)
        tally.control(f"files: {how}", int(naive.root(case.lost)))
    code, said = ours.refused()
    assert code in (1, 5), said
    assert case.why in said
    tally.attack(f"files: {how}", 1, int(ours.root(CHANGED)))


def test_where_nobody_else_could_write_it_starts(places: tuple[Place, Place]) -> None:
    """What is refused above is refused for that alone."""
    _, ours = places
    with ours.running() as daemon:
        assert daemon.stderr is not None
        assert any(" serves " in line for line in daemon.stderr)
        daemon.terminate()
        assert daemon.wait(LONGEST_SECONDS) == 0


SCRIPT = f"printf '#!/bin/sh\\n{EVIL}\\n' >"
HELPERS = {
    "user": Case(f"chown {USER} helper", f"the helper {USERS}", plant=f"{SCRIPT}helper"),
    "writable": Case("chmod 757 helper", f"the helper {OTHERS}", plant=f"{SCRIPT}helper"),
    "link": Case(
        f"mv helper theirs; chown {USER} theirs; ln -s theirs helper",
        "the helper is a symbolic link",
        plant=f"{SCRIPT}theirs",
    ),
    "fifo": Case("rm helper", "the helper is not a regular file", None, fifo="helper"),
    "list": Case(f"{GRANT} rwx helper", LISTED, plant=f"{SCRIPT}helper"),
    "directory": Case(
        f"mkdir lib; mv helper lib; ln -s lib/helper helper; chown {USER} lib",
        f"/lib {USERS}",
        plant=f"{SCRIPT}lib/new; chmod 755 lib/new; mv lib/new lib/helper",
    ),
    "reader": Case(
        f"cp {OUTPUT_READER} . && chown {USER} jailoutput",
        f"the output reader {USERS}",
        plant=f"{SCRIPT}jailoutput",
    ),
}


@pytest.mark.parametrize("how", HELPERS)
def test_a_helper_that_others_could_change_is_refused(
    how: str, places: tuple[Place, Place], tally: Tally
) -> None:
    case, (naive, ours) = HELPERS[how], places
    for place in places:
        shutil.copy(HELPER, place.path / "helper")
        if not place.spoil(case):
            pytest.skip(NO_LISTS)
    if case.lost:
        naive.begin_naive(case)
        tally.control(f"helper: {how}", int(naive.root(case.lost)))
    helper = (ours.path / "helper").resolve() if how == "directory" else ours.path / "helper"
    code, said = ours.refused(helper)
    assert (code, case.why in said) == (1, True), said
    tally.attack(f"helper: {how}", 1, int(ours.root(CHANGED)))
