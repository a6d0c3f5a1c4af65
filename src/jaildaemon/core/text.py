# SPDX-License-Identifier: BSD-2-Clause
"""What a title, a command and a number may be, and how text is shown.

Checked at both ends: by the command line for a quick answer, by the daemon
because it trusts no client.  Each check returns the reason for a no, or None.
"""

MAX_TITLE_BYTES = 180
"""With "jaildaemon: " before it, below FreeBSD's cached 256 bytes of arguments
(kern.ps_arg_cache_limit), beyond which ps(1) would have to read the probe."""

MAX_COMMAND_BYTES = 32768
"""Room for any script that still reads as one line of a rule; a quarter of what
Linux takes for a single argument (MAX_ARG_STRLEN)."""

MAX_JAIL_BYTES = 256
"""FreeBSD's MAXHOSTNAMELEN, NUL included; longer than any engine's names."""

MAX_NAME = 1024
"""Of what a rule or a jail is called: a name in a file, an @ and a jail's are less."""

MAX_ID = 2**32 - 2
"""The largest uid or gid; 2**32 - 1 means "unchanged" to setresuid(2)."""

LONG_BITS = 128
"""No number that is meant is so long, and str() refuses one of 4,300 digits."""

NAME = "jaildaemon"


def title_problem(title: str) -> str | None:
    """Say why `title` cannot be a probe's title."""
    if not title:
        return "is empty"
    try:
        size = len(title.encode())
    except UnicodeEncodeError:
        return "is not UTF-8"
    if size > MAX_TITLE_BYTES:
        return f"is {size} bytes long, at most {MAX_TITLE_BYTES} are possible"
    if not title.isprintable():
        return "has a control or other unprintable character"
    return None


def command_problem(command: str) -> str | None:
    """Say why `command` cannot be a rule's command.

    A byte that is not UTF-8 travels as a lone surrogate (PEP 383) and reaches
    sh(1) as the very same byte.
    """
    if not command.strip():
        return "is empty"
    if "\0" in command:
        return "has a NUL character"
    try:
        size = len(utf8(command))
    except UnicodeEncodeError:
        return "is not text"
    if size > MAX_COMMAND_BYTES:
        return f"is {size} bytes long, at most {MAX_COMMAND_BYTES} are possible"
    return None


def name_problem(name: str) -> str | None:
    """Say why `name` cannot be what a rule or a jail is called: the command is told it."""
    if not name or "\0" in name:
        return "is empty, or has a NUL character"
    if len(name) > MAX_NAME:
        return f"is longer than {MAX_NAME} characters"
    try:
        utf8(name)
    except UnicodeEncodeError:
        return "is not text"
    return None


def id_problem(number: int) -> str | None:
    """Say why `number` cannot be a uid or a gid."""
    if not 0 <= number <= MAX_ID:
        return f"is not a number from 0 to {MAX_ID}"
    return None


def utf8(text: str) -> bytes:
    """Return `text` as it leaves us: in argv, environment and files, whatever the locale says."""
    return text.encode(errors="surrogateescape")


def from_utf8(data: bytes) -> str:
    """Return the text that `utf8` makes these very bytes of."""
    return data.decode(errors="surrogateescape")


def shown_number(number: int) -> str:
    """Return a whole number for a message.  One of any length can be written, in base 16."""
    return str(number) if number.bit_length() < LONG_BITS else f"of {number.bit_length()} bits"


def shown(text: str) -> str:
    """Return `text` for a log or a terminal: one line, no control character."""
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(
        c if c.isprintable() and c != "\\" else c.encode("unicode_escape").decode() for c in text
    )


def process_title(title: str | None) -> str:
    """Return the probe's argv[0], which ps(1) shows in the jail."""
    return NAME if title is None else f"{NAME}: {title}"
