# SPDX-License-Identifier: BSD-2-Clause
"""What rules in files mean, and that everything wrong with them is said at once."""

from typing import Any

import pytest

from jaildaemon.core import config
from jaildaemon.core.config import FileRule, Problem, fits
from jaildaemon.core.limits import Limit
from jaildaemon.core.rules import Policy, Respawn

ENGINES = ("docker", "runc")
FILE = "/etc/jaildaemon.toml"


def rule(**fields: Any) -> FileRule:
    """Return a rule in which nothing may be wrong."""
    given = {"jail": "docker:web", "title": "A", "command": "true", **fields}
    engines = ENGINES if ":" in given["jail"] else ()
    made, problems = config.rule_of(FILE, "rule 1", given, engines)
    assert problems == []
    return made


def wrong(engines: tuple[str, ...] = ENGINES, **fields: Any) -> list[str]:
    """Return what is wrong with a rule."""
    given = {"jail": "docker:web", "title": "A", "command": "true", **fields}
    if not engines and given["jail"] == "docker:web":
        given["jail"] = "web"
    _, problems = config.rule_of(FILE, "rule 1", given, engines)
    return [str(problem).removeprefix(f"{FILE}: ") for problem in problems]


# --- patterns ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "jail", "meant"),
    [
        ("web", "web", True),
        ("web", "web1", False),
        ("web", "aweb", False),
        ("web-*", "web-1", True),
        ("web-*", "web-", True),
        ("web-*", "web-1.evil", False),
        ("web-?", "web-1", True),
        ("web-?", "web-12", False),
        ("web-?", "web-.", False),
        ("*", "web", True),
        ("*", "web.evil", False),
        ("w.b", "web", False),
        ("w.b", "w.b", True),
        ("docker:web-*", "docker:web-1", True),
        ("docker:web-*", "podman:web-1", False),
        ("docker:*", "docker:web\n", True),  # no name has one: engines' names are checked
    ],
)
def test_a_pattern_matches_no_dot_and_all_of_the_name(pattern: str, jail: str, meant: bool) -> None:
    assert fits(pattern, jail) is meant


@pytest.mark.parametrize(
    ("engines", "jail", "why"),
    [
        (ENGINES, "docker:web", None),
        (ENGINES, "docker:w*b.1", None),
        (ENGINES, "web", "is not ENGINE:NAME, where ENGINE is one of docker, runc"),
        (ENGINES, "4711", "is not ENGINE:NAME"),
        (ENGINES, "rkt:web", "is not ENGINE:NAME"),
        (ENGINES, "*:web", "is not ENGINE:NAME"),
        (ENGINES, "docker:", "is no name or pattern"),
        (ENGINES, "docker:-x", "is no name or pattern"),
        (ENGINES, "docker:a b", "is no name or pattern"),
        (ENGINES, "docker:a/b", "is no name or pattern"),
        (ENGINES, "docker:" + "x" * 256, "is no name or pattern"),
        ((), "web", None),
        ((), "web.child", None),
        ((), "web-*", None),
        ((), "23", "is a jid, which another jail may have tomorrow"),
        ((), "web.*", "would match what a jail's root may name"),
        ((), "docker:web", "is no name or pattern"),
    ],
)
def test_a_rule_names_its_jail_as_the_system_does(
    engines: tuple[str, ...], jail: str, why: str | None
) -> None:
    found = config.jail_problem(jail, engines)
    assert found is None if why is None else why in str(found)


# --- one rule --------------------------------------------------------------------------


def test_a_rule_is_respawned_after_its_command_unless_it_says_otherwise() -> None:
    assert rule().policy == Policy(Respawn.AFTER)
    assert rule(respawn="no").policy == Policy(Respawn.NO)
    assert rule(respawn="now").policy == Policy(Respawn.NOW, concurrency=8)


def test_a_rule_has_what_its_fields_say() -> None:
    made = rule(name="Bell", uid=7, limit="2/1m", run_as="nobody", settle="2s")
    assert (made.name, made.source, made.engine) == ("Bell", FILE, "docker")
    policy = Policy(Respawn.AFTER, uid=7, limit=Limit(2, 60.0), run_as="nobody", settle=2.0)
    assert made.policy == policy


def test_a_rule_without_a_name_is_called_by_jail_and_title() -> None:
    assert rule().name == "docker:web/A"
    assert (rule(jail="web").name, rule(jail="web").engine) == ("web/A", None)


def test_each_jail_of_a_pattern_has_a_rule_of_its_own() -> None:
    made = rule(jail="docker:web-*", name="bell")
    assert made.is_pattern
    assert made.fits("docker:web-1")
    one = made.rule("docker:web-1")
    assert (one.id, one.jail, one.source, one.lasting) == ("bell@web-1", "docker:web-1", FILE, True)
    assert one.jail_name == "web-1"


def test_the_rule_of_a_name_has_the_name_for_its_id() -> None:
    made = rule(jail="web", name="bell")
    assert not made.is_pattern
    assert (made.rule("web").id, made.rule("web").jail_name) == ("bell", None)


def test_rules_are_the_same_whatever_file_they_are_in() -> None:
    one, other = rule().rule("docker:web"), rule().rule("docker:web")
    moved = FileRule(*("docker:web/A", "docker:web", "A", "true"), rule().policy, "/b.toml")
    assert config.same(one, other)
    assert config.same(one, moved.rule("docker:web"))
    assert not config.same(one, rule(command="false").rule("docker:web"))


NO_DURATION = 'is no duration, which is a number and ms, s, m, h or d, such as "10s"'
NO_NAME = "is empty, or has a control or other unprintable character"


def test_everything_that_is_wrong_is_said_at_once() -> None:
    assert wrong(
        name="t1",
        jail="web",
        title="",
        command=" ",
        respawn="maybe",
        uid=-1,
        gid=2**32,
        signal="KILL",
        limit="10",
        cooldown="10",
        timeout="x",
        settle="1y",
        concurrency=0,
        run_as="a b",
    ) == [
        "t1: name: 't1' is what a rule of -c may be called",
        "t1: jail: 'web' is not ENGINE:NAME, where ENGINE is one of docker, runc",
        "t1: title: is empty",
        "t1: command: is empty",
        't1: respawn: \'maybe\' is none of "no", "after", "now"',
        "t1: uid: -1 is not a number from 0 to 4294967294",
        "t1: gid: 4294967296 is not a number from 0 to 4294967294",
        "t1: signal: KILL is neither HUP nor USR1",
        't1: limit: \'10\' is neither "none" nor N/DUR, such as "30/1m", N up to 1000',
        f"t1: cooldown: '10' {NO_DURATION}",
        f"t1: timeout: 'x' {NO_DURATION}",
        f"t1: settle: '1y' {NO_DURATION}",
        "t1: concurrency: 0 is not from 1 to 64",
        "t1: run_as: a b is no user name",
    ]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", f"rule 1: name: {NO_NAME}"),
        ("a\nb", f"rule 1: name: {NO_NAME}"),
        ("x" * 513, f"{'x' * 513}: name: is longer than 512 bytes"),
        ("t007", "t007: name: 't007' is what a rule of -c may be called"),
    ],
)
def test_a_name_that_cannot_be_is_refused(name: str, why: str) -> None:
    assert wrong(name=name) == [why]


def test_an_at_sign_is_for_the_rules_of_patterns() -> None:
    (found,) = wrong(title="a@b")
    assert found.startswith("docker:web/a@b: name: 'docker:web/a@b' has an @")
    assert wrong(title="a@b", name="bell") == []


def test_what_is_missing_is_not_said_twice() -> None:
    made, problems = config.rule_of(FILE, "rule 3", {}, ENGINES)
    assert (made.name, problems) == ("rule 3", [])


# --- several rules -----------------------------------------------------------------------


def test_two_rules_of_one_name_are_a_problem_of_the_second() -> None:
    rules = [rule(), rule(title="B"), rule(command="false")]
    what = f"is the name of another rule, in {FILE}: give each its own"
    assert config.twice(rules) == [Problem(FILE, "docker:web/A", "name", what)]


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ({"title": "BELL"}, {"title": "DOORBELL"}, True),
        ({"title": "BELL"}, {"title": "GONG"}, False),
        ({"title": "BELL"}, {"title": "BELL", "jail": "docker:db"}, False),
        ({"title": "BELL"}, {"title": "BELL", "jail": "docker:w*"}, True),
        ({"title": "BELL", "jail": "docker:w*"}, {"title": "BELL"}, True),
    ],
)
def test_titles_that_pkill_takes_for_one_another_are_warned_of(
    one: dict[str, str], other: dict[str, str], overlap: bool
) -> None:
    found = config.overlaps([rule(name="x", **one), rule(name="y", **other)])
    words = "title: overlaps with that of x: pkill -f may ring both"
    assert [str(w) for w in found] == [f"{FILE}: y: {words}"] * overlap


# --- the document ------------------------------------------------------------------------


def test_a_document_is_toml() -> None:
    assert config.parse(b'[[rule]]\njail = "web"\n') == {"rule": [{"jail": "web"}]}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"a = ", "Invalid value"),
        (b"a = 1\n]", "Invalid statement (at line 2, column 1)"),
        (b"a = '\xff'", "is not UTF-8, at byte 5"),
        (b"a = " + b"[" * 100_000, "is nested too deeply"),
    ],
)
def test_what_is_no_toml_is_said_with_its_place(data: bytes, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        config.parse(data)
    assert words in str(caught.value)


def test_a_problem_is_one_line_of_what_there_is_of_it() -> None:
    assert str(Problem("f", "r", "x", "is bad")) == "f: r: x: is bad"
    assert str(Problem("f", "", "", "is bad")) == "f: is bad"


# --- what is beside the rules --------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("/run/docker.sock", None),
        ("tcp://10.0.0.1:2375", "is no path: only an engine of this host is asked"),
        ("unix:///run/docker.sock", "is no path: only an engine of this host is asked"),
        ("docker.sock", "such as at /run/docker.sock"),
        ("/run/a\nb", "has an unprintable character"),
        ("/" + "a" * 106, None),
        ("/" + "a" * 107, "is longer than 107 bytes"),
    ],
)
def test_an_engine_is_at_a_path_of_this_host(path: str, problem: str | None) -> None:
    found = config.place_problem("socket", path)
    assert found is None if problem is None else problem in (found or "")


@pytest.mark.parametrize("name", ["50.conf", "60.TOML", "rules"])
def test_a_file_that_may_be_meant_is_not_passed_over_in_silence(name: str) -> None:
    assert config.may_be_meant(name)


@pytest.mark.parametrize(
    "name", [".10.toml.swp", "#40.toml#", "10.toml~", "README", "a.rpmnew", "a.dpkg-old"]
)
def test_what_editors_and_packages_leave_is_not_warned_of(name: str) -> None:
    assert not config.may_be_meant(name)


def test_a_title_that_only_some_tools_can_match_is_warned_of() -> None:
    rules = [rule(name="x", title="Größe"), rule(name="y", title="SIZE")]
    assert [(problem.rule, problem.field) for problem in config.not_ascii(rules)] == [
        ("x", "title")
    ]
