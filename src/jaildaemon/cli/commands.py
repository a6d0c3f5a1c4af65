# SPDX-License-Identifier: BSD-2-Clause
"""The subcommands."""

import argparse
import dataclasses
import json
import sys

from jaildaemon.cli import client, options, views

FOUND_SOMETHING = 6


def _print(parameters: dict[str, object], *, as_json: bool, view: views.View) -> int:
    if as_json:
        sys.stdout.write(json.dumps({"version": 1, **parameters}, indent=2) + "\n")
    else:
        view(parameters)
    return 0


def _list(wish: argparse.Namespace) -> int:
    parameters = {} if wish.jail is None else {"jail": wish.jail}
    return _print(client.call(wish.socket, "List", parameters), as_json=wish.json, view=views.rules)


def _status(wish: argparse.Namespace) -> int:
    return _print(client.call(wish.socket, "Status", {}), as_json=wish.json, view=views.status)


def _detach(wish: argparse.Namespace) -> int:
    given = {"rule": wish.rule, "jail": wish.jail, "title": wish.title, "all": wish.all or None}
    parameters = {name: value for name, value in given.items() if value is not None}
    return _print(
        client.call(wish.socket, "Detach", parameters), as_json=wish.json, view=views.detached
    )


def _reload(wish: argparse.Namespace) -> int:
    found = client.call(wish.socket, "Reload", {})
    return _print(found, as_json=wish.json, view=views.reloaded)


def _check(wish: argparse.Namespace) -> int:
    import attrs

    from jaildaemon import backends
    from jaildaemon.daemon import config

    named = wish.file if wish.file is not None else wish.config
    files = config.Files.of(named, *backends.configuration())
    if wish.file is not None:  # a draft: whose it is does not matter yet
        files = attrs.evolve(files, trusted=False)
    made, problems = config.examine(files)
    parameters = {
        "files": list(made.files),
        "rules": len(made.rules),
        "problems": [dataclasses.asdict(problem) for problem in problems],
        "warnings": [dataclasses.asdict(warning) for warning in made.warnings],
    }
    _print(parameters, as_json=wish.json, view=views.checked)
    return FOUND_SOMETHING if problems else 0


def _restart(wish: argparse.Namespace) -> int:
    client.call(wish.socket, "Restart", {})
    return 0


def _demo(_: argparse.Namespace) -> int:
    from jaildaemon.cli import demo

    return demo.run()


def parser() -> argparse.ArgumentParser:
    """Return the parser of everything that does not begin with a hyphen."""
    top = argparse.ArgumentParser(
        prog="jaildaemon",
        usage=options.USAGE.removeprefix("usage: "),
        description="See jaildaemon(1).",
    )
    subs = top.add_subparsers(
        prog="jaildaemon", dest="subcommand", metavar="subcommand", required=True
    )

    def add(name: str, words: str) -> argparse.ArgumentParser:
        sub = subs.add_parser(name, help=words, description=words)
        sub.add_argument("-f", dest="socket", metavar="ipcsockpath", default=options.SOCKET)
        sub.add_argument("--json", action="store_true", help="print JSON")
        return sub

    sub = add("list", "Show the rules and their probes.")
    sub.add_argument("jail", nargs="?", help="only the rules of this jail")
    sub.set_defaults(function=_list)

    add("status", "Show the daemon's counts.").set_defaults(function=_status)

    sub = add("detach", "Withdraw rules; their running commands go on.")
    which = sub.add_mutually_exclusive_group(required=True)
    which.add_argument("rule", nargs="?", metavar="RULE", help="an id, JAIL/TITLE or TITLE")
    which.add_argument("--jail", metavar="JAIL")
    which.add_argument("--all", action="store_true")
    sub.add_argument("--title", metavar="TITLE", help="with --jail: only this title")
    sub.set_defaults(function=_detach)

    add("reload", "Let the daemon read the rules in files anew.").set_defaults(function=_reload)

    sub = add("check", "Say what is wrong with the rules in files, without a daemon.")
    which = sub.add_mutually_exclusive_group()
    which.add_argument("file", nargs="?", metavar="FILE", help="a draft; whose it is is not tested")
    which.add_argument("--config", metavar="FILE", help="as the daemon would be given it")
    sub.set_defaults(function=_check)

    sub = add("restart", "Let the daemon replace itself by its program as it is now installed.")
    sub.set_defaults(function=_restart)

    sub = subs.add_parser("demo", help="Show it at work in a throwaway jail.")
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
