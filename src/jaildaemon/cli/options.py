# SPDX-License-Identifier: BSD-2-Clause
"""The original's two modes: -D and -c, by getopt(3)'s rules, to the letter.

What the other mode's options say is ignored, malformed values too.
"""

import getopt

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
_WHAT = ""


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
    try:
        pairs, rest = getopt.getopt(arguments, "DFhrRc:f:g:j:p:t:u:", _LONG)
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
            options.socket = value
        elif option == "-p" and options.daemon:
            options.pidfile = value
        elif option == "--state-dir" and options.daemon:
            options.state = value
        elif option == "--config" and options.daemon:
            options.config = value
    if not options.daemon:
        _utility(options, pairs)
    return options
