# SPDX-License-Identifier: BSD-2-Clause
"""What only root can change is used, and nothing else: files, directories, links, programs."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from jaildaemon.backends import OUTPUT_READER, Program, trust
from jaildaemon.errors import Refused
from tests.attacks import acl
from tests.kernel.processes import open_files

OTHERS = "can be written by others than root"
STRANGER = 65534


@pytest.fixture
def safe() -> Iterator[Path]:
    """A directory that is ours alone, behind a sticky one."""
    if os.geteuid() != 0:
        pytest.skip("root only")
    with tempfile.TemporaryDirectory(prefix="jd.") as name:
        yield Path(name).resolve()


def refused(path: Path) -> str:
    """Return why a file is not read, and what is done about it; no descriptor is left."""
    before = open_files(os.getpid())
    with pytest.raises(trust.Untrusted) as error:
        trust.read_trusted(path)
    assert open_files(os.getpid()) == before
    return f"{error.value.why} ({error.value.hint})"


def made(path: Path, *, mode: int = 0o644, uid: int = 0, gid: int = 0) -> Path:
    """Make a file."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"ours")
    os.chown(path, uid, gid)
    path.chmod(mode)
    return path


def grant(letters: str, *paths: Path) -> None:
    """Let a stranger do more than the mode says."""
    words = [str(STRANGER), letters, *map(str, paths)]
    done = subprocess.run([sys.executable, acl.__file__, *words], check=False)
    if done.returncode == acl.UNSUPPORTED:
        pytest.skip("cannot: the file system has no access control lists")
    assert done.returncode == 0


def test_what_only_root_can_change_is_read(safe: Path) -> None:
    assert trust.read_trusted(made(safe / "a" / "file")) == b"ours"
    assert trust.read_trusted(safe / "a" / "file", 2) == b"ou"


def test_no_group_may_write_not_even_roots(safe: Path) -> None:
    path = made(safe / "a" / "file", mode=0o664)
    assert refused(path) == f"{OTHERS} (chmod g-w {path})"
    path.chmod(0o644)
    path.parent.chmod(0o775)
    assert refused(path) == f"its directory {path.parent} {OTHERS} (chmod g-w {path.parent})"
    path.parent.chmod(0o777)
    assert refused(path).endswith(f"(chmod go-w {path.parent})")


def test_a_sticky_file_is_no_sticky_directory(safe: Path) -> None:
    path = made(safe / "a" / "file", mode=0o1666)
    assert refused(path) == f"{OTHERS} (chmod go-w {path})"


def test_what_belongs_to_another_is_refused(safe: Path) -> None:
    path = made(safe / "a" / "file", uid=STRANGER)
    assert refused(path) == f"belongs to uid {STRANGER}, not to root (chown root {path})"
    os.chown(path, 0, 0)
    os.chown(path.parent, STRANGER, 0)
    assert refused(path).startswith(f"its directory {path.parent} belongs to uid {STRANGER}")


@pytest.mark.parametrize("what", ["file", "directory"])
def test_an_access_control_list_that_lets_another_write_is_refused(safe: Path, what: str) -> None:
    path = made(safe / "a" / "file", mode=0o640)
    grant("rwx", path if what == "file" else path.parent)
    # The negative control: what is shown of others has not changed.
    place = path if what == "file" else path.parent
    assert not place.stat().st_mode & 0o002
    assert place.stat().st_uid == 0
    refused(path)


@pytest.mark.skipif(sys.platform != "linux", reason="FreeBSD refuses each list that is not trivial")
def test_an_access_control_list_that_lets_others_read_is_none_of_ours(safe: Path) -> None:
    path = made(safe / "a" / "file", mode=0o640)
    grant("r", path, path.parent)
    assert trust.read_trusted(path) == b"ours"


# --- links ---------------------------------------------------------------------------------


def test_a_link_is_refused_as_the_file_and_followed_on_the_way(safe: Path) -> None:
    path = made(safe / "a" / "file")
    (safe / "link").symlink_to(path)
    assert refused(safe / "link") == "is a symbolic link (None)"
    for number, target in enumerate(("a", str(path.parent), "./x/../a/.", f"{safe}/x/b")):
        (safe / "x").mkdir(exist_ok=True)
        (safe / "x" / "b").unlink(missing_ok=True)
        (safe / "x" / "b").symlink_to("../a")
        way = safe / f"way{number}"
        way.symlink_to(target)
        assert trust.read_trusted(way / "file") == b"ours"
        assert trust.read_trusted(f"{way}/../a/file") == b"ours"


def test_a_link_that_another_can_turn_is_refused(safe: Path) -> None:
    """The way as it is leads to what is root's; a moment later it need not."""
    path = made(safe / "real" / "file")
    theirs = safe / "theirs"
    theirs.mkdir()
    (theirs / "way").symlink_to(path.parent)
    os.chown(theirs, STRANGER, STRANGER)
    assert Path(theirs, "way", "file").resolve() == path  # all that is looked at by its real path
    assert refused(theirs / "way" / "file").startswith(f"its directory {theirs} belongs to uid")
    (safe / "etc").symlink_to("theirs/way")
    assert refused(safe / "etc" / "file").startswith(f"its directory {theirs} belongs to uid")


def test_what_others_have_made_in_a_sticky_directory_is_refused(safe: Path) -> None:
    path = made(safe / "real" / "file")
    sticky = safe / "tmp"
    sticky.mkdir()
    sticky.chmod(0o1777)
    (sticky / "way").symlink_to(path.parent)
    assert trust.read_trusted(sticky / "way" / "file") == b"ours"
    os.chown(sticky / "way", STRANGER, STRANGER, follow_symlinks=False)
    assert "is a link that others could make" in refused(sticky / "way" / "file")
    # Another name of what is root's, chosen by a stranger.
    (sticky / "name").hardlink_to(path)
    assert refused(sticky / "name") == "has another name (a hard link) (None)"
    os.chown(sticky, STRANGER, STRANGER)
    (sticky / "own").write_bytes(b"")
    assert refused(sticky / "own").startswith(f"its directory {sticky} belongs to uid")


def test_links_in_a_circle_come_to_an_end(safe: Path) -> None:
    (safe / "a").symlink_to("b")
    (safe / "b").symlink_to("a")
    with pytest.raises(OSError, match="Too many levels"):
        trust.read_trusted(safe / "a" / "file")


def test_what_is_no_file_is_refused_at_once(safe: Path) -> None:
    os.mkfifo(safe / "fifo", 0o600)
    assert refused(safe / "fifo") == "is not a regular file (None)"
    made(safe / "file")
    with pytest.raises(NotADirectoryError):
        trust.read_trusted(safe / "file" / "x")
    with pytest.raises(NotADirectoryError):
        os.close(trust.open_directory(safe / "file"))
    (safe / "link").symlink_to(".")
    with pytest.raises(OSError, match=r"Not a directory|Too many links"):
        os.close(trust.open_directory(safe / "link"))


# --- programs ---------------------------------------------------------------------------------


def test_a_program_may_be_behind_links(safe: Path) -> None:
    program = made(safe / "lib" / "program", mode=0o755)
    (safe / "bin").mkdir()
    (safe / "bin" / "program").symlink_to("../lib/link")
    (safe / "lib" / "link").symlink_to(program)
    trust.check_program(safe / "bin" / "program")
    os.chown(program, STRANGER, 0)
    with pytest.raises(trust.Untrusted, match=f"belongs to uid {STRANGER}"):
        trust.check_program(safe / "bin" / "program")
    os.chown(program, 0, 0)
    (safe / "lib").chmod(0o777)
    with pytest.raises(trust.Untrusted, match=f"its directory {safe}/lib {OTHERS}"):
        trust.check_program(safe / "bin" / "program")


def ends(program: Program) -> int:
    """Start it without anything to do, and return its status."""
    pid = program.start(["jailoutput"], [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0)])
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("then", ["removed", "replaced"])
def test_a_program_is_started_as_it_was_examined_whatever_becomes_of_its_file(
    safe: Path, then: str
) -> None:
    path = made(safe / "jailoutput", mode=0o755)
    path.write_bytes(OUTPUT_READER.read_bytes())
    program = Program("output reader", path)
    assert ends(program) == 0
    path.unlink()
    if then == "replaced":
        made(path, mode=0o755).write_bytes(b"#!/bin/sh\nexit 9\n")
    assert ends(program) == 0
    program.close()


def test_a_program_that_others_can_change_is_not_opened(safe: Path) -> None:
    path = made(safe / "jailoutput", mode=0o755, uid=STRANGER)
    with pytest.raises(Refused, match=f"the output reader belongs to uid {STRANGER}") as error:
        Program("output reader", path)
    assert error.value.hint == f"chown root {path}"
    path.unlink()
    with pytest.raises(Refused, match="the output reader cannot be used: No such file"):
        Program("output reader", path)
