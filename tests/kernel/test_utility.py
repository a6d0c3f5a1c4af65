# SPDX-License-Identifier: BSD-2-Clause
"""-c: what is understood, what is refused, with which exit code, and that nothing is left."""

from pathlib import Path

import pytest

from tests.kernel.conftest import skip_or_fail
from tests.kernel.events import Bell
from tests.kernel.jails.base import Jail
from tests.kernel.place import Place
from tests.kernel.product import NOBODY, Client, Daemon, as_user, background, run

REFUSED, USAGE, NO_DAEMON, NO_JAIL, NOT_PERMITTED = 1, 2, 3, 4, 5

NO_IDS = ["", "-1", "abc", "root", "1 2", " 1", "1.5", "0x10", "4294967295", "4294967296", "9" * 30]
NO_TITLES = ["", "a\nb", "a\tb", "\x1b[31m", "\x7f", "a\u200bb", "\udcff", "x" * 181, "\u00fc" * 91]
NO_COMMANDS = ["", " ", "\n\t ", "x" * 32769]
NO_JAILS = ["no-such-jail", "", "-1", "0", "1.5", "4194305", "99999999999999999999", "\u0664"]


@pytest.fixture
def nothing(directory: Path) -> Client:
    """A socket at which there is no daemon."""
    return Client(directory)


@pytest.mark.manpage("c-no-daemon")
def test_without_a_daemon_the_error_says_so_and_names_the_socket(
    nothing: Client, jail: Jail
) -> None:
    done = nothing.attach("true", jail, "Title")
    assert done.returncode == NO_DAEMON
    assert str(nothing.socket) in done.stderr
    assert "no daemon" in done.stderr
    assert done.stdout == ""


@pytest.mark.manpage("synopsis-D", "synopsis-c")
def test_one_of_the_two_modes_is_needed_and_only_one(nothing: Client) -> None:
    for arguments in ([], ["-r"], ["-D", "-c", "true", "-j", "1"], ["-c", "true", "-D"]):
        done = nothing.cli(*arguments) if arguments else run()
        assert done.returncode == USAGE, arguments
        assert "usage: jaildaemon -D" in done.stderr
        assert "jaildaemon -c command -j jid [-rR] [-u uid] [-g gid] [-t proctitle]" in done.stderr
        assert done.stdout == ""
    assert not nothing.socket.exists()


@pytest.mark.manpage("synopsis-c")
def test_what_the_synopsis_does_not_have_is_a_usage_error(nothing: Client, jail: Jail) -> None:
    right = ["-c", "true", "-j", jail.name]
    for wrong in (["-x"], ["-Z", "1"], ["--no-such-option"], ["extra"]):
        done = run("-f", str(nothing.socket), *right, *wrong)
        assert done.returncode == USAGE, wrong
        assert "usage: jaildaemon -D" in done.stderr
    for option in ("-c", "-j", "-u", "-g", "-t", "-f", "-p"):
        done = run(*right, option)
        assert done.returncode == USAGE, option
        assert option.strip("-") in done.stderr


@pytest.mark.manpage("j")
def test_a_jail_must_be_named(daemon: Daemon) -> None:
    done = daemon.cli("-c", "true", "-t", "Title")
    assert done.returncode == USAGE
    assert "-j" in done.stderr
    assert daemon.rules() == []


def test_help_and_version_go_to_standard_output() -> None:
    for option in ("-h", "--help"):
        done = run(option)
        assert (done.returncode, done.stderr) == (0, "")
        assert "usage: jaildaemon -D" in done.stdout
    done = run("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("jaildaemon ")


@pytest.mark.manpage("u", "g")
def test_a_bad_uid_or_gid_is_a_usage_error_and_leaves_nothing(daemon: Daemon, jail: Jail) -> None:
    for option in ("-u", "-g"):
        for value in NO_IDS:
            done = daemon.attach("true", jail, "Title", option, value)
            assert done.returncode == USAGE, (option, value)
            assert option in done.stderr
    assert daemon.rules() == []


def test_a_bad_title_is_a_usage_error_and_leaves_nothing(daemon: Daemon, jail: Jail) -> None:
    for title in NO_TITLES:
        done = daemon.attach("true", jail, title)
        assert done.returncode == USAGE, ascii(title)
        assert "-t" in done.stderr
    assert daemon.rules() == []


def test_an_empty_command_is_a_usage_error_and_leaves_nothing(daemon: Daemon, jail: Jail) -> None:
    for command in NO_COMMANDS:
        done = daemon.attach(command, jail, "Title")
        assert done.returncode == USAGE, ascii(command[:9])
        assert "-c" in done.stderr
    assert daemon.rules() == []


@pytest.mark.manpage("j")
def test_an_unknown_jail_is_refused_and_leaves_nothing(daemon: Daemon) -> None:
    for name in NO_JAILS:
        done = daemon.attach("true", name, "Title")
        assert done.returncode == NO_JAIL, ascii(name)
        assert done.stdout == ""
    assert daemon.rules() == []


def test_a_jail_that_has_ended_is_refused_and_leaves_nothing(
    daemon: Daemon, fresh_jail: Jail
) -> None:
    name = fresh_jail.name
    fresh_jail.stop()
    done = daemon.attach("true", name, "Title")
    assert done.returncode == NO_JAIL
    assert name in done.stderr
    assert daemon.rules() == []


def test_another_user_is_not_permitted_and_nothing_is_left(daemon: Daemon, jail: Jail) -> None:
    if as_user(NOBODY) is None:
        skip_or_fail("another user cannot run the installed command at all: see its directory")
    arguments = ["-c", "true", "-j", jail.name, "-t", "Title"]
    done = daemon.cli(*arguments, uid=NOBODY)
    assert done.returncode == NOT_PERMITTED
    assert str(daemon.socket) in done.stderr
    assert daemon.cli("list", uid=NOBODY).returncode == NOT_PERMITTED
    assert daemon.cli("detach", "--all", uid=NOBODY).returncode == NOT_PERMITTED
    assert daemon.rules() == []


@pytest.mark.manpage("j", "c")
def test_the_jail_may_stand_beside_its_option_or_after_it(daemon: Daemon, jail: Jail) -> None:
    for number, words in enumerate(([f"-j{jail.name}"], ["-j", jail.name])):
        done = daemon.cli("-ctrue", *words, f"-tTitle {number}", "-u7", "-g8")
        assert (done.returncode, done.stderr) == (0, "")
        rule = daemon.rule(f"Title {number}")
        assert rule["jail"] == jail.name
        assert rule["policy"] == {"respawn": "no", "uid": 7, "gid": 8}


@pytest.mark.manpage("synopsis-c")
def test_options_cluster_as_getopt_has_it(daemon: Daemon, jail: Jail) -> None:
    wishes = {"-rR": "now", "-Rr": "now", "-r": "after", "-R": "now"}
    for cluster, respawn in wishes.items():
        daemon.arm("true", jail, cluster, cluster)
        assert daemon.rule(cluster)["policy"]["respawn"] == respawn
    done = daemon.cli("-rRc", "true", f"-j{jail.name}", "-t", "all")
    assert (done.returncode, done.stderr) == (0, "")
    assert daemon.rule("all")["policy"]["respawn"] == "now"


def test_daemon_mode_ignores_what_the_utilitys_options_say(place: Place, directory: Path) -> None:
    malformed = ["-u", "abc", "-g", "", "-t", "a\nb", "-j", "", "-r", "-R"]
    with background(place, directory, *malformed) as daemon:
        assert daemon.rules() == []


@pytest.mark.manpage("p-ignored")
def test_utility_mode_ignores_the_pidfile(daemon: Daemon, jail: Jail, bell: Bell) -> None:
    for number, path in enumerate(("/nonexistent/x", "", str(daemon.directory / "no.pid"))):
        daemon.arm(bell.command(), jail, f"Title {number}", "-p", path, "-F")
        jail.ring(f"Title {number}")
        assert bell.wait() == "rang"
    assert not (daemon.directory / "no.pid").exists()


@pytest.mark.manpage("f-default", "f-alternative")
def test_the_utility_speaks_to_the_daemon_at_the_socket_it_is_given(
    daemon: Daemon, nothing: Client, jail: Jail
) -> None:
    other = nothing.directory / "other"
    done = run("-c", "true", "-j", jail.name, "-t", "Here", "-f", str(daemon.socket))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert daemon.titles() == {"Here"}
    done = run("-c", "true", "-j", jail.name, "-t", "There", "-f", str(other))
    assert done.returncode == NO_DAEMON
    assert daemon.titles() == {"Here"}


@pytest.mark.manpage("f-default")
def test_the_default_socket_is_named_where_no_daemon_answers() -> None:
    # Asked as somebody without rights, so that a daemon of the machine's own refuses.
    if as_user(NOBODY) is None:
        skip_or_fail("another user cannot run the installed command at all: see its directory")
    done = run("-c", "true", "-j", "1", uid=NOBODY)
    assert done.returncode in (NO_DAEMON, NOT_PERMITTED)
    assert "/var/run/jaildaemon.pipe" in done.stderr
