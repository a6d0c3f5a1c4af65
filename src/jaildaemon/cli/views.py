# SPDX-License-Identifier: BSD-2-Clause
"""Tables for people.  Every text from a rule is shown escaped, with markup off."""

from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaildaemon.core.text import shown

View = Callable[[dict[str, Any]], None]


def _console() -> Console:
    return Console(markup=False, highlight=False, emoji=False)


def _text(value: object) -> Text:
    return Text("" if value is None else shown(str(value)))


def rules(parameters: dict[str, Any]) -> None:
    """Show the rules, one line each, and below it why one is not armed."""
    found = parameters["rules"]
    console = _console()
    if not found:
        console.print("no rules")
        return
    table = Table(box=None, pad_edge=False, show_edge=False)
    for name in ("ID", "STATE", "JAIL", "TITLE", "COMMAND", "LAST TRIGGER", "REFUSED"):
        table.add_column(name, overflow="ellipsis", no_wrap=name != "COMMAND")
    for rule in found:
        cells = ("id", "state", "jail", "title", "command", "last_trigger", "refused")
        table.add_row(*(_text(rule.get(cell)) for cell in cells))
    console.print(table)
    for rule in found:
        if rule.get("reason"):
            console.print(_text(f"{rule['id']}: {rule['reason']}"))


def status(parameters: dict[str, Any]) -> None:
    """Show the counts, one a line."""
    console = _console()
    for name, value in parameters.items():
        if name == "warnings":
            for warning in value:
                console.print(_text(f"warning: {warning}"))
        else:
            console.print(_text(f"{name.replace('_', ' ')}: {value}"))


def detached(parameters: dict[str, Any]) -> None:
    """Show which rules were withdrawn."""
    ids = parameters["ids"]
    _console().print(_text(f"detached {' '.join(ids)}" if ids else "nothing to detach"))


def reloaded(parameters: dict[str, Any]) -> None:
    """Show what a reload changed, a line for each kind that there is."""
    console = _console()
    for word in ("added", "removed"):
        if parameters[word]:
            console.print(_text(f"{word} {' '.join(parameters[word])}"), soft_wrap=True)
    console.print(_text(f"kept {parameters['kept']}"))


def checked(parameters: dict[str, Any]) -> None:
    """Show every problem and warning, a line each; where there is none, what was read."""
    console = _console()
    for problem in parameters["problems"]:
        console.print(_line(problem), soft_wrap=True)
    for warning in parameters["warnings"]:
        console.print(Text("warning: ") + _line(warning), soft_wrap=True)
    if not parameters["problems"]:
        where = ", ".join(parameters["files"]) or "no file"
        console.print(_text(f"ok: {parameters['rules']} rules in {where}"), soft_wrap=True)


def _line(problem: dict[str, str]) -> Text:
    words = (problem[name] for name in ("file", "rule", "field", "what"))
    return _text(": ".join(word for word in words if word))
