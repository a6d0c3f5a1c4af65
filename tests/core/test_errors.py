# SPDX-License-Identifier: BSD-2-Clause
"""The exit codes, the names on the wire, and the one shape of every message."""

import pytest

from jaildaemon import errors
from jaildaemon.errors import Ambiguous, JaildaemonError, NoDaemon, NoSuchJail, Refused

# By hand, from the man page's EXIT STATUS and from org.jaildaemon.varlink.
CLASSES = {
    "JaildaemonError": (1, None),
    "UsageError": (2, None),
    "NoDaemon": (3, None),
    "NoSuchJail": (4, "org.jaildaemon.NoSuchJail"),
    "NoSuchRule": (4, "org.jaildaemon.NoSuchRule"),
    "Ambiguous": (4, "org.jaildaemon.Ambiguous"),
    "NotPermitted": (5, "org.jaildaemon.NotPermitted"),
    "Refused": (1, "org.jaildaemon.Refused"),
    "BadConfiguration": (1, "org.jaildaemon.BadConfiguration"),
}


def classes() -> dict[str, type[JaildaemonError]]:
    """Return every exception that errors.py defines."""
    return {
        name: kind
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, JaildaemonError)
    }


def test_every_class_has_its_exit_code_and_its_name_on_the_wire() -> None:
    assert {name: (c.exit_code, c.varlink) for name, c in classes().items()} == CLASSES


def test_the_table_of_exit_codes_has_those_of_the_classes_and_two_more() -> None:
    # 0 is success; 6 is what check and doctor return, without an error.
    used = {kind.exit_code for kind in classes().values()}
    assert set(errors.EXIT_CODES) == used | {0, 6}


def test_every_exit_code_is_a_sentence() -> None:
    assert all(words[0].isalpha() and words.endswith(".") for words in errors.EXIT_CODES.values())


def test_an_error_on_the_wire_is_found_again_by_its_name() -> None:
    named = {kind.varlink: kind for kind in classes().values() if kind.varlink}
    assert named == errors.BY_VARLINK


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (Refused("attach", "4711", "no such thing"), "attach: 4711: no such thing"),
        (
            Refused("attach", "4711", "no such thing", "give another"),
            "attach: 4711: no such thing (give another)",
        ),
        (Refused("attach", "", "no such thing"), "attach: no such thing"),
        (Refused("", "-u", "x is not a number"), "-u: x is not a number"),
        (Ambiguous("detach", "BELL", ["t1", "t3"]), "detach: BELL: several rules fit: t1, t3"),
    ],
    ids=["what-on-why", "hint", "on nothing", "nothing asked yet", "candidates"],
)
def test_a_message_says_what_on_what_why_and_what_can_be_done(
    error: JaildaemonError, message: str
) -> None:
    assert str(error) == message


def test_the_parameters_are_those_of_the_interface() -> None:
    assert NoSuchJail("attach", "7", "gone").parameters() == {
        "what": "attach",
        "on": "7",
        "why": "gone",
    }
    assert NoSuchJail("attach", "7", "gone", "look").parameters() == {
        "what": "attach",
        "on": "7",
        "why": "gone",
        "hint": "look",
    }
    assert Ambiguous("detach", "BELL", ["t1", "t3"]).parameters() == {
        "what": "detach",
        "on": "BELL",
        "candidates": ["t1", "t3"],
    }


def test_an_error_can_be_caught_as_what_it_is_and_as_any_of_ours() -> None:
    with pytest.raises(JaildaemonError) as caught:
        raise NoDaemon("list", "/var/run/jaildaemon.pipe", "no daemon is running")
    assert isinstance(caught.value, NoDaemon)
    assert caught.value.args[1] == "/var/run/jaildaemon.pipe"


def test_what_is_wrong_with_the_files_is_shown_a_line_each() -> None:
    error = errors.BadConfiguration("start", "/etc/x.toml", "x: A: uid: is bad\nx: B: is bad")
    assert error.lines() == ["x: A: uid: is bad", "x: B: is bad"]
    hinted = errors.BadConfiguration("reload", "x", "x: is bad", "the old rules stay")
    assert hinted.lines() == ["x: is bad", "the old rules stay"]
    assert Refused("attach", "1", "no").lines() == ["attach: 1: no"]
