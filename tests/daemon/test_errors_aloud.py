# SPDX-License-Identifier: BSD-2-Clause
"""Every error, read aloud: the whole stderr and exit code of the real command.

Literals, with words for what differs from run to run: {dir} the test's
directory, {served} the daemon's, {jail} a jail, {daemon} a running daemon's pid.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import jaildaemon
from tests.contract.linux_jail import NamespaceJail
from tests.daemon.conftest import need_root
from tests.daemon.product import LONGEST_SECONDS, Daemon, run, short_directory

USAGE = """\
usage: jaildaemon -D [-F] [-p pidfile] [-f ipcsockpath]
       jaildaemon -c command -j jid [-rR] [-u uid] [-g gid] [-t proctitle]
                  [-f ipcsockpath]
       jaildaemon subcommand ...
"""
LONG = "x" * 181
LINUX = sys.platform == "linux"
NO_NUMBER = "is not a number from 0 to 4294967294 (names are not taken: they differ in the jail)"

USAGE_ERRORS = [
    # arguments, the line above the usage text
    ("", "one of -D and -c is needed"),
    ("-j {jail}", "one of -D and -c is needed"),
    ("-D -c true", "-D and -c exclude each other"),
    ("-x", "option -x not recognized"),
    ("-D --frob", "option --frob not recognized"),
    ("-c", "option -c requires argument"),
    ("-D extra", "extra: unexpected argument"),
    ("-c true -j {jail} extra", "extra: unexpected argument"),
    ("-c true", "-c: -j jid is missing"),
    ("-c <> -j {jail}", "-c command: is empty"),
    ("-c <\n\t> -j {jail}", "-c command: is empty"),
    (
        "-c " + "x" * 32769 + " -j {jail}",
        "-c command: is 32769 bytes long, at most 32768 are possible",
    ),
    ("-c true -j {jail} -u root", f"-u: 'root' {NO_NUMBER}"),
    ("-c true -j {jail} -u -1", f"-u: '-1' {NO_NUMBER}"),
    ("-c true -j {jail} -u 4294967295", f"-u: '4294967295' {NO_NUMBER}"),
    ("-c true -j {jail} -g 99999999999", f"-g: '99999999999' {NO_NUMBER}"),
    ("-c true -j {jail} -g wheel", f"-g: 'wheel' {NO_NUMBER}"),
    ("-c true -j {jail} -t <>", "-t proctitle: is empty"),
    (f"-c true -j {{jail}} -t {LONG}", "-t proctitle: is 181 bytes long, at most 180 are possible"),
    (
        "-c true -j {jail} -t <a\x1b[31m>",
        "-t proctitle: has a control or other unprintable character",
    ),
    ("-c true -j {jail} -t <a\nb>", "-t proctitle: has a control or other unprintable character"),
    ("-c true -j {jail} -t a\udcff", "-t proctitle: is not UTF-8"),
    ("-c true -j {jail} --respawn maybe", '--respawn: \'maybe\' is none of "no", "after", "now"'),
]


def words(line: str, **places: str) -> list[str]:
    """Split at blanks but not within <>, then put the places in."""
    found, inside = [""], False
    for character in line:
        if character in "<>":
            inside = character == "<"
        elif character == " " and not inside:
            found.append("")
        else:
            found[-1] += character
    return [word.format(**places) for word in found if line]


@pytest.mark.parametrize(
    ("line", "told"), USAGE_ERRORS, ids=[line[:60] for line, _ in USAGE_ERRORS]
)
def test_wrong_use_is_named_above_the_usage(line: str, told: str) -> None:
    done = run(*words(line, jail="1"))
    assert done.stderr == f"jaildaemon: {told}\n{USAGE}"
    assert (done.returncode, done.stdout) == (2, "")


# --- -c ------------------------------------------------------------------------------

PID_HINT = "(-j takes the host's pid of any process in the container, or ENGINE:NAME)"
MAP_HINT = "(see /proc/PID/uid_map and gid_map)"
LINUX_REFUSALS = [
    # -j and more, exit code, told
    ("4194304", 4, f"attach: 4194304: no such process {PID_HINT}"),
    ("4194305", 4, f"attach: 4194305: not a process id {PID_HINT}"),
    ("web", 4, f"attach: web: not a process id {PID_HINT}"),
    ("0", 4, f"attach: 0: not a process id {PID_HINT}"),
    ("<>", 4, f"attach: '': not a process id {PID_HINT}"),
    ("9" * 5000, 4, f"attach: {'9' * 80}: not a process id {PID_HINT}"),
    (
        "{daemon}",
        1,
        "attach: {daemon}: shares the host's PID namespace, so it is in no container " + PID_HINT,
    ),
    ("{ended}", 4, "attach: {ended}: the container has ended"),
    (
        "{user_jail} -u 70000",
        1,
        f"attach: {{user_jail}}: the container's user namespace has no such uid {MAP_HINT}",
    ),
    (
        "{user_jail} -g 70000",
        1,
        f"attach: {{user_jail}}: the container's user namespace has no such gid {MAP_HINT}",
    ),
]
JAIL_HINT = "(-j takes the jid or the name of a running jail, see jls(8))"
FREEBSD_REFUSALS = [
    ("999999", 4, "attach: 999999: jail 999999 not found " + JAIL_HINT),
    ("no-such-jail", 4, 'attach: no-such-jail: jail "no-such-jail" not found ' + JAIL_HINT),
    ("0", 4, "attach: 0: is the host itself, not a jail " + JAIL_HINT),
]


@pytest.fixture(scope="module")
def ended() -> Iterator[int]:
    """Give the host pid of an init that is dead and that nobody has reaped (Linux)."""
    read_fd, write_fd = os.pipe()
    parent = os.fork()
    if parent == 0:
        assert ctypes.CDLL(None).unshare(0x20000000) == 0  # CLONE_NEWPID
        init = os.fork()
        if init == 0:
            os._exit(0)
        os.waitid(os.P_PID, init, os.WEXITED | os.WNOWAIT)
        os.write(write_fd, str(init).encode())
        signal.pause()
    yield int(os.read(read_fd, 16))
    os.close(read_fd)
    os.close(write_fd)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)


@pytest.fixture(scope="module")
def user_jail() -> Iterator[str]:
    """Give a container with a user namespace."""
    made = NamespaceJail(user_namespace=True)
    yield str(made.init)
    made.close()


@pytest.mark.parametrize(
    ("line", "code", "told"),
    LINUX_REFUSALS if LINUX else FREEBSD_REFUSALS,
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_armed_is_refused_with_the_reason(
    request: pytest.FixtureRequest, served: Daemon, line: str, code: int, told: str
) -> None:
    need_root()
    places = {"daemon": str(served.pid)}
    for name in ("ended", "user_jail"):
        if f"{{{name}}}" in line:
            places[name] = str(request.getfixturevalue(name))
    done = run("-c", "true", "-f", served.socket, "-j", *words(line, **places))
    assert done.stderr == f"jaildaemon: {told.format(**places)}\n"
    assert (done.returncode, done.stdout) == (code, "")
    assert served.status()["rules"] == 0


def test_without_a_daemon_it_says_so_and_names_the_socket(directory: Path) -> None:
    (directory / "plain").write_text("not a socket")
    for name in ("none", "no/directory", "plain"):
        done = run("-c", "true", "-j", "1", "-f", directory / name)
        is_none = name == "plain" and not LINUX
        why = "Socket operation on non-socket" if is_none else "no daemon is running"
        assert done.stderr == (
            f"jaildaemon: attach: {directory}/{name}: {why}"
            " (start one with jaildaemon -D, or name its socket with -f)\n"
        )
        assert (done.returncode, done.stdout) == (3, "")


# --- -D ------------------------------------------------------------------------------

START_ERRORS = [
    # what is there, arguments, exit code, told
    (
        "-f {dir}/pipe -p {served}/pid",
        1,
        "start: {served}/pid: jaildaemon is already running: pid {daemon}",
    ),
    (
        "-f {served}/pipe -p {dir}/pid",
        1,
        "start: {served}/pipe: jaildaemon is already running: pid {daemon}",
    ),
    (
        "-f {served}/pipe -p {served}/pid",
        1,
        "start: {served}/pipe: jaildaemon is already running: pid {daemon}",
    ),
    (
        "-f {dir}/no/pipe -p {dir}/pid",
        1,
        "start: {dir}/no/pipe.lock: its directory does not exist",
    ),
    ("-f {dir}/pipe -p {dir}/no/pid", 1, "start: {dir}/no/pid: its directory does not exist"),
    (
        "-f {dir}/plain -p {dir}/pid",
        1,
        "start: {dir}/plain: exists and is not a socket (remove it, or choose another with -f)",
    ),
    (
        "-f {dir}/link -p {dir}/pid",
        1,
        "start: {dir}/link: exists and is not a socket (remove it, or choose another with -f)",
    ),
    (
        "-f {dir}/socklink -p {dir}/pid",
        1,
        "start: {dir}/socklink: exists and is not a socket (remove it, or choose another with -f)",
    ),
    ("-f {dir}/pipe -p {dir}/link", 1, "start: {dir}/link: is a symbolic link"),
    ("-f {dir}/pipe -p {dir}", 1, "start: {dir}: Is a directory"),
    ("-f {dir}/pipe -p /dev/null", 1, "start: /dev/null: is not a regular file"),
    (
        "-f /tmp/" + "x" * 99 + " -p {dir}/pid",
        1,
        "start: /tmp/" + "x" * 99 + ": is 104 bytes long, a socket's path has at most 103",
    ),
]


@pytest.fixture
def strewn(directory: Path, served: Daemon) -> Path:
    """Give a directory with what should be no pidfile and no socket in it."""
    (directory / "plain").write_text("precious")
    os.symlink(directory / "plain", directory / "link")
    os.symlink(served.socket, directory / "socklink")
    return directory


@pytest.mark.parametrize("foreground", ["", "-F "])
@pytest.mark.parametrize(
    ("line", "code", "told"), START_ERRORS, ids=[e[2][:60] for e in START_ERRORS]
)
def test_a_start_that_fails_says_why_and_leaves_nothing(
    strewn: Path, served: Daemon, foreground: str, line: str, code: int, told: str
) -> None:
    places = {"dir": str(strewn), "served": str(served.directory), "daemon": str(served.pid)}
    before = sorted(os.listdir(strewn)), sorted(os.listdir(served.directory))
    done = run("-D", *words(foreground + line, **places))
    assert done.stderr == f"jaildaemon: {told.format(**places)}\n"
    assert (done.returncode, done.stdout) == (code, "")
    assert (sorted(os.listdir(strewn)), sorted(os.listdir(served.directory))) == before
    assert (strewn / "plain").read_text() == "precious"
    assert served.status()["rules"] == 0


def test_without_its_helper_the_daemon_does_not_start(directory: Path) -> None:
    source = Path(jaildaemon.__file__).parent
    shutil.copytree(source, directory / "jaildaemon", ignore=shutil.ignore_patterns("libexec"))
    done = subprocess.run(
        [sys.executable, "-m", "jaildaemon", "-D", "-f", directory / "p", "-p", directory / "i"],
        env={**os.environ, "PYTHONPATH": str(directory)},
        capture_output=True,
        text=True,
        check=False,
        timeout=LONGEST_SECONDS,
    )
    assert done.stderr == (
        f"jaildaemon: start: {directory}/jaildaemon/libexec/jailprobe:"
        " the helper cannot be used: No such file or directory"
        " (build it with make, or install it again)\n"
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert os.listdir(directory) == ["jaildaemon"]


# --- without the right -----------------------------------------------------------------

# The right to pass through directories: Python may lie in a home of root's.
PASS = "+dac_read_search"
UNPRIVILEGED = (
    *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
    *(f"--inh-caps={PASS}", f"--ambient-caps={PASS}", "--"),
)


@pytest.fixture
def as_nobody() -> tuple[str, ...]:
    """Give the words before a command that is to be run by an unprivileged user."""
    need_root()
    if not LINUX:
        pytest.skip("cannot: setpriv(1) is Linux's")
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is missing; install the package util-linux")
    return UNPRIVILEGED


def test_another_user_may_not_ask_the_daemon(served: Daemon, as_nobody: tuple[str, ...]) -> None:
    served.directory.chmod(0o755)
    for arguments in (["-c", "true", "-j", "1"], ["list"], ["status"], ["detach", "--all"]):
        done = run(*arguments, "-f", served.socket, before=as_nobody)
        what = "attach" if arguments[0] == "-c" else arguments[0]
        assert done.stderr == (
            f"jaildaemon: {what}: {served.socket}: permission denied"
            " (only root may ask the daemon)\n"
        )
        assert (done.returncode, done.stdout) == (5, "")


def test_another_user_may_not_put_the_daemons_files_where_root_does(
    directory: Path, as_nobody: tuple[str, ...]
) -> None:
    done = run("-D", "-f", directory / "pipe", "-p", directory / "pid", before=as_nobody)
    assert done.stderr == (
        f"jaildaemon: start: {directory}/pipe.lock: Permission denied (the daemon must be root)\n"
    )
    assert (done.returncode, done.stdout) == (5, "")


@pytest.fixture
def nobodys(as_nobody: tuple[str, ...]) -> Iterator[Daemon]:
    """Give a daemon of an unprivileged user."""
    with short_directory() as directory:
        os.chown(directory, 65534, 65534)
        started = Daemon(directory, before=as_nobody, state=directory / "state")
        yield started
        started.stop()


def test_a_daemon_without_the_right_says_so_when_it_is_asked(
    jail: str, nobodys: Daemon, as_nobody: tuple[str, ...]
) -> None:
    done = run("-c", "true", "-j", jail, "-f", nobodys.socket, before=as_nobody)
    assert done.stderr == (
        f"jaildaemon: attach: {jail}: its namespaces cannot be read: Permission denied"
        " (the daemon must be root)\n"
    )
    assert (done.returncode, done.stdout) == (5, "")


def test_root_tells_nothing_to_another_users_daemon(nobodys: Daemon) -> None:
    done = run("-c", "a secret", "-j", "1", "-f", nobodys.socket)
    told = f"attach: {nobodys.socket}: the server is neither root's nor yours"
    assert done.stderr == f"jaildaemon: {told}\n"
    assert (done.returncode, done.stdout) == (5, "")
