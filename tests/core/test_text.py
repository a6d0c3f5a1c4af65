# SPDX-License-Identifier: BSD-2-Clause
"""What a title, a command and a number may be, and that shown text is harmless."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaildaemon.core import text

TOO_LONG = "is {} bytes long, at most 180 are possible"
UNPRINTABLE = "has a control or other unprintable character"

TITLES = [
    ("plain", "BELL", None),
    ("a space inside", "restart web", None),
    ("only a space", " ", None),
    ("shell and regex characters", "$(reboot) `x` .*[^]\\ '\"", None),
    ("a markup of rich", "[red]bell[/red]", None),
    ("a percent sign", "%s%n", None),
    ("beyond ASCII", "Glöckchen 鐘 🔔", None),
    ("empty", "", "is empty"),
    ("newline", "BELL\nfake line", UNPRINTABLE),
    ("newline at the end", "BELL\n", UNPRINTABLE),
    ("carriage return", "BELL\rx", UNPRINTABLE),
    ("tab", "BELL\tx", UNPRINTABLE),
    ("NUL", "BELL\0", UNPRINTABLE),
    ("ANSI escape", "\x1b[31mBELL", UNPRINTABLE),
    ("ANSI escape in one character", "\x9b31mBELL", UNPRINTABLE),
    ("delete", "BELL\x7f", UNPRINTABLE),
    ("right-to-left override", "BELL\u202egnp.exe", UNPRINTABLE),
    ("left-to-right isolate", "BELL\u2066x", UNPRINTABLE),
    ("zero-width space", "BE\u200bLL", UNPRINTABLE),
    ("byte order mark", "\ufeffBELL", UNPRINTABLE),
    ("no-break space", "BELL\xa0x", UNPRINTABLE),
    ("line separator", "BELL\u2028x", UNPRINTABLE),
    ("private use", "BELL\ue000", UNPRINTABLE),
    ("no character at all", "BELL\U000e0fff", UNPRINTABLE),
    ("a byte that is not UTF-8", "BELL\udcff", "is not UTF-8"),
    ("half a surrogate pair", "BELL\ud83d", "is not UTF-8"),
    ("180 bytes", "x" * 180, None),
    ("181 bytes", "x" * 181, TOO_LONG.format(181)),
    ("180 bytes in 90 characters", "ö" * 90, None),
    ("181 bytes in 91 characters", "ö" * 90 + "x", TOO_LONG.format(181)),
    ("180 bytes in 45 characters", "🔔" * 45, None),
    ("183 bytes in 61 characters", "鐘" * 61, TOO_LONG.format(183)),
]


@pytest.mark.parametrize(("title", "problem"), [t[1:] for t in TITLES], ids=[t[0] for t in TITLES])
def test_a_title_is_printable_utf8_of_at_most_180_bytes(title: str, problem: str | None) -> None:
    assert text.title_problem(title) == problem


@given(st.text())
def test_an_accepted_title_can_break_no_line_and_no_terminal(title: str) -> None:
    if text.title_problem(title) is None:
        assert 0 < len(title.encode()) <= 180
        assert title.splitlines() == [title]
        assert not re.search(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]", title)


COMMANDS = [
    ("plain", "service nginx restart", None),
    ("several lines", "a\nb\n", None),
    ("ANSI escape, which is sh's business", "printf '\x1b[31m'", None),
    ("a byte that is not UTF-8", "cat /tmp/\udcff", None),
    ("one character", "x", None),
    ("empty", "", "is empty"),
    ("blank", " \t\n", "is empty"),
    ("NUL", "true\0; false", "has a NUL character"),
    ("half a surrogate pair", "echo \ud83d", "is not text"),
    ("32768 bytes", "x" * 32768, None),
    ("32769 bytes", "x" * 32769, "is 32769 bytes long, at most 32768 are possible"),
    ("32768 bytes in 16384 characters", "ö" * 16384, None),
    ("32768 bytes that are not UTF-8", "\udcff" * 32768, None),
    (
        "32769 bytes in 16385 characters",
        "ö" * 16384 + "x",
        "is 32769 bytes long, at most 32768 are possible",
    ),
]


@pytest.mark.parametrize(
    ("command", "problem"), [c[1:] for c in COMMANDS], ids=[c[0] for c in COMMANDS]
)
def test_a_command_is_what_sh_can_be_given(command: str, problem: str | None) -> None:
    assert text.command_problem(command) == problem


@given(st.binary(min_size=1).filter(lambda data: data.strip() and b"\0" not in data))
def test_a_command_of_any_bytes_reaches_sh_as_those_bytes(data: bytes) -> None:
    command = data.decode(errors="surrogateescape")
    if command.strip():  # the blanks of Unicode are more than those of bytes
        assert text.command_problem(command) is None
    assert command.encode(errors="surrogateescape") == data


@given(st.binary())
def test_any_bytes_come_back_as_those_bytes(data: bytes) -> None:
    assert text.utf8(text.from_utf8(data)) == data


@pytest.mark.parametrize("number", [0, 1, 65534, 2**31, 2**32 - 2])
def test_an_id_that_setresuid_takes(number: int) -> None:
    assert text.id_problem(number) is None


@pytest.mark.parametrize("number", [-1, 2**32 - 1, 2**32, 10**30])
def test_an_id_that_setresuid_would_take_for_something_else(number: int) -> None:
    assert text.id_problem(number) == "is not a number from 0 to 4294967294"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("docker:web/A", None),
        ("Gr\udcc3", None),
        ("", "is empty, or has a NUL character"),
        ("a\0b", "is empty, or has a NUL character"),
        ("a" * text.MAX_NAME, None),
        ("a" * (text.MAX_NAME + 1), "is longer than 1024 characters"),
        ("\ud800", "is not text"),
    ],
)
def test_a_name_is_what_a_command_can_be_told(name: str, problem: str | None) -> None:
    assert text.name_problem(name) == problem


# --- shown ---------------------------------------------------------------------

SHOWN = [
    ("plain", "BELL", "BELL"),
    ("beyond ASCII", "Glöckchen 🔔", "Glöckchen 🔔"),
    ("newline", "a\nb", r"a\nb"),
    ("backslash, so that nothing looks escaped that is not", r"a\nb", r"a\\nb"),
    ("NUL", "a\0b", r"a\x00b"),
    ("ANSI escape", "\x1b[31m", r"\x1b[31m"),
    ("ANSI escape in one character", "\x9b31m", r"\x9b31m"),
    ("right-to-left override", "a\u202eb", r"a\u202eb"),
    ("a byte that is not UTF-8", "a\udcffb", r"a\udcffb"),
    ("no character at all", "\U000e0fff", r"\U000e0fff"),
    ("empty", "", ""),
]


@pytest.mark.parametrize(("raw", "shown"), [s[1:] for s in SHOWN], ids=[s[0] for s in SHOWN])
def test_shown_escapes_what_is_not_printable(raw: str, shown: str) -> None:
    assert text.shown(raw) == shown


ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()))
"""Lone surrogates too: they come in JSON, and in arguments that are not UTF-8."""


@given(ANY_TEXT)
def test_shown_is_always_printable_and_one_line(raw: str) -> None:
    shown = text.shown(raw)
    assert shown.isprintable()
    assert len(shown.splitlines()) <= 1


@given(ANY_TEXT)
def test_shown_can_be_read_back(raw: str) -> None:
    escape = r"\\(?:[\\nrt]|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})"
    read = re.sub(
        escape,
        lambda found: found[0].encode().decode("unicode_escape"),
        text.shown(raw),
    )
    assert read == raw


# --- the probe's name ------------------------------------------------------------


def test_ps_shows_the_title_after_the_name() -> None:
    assert text.process_title("BELL") == "jaildaemon: BELL"


def test_ps_shows_the_bare_name_without_a_title() -> None:
    assert text.process_title(None) == "jaildaemon"


def test_the_longest_process_title_fits_what_freebsd_caches() -> None:
    # kern.ps_arg_cache_limit, 256, counts eight bytes beside the arguments.
    longest = text.process_title("x" * text.MAX_TITLE_BYTES).encode() + b"\0"
    assert len(longest) + 8 <= 256
