# SPDX-License-Identifier: BSD-2-Clause
"""The subcommands."""

import argparse
import json
import sys

from jaildaemon.cli import client, options, views


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
