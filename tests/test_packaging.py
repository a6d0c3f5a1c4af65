# SPDX-License-Identifier: BSD-2-Clause
"""make install, really done: staged and in place; then what it installed is used."""

import configparser
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jaildaemon import __version__

ROOT = Path(__file__).resolve().parent.parent
MAKES = [make for make in ("make", "bmake") if shutil.which(make)]
PATIENCE_SECONDS = 300.0
NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"
ENVIRONMENT_OF_MAKE = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "DESTDIR", "PREFIX"}

# All but two places becomes read-only.  A mount may be gone by then, with others' directory.
SEALED = r"""
seal() { mount -o remount,bind,ro "$(printf %b "$1")"; }
for place in "$TREE" "$WORK"; do mount --bind "$place" "$place"; done
while read -r _ at type _; do
    case $type,$at in proc,*|sysfs,*|dev*,*|mqueue,*|cgroup*,*) ;;
    *,"$TREE"|*,"$WORK"|*,/dev|*,/dev/*) ;;
    *) seal "$at" 2>/dev/null || ! grep -qF " $at " /proc/self/mounts || seal "$at" || exit 99 ;;
    esac
done </proc/self/mounts
touch / 2>/dev/null && exit 99
exec "$@"
"""


def can_seal() -> bool:
    """Say whether we can run something with all but two places read-only."""
    if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("unshare"):
        return False
    return sealed(["true"], ROOT).returncode == 0


def sealed(command: list[str], work: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command that can write to `work` and the tree alone."""
    environment = {**clean_environment(work), "TREE": str(ROOT), "WORK": str(work), **more}
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", SEALED, "sh", *command],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=PATIENCE_SECONDS,
    )


def clean_environment(work: Path) -> dict[str, str]:
    """Return our environment without make's, with a home and a place for what is temporary."""
    kept = {k: v for k, v in os.environ.items() if k not in {*ENVIRONMENT_OF_MAKE, NO_BYTECODE}}
    places = {"HOME": work / "home", "PIP_CACHE_DIR": work / "home/cache", "TMPDIR": work / "tmp"}
    for place in places.values():
        place.mkdir(parents=True, exist_ok=True)
    return {**kept, **{name: str(place) for name, place in places.items()}}


def make_install(
    make: str, work: Path, *variables: str, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run make install."""
    return subprocess.run(
        [make, "install", f"PYTHON={sys.executable}", *variables],
        env={**clean_environment(work), **more},
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=PATIENCE_SECONDS,
    )


def check(done: subprocess.CompletedProcess[str], where: Path) -> str:
    """Return what was said of what to do next; all that is said to be there is."""
    if "Could not find a version" in done.stderr:
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    before, first, *lines = done.stdout.splitlines()
    assert before.startswith(f"Installing into {where}: ")
    assert first == f"jaildaemon {__version__} is installed in {where}:"
    named = [line.split()[0] for line in lines if line.startswith("  ")][:4]
    for name in named:
        assert (where / name).exists(), name
    said = [line for line in lines[len(named) :] if not line.startswith("Nobody but root ")]
    return "\n".join(said)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def staged(work: Path) -> Path:
    """DESTDIR of a staged installation, with a space in its name."""
    destdir = work / "the stage"
    variables = [f"DESTDIR={destdir}", "PREFIX=/usr/local"]
    if can_seal():
        make = ["make", "install", f"PYTHON={sys.executable}", *variables]
        done = sealed(make, work)
    else:
        done = make_install(MAKES[0], work, *variables)
    # For a package there is nothing to be done next.
    assert check(done, destdir / "usr/local") == ""
    assert {p.name for p in work.iterdir()} == {"home", "tmp", destdir.name}
    assert list((work / "tmp").iterdir()) == []
    return destdir


EAGER = """import contextlib
for name in ("attr", "cattrs", "rich", "prometheus_client"):
    with contextlib.suppress(ImportError):
        __import__(name)
"""
"""Imports what is being installed while it is, as the rich of some versions of pip does."""


@pytest.fixture(scope="module")
def prefix(work: Path) -> Path:
    """PREFIX of an installation in place, by BSD make if there is one."""
    found = work / "prefix"
    eager = work / "eager"
    eager.mkdir()
    (eager / "sitecustomize.py").write_text(EAGER, encoding="ascii")
    make = make_install(MAKES[-1], work, f"PREFIX={found}", PYTHONPATH=str(eager))
    said = check(make, found)
    assert said.startswith("Next, as root: ")
    assert f"  {found}/bin/jaildaemon " in said
    return found


def environment_of_a_stranger(tmp_path: Path) -> dict[str, str]:
    """Return an environment, and make a directory, that mean harm to a Python program."""
    for name in ("sitecustomize", "usercustomize", "json", "jaildaemon"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('I was loaded')\n", "ascii")
    return {
        **os.environ,
        "PYTHONPATH": str(tmp_path),
        "PYTHONHOME": str(tmp_path),
        "PYTHONSTARTUP": str(tmp_path / "json.py"),
        "PYTHONINSPECT": "1",
    }


# --- staged ---------------------------------------------------------------------------


def files_of(directory: Path) -> Iterator[tuple[str, os.stat_result]]:
    for path in sorted(directory.rglob("*")):
        yield str(path.relative_to(directory)), path.lstat()


def test_nothing_is_written_outside_of_destdir(staged: Path) -> None:
    if not can_seal():
        pytest.skip("cannot: nothing but a mount namespace of Linux's root can prove it")
    # The fixture did it with all else read-only; and this is all that came of it.
    system = {"linux": "lib/systemd/system/jaildaemon.service"}.get(
        sys.platform, "etc/rc.d/jaildaemon"
    )
    inside = "usr/local/lib/jaildaemon/"
    outside = [
        name
        for name, status in files_of(staged)
        if not name.startswith(inside) and not stat.S_ISDIR(status.st_mode)
    ]
    assert outside == [
        "usr/local/bin/jaildaemon",
        f"usr/local/{system}",
        "usr/local/share/bash-completion/completions/jaildaemon",
        "usr/local/share/fish/vendor_completions.d/jaildaemon.fish",
        *(f"usr/local/share/man/man{p.suffix[1:]}/{p.name}" for p in ROOT.glob("man/*.[1-9]")),
        "usr/local/share/zsh/site-functions/_jaildaemon",
    ]


def test_a_staged_file_knows_nothing_of_the_stage_or_the_tree(staged: Path) -> None:
    strangers = [os.fsencode(staged), os.fsencode(ROOT), b"jaildaemon.new"]
    for name, status in files_of(staged):
        if stat.S_ISREG(status.st_mode):
            content = (staged / name).read_bytes()
            assert not [s for s in strangers if s in content], name
        elif stat.S_ISLNK(status.st_mode):
            assert not os.readlink(staged / name).startswith(str(staged)), name


def test_a_staged_file_can_be_changed_by_its_owner_alone(staged: Path) -> None:
    for name, status in files_of(staged):
        if not stat.S_ISLNK(status.st_mode):
            assert status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) == 0, name
            assert status.st_mode & stat.S_IROTH, name


def test_the_staged_command_names_its_final_python_isolated(staged: Path) -> None:
    link = staged / "usr/local/bin/jaildaemon"
    assert os.readlink(link) == "../lib/jaildaemon/bin/jaildaemon"
    assert "/usr/local/lib/jaildaemon/bin/python -I" in link.read_text(encoding="ascii")


def test_the_staged_installation_is_whole_and_has_no_more_than_it_needs(staged: Path) -> None:
    home = staged / "usr/local/lib/jaildaemon"
    version = [str(home / "bin/python"), "-I", "-m", "jaildaemon", "--version"]
    done = subprocess.run(version, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (f"jaildaemon {__version__}\n", "")
    programs = {name for name in os.listdir(home / "bin") if not name.startswith("python")}
    assert programs == {"jaildaemon"}
    (site,) = home.glob("lib/python3*/site-packages")
    # Neither what builds nor what tests; and a copy, no way back into the tree.
    assert not {"pip", "setuptools", "pytest", "mypy"} & set(os.listdir(site))
    assert not list(site.glob("*.pth"))
    helper = (site / "jaildaemon/libexec/jailprobe").stat()
    assert stat.S_IMODE(helper.st_mode) == 0o755


# --- in place ---------------------------------------------------------------------------


def test_an_installed_file_knows_nothing_of_where_it_was_made(prefix: Path) -> None:
    compiled = [*prefix.rglob("attr/__pycache__/*.pyc")]
    assert compiled
    for path in prefix.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert b"jaildaemon.new" not in path.read_bytes(), path


def test_the_installed_command_runs_and_takes_nothing_from_where_it_is_called(
    prefix: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [prefix / "bin/jaildaemon", "--version"],
        capture_output=True,
        text=True,
        check=False,
        env=environment_of_a_stranger(tmp_path),
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
    )
    assert (done.stdout, done.stderr) == (f"jaildaemon {__version__}\n", "")


def test_the_installed_command_shows_itself_at_work(prefix: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root makes jails; run the tests as root")
    done = subprocess.run(
        [prefix / "bin/jaildaemon", "demo"],
        capture_output=True,
        text=True,
        check=False,
        env=environment_of_a_stranger(tmp_path),
        timeout=PATIENCE_SECONDS,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith("ok: ")


def test_the_installed_manual_can_be_read(prefix: Path) -> None:
    manual = prefix / "share/man/man1/jaildaemon.1"
    reader = next((name for name in ("mandoc", "man") if shutil.which(name)), None)
    if reader is None:
        pytest.skip("neither mandoc nor man is installed")
    read = subprocess.run([reader, manual], capture_output=True, text=True, check=True)
    assert "one fixed command on the host" in " ".join(read.stdout.split())


def test_a_failed_installation_leaves_the_old_one_as_it_was(prefix: Path, work: Path) -> None:
    nothing = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull}
    before = sorted(os.listdir(prefix / "lib"))
    done = make_install(MAKES[0], work, f"PREFIX={prefix}", **nothing)
    assert done.returncode != 0
    assert sorted(os.listdir(prefix / "lib")) == before
    subprocess.run([prefix / "bin/jaildaemon", "--version"], check=True, capture_output=True)


def test_what_is_no_earlier_installation_is_not_replaced(tmp_path: Path) -> None:
    foreign = tmp_path / "lib/jaildaemon/precious"
    foreign.mkdir(parents=True)
    done = make_install(MAKES[0], tmp_path, f"PREFIX={tmp_path}")
    assert done.returncode != 0
    where = tmp_path / "lib/jaildaemon"
    first = f"jaildaemon: install: {where} is in the way: it is no earlier installation"
    assert done.stderr.splitlines()[0] == first
    assert foreign.is_dir()


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        ("PREFIX=/opt/a b", "/opt/a b: PREFIX may hold letters, digits and ._/+:,@=- only"),
        (f"PREFIX=/{'x' * 90}", f"/{'x' * 90}: PREFIX is longer than 90 characters"),
        ("PYTHON=python0", "no python0; install the package python3"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(variable: str, words: str, tmp_path: Path) -> None:
    stage = tmp_path / "stage"
    done = make_install(MAKES[0], tmp_path, f"DESTDIR={stage}", variable)
    assert done.returncode != 0
    assert done.stderr.splitlines()[0] == f"jaildaemon: install: {words}"
    assert not stage.exists()


# --- systemd ------------------------------------------------------------------------------

UNIT = ROOT / "packaging/systemd/jaildaemon.service"


def service() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT, encoding="utf-8")
    return parser["Service"]


def test_the_unit_lets_commands_live_and_do_their_work() -> None:
    jaildaemon = "/usr/local/bin/jaildaemon"
    wanted = {
        "Type": "notify",
        "ExecStart": f"/bin/sh -c '{jaildaemon} check && exec {jaildaemon} -D -F'",
        "RestartPreventExitStatus": "6",
        "ExecReload": f"{jaildaemon} reload",
        "Restart": "on-failure",
        "RestartSec": "2",
        "KillMode": "process",
        "OOMPolicy": "continue",
        "TasksMax": "infinity",
        "LimitNOFILE": "1024:524288",
    }
    # And nothing else: whatever confines the daemon confines its commands.
    assert dict(service()) == wanted


def test_the_unit_warns_of_the_signal_to_all() -> None:
    comments = " ".join(re.findall(r"^# ?(.*)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE))
    assert "systemctl kill -s HUP" in comments
    assert "--kill-whom=main" in comments


def test_the_installed_unit_is_one_to_systemd(prefix: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("cannot: this system has no systemd")
    unit = prefix / "lib/systemd/system/jaildaemon.service"
    assert f"exec {prefix}/bin/jaildaemon -D -F'" in unit.read_text(encoding="utf-8")
    verify = ["systemd-analyze", "--man=no", "verify", str(unit)]
    done = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# --- rc(8): its text is tested in test_port.py -------------------------------------------


def test_the_installed_rc_script_starts_finds_and_stops_the_daemon(
    prefix: Path, tmp_path: Path
) -> None:
    if not Path("/etc/rc.subr").exists():
        pytest.skip("cannot: this system has no rc.subr(8)")
    if os.geteuid() != 0:
        pytest.skip("only root starts services; run the tests as root")
    pidfile = tmp_path / "pid"
    environment = {
        "PATH": "/sbin:/bin:/usr/sbin:/usr/bin",
        "HOME": "/",
        "jaildaemon_enable": "YES",
        "jaildaemon_pidfile": str(pidfile),
        "jaildaemon_flags": f"-f {tmp_path}/pipe",
    }

    def rc(word: str) -> tuple[int, str]:
        script = [str(prefix / "etc/rc.d/jaildaemon"), word]
        done = subprocess.run(script, env=environment, capture_output=True, text=True, check=False)
        assert done.stderr == "" or done.returncode != 0, done.stderr
        return done.returncode, done.stdout + done.stderr

    assert rc("status") == (1, "jaildaemon is not running.\n")
    assert rc("start") == (0, "Starting jaildaemon.\n")
    try:
        pid = pidfile.read_text(encoding="ascii")
        assert rc("status") == (0, f"jaildaemon is running as pid {pid}.\n")
        assert rc("start") == (1, f"jaildaemon already running?  (pid={pid}).\n")
        code, words = rc("restart")
        assert (code, "Starting jaildaemon." in words) == (0, True), words
        assert pidfile.read_text(encoding="ascii") != pid
    finally:
        code, words = rc("stop")
    assert (code, words.splitlines()[0]) == (0, "Stopping jaildaemon.")
    assert list(tmp_path.iterdir()) == []
