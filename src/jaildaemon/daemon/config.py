# SPDX-License-Identifier: BSD-2-Clause
"""The files with rules: found, trusted, read, and everything that is wrong with them at once.

Whoever may write there is root: what is trusted is what was opened, not a path.
"""

import errno
import os
import stat
from collections.abc import Sequence

import attrs

from jaildaemon.backends import trust
from jaildaemon.core import config
from jaildaemon.core.config import Configuration, EnginePlace, FileRule, Problem
from jaildaemon.core.text import shown_number
from jaildaemon.daemon import accounts, schema
from jaildaemon.daemon.accounts import Found
from jaildaemon.daemon.surroundings import absolute
from jaildaemon.engines import ENGINES
from jaildaemon.errors import BadConfiguration

VARIABLE = "JAILDAEMON_CONFIG"
STANDARD_INPUT = "-"
"""As the path of a draft."""
OURS = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")
"""How a shell names what we have open already: <(...) is one."""
MAX_BYTES = 1 << 20
"""Of one file: some thousands of rules, and no memory to speak of."""

BARE = {"cooldown", "timeout", "settle"}
"""Durations, where a number may have been meant."""


@attrs.frozen
class Files:
    """Which files are read: a named one alone, or the default and the directory beside it.

    With the path "", none.
    """

    path: str
    named: bool
    engines: tuple[str, ...]
    """Who names jails on this system; none where the kernel does."""
    trusted: bool = True
    """Whether they must be root's alone; else anybody's draft will do."""

    @classmethod
    def of(cls, wish: str | None, default: str, engines: tuple[str, ...]) -> "Files":
        """Return what --config, else the environment, else the system says."""
        path = wish if wish is not None else os.environ.get(VARIABLE) or None
        return cls(default if path is None else absolute(path, "rules"), path is not None, engines)


class _Reader:
    """One reading of all files."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.rules: list[FileRule] = []
        self.read_files: list[str] = []
        self.readers: str | None = None
        self.readers_in: str | None = None
        self.engines: dict[str, EnginePlace] = {}
        self._engine_in: dict[str, str] = {}

    def _say(self, file: str, what: str, rule: str = "", field: str = "") -> None:
        self.problems.append(Problem(file, rule, field, what))

    def names(self) -> list[str]:
        """Return the files that there are, the directory's in the order of their names."""
        main = self._files.path
        if self._files.named or not main:
            return [main] if main else []
        directory = main.removesuffix(".toml") + ".d"
        found: list[str] = []
        try:
            fd = trust.open_directory(directory)
            try:
                found = sorted(os.listdir(fd))
            finally:
                os.close(fd)
        except FileNotFoundError:
            pass
        except trust.Untrusted as error:
            self._say(directory, error.why)
        except OSError as error:
            self._say(directory, f"cannot be listed: {error.strerror}")
        more = [f"{directory}/{n}" for n in found if n.endswith(".toml") and n[0] != "."]
        for name in found:
            path = f"{directory}/{name}"
            if path not in more and config.may_be_meant(name) and not os.path.isdir(path):
                what = "is not read: the name of a file with rules ends in .toml"
                self.warnings.append(Problem(path, "", "", what))
        return ([main] if os.path.lexists(main) else []) + more

    def _bytes(self, path: str) -> bytes | None:
        try:
            if self._files.trusted:
                data = trust.read_trusted(path, MAX_BYTES + 1)
            else:
                data = self._draft(path)
        except trust.Untrusted as error:
            self._say(path, f"{error.why} ({error.hint})" if error.hint else error.why)
            return None
        except OSError as error:
            self._say(path, f"{error.strerror}")
            return None
        if len(data) > MAX_BYTES:
            self._say(path, f"is longer than {MAX_BYTES} bytes")
            return None
        return data

    def _draft(self, path: str) -> bytes:
        """Return what is in anybody's file, or comes through a pipe that we have; OSError."""
        if path == STANDARD_INPUT or path.startswith(OURS):
            fd = 0 if path == STANDARD_INPUT else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            with open(fd, "rb", closefd=fd > 0) as file:
                return file.read(MAX_BYTES + 1)
        # O_NONBLOCK: a FIFO in its place must not keep us.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
        with open(os.open(path, flags), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError(errno.EINVAL, "is not a regular file")
            return file.read(MAX_BYTES + 1)

    def read(self, path: str) -> None:
        """Read one file."""
        data = self._bytes(path)
        if data is None:
            return
        self.read_files.append(path)
        try:
            tables = config.parse(data)
        except ValueError as error:
            self._say(path, str(error))
            return
        for name in sorted(tables.keys() - {"daemon", "engines", "rule"}):
            what = "is unknown; there are [daemon], [engines.NAME] and [[rule]]"
            self._say(path, what, field=name)
        self._daemon(path, tables.get("daemon", {}))
        engines = tables.get("engines", {})
        if isinstance(engines, dict):
            for name, table in engines.items():
                self._engine(path, name, table)
        else:
            self._say(path, "is written [engines.NAME]", field="engines")
        rules = tables.get("rule", [])
        if not isinstance(rules, list):
            self._say(path, "is written [[rule]]", field="rule")
            return
        for number, table in enumerate(rules, 1):
            self._rule(path, f"rule {number}", table)

    def _daemon(self, path: str, table: object) -> None:
        if not isinstance(table, dict):
            self._say(path, "is written [daemon]", field="daemon")
            return
        wrong = dict(schema.problems(table, schema.DaemonWish))
        for field, what in wrong.items():
            self._say(path, what, "daemon", field)
        if "readers" in wrong or "readers" not in table:
            return
        if self.readers_in is not None:
            self._say(path, f"is said in {self.readers_in} already", "daemon", "readers")
        self.readers_in = path
        self.readers = str(table["readers"])

    def _engine(self, path: str, name: str, table: object) -> None:
        where = f"engines.{name}"
        if name not in self._files.engines:
            there = ", ".join(self._files.engines) or "none on this system"
            self._say(path, f"is no engine; there are {there}", where)
            return
        if not isinstance(table, dict):
            self._say(path, f"is written [{where}]", where)
            return
        wrong = dict(schema.problems(table, schema.EngineWish))
        known = ENGINES[name].settings
        for field in table.keys() - wrong.keys():
            why = config.place_problem(field, str(table[field]))
            if field not in known:
                why = f"is not said of {name}: it has {', '.join(known) or 'no settings'}"
            if why:
                wrong[field] = why
        if name in self._engine_in:
            wrong[""] = f"is said in {self._engine_in[name]} already"
        for field, what in wrong.items():
            self._say(path, what, where, field)
        if not wrong:
            self._engine_in[name] = path
            self.engines[name] = EnginePlace(table.get("client"), table.get("socket"))

    def _rule(self, path: str, where: str, table: object) -> None:
        if not isinstance(table, dict):
            self._say(path, "is written [[rule]]", where)
            return
        wrong = dict(schema.problems(table, schema.RuleWish))
        for name in wrong.keys() & BARE & table.keys():
            if type(table[name]) in (int, float):
                number = table[name] if type(table[name]) is float else shown_number(table[name])
                wrong[name] = f'{number} has no unit: it is written in quotes, such as "10s"'
        good = {name: value for name, value in table.items() if name not in wrong}
        rule, problems = config.rule_of(path, where, good, self._files.engines)
        self.problems += [Problem(path, rule.name, field, what) for field, what in wrong.items()]
        self.problems += problems
        self.rules.append(rule)


def examine(files: Files) -> tuple[Configuration, list[Problem]]:
    """Read everything; return it, as far as it can be understood, and all that is wrong with it."""
    reader = _Reader(files)
    for path in reader.names():
        reader.read(path)
    problems = reader.problems + config.twice(reader.rules)
    warnings = reader.warnings + config.overlaps(reader.rules) + config.not_ascii(reader.rules)
    made = Configuration(
        tuple(reader.rules),
        reader.engines,
        reader.readers,
        tuple(reader.read_files),
        tuple(warnings),
        reader.readers_in or "",
    )
    return made, problems


def names(made: Configuration) -> tuple[set[str], set[str]]:
    """Return the users and the groups of the host that the files name."""
    users = {rule.policy.run_as for rule in made.rules} - {accounts.OURS}
    return users, set() if made.readers is None else {made.readers}


def readers(made: Configuration, found: Found) -> tuple[int | None, str | None]:
    """Return the number of the readers' group; or None, and why it has no access."""
    group = None if made.readers is None else found.group(made.readers)
    if isinstance(group, str):
        return None, f"readers {made.readers}: {group}: only root may look, until a reload"
    return group, None


def unknown(made: Configuration, found: Found) -> list[Problem]:
    """Return a warning for each user and group that the host does not know.

    It is no fault of the file: a directory server may be late.
    """
    warnings = []
    for rule in made.rules:
        name = rule.policy.run_as
        if name != accounts.OURS and isinstance(why := found.user(name), str):
            warnings.append(Problem(rule.source, rule.name, "run_as", f"{name}: {why}"))
    if made.readers is not None and isinstance(group := found.group(made.readers), str):
        what = f"{made.readers}: {group}: only root may look"
        warnings.append(Problem(made.readers_in, "daemon", "readers", what))
    return warnings


def load(files: Files, what: str, hint: str | None = None) -> Configuration:
    """Read everything; BadConfiguration with all that is wrong."""
    made, problems = examine(files)
    if problems:
        raise BadConfiguration(what, files.path, lines(problems), hint)
    return made


def lines(problems: Sequence[Problem]) -> str:
    """Return one line for each, whatever is in it."""
    return "\n".join(" ".join(str(problem).splitlines()) for problem in problems)
