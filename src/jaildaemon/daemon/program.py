# SPDX-License-Identifier: BSD-2-Clause
"""Which program this daemon is, so that `restart` finds the one that is installed now.

It is found by the installed command's path and starts as that says, whatever has
become of the interpreter and the modules of the old one's life.
"""

import contextlib
import os
import sys
from pathlib import Path

from jaildaemon.backends import trust
from jaildaemon.errors import Refused

MAX_LINE = 256
"""Of a script's first line, as the kernel reads it."""
PACKAGE = Path(__file__).parents[1]

_command: list[str] = []
_ours: list[str] = []
"""What we were made of: where it is still there it must still be root's alone."""


def remember() -> None:
    """Keep how we were started, absolute: ps(1) and rc(8) shall see the same afterwards."""
    script = str(Path(sys.argv[0]).absolute())
    words = sys.orig_argv[1:]
    if interpreter(script) and sys.argv[0] in words:
        # Its first line says by what it is run, in the new version too.
        _command[:] = [script, *words[words.index(sys.argv[0]) + 1 :]]
    else:  # python -m jaildaemon
        given = "" if sys.argv[0] == "-c" else sys.argv[0]
        _command[:] = [sys.executable, *(script if word == given else word for word in words)]
    _ours[:] = [sys.executable, script]


def command() -> list[str]:
    """Return the program that is installed now and its arguments, the path first."""
    return _command


def interpreter(script: str) -> str | None:
    """Return the interpreter that a script names; None if it is none that can be run."""
    with contextlib.suppress(OSError):
        with open(script, "rb") as file:
            line = file.read(MAX_LINE).partition(b"\n")[0]
        if line.startswith(b"#!") and os.access(script, os.X_OK):
            return os.fsdecode(line[2:].split()[0])
    return None


def check(stays: str) -> None:
    """Refuse a program that others than root could have changed: we would become it."""
    path = _command[0]
    _check(path, stays)
    by = interpreter(path)
    if by is not None:
        _check(by, stays)
    for old in _ours:
        if os.path.lexists(old):
            _check(old, stays)
    # Where the new version has another Python, its modules are elsewhere, and these are gone.
    for directory, _, names in os.walk(PACKAGE):
        for name in names:
            _check(os.path.join(directory, name), stays)


def _check(path: str, stays: str) -> None:
    try:
        trust.check_program(path)
    except OSError as error:
        raise Refused("restart", path, error.strerror or str(error), stays) from error
    except trust.Untrusted as error:
        hint = stays if error.hint is None else f"{error.hint}; {stays}"
        raise Refused("restart", path, error.why, hint) from error
