# SPDX-License-Identifier: BSD-2-Clause
"""What the rules in files mean: which jails, which policy, and everything that is wrong with them.

A rule in a file names its jail by name or pattern.  For each jail that it fits
there is one rule of the fleet, of an id that is the same for every jail that
ever has that name.
"""

import codecs
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from jaildaemon.core import text
from jaildaemon.core.member import overlapping
from jaildaemon.core.rules import Policy, Respawn, Rule, make_policy
from jaildaemon.errors import Refused

MAX_NAME_BYTES = 512
"""Of a rule's name: what JAIL/TITLE may be together."""
MAX_PATH_BYTES = 107
"""Of an engine's socket (unix(7)); a client's path is no longer."""
LEFT = ("~", ".swp", ".bak", ".orig", ".disabled", ".sample", ".example", ".md", ".txt")
LEFT_BY_PACKAGES = re.compile(r".*\.(rpm(new|save|orig)|pac(new|save)|ucf-\w+|dpkg-\w+)")
"""How files end that others leave beside those that are meant."""
DEFAULT_RESPAWN = Respawn.AFTER.value
_NAME = re.compile(r"[A-Za-z0-9*?][A-Za-z0-9_.*?-]*")
_TRANSIENT_ID = re.compile(r"t[0-9]+")
POLICY_FIELDS = (
    "respawn",
    "uid",
    "gid",
    "signal",
    "limit",
    "cooldown",
    "timeout",
    "settle",
    "concurrency",
    "run_as",
)

Fields = Mapping[str, object]
"""A [[rule]], every value of its right type."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong; what does not apply is empty."""

    file: str
    rule: str
    field: str
    what: str

    def __str__(self) -> str:
        """Return it in one line: file: rule: field: what."""
        return ": ".join(part for part in (self.file, self.rule, self.field, self.what) if part)


@dataclass(frozen=True, slots=True)
class FileRule:
    """One [[rule]]: `name` is unique, `jail` a name or a pattern."""

    name: str
    jail: str
    title: str
    command: str
    policy: Policy
    source: str

    @property
    def engine(self) -> str | None:
        """The engine that names its jails, None where the kernel does."""
        engine, colon, _ = self.jail.partition(":")
        return engine if colon else None

    @property
    def is_pattern(self) -> bool:
        """Whether it may fit several jails."""
        return bool(set(self.jail) & set("*?"))

    def fits(self, jail: str) -> bool:
        """Say whether a jail of this full name is meant; * and ? never match a dot."""
        return fits(self.jail, jail)

    def rule(self, jail: str) -> Rule:
        """Return what it is for one jail that it fits."""
        name = f"{self.name}@{jail.rpartition(':')[2]}" if self.is_pattern else self.name
        return Rule(name, jail, self.title, self.command, self.policy, self.source)


@dataclass(frozen=True, slots=True)
class EnginePlace:
    """[engines.NAME]: where an engine of this host is, if not at its default place."""

    client: str | None = None
    socket: str | None = None


@dataclass(frozen=True, slots=True)
class Configuration:
    """Everything that the files say."""

    rules: tuple[FileRule, ...] = ()
    engines: Mapping[str, EnginePlace] = field(default_factory=dict)
    readers: str | None = None
    """The group that may ask for the status and the list."""
    files: tuple[str, ...] = ()
    warnings: tuple[Problem, ...] = ()
    readers_in: str = ""
    """The file that names the readers."""


def fits(pattern: str, jail: str, *, dots: bool = False) -> bool:
    """Say whether `pattern` means the jail of this full name; with `dots`, would if they fitted."""
    # A dot in FreeBSD's names stands between a jail and its children, which its
    # root may name: web-* must not be web-1.evil.
    words = {"*": ".*", "?": "."} if dots else {"*": "[^.]*", "?": "[^.]"}
    return bool(re.fullmatch("".join(words.get(c, re.escape(c)) for c in pattern), jail))


def jail_problem(jail: str, engines: tuple[str, ...]) -> str | None:
    """Say why `jail` cannot be what a rule in a file names; with no `engines` the kernel names."""
    name = jail
    if engines:
        engine, _, name = jail.partition(":")
        if engine not in engines:
            known = ", ".join(engines)
            return f"{jail!r} is not ENGINE:NAME, where ENGINE is one of {known}"
    elif jail.isdecimal():
        return f"{jail!r} is a jid, which another jail may have tomorrow: give the jail's name"
    if not _NAME.fullmatch(name) or len(name) >= text.MAX_JAIL_BYTES:
        return f"{jail!r} is no name or pattern of letters, digits and _.*?-"
    if not engines and "." in name and set(name) & set("*?"):
        return f"{jail!r} would match what a jail's root may name: give the child's whole name"
    return None


def place_problem(field: str, path: str) -> str | None:
    """Say why a path cannot be an engine's client or socket on this host."""
    if "://" in path or not path.startswith("/"):
        example = "/run/docker.sock" if field == "socket" else "/snap/bin/docker"
        return f"{path!r} is no path: only an engine of this host is asked, such as at {example}"
    if not path.isprintable() or len(path.encode(errors="replace")) > MAX_PATH_BYTES:
        return f"is longer than {MAX_PATH_BYTES} bytes, or has an unprintable character"
    return None


def name_problem(name: str) -> str | None:
    """Say why a rule cannot be called so."""
    if not name or not name.isprintable():
        return "is empty, or has a control or other unprintable character"
    if len(name.encode(errors="replace")) > MAX_NAME_BYTES:
        return f"is longer than {MAX_NAME_BYTES} bytes"
    if _TRANSIENT_ID.fullmatch(name):
        return f"{name!r} is what a rule of -c may be called"
    if "@" in name:
        return f"{name!r} has an @, which stands before the jail in a pattern's rules: give a name"
    return None


def policy_of(fields: Fields) -> tuple[Policy, list[tuple[str, str]]]:
    """Return the policy that the fields name, and every field with what is wrong with it."""
    given = {name: fields[name] for name in POLICY_FIELDS if name in fields}
    problems = []
    for name, value in list(given.items()):
        try:
            # mypy cannot see that each has been found to be of its type by now.
            make_policy(**{name: value})  # type: ignore[arg-type]
        except Refused as error:
            value_and_why = f"{error.on.removeprefix(name).strip()} {error.why}".strip()
            problems.append((name, value_and_why))
            del given[name]
    given.setdefault("respawn", DEFAULT_RESPAWN)
    # The same values, less those that it refused.
    return make_policy(**given), problems  # type: ignore[arg-type]


def rule_of(
    file: str, where: str, fields: Fields, engines: tuple[str, ...]
) -> tuple[FileRule, list[Problem]]:
    """Return a [[rule]] as far as it can be understood, and all that is wrong with it.

    `where` is what the rule is called where it has no name.  A field that is
    missing is no problem here: who gave it its type has said so.
    """
    jail, title = str(fields.get("jail", "")), str(fields.get("title", ""))
    command = str(fields.get("command", ""))
    named = fields.get("name")
    default = f"{jail}/{title}" if jail and title else where
    name = default if named is None else str(named)
    policy, found = policy_of(fields)
    checks = {
        "name": name_problem(name) if named is not None or name != where else None,
        "jail": jail_problem(jail, engines),
        "title": text.title_problem(title),
        "command": text.command_problem(command),
    }
    found = [
        (field, why)
        for field, why in checks.items()
        if why and (field in fields or field == "name")
    ] + found
    label = name if name.isprintable() and name else where
    made = FileRule(name, jail, title, command, policy, file)
    return made, [Problem(file, label, field, why) for field, why in found]


def twice(rules: Iterable[FileRule]) -> list[Problem]:
    """Return a problem for each rule whose name an earlier one has."""
    first: dict[str, FileRule] = {}
    problems = []
    for rule in rules:
        other = first.setdefault(rule.name, rule)
        if other is not rule:
            what = f"is the name of another rule, in {other.source}: give each its own"
            problems.append(Problem(rule.source, rule.name, "name", what))
    return problems


def overlaps(rules: Iterable[FileRule]) -> list[Problem]:
    """Return a warning for each rule that `pkill -f` with the title of an earlier one may ring."""
    named: dict[str, list[FileRule]] = {}
    patterns: list[FileRule] = []
    warnings = []
    for rule in rules:
        near = [*named.get(rule.jail, ()), *(one for one in patterns if one.fits(rule.jail))]
        if rule.is_pattern:
            near += [one for jail, ones in named.items() if rule.fits(jail) for one in ones]
            patterns.append(rule)
        else:
            named.setdefault(rule.jail, []).append(rule)
        overlaps = overlapping(rule.title)
        for other in near:
            if overlaps(other.title):
                what = f"overlaps with that of {other.name}: pkill -f may ring both"
                warnings.append(Problem(rule.source, rule.name, "title", what))
    return warnings


def may_be_meant(name: str) -> bool:
    """Say whether a file that is not read may be meant to be: nobody left it there in passing."""
    left = name.startswith((".", "#", "README")) or name.endswith(LEFT)
    return not left and not LEFT_BY_PACKAGES.fullmatch(name)


def not_ascii(rules: Iterable[FileRule]) -> list[Problem]:
    """Return a warning for each title that some of the tools inside cannot find."""
    what = "is not ASCII: pkill(1) finds it in a UTF-8 locale only, LC_ALL=C.UTF-8"
    return [
        Problem(rule.source, rule.name, "title", what) for rule in rules if not rule.title.isascii()
    ]


def parse(data: bytes) -> dict[str, object]:
    """Return the TOML document in `data`; ValueError says what is wrong, and in which line."""
    if data.startswith(codecs.BOM_UTF8):
        msg = "begins with a byte order mark, which nobody sees: save it without one"
        raise ValueError(msg)
    try:
        return tomllib.loads(data.decode())
    except tomllib.TOMLDecodeError:
        raise
    except UnicodeDecodeError as error:
        msg = f"is not UTF-8, at byte {error.start}"
        raise ValueError(msg) from error
    except RecursionError as error:
        msg = "is nested too deeply"
        raise ValueError(msg) from error
    except ValueError as error:  # int() takes 4,300 digits
        msg = "has a number of too many digits"
        raise ValueError(msg) from error


def same(one: Rule, other: Rule) -> bool:
    """Say whether two rules do the same, from whatever file they came."""
    return replace(one, source="") == replace(other, source="")
