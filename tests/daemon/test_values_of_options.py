# SPDX-License-Identifier: BSD-2-Clause
"""Values and names of options that are mistakes: refused in one line, before anything is done."""

import os
import stat
from pathlib import Path

import pytest

from jaildaemon.cli import client, metrics
from jaildaemon.daemon import config
from jaildaemon.errors import NotPermitted
from tests.daemon.product import Daemon, run

EMPTY = "is empty: a variable that is not set?"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-D", "-f", ""], f"-f: {EMPTY}"),
        (["-D", "-p", ""], f"-p: {EMPTY}"),
        (["-D", "--state-dir", ""], f"--state-dir: {EMPTY}"),
        (["-D", "--state-dir="], f"--state-dir: {EMPTY}"),
        (["-D", "--config", ""], f"--config: {EMPTY}"),
        (["-c", "true", "-j", "1", "-f", ""], f"-f: {EMPTY}"),
        (["list", "-f", ""], f"argument -f: {EMPTY}"),
        (["check", ""], f"argument FILE: {EMPTY}"),
        (["check", "--config", ""], f"argument --config: {EMPTY}"),
        (["metrics", "-o", ""], f"argument -o: {EMPTY}"),
    ],
)
def test_an_empty_path_is_refused(directory: Path, words: list[str], told: str) -> None:
    done = run(*words, cwd=directory)
    assert done.returncode == 2
    assert f"{told}\n" in done.stderr
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("hold --al", "unrecognized arguments: --al"),
        ("detach --a", "unrecognized arguments: --a"),
        ("list --js", "unrecognized arguments: --js"),
        ("check --conf x", "unrecognized arguments: --conf"),
        ("fire x --dry", "unrecognized arguments: --dry"),
        ("-c true -j 1 --sig USR1", "option --sig not recognized"),
        ("-c true -j 1 --sig=USR1", "option --sig not recognized"),
        ("-rc true -j1 --repl", "option --repl not recognized"),
        ("-c --repl -j 1 --replac", "option --replac not recognized"),
        ("-D --conf x", "option --conf not recognized"),
        ("--vers", "option --vers not recognized"),
    ],
)
def test_an_option_is_written_out(line: str, told: str) -> None:
    done = run(*line.split())
    assert done.returncode == 2
    alone = line.startswith(("hold", "detach"))  # where one of two is required
    assert told in done.stderr or (alone and "is required" in done.stderr)


def test_what_only_looks_like_an_abbreviation_is_a_value(directory: Path) -> None:
    words = ["-c", "--repl", "-j", "--sig", "-t", "--al", "--limit", "--uid"]
    done = run(*words, "-f", directory / "x")
    assert done.returncode == 3, done.stderr


# --- metrics -----------------------------------------------------------------------------


def test_metrics_replace_nothing_but_a_regular_file(daemon: Daemon, directory: Path) -> None:
    place = directory / "place"
    place.mkdir()
    (place / "kept").write_text("kept")
    (place / "link").symlink_to("kept")
    os.mkfifo(place / "fifo")
    wrong = {"link": "is a symbolic link", "fifo": "is not a regular file"}
    wrong["directory"] = "is not a regular file"
    (place / "directory").mkdir()
    if os.geteuid() == 0:
        null = os.stat(os.devnull)
        os.mknod(place / "null", stat.S_IFCHR | 0o666, null.st_rdev)
        wrong["null"] = "is not a regular file"
    before = {path.name: path.lstat().st_mode for path in place.iterdir()}
    for name, why in wrong.items():
        done = run("metrics", "-o", place / name, "-f", daemon.socket)
        told = f"jaildaemon: metrics: {place / name}: {why} (-o - is standard output)\n"
        assert (done.returncode, done.stderr) == (1, told)
    assert {path.name: path.lstat().st_mode for path in place.iterdir()} == before
    assert (place / "kept").read_text() == "kept"


def test_metrics_are_readable_for_everybody_whatever_the_umask(
    daemon: Daemon, directory: Path
) -> None:
    for mask in (0o077, 0o000):
        file = directory / f"{mask}.prom"
        done = run("metrics", "-o", file, "-f", daemon.socket, umask=mask)
        assert (done.returncode, done.stderr) == (0, "")
        assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert list(directory.glob("*.prom.*")) == []


def test_a_hyphen_is_standard_output(daemon: Daemon, directory: Path) -> None:
    done = run("metrics", "-o", "-", "-f", daemon.socket, cwd=directory)
    assert (done.returncode, done.stderr) == (0, "")
    assert "jaildaemon_up 1.0\n" in done.stdout
    assert not (directory / "-").exists()


def test_metrics_that_are_refused_are_of_a_daemon_that_is_down(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(*_: object) -> dict[str, object]:
        raise NotPermitted("status", "the daemon", "only root may do this")

    monkeypatch.setattr(client, "call", call)
    file = directory / "m.prom"
    file.write_text("jaildaemon_up 1.0\n")
    with pytest.raises(NotPermitted):
        metrics.run("nowhere", str(file))
    assert file.read_text().splitlines()[-1] == "jaildaemon_up 0.0"


# --- check -------------------------------------------------------------------------------

DRAFT = '[[rule]]\njail = "{jail}"\ntitle = "{title}"\ncommand = "true"\n'


def draft(title: str = "A") -> str:
    """Return a rule for this system."""
    return DRAFT.format(jail="docker:web" if os.uname().sysname == "Linux" else "web", title=title)


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_a_draft_may_come_from_a_pipe(name: str) -> None:
    done = run("check", name, input=draft())
    assert (done.returncode, done.stdout) == (0, f"ok: 1 rule in {name}\n")
    done = run("check", name, input="[[rule]\n")
    assert done.returncode == 6
    assert done.stdout.startswith(f"{name}: ")


def test_what_daemons_read_is_no_pipe(directory: Path) -> None:
    fifo = directory / "rules.toml"
    os.mkfifo(fifo)
    done = run("check", "--config", fifo)
    assert (done.returncode, done.stdout) == (6, f"{fifo}: is not a regular file\n")


def test_a_title_that_not_every_tool_finds_is_warned_of() -> None:
    done = run("check", "-", input=draft("Größe"))
    assert done.returncode == 0
    assert "title: is not ASCII: pkill(1) finds it in a UTF-8 locale only" in done.stdout
    assert "warning" not in run("check", "-", input=draft()).stdout


def test_what_looks_like_rules_and_is_not_read_is_warned_of(directory: Path) -> None:
    place = directory / "rules.d"
    place.mkdir()
    left = ["10.toml~", ".10.toml.swp", "#10.toml#", "10.toml.rpmnew", "10.toml.dpkg-old", "README"]
    for name in ["10-web.toml", "50.conf", "60.TOML", "70", *left]:
        (place / name).write_text(draft() if name == "10-web.toml" else "")
    (place / "sub").mkdir()
    engines = ("docker",) if os.uname().sysname == "Linux" else ()
    made, problems = config.examine(
        config.Files(str(directory / "rules.toml"), named=False, engines=engines, trusted=False)
    )
    assert problems == []
    assert [Path(problem.file).name for problem in made.warnings] == ["50.conf", "60.TOML", "70"]


def test_an_argument_that_is_as_long_as_can_be_is_one_line() -> None:
    done = run("list", "-f", "x" * 100_000)
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
