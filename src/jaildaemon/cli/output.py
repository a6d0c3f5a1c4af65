# SPDX-License-Identifier: BSD-2-Clause
"""Standard output: in which bytes, and how wide.

What is no terminal gets UTF-8, and every line whole.  A terminal gets what it can
show, in the encoding of its locale; the rest is escaped.
"""

import io
import os
import sys

NARROWEST_TERMINAL = 20


def prepare() -> None:
    """Set the encoding; without this a locale decides, and one letter can be an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            encoding = stream.encoding if stream.isatty() else "utf-8"
            stream.reconfigure(encoding=encoding, errors="backslashreplace")


def say(text: str) -> None:
    """Write a line."""
    sys.stdout.write(f"{text}\n")


def width() -> int | None:
    """Return how many columns the terminal has; None where it is none, and nothing is cut."""
    try:
        if not sys.stdout.isatty():
            return None
        said = os.environ.get("COLUMNS", "")
        if said.isascii() and said.isdecimal() and len(said) <= 6 and int(said) > 0:  # noqa: PLR2004
            return max(int(said), NARROWEST_TERMINAL)
        return max(os.get_terminal_size(sys.stdout.fileno()).columns or 80, NARROWEST_TERMINAL)
    except (OSError, ValueError):
        return None


def more() -> str:
    """Return what stands where something was cut."""
    try:
        "\u2026".encode(sys.stdout.encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return "~"
    return "\u2026"
