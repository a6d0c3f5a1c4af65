# SPDX-License-Identifier: BSD-2-Clause
"""Tables for people.  Every text from a rule is shown escaped, with markup off."""

import shlex
from collections.abc import Callable
from datetime import datetime
from typing import Any

from jaildaemon.cli import output
from jaildaemon.cli.output import say
from jaildaemon.cli.table import table
from jaildaemon.core.text import process_title, shown

View = Callable[[dict[str, Any]], None]
Rule = dict[str, Any]

MINUTE, HOUR, DAY = 60, 3600, 86400


def _duration(seconds: float) -> str:
    """Return a time for a narrow column: its two largest units are enough for people."""
    whole = max(0, round(seconds))
    for unit, size, smaller, letter in ((DAY, "d", HOUR, "h"), (HOUR, "h", MINUTE, "m")):
        if whole >= unit:
            rest = whole % unit // smaller
            return f"{whole // unit}{size}{rest}{letter}" if rest else f"{whole // unit}{size}"
    return f"{whole // MINUTE}m{whole % MINUTE}s" if whole >= MINUTE else f"{whole}s"


def _distance(time: str | None, now: datetime) -> str:
    """Return how long ago a time is, or how far ahead."""
    if time is None:
        return ""
    return _duration(abs((datetime.fromisoformat(time) - now).total_seconds()))


CUT = ("JAIL", "TITLE", "COMMAND")
DROPPED = ("REFUSED", "NEXT", "LAST", "JAIL", "COMMAND", "TITLE")
"""In this order.  The id stays: every subcommand takes it."""


def rules(parameters: dict[str, Any], now: datetime) -> None:
    """Show the rules, one line each, and below it why one is not armed."""
    found: list[Rule] = parameters["rules"]
    if not found:
        say("no rules")
        return
    columns = {
        name: [shown(str(rule.get(name.lower()) or "")) for rule in found]
        for name in ("ID", "STATE", "JAIL", "TITLE", "COMMAND")
    }
    columns["LAST"] = [_distance(rule.get("last_trigger"), now) for rule in found]
    columns["NEXT"] = [_distance(rule.get("next_arming"), now) for rule in found]
    columns["REFUSED"] = [str(rule["refused"]) for rule in found]
    lines = table(
        columns,
        width=output.width(),
        more=output.more(),
        cut=CUT,
        drop=DROPPED,
        right=("LAST", "NEXT", "REFUSED"),
    )
    for line in lines:
        say(line)
    for rule in found:
        if rule.get("reason"):
            words = "warning" if rule["state"] == "armed" else "not armed"
            say(shown(f"{rule['id']}: {words}: {rule['reason']}"))


def status(parameters: dict[str, Any]) -> None:
    """Show the counts, one a line, and then what to look at."""
    p = parameters
    say(f"jaildaemon {shown(p['version'])}, pid {p['pid']}, up {_duration(p['uptime_seconds'])}")
    for name in ("rules", "probes", "running", "queued", "triggers", "refused"):
        say(f"{name:<9} {p[name]}")
    for warning in p["warnings"]:
        say(f"warning: {shown(warning)}")


def ids(parameters: dict[str, Any], done: str) -> None:
    """Show which rules something was done to."""
    found = parameters["ids"]
    say(shown(f"{done} {' '.join(found)}") if found else f"{done} nothing")


def fired(parameters: dict[str, Any]) -> None:
    """Show what runs now."""
    say(shown(f"run {parameters['run']}: {parameters['would_run']}"))


def dry_run(parameters: dict[str, Any], listed: list[Rule], name: str) -> None:
    """Show what `fire` would do, and whether it would be refused."""
    for rule in listed:
        title = rule.get("title")
        if name in (rule["id"], title, f"{rule['jail']}/{title}"):
            _what_runs(rule)
            break
    refused = parameters.get("refused")
    say(f"refused now: {shown(refused)}" if refused else "nothing is in its way")


FOLLOWS = {
    "no": "then        nothing: the rule is gone",
    "after": "then        another probe, when the command has ended",
    "now": "then        another probe, at once",
}


def _what_runs(rule: Rule) -> None:
    policy = rule["policy"]
    say(f"would run   {shown(rule['command'])}")
    say(f"as          {policy['run_as']}, on the host, by /bin/sh -c")
    limits = [f"{policy['limit']} triggers", f"{policy['concurrency']} at once"]
    limits += [f"{x} {policy[x]}" for x in ("cooldown", "settle") if policy[x] != "0s"]
    limits += [f"timeout {policy['timeout']}"] if policy["timeout"] != "none" else []
    say(f"limits      {', '.join(limits)}")
    say(FOLLOWS[policy["respawn"]])


def explain(parameters: dict[str, Any], *, by_proc: bool) -> None:
    """Show what would happen if the bell of each rule were rung."""
    for number, rule in enumerate(parameters["rules"]):
        if number:
            say("")
        _explain(rule, by_proc=by_proc)


def _explain(rule: Rule, *, by_proc: bool) -> None:
    policy, title = rule["policy"], rule.get("title")
    name = shown(rule["jail"] if title is None else f"{rule['jail']}/{title}")
    same = name == shown(rule["id"])  # as rules in files are called without a name
    say(f"rule        {name}" if same else f"rule        {shown(rule['id'])}, {name}")
    source = "jaildaemon -c" if rule["source"] == "transient" else shown(rule["source"])
    say(f"from        {source}")
    if rule["state"] == "armed":
        say(f"armed       yes, pid {rule['probe_pid']} of the host")
        if rule.get("reason"):
            say(f"warning     {shown(rule['reason'])}")
    else:
        say(f"armed       no: {shown(rule.get('reason') or rule['state'])}")
    _what_runs(rule)
    who = "root" if policy["uid"] == 0 else f"root, or uid {policy['uid']}"
    signal = policy["signal"]
    say(f"rung by     SIG{signal} from {who} in the jail:")
    whole = process_title(title)
    # In the C locale, an image's usual one, pkill(1) sees a ? for each byte of another letter.
    locale = "" if whole.isascii() else "LC_ALL=C.UTF-8 "
    say(f"    {locale}pkill -{signal} -f {shlex.quote(f'^{_pattern(whole)}')}")
    if by_proc:
        say("or without pkill:")
        for line in (
            "for p in /proc/[0-9]*; do",
            '    t=; { IFS= read -r t <"$p/cmdline"; } 2>/dev/null || :',
            f'    [ "$t" != {_double(whole)} ] || kill -{signal} "${{p#/proc/}}"',
            "done",
        ):
            say(f"    {line}")


def _pattern(text: str) -> str:
    """Return what matches `text` in basic and in extended expressions: busybox takes the former."""
    found = "".join(f"[{c}]" if c in r"\.[*+?{()|$" else c for c in text)
    return found.replace("^", r"\^")


def _double(text: str) -> str:
    """Return `text` for sh(1), quoted as the manual has it."""
    return '"' + "".join(f"\\{c}" if c in '\\"$`' else c for c in text) + '"'


def checks(parameters: dict[str, Any]) -> None:
    """Show what was examined, a line each: ok, or what to do."""
    for check in parameters["checks"]:
        say(shown(f"{'ok  ' if check['ok'] else 'BAD '} {check['name']}: {check['found']}"))
        if check.get("hint"):
            say(shown(f"     {check['hint']}"))


def reloaded(parameters: dict[str, Any]) -> None:
    """Show what a reload changed, a line for each kind that there is."""
    for word in ("added", "removed"):
        if parameters[word]:
            say(shown(f"{word} {' '.join(parameters[word])}"))
    say(f"kept {parameters['kept']}")


def checked(parameters: dict[str, Any]) -> None:
    """Show every problem and warning, a line each; where there is none, what was read."""
    for problem in parameters["problems"]:
        say(_line(problem))
    for warning in parameters["warnings"]:
        say(f"warning: {_line(warning)}")
    if not parameters["problems"]:
        where = ", ".join(parameters["files"]) or "no file"
        count = parameters["rules"]
        say(shown(f"ok: {count} rule{'' if count == 1 else 's'} in {where}"))


def _line(problem: dict[str, str]) -> str:
    words = (problem[name] for name in ("file", "rule", "field", "what"))
    return shown(": ".join(word for word in words if word))
