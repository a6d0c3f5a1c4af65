# SPDX-License-Identifier: BSD-2-Clause
"""The files with rules: who may write them, what is said of them, and when."""

import grp
import json
import os
import shutil
import signal
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from jaildaemon.core.config import Configuration
from jaildaemon.daemon import config, service
from jaildaemon.daemon.config import Files
from tests.daemon.conftest import need_root
from tests.daemon.product import Client, Daemon, run

LINUX = sys.platform == "linux"
JAIL = "docker:nobody-has-this" if LINUX else "nobody-has-this"
GOOD = f'[[rule]]\njail = "{JAIL}"\ntitle = "A"\ncommand = "true"\n'
ENGINES = ("docker",) if LINUX else ()


def write(path: Path, text: str = GOOD, mode: int = 0o600) -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def problems(path: Path, **values: Any) -> list[str]:
    """Return what is wrong with the file, without its own name."""
    _, found = config.examine(Files(str(path), named=True, engines=ENGINES, **values))
    return [str(problem).removeprefix(f"{path}: ") for problem in found]


# --- trust ------------------------------------------------------------------------------


@pytest.fixture
def safe(directory: Path) -> Path:
    """A directory that is ours alone."""
    directory.chmod(0o700)
    return directory


def test_what_is_ours_alone_is_read(safe: Path) -> None:
    assert problems(write(safe / "a.toml", mode=0o644)) == []


@pytest.mark.parametrize("mode", [0o602, 0o622, 0o666])
def test_a_file_that_others_may_write_is_refused(safe: Path, mode: int) -> None:
    path = write(safe / "a.toml", mode=mode)
    assert problems(path) == [f"can be written by others than root (chmod go-w {path})"]
    assert problems(path, trusted=False) == []


@pytest.mark.parametrize("group", [0, 1])
def test_no_group_may_write_not_even_roots(safe: Path, group: int) -> None:
    need_root()
    path = write(safe / "a.toml", mode=0o660)
    os.chown(path, 0, group)
    path.chmod(0o660)
    assert problems(path) == [f"can be written by others than root (chmod g-w {path})"]


def test_a_file_of_somebody_else_is_refused(safe: Path) -> None:
    need_root()
    path = write(safe / "a.toml")
    os.chown(path, 65534, 65534)
    assert problems(path) == [f"belongs to uid 65534, not to root (chown root {path})"]


def test_a_directory_above_that_others_may_write_is_refused(safe: Path) -> None:
    (safe / "a").mkdir()
    (safe / "a" / "b").mkdir()
    path = write(safe / "a" / "b" / "a.toml")
    (safe / "a").chmod(0o777)
    (said,) = problems(path)
    why = f"its directory {safe}/a can be written by others than root"
    assert said == f"{why} (chmod go-w {safe}/a)"
    (safe / "a").chmod(0o1777)
    assert problems(path) == []


def test_a_link_is_refused_as_the_last_of_the_path(safe: Path) -> None:
    target = write(safe / "b.toml")
    (safe / "a.toml").symlink_to(target)
    assert problems(safe / "a.toml") == ["is a symbolic link"]
    assert problems(safe / "a.toml", trusted=False) == []


@pytest.mark.parametrize("trusted", [True, False])
def test_what_is_no_file_is_refused_at_once(safe: Path, trusted: bool) -> None:
    os.mkfifo(safe / "fifo", 0o600)
    for path in (safe / "fifo", Path("/dev/zero")):
        assert problems(path, trusted=trusted) == ["is not a regular file"]
    (safe / "dir").mkdir()
    assert problems(safe / "dir", trusted=trusted) == ["Is a directory"]


def test_a_named_file_must_be_there_and_the_systems_need_not(safe: Path) -> None:
    path = safe / "jaildaemon.toml"
    assert problems(path) == ["No such file or directory"]
    files = Files(str(path), named=False, engines=ENGINES)
    assert config.examine(files) == (Configuration(), [])


def test_the_directory_beside_is_read_in_order(safe: Path) -> None:
    main = safe / "jaildaemon.toml"
    more = safe / "jaildaemon.d"
    more.mkdir()
    for name in ("b.toml", "a.toml", ".hidden.toml", "c.toml.bak"):
        write(more / name, GOOD.replace('"A"', f'"{name}"'))
    write(main)
    made, found = config.examine(Files(str(main), named=False, engines=ENGINES))
    assert found == []
    assert made.files == (str(main), f"{more}/a.toml", f"{more}/b.toml")
    assert [rule.title for rule in made.rules] == ["A", "a.toml", "b.toml"]
    main.unlink()
    made, found = config.examine(Files(str(main), named=False, engines=ENGINES))
    assert [rule.title for rule in made.rules] == ["a.toml", "b.toml"]


def test_a_file_without_an_end_is_not_read_to_it(safe: Path) -> None:
    path = write(safe / "a.toml", "#" * (config.MAX_BYTES + 1))
    assert problems(path) == [f"is longer than {config.MAX_BYTES} bytes"]


# --- the shape --------------------------------------------------------------------------

KNOWN = "respawn, uid, gid, signal, limit, cooldown, timeout, settle, concurrency, run_as"


UNKNOWN = "is unknown; there are [daemon], [engines.NAME] and [[rule]]"
WRONG = [
    ("rule = 1\n", ["rule: is written [[rule]]"]),
    ("rule = [1]\n", ["rule 1: is written [[rule]]"]),
    ("daemon = 1\n", ["daemon: is written [daemon]"]),
    ("[demon]\n[[rules]]\n", [f"demon: {UNKNOWN}", f"rules: {UNKNOWN}"]),
    (
        "[daemon]\nreaders = 7\nx = 1\n",
        ["daemon: readers: must be a string", "daemon: x: is unknown; there are readers"],
    ),
    ("[[rule]]\n", [f"rule 1: {n}: is missing" for n in ("jail", "title", "command")]),
    (f"{GOOD}uid = 1.5\n", [f"{JAIL}/A: uid: must be an integer"]),
    (f"{GOOD}uid = true\n", [f"{JAIL}/A: uid: must be an integer"]),
    (f"{GOOD}limit = ['1/1m']\n", [f"{JAIL}/A: limit: must be a string"]),
    (
        f"{GOOD}cooldown = 5\n",
        [f'{JAIL}/A: cooldown: 5 has no unit: it is written in quotes, such as "10s"'],
    ),
    (
        f"{GOOD}color = 1\n",
        [f"{JAIL}/A: color: is unknown; there are {KNOWN}, jail, title, command, name"],
    ),
    (
        "[daemon]\nreaders\n",
        ["Expected '=' after a key in a key/value pair (at line 2, column 8)"],
    ),
]


@pytest.mark.parametrize(("text", "said"), WRONG, ids=[text[-20:] for text, _ in WRONG])
def test_what_has_not_the_shape_is_said_by_file_rule_and_field(
    safe: Path, text: str, said: list[str]
) -> None:
    assert problems(write(safe / "a.toml", text)) == said


FIELDS = [
    ("name", str), ("jail", str), ("title", str), ("command", str), ("respawn", str),
    ("uid", int), ("gid", int), ("signal", str), ("limit", str), ("cooldown", str),
    ("timeout", str), ("settle", str), ("concurrency", int), ("run_as", str),
]  # fmt: skip
VALUES = ["'x'", "1", "1.5", "true", "2026-11-25", "[]", "{}"]


@pytest.mark.parametrize(("field", "kind"), FIELDS, ids=[field for field, _ in FIELDS])
def test_no_field_takes_a_value_of_another_type(safe: Path, field: str, kind: type) -> None:
    right = "'x'" if kind is str else "1"
    lines = [line for line in GOOD.splitlines() if not line.startswith(f"{field} =")]
    for value in VALUES:
        text = "\n".join([*lines, f"{field} = {value}", ""])
        found = problems(write(safe / "a.toml", text))
        typed = [said for said in found if "must be" in said or "has no unit" in said]
        assert len(typed) == (value != right), (value, found)


def test_one_group_of_readers_is_enough(safe: Path) -> None:
    group = grp.getgrgid(0).gr_name
    main, more = safe / "jaildaemon.toml", safe / "jaildaemon.d"
    more.mkdir()
    for path in (main, more / "a.toml"):
        write(path, f"[daemon]\nreaders = '{group}'\n")
    made, found = config.examine(Files(str(main), named=False, engines=ENGINES))
    assert [str(p) for p in found] == [f"{more}/a.toml: daemon: readers: is said in {main} already"]
    assert made.readers == group


# --- check ------------------------------------------------------------------------------


def test_check_says_everything_and_ends_with_six(safe: Path) -> None:
    path = write(safe / "a.toml", GOOD + "uid = -1\n" + GOOD + "limit = '10'\n", 0o666)
    done = run("check", path)
    assert (done.returncode, done.stderr) == (6, "")
    label = f"{path}: {JAIL}/A"
    lines = done.stdout.splitlines()
    assert lines[0] == f"{label}: uid: -1 is not a number from 0 to 4294967294"
    assert lines[1].startswith(f"{label}: limit: '10' is neither")
    assert lines[2] == f"{label}: name: is the name of another rule, in {path}: give each its own"
    assert lines[3].startswith(f"warning: {label}: title: overlaps")


def test_the_systems_files_are_those_of_the_daemon_at_the_default_socket(
    safe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(safe / "a.toml")
    monkeypatch.delenv("JAILDAEMON_CONFIG", raising=False)
    monkeypatch.setattr(service, "configuration", lambda: (str(path), ENGINES))
    first = service.Places("/pid", "/socket", None, "/socket")
    assert len(first.load("start").configuration.rules) == 1
    # Two daemons that read the same would both run a command for one signal.
    second = service.Places("/pid", "/other", None, "/socket")
    assert second.load("start").configuration == Configuration()
    named = service.Places("/pid", "/other", None, "/socket", str(path))
    assert len(named.load("start").configuration.rules) == 1


def test_check_of_what_is_well_is_one_line(safe: Path) -> None:
    path = write(safe / "a.toml")
    done = run("check", path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"ok: 1 rule in {path}\n", "")


def test_check_tests_who_may_write_what_is_installed_and_no_draft(safe: Path) -> None:
    path = write(safe / "a.toml", mode=0o666)
    assert run("check", path).returncode == 0
    said = f"{path}: can be written by others than root (chmod go-w {path})\n"
    done = run("check", "--config", path)
    assert (done.returncode, done.stdout) == (6, said)
    done = run("check", env={**os.environ, "JAILDAEMON_CONFIG": str(path)})
    assert (done.returncode, done.stdout) == (6, said)


def test_check_needs_no_root(safe: Path) -> None:
    need_root()
    if shutil.which("setpriv") is None:
        pytest.skip("cannot: no setpriv(1) here")
    safe.chmod(0o755)
    path = write(safe / "a.toml", mode=0o644)
    plain = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    done = run("check", path, before=(*plain, "--inh-caps=+dac_read_search",
                                      "--ambient-caps=+dac_read_search", "--"))  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_check_in_json_has_the_same(safe: Path) -> None:
    path = write(safe / "a.toml", GOOD + "uid = -1\n")
    done = run("check", "--json", path)
    assert done.returncode == 6
    what = "-1 is not a number from 0 to 4294967294"
    assert json.loads(done.stdout) == {
        "version": 1,
        "files": [str(path)],
        "rules": 1,
        "problems": [{"file": str(path), "rule": f"{JAIL}/A", "field": "uid", "what": what}],
        "warnings": [],
    }


def test_the_terminal_is_safe_from_what_a_draft_says(safe: Path) -> None:
    path = write(safe / "a.toml", GOOD.replace('"A"', '"A"\n"\\u001b[31m" = 1'))
    done = run("check", path)
    assert done.returncode == 6
    assert "\x1b" not in done.stdout


# --- the daemon --------------------------------------------------------------------------


def ruled(directory: Path, file: Path) -> Daemon:
    return Daemon(directory, env={**os.environ, "JAILDAEMON_CONFIG": str(file)})


def test_with_a_bad_file_the_daemon_does_not_start(safe: Path) -> None:
    path = write(safe / "a.toml", GOOD + "uid = -1\nlimit = '10'\n")
    places = ("-f", safe / "pipe", "-p", safe / "pid")
    for mode in (("-D",), ("-D", "-F")):
        done = run(*mode, *places, "--config", path)
        assert (done.returncode, done.stdout) == (1, "")
        first, second = done.stderr.splitlines()
        assert first.startswith(f"jaildaemon: {path}: {JAIL}/A: uid: ")
        assert second.startswith(f"jaildaemon: {path}: {JAIL}/A: limit: ")
        assert not (safe / "pipe").exists()


def test_reload_and_sighup_take_a_good_file_and_no_bad_one(safe: Path) -> None:
    path = write(safe / "a.toml", "")
    daemon = ruled(safe, path)
    try:
        write(path, GOOD)
        done = run("reload", "-f", daemon.socket)
        assert (done.returncode, done.stdout) == (0, f"added {JAIL}/A\nkept 0\n")
        write(path, GOOD + "uid = -1\n")
        done = run("reload", "-f", daemon.socket)
        assert done.returncode == 1
        wrong = f"{path}: {JAIL}/A: uid: -1 is not a number from 0 to 4294967294"
        stay = "nothing has changed: the old rules stay"
        assert done.stderr == f"jaildaemon: {wrong}\njaildaemon: {stay}\n"
        os.kill(daemon.pid, signal.SIGHUP)
        assert daemon.lines.wait_for("reload: ") == f"jaildaemon: reload: {wrong}"
        assert daemon.status()["rules"] == 1
        write(path, "")
        os.kill(daemon.pid, signal.SIGHUP)
        daemon.lines.wait_for("reloaded: 0 added, 1 removed, 0 kept")
        assert daemon.status()["rules"] == 0
    finally:
        daemon.stop()


def test_restart_refuses_a_bad_file_and_the_old_daemon_runs_on(safe: Path) -> None:
    path = write(safe / "a.toml", GOOD)
    daemon = ruled(safe, path)
    try:
        write(path, GOOD + "uid = -1\n")
        done = run("restart", "-f", daemon.socket)
        assert done.returncode == 1
        assert f"{JAIL}/A: uid: -1 is not a number" in done.stderr
        assert daemon.status()["rules"] == 1
        write(path, GOOD)
        assert run("restart", "-f", daemon.socket).returncode == 0
        daemon.lines.wait_for(" serves ")
        assert daemon.status()["rules"] == 1
    finally:
        daemon.stop()


def test_readers_see_what_there_is_without_the_commands(safe: Path) -> None:
    need_root()
    safe.chmod(0o755)
    reader = grp.getgrgid(1).gr_name
    path = write(safe / "a.toml", f"[daemon]\nreaders = '{reader}'\n{GOOD}")
    daemon = ruled(safe, path)

    def ask(gid: int, method: str) -> Any:
        """Ask as a user who is in that group alone."""
        read_fd, write_fd = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.setgroups([])
                os.setresgid(gid, gid, gid)
                os.setresuid(65534, 65534, 65534)
                try:
                    said: Any = Client(daemon.socket).call(method)
                except OSError as error:
                    said = error.strerror
                os.write(write_fd, json.dumps(said).encode())
            finally:
                os._exit(0)
        os.close(write_fd)
        with os.fdopen(read_fd) as pipe:
            answer = json.load(pipe)
        os.waitpid(child, 0)
        return answer

    try:
        found = os.lstat(daemon.socket)
        assert (stat.S_IMODE(found.st_mode), found.st_gid) == (0o660, 1)
        (rule,) = ask(1, "List")["parameters"]["rules"]
        assert (rule["id"], "command" in rule) == (f"{JAIL}/A", False)
        assert ask(1, "Status")["parameters"]["rules"] == 1
        for method in ("Reload", "Restart"):
            assert ask(1, method)["error"] == "org.jaildaemon.NotPermitted"
        assert ask(2, "Status") == "Permission denied"
        write(path, GOOD)
        assert run("reload", "-f", daemon.socket).returncode == 0
        assert stat.S_IMODE(os.lstat(daemon.socket).st_mode) == 0o600
        assert ask(1, "Status") == "Permission denied"
    finally:
        daemon.stop()
