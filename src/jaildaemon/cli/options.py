# SPDX-License-Identifier: BSD-2-Clause
"""The original's two modes: -D and -c, by getopt(3)'s rules, to the letter.

What the other mode's options say is ignored, malformed values too.
"""

import getopt
import os
import sys

from jaildaemon.core import text
from jaildaemon.errors import UsageError

SOCKET = "/var/run/jaildaemon.pipe"
PIDFILE = "/var/run/jaildaemon.pid"

USAGE = """\
usage: jaildaemon -D [-F] [-p pidfile] [-f ipcsockpath]
       jaildaemon -c command -j jid [-rR] [-u uid] [-g gid] [-t proctitle]
                  [-f ipcsockpath]
       jaildaemon subcommand ...
"""

_TEXTS = ("respawn", "signal", "limit", "cooldown", "timeout", "settle", "run-as")
"""Fields of the policy that the daemon checks, as it checks them in files."""
_LONG = ["help", "version", "replace", "state-dir=", "config=", "uid=", "gid=", "concurrency="]
_LONG += [f"{name}=" for name in _TEXTS]
_SHORT = "DFhrRc:f:g:j:p:t:u:"
_WHAT = ""


def words() -> list[str]:
    """Return the command line as UTF-8, which it is whatever the locale says."""
    if sys.getfilesystemencoding() == "utf-8":
        return sys.argv[1:]
    # The interpreter has decoded it by the C library's table for the locale's encoding,
    # which only the same table undoes: Python's own differ, in GB18030 and EUC-JP.
    import ctypes

    encode = ctypes.pythonapi.Py_EncodeLocale
    encode.argtypes, encode.restype = [ctypes.c_wchar_p, ctypes.c_void_p], ctypes.c_void_p
    found = []
    for word in sys.argv[1:]:
        raw = encode(word, None)
        found.append(text.from_utf8(ctypes.string_at(raw) if raw else os.fsencode(word)))
        ctypes.pythonapi.PyMem_Free(ctypes.c_void_p(raw))
    return found


def path(word: str) -> str:
    """Return a path as the system's calls are to be given it; ValueError for none."""
    if not word:
        msg = "is empty: a variable that is not set?"
        raise ValueError(msg)
    return os.fsdecode(text.utf8(word))


def _no_abbreviation(arguments: list[str]) -> None:
    """Refuse a long option that is not written out: getopt(3) takes its beginning for it."""
    rest = iter(arguments)
    for word in rest:
        if word in ("-", "--") or not word.startswith("-"):
            return
        if word.startswith("--"):
            name, given, _ = word[2:].partition("=")
            if f"{name}=" not in _LONG and name not in _LONG:
                raise UsageError(_WHAT, "", f"option --{name} not recognized")
            if f"{name}=" in _LONG and not given:
                next(rest, None)
            continue
        values = [at for at, letter in enumerate(word[1:], 1) if f"{letter}:" in _SHORT]
        if values and values[0] == len(word) - 1:
            next(rest, None)


class Options:
    """What was asked for.  `policy` and `title` are those of -c."""

    def __init__(self) -> None:
        self.daemon = self.foreground = self.replace = False
        self.help = self.version = False
        self.command: str | None = None
        self.jail: str | None = None
        self.title: str | None = None
        self.socket, self.pidfile = SOCKET, PIDFILE
        self.state: str | None = None
        self.config: str | None = None
        self.policy: dict[str, object] = {}


def _path(option: str, word: str) -> str:
    try:
        return path(word)
    except ValueError as error:
        raise UsageError(_WHAT, option, str(error)) from error


def _decimal(value: str) -> int:
    """Return a decimal number, -1 for what is none or has more digits than any that is meant."""
    decimal = value.isascii() and value.isdecimal() and len(value) <= len(str(text.MAX_ID))
    return int(value) if decimal else -1


def _id(option: str, value: str) -> int:
    """Return a decimal uid or gid: names differ in the jail, so they are refused."""
    number = _decimal(value)
    problem = text.id_problem(number)
    if problem:
        hint = "names are not taken: they differ in the jail"
        raise UsageError(_WHAT, option, f"{value!r} {problem}", hint)
    return number


def _count(option: str, value: str) -> int:
    number = _decimal(value)
    if number < 0:
        raise UsageError(_WHAT, option, f"{value!r}: expected a number, for example 8")
    return number


def _checked(option: str, value: str, problem: str | None) -> str:
    if problem:
        raise UsageError(_WHAT, option, problem)
    return value


def _text(option: str, value: str) -> str:
    """Return a field's text; what is quick to check is checked, the daemon does the rest."""
    if option == "--respawn" and value not in ("no", "after", "now"):
        raise UsageError(_WHAT, option, f'{value!r} is none of "no", "after", "now"')
    return value


def _utility(options: Options, pairs: list[tuple[str, str]]) -> None:
    for option, value in pairs:
        match option:
            case "-c":
                options.command = _checked("-c command", value, text.command_problem(value))
            case "-j":
                options.jail = value
            case "-t":
                options.title = _checked("-t proctitle", value, text.title_problem(value))
            case "-u" | "--uid":
                options.policy["uid"] = _id(option, value)
            case "-g" | "--gid":
                options.policy["gid"] = _id(option, value)
            case "--concurrency":
                options.policy["concurrency"] = _count(option, value)
            case "--replace":
                options.replace = True
            case _ if option.removeprefix("--") in _TEXTS:
                options.policy[option.removeprefix("--").replace("-", "_")] = _text(option, value)
    given = {option for option, _ in pairs}
    if "-R" in given:
        options.policy["respawn"] = "now"
    elif "-r" in given:
        options.policy["respawn"] = "after"
    if options.jail is None:
        raise UsageError(_WHAT, "-c", "-j jid is missing")


def parse(arguments: list[str]) -> Options:
    """Return what the arguments ask for; UsageError."""
    _no_abbreviation(arguments)
    try:
        pairs, rest = getopt.getopt(arguments, _SHORT, _LONG)
    except getopt.GetoptError as error:
        raise UsageError(_WHAT, "", error.msg) from error
    options = Options()
    given = {option for option, _ in pairs}
    options.help = bool(given & {"-h", "--help"})
    options.version = "--version" in given
    if options.help or options.version:
        return options
    if rest:
        raise UsageError(_WHAT, rest[0], "unexpected argument")
    if ("-D" in given) == ("-c" in given):
        both = "-D and -c exclude each other" if "-D" in given else "one of -D and -c is needed"
        raise UsageError(_WHAT, "", both)
    options.daemon, options.foreground = "-D" in given, "-F" in given
    for option, value in pairs:
        if option == "-f":
            options.socket = _path(option, value)
        elif option == "-p" and options.daemon:
            options.pidfile = _path(option, value)
        elif option == "--state-dir" and options.daemon:
            options.state = _path(option, value)
        elif option == "--config" and options.daemon:
            options.config = _path(option, value)
    if not options.daemon:
        _utility(options, pairs)
    return options
