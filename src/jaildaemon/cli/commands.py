# SPDX-License-Identifier: BSD-2-Clause
"""The subcommands."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime

from jaildaemon.cli import client, options, views
from jaildaemon.cli.output import say
from jaildaemon.errors import FOUND_SOMETHING

SHAPE = 1
"""Of what --json prints, as docs/protocol.md has it."""
FOLLOWED = 10
"""What `log -F` shows of the past, as tail(1) does."""


def _json(parameters: dict[str, object], indent: int | None = 2) -> None:
    if "version" in parameters:  # Status has one, the daemon's: this place is the shape's
        version = parameters["version"]
        rest = {name: value for name, value in parameters.items() if name != "version"}
        parameters = {"daemon_version": version, **rest}
    sys.stdout.write(json.dumps({"version": SHAPE, **parameters}, indent=indent) + "\n")


def _print(parameters: dict[str, object], *, as_json: bool, view: views.View) -> int:
    if as_json:
        _json(parameters)
    else:
        view(parameters)
    return 0


def _given(**parameters: object) -> dict[str, object]:
    return {name: value for name, value in parameters.items() if value not in (None, False)}


def _list(wish: argparse.Namespace) -> int:
    found = client.call(wish.socket, "List", _given(jail=wish.jail))
    return _print(found, as_json=wish.json, view=lambda p: views.rules(p, datetime.now(UTC)))


def _status(wish: argparse.Namespace) -> int:
    return _print(client.call(wish.socket, "Status", {}), as_json=wish.json, view=views.status)


def _log(wish: argparse.Namespace) -> int:
    from jaildaemon.cli import logview

    last = FOLLOWED if wish.last is None and wish.follow else wish.last
    parameters = _given(rule=wish.rule) | ({} if last is None else {"last": last})
    lines = logview.Lines()
    method, seconds = ("Log", None) if wish.follow else ("Entries", client.QUERY_SECONDS)
    for reply in client.stream(wish.socket, method, parameters, seconds):
        entry = reply.get("entry")
        if not isinstance(entry, dict):
            continue
        if wish.json:
            _json({"entry": entry}, indent=None)
        else:
            for line in lines.of(entry):
                say(line)
        sys.stdout.flush()
    return 0


def _explain(wish: argparse.Namespace) -> int:
    from jaildaemon.backends import jails_have_proc

    found = client.call(wish.socket, "Explain", _given(jail=wish.jail, title=wish.title))
    return _print(
        found, as_json=wish.json, view=lambda p: views.explain(p, by_proc=jails_have_proc())
    )


def _fire(wish: argparse.Namespace) -> int:
    parameters = _given(rule=wish.rule, dry_run=wish.dry_run)
    found = client.call(wish.socket, "Fire", parameters, client.ORDER_SECONDS)
    if wish.json:
        _json(found)
    elif wish.dry_run:
        rules = client.call(wish.socket, "List", {})["rules"]
        views.dry_run(found, rules if isinstance(rules, list) else [], wish.rule)
    else:
        views.fired(found)
    return 1 if "refused" in found else 0


def _ids(method: str, done: str) -> Callable[[argparse.Namespace], int]:
    def order(wish: argparse.Namespace) -> int:
        parameters = _given(rule=wish.rule, all=wish.all)
        if method == "Detach":
            parameters |= _given(jail=wish.jail, title=wish.title)
        found = client.call(wish.socket, method, parameters, client.ORDER_SECONDS)
        return _print(found, as_json=wish.json, view=lambda p: views.ids(p, done))

    return order


def _reload(wish: argparse.Namespace) -> int:
    found = client.call(wish.socket, "Reload", {}, client.ORDER_SECONDS)
    return _print(found, as_json=wish.json, view=views.reloaded)


def _check(wish: argparse.Namespace) -> int:
    import attrs

    from jaildaemon import backends
    from jaildaemon.daemon import accounts, config

    named = wish.file if wish.file is not None else wish.config
    files = config.Files.of(named, *backends.configuration())
    if wish.file is not None:  # a draft: whose it is does not matter yet
        draft = wish.file if wish.file == config.STANDARD_INPUT else files.path
        files = attrs.evolve(files, path=draft, trusted=False)
    made, problems = config.examine(files)
    warnings = [*made.warnings, *config.unknown(made, accounts.look_up(*config.names(made)))]
    parameters = {
        "files": list(made.files),
        "rules": len(made.rules),
        "problems": [dataclasses.asdict(problem) for problem in problems],
        "warnings": [dataclasses.asdict(warning) for warning in warnings],
    }
    _print(parameters, as_json=wish.json, view=views.checked)
    return FOUND_SOMETHING if problems or (wish.strict and warnings) else 0


def _restart(wish: argparse.Namespace) -> int:
    found = client.call(wish.socket, "Restart", {}, client.RESTART_SECONDS)
    if wish.json:
        _json(found)
    return 0


def _demo(_: argparse.Namespace) -> int:
    from jaildaemon.cli import demo

    return demo.run()


def _metrics(wish: argparse.Namespace) -> int:
    from jaildaemon.cli import metrics

    return metrics.run(wish.socket, wish.output)


def _doctor(wish: argparse.Namespace) -> int:
    from jaildaemon.cli import doctor
    from jaildaemon.cli.interrupt import interruptible

    with interruptible():  # a jail that it makes is removed
        findings = doctor.examine(wish.socket)
    parameters: dict[str, object] = {"checks": [finding.parameters() for finding in findings]}
    return _print(parameters, as_json=wish.json, view=views.checks) or doctor.verdict(findings)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 4):  # noqa: PLR2004 - 1000
        msg = f"{text!r} is no number from 0 to 1000"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def _path(word: str) -> str:
    try:
        return options.path(word)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def parser() -> argparse.ArgumentParser:
    """Return the parser of everything that does not begin with a hyphen."""
    top = argparse.ArgumentParser(
        prog="jaildaemon",
        usage=options.USAGE.removeprefix("usage: "),
        description="See jaildaemon(1).",
        allow_abbrev=False,
    )
    subs = top.add_subparsers(
        prog="jaildaemon", dest="subcommand", metavar="subcommand", required=True
    )

    def add(
        name: str, words: str, function: Callable[[argparse.Namespace], int], *, json: bool = True
    ) -> argparse.ArgumentParser:
        sub = subs.add_parser(name, help=words, description=words, allow_abbrev=False)
        sub.add_argument(
            "-f", dest="socket", metavar="ipcsockpath", type=_path, default=options.SOCKET
        )
        if json:
            sub.add_argument("--json", action="store_true", help="print JSON")
        sub.set_defaults(function=function)
        return sub

    rule_words = "an id, JAIL/TITLE or TITLE"

    def add_which(sub: argparse.ArgumentParser) -> argparse._MutuallyExclusiveGroup:
        which = sub.add_mutually_exclusive_group(required=True)
        which.add_argument("rule", nargs="?", metavar="RULE", help=rule_words)
        which.add_argument("--all", action="store_true", help="every rule")
        return which

    sub = add("list", "Show the rules and their probes.", _list)
    sub.add_argument("jail", nargs="?", metavar="JAIL", help="only the rules of this jail")

    add("status", "Show the daemon's counts, and what to look at.", _status)

    sub = add("log", "Show what was decided: every trigger, accepted or refused.", _log)
    sub.add_argument("-F", dest="follow", action="store_true", help="go on as more comes")
    sub.add_argument("-n", dest="last", metavar="N", type=_count, help="the last N entries only")
    sub.add_argument("rule", nargs="?", metavar="RULE", help=rule_words)

    sub = add("explain", "Say what would happen if a bell were rung, and why.", _explain)
    sub.add_argument("jail", metavar="JAIL", help="the jail, as for -j")
    sub.add_argument("title", nargs="?", metavar="TITLE", help="only this title")

    sub = add("fire", "Ring a rule's probe, from the host.", _fire)
    sub.add_argument("rule", metavar="RULE", help=rule_words)
    sub.add_argument("--dry-run", action="store_true", help="only say what would happen")

    add_which(add("hold", "Withdraw the probes until the release.", _ids("Hold", "held")))
    add_which(add("release", "Arm held rules again.", _ids("Release", "released")))

    sub = add("detach", "Withdraw rules; their running commands go on.", _ids("Detach", "detached"))
    add_which(sub).add_argument("--jail", metavar="JAIL", help="the rules of this jail")
    sub.add_argument("--title", metavar="TITLE", help="with --jail: only this title")

    add("reload", "Let the daemon read the rules in files anew.", _reload)

    sub = add("check", "Say what is wrong with the rules in files, without a daemon.", _check)
    which = sub.add_mutually_exclusive_group()
    words = "a draft, - for standard input; whose it is is not tested"
    which.add_argument("file", nargs="?", metavar="FILE", type=_path, help=words)
    words = "as the daemon would be given it"
    which.add_argument("--config", metavar="FILE", type=_path, help=words)

    sub.add_argument("--strict", action="store_true", help="take a warning for a fault")

    words = "Let the daemon replace itself by its program as it is now installed."
    add("restart", words, _restart)

    add("doctor", "Say what of this machine is not as it must be.", _doctor)

    sub = add("metrics", "Write the counts for Prometheus.", _metrics, json=False)
    words = "to this file, in one step; - for standard output"
    sub.add_argument("-o", dest="output", metavar="FILE", type=_path, help=words)

    words = "Show it at work in a throwaway jail."
    sub = subs.add_parser("demo", help=words, allow_abbrev=False)
    sub.set_defaults(function=_demo)
    return top


def run(arguments: list[str]) -> int:
    """Run a subcommand; return the exit code."""
    top = parser()
    wish = top.parse_args(arguments)
    if wish.subcommand == "detach" and wish.title and not wish.jail:
        top.error("--title goes with --jail")
    code: int = wish.function(wish)
    return code
