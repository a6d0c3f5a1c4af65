# SPDX-License-Identifier: BSD-2-Clause
"""The typed shapes of what comes in on the control socket, and in files.

cattrs converts where it can; here nothing is converted, and no key is unknown.
"""

from typing import Any, TypeVar

import attrs
import cattrs
from cattrs.errors import ClassValidationError
from cattrs.gen import make_dict_structure_fn

from jaildaemon.core.rules import Policy, make_policy

T = TypeVar("T")


@attrs.frozen
class PolicyWish:
    """Policy of org.jaildaemon.varlink; absent fields take the documented defaults."""

    respawn: str | None = None
    uid: int | None = None
    gid: int | None = None
    signal: str | None = None
    limit: str | None = None
    cooldown: str | None = None
    timeout: str | None = None
    settle: str | None = None
    concurrency: int | None = None
    run_as: str | None = None

    def policy(self) -> Policy:
        """Return the policy; Refused for a value that cannot be."""
        return make_policy(**attrs.asdict(self))


@attrs.frozen
class RuleWish(PolicyWish):
    """A [[rule]] of a file; what is required has no default that could be meant."""

    jail: str = attrs.field(kw_only=True)
    title: str = attrs.field(kw_only=True)
    command: str = attrs.field(kw_only=True)
    name: str | None = attrs.field(kw_only=True, default=None)


@attrs.frozen
class DaemonWish:
    """[daemon] of a file."""

    readers: str | None = None


@attrs.frozen
class EngineWish:
    """[engines.NAME] of a file."""

    client: str | None = None
    socket: str | None = None


@attrs.frozen
class Attach:
    """Parameters of Attach."""

    command: str
    jail: str
    title: str | None = None
    policy: PolicyWish | None = None
    replace: bool | None = None


@attrs.frozen
class Detach:
    """Parameters of Detach."""

    rule: str | None = None
    jail: str | None = None
    title: str | None = None
    all: bool | None = None


@attrs.frozen
class List:
    """Parameters of List."""

    jail: str | None = None


@attrs.frozen
class Log:
    """Parameters of Log and of Entries."""

    rule: str | None = None
    last: int | None = None


@attrs.frozen
class Explain:
    """Parameters of Explain."""

    jail: str
    title: str | None = None


@attrs.frozen
class Fire:
    """Parameters of Fire."""

    rule: str
    dry_run: bool | None = None


@attrs.frozen
class Which:
    """Parameters of Hold and of Release."""

    rule: str | None = None
    all: bool | None = None


@attrs.frozen
class Nothing:
    """Parameters of a method that has none."""


@attrs.frozen
class GetInterfaceDescription:
    """Parameters of org.varlink.service.GetInterfaceDescription."""

    interface: str


class BadParameter(Exception):
    """A parameter is missing, unknown or of the wrong type; `name` says which."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def _exactly(kind: type) -> Any:  # noqa: ANN401 - what cattrs wants of a hook
    def hook(value: object, _: object) -> object:
        # bool is an int to Python, not to the interface.
        if type(value) is not kind:
            msg = f"not of type {kind.__name__}"
            raise TypeError(msg)
        return value

    return hook


_CONVERTER = cattrs.Converter(forbid_extra_keys=True)
for _kind in (str, int, bool, float):
    _CONVERTER.register_structure_hook(_kind, _exactly(_kind))
_CONVERTER.register_structure_hook_factory(
    attrs.has, lambda cls: make_dict_structure_fn(cls, _CONVERTER, _cattrs_forbid_extra_keys=True)
)


def _first_name(error: BaseException) -> str:
    """Return the dotted name of the first bad parameter in cattrs' error tree."""
    if isinstance(error, ClassValidationError):
        for inner in error.exceptions:
            for note in getattr(inner, "__notes__", ()):
                if hasattr(note, "name"):
                    rest = _first_name(inner)
                    return f"{note.name}.{rest}" if rest else str(note.name)
            extra = getattr(inner, "extra_fields", None)
            if extra:
                return str(min(extra))
    return ""


def structure(parameters: object, cls: type[T]) -> T:
    """Return `parameters` as a `cls`; BadParameter."""
    if not isinstance(parameters, dict):
        raise BadParameter("parameters")
    try:
        return _CONVERTER.structure(parameters, cls)
    except ClassValidationError as error:
        raise BadParameter(_first_name(error) or "parameters") from error


_SAID = {str: "must be a string", int: "must be an integer", bool: "must be true or false"}


def problems(table: dict[str, object], cls: type[attrs.AttrsInstance]) -> list[tuple[str, str]]:
    """Return every field of `table` that keeps it from being a `cls`, and what is wrong with it."""
    try:
        _CONVERTER.structure(table, cls)
    except ClassValidationError as error:
        found = []
        for inner in error.exceptions:
            extra = getattr(inner, "extra_fields", None)
            if extra:
                known = ", ".join(attrs.fields_dict(cls))
                found += [(name, f"is unknown; there are {known}") for name in sorted(extra)]
                continue
            notes: list[Any] = [note for note in inner.__notes__ if hasattr(note, "name")]
            missing = isinstance(inner, KeyError)
            what = "is missing" if missing else _SAID[_plain(notes[0].type)]
            found.append((str(notes[0].name), what))
        return found
    return []


def _plain(kind: Any) -> type:  # noqa: ANN401 - a type or a union with None
    return next(each for each in _SAID if each is kind or each in getattr(kind, "__args__", ()))
