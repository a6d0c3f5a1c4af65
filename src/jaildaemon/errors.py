# SPDX-License-Identifier: BSD-2-Clause
"""The exception tree, the exit codes, and the one shape of every message.

A message says what was asked, on what, why it failed and, where something can
be done, what: ``attach: 4711: no such process (give the host's pid of ...)``.
"""

EXIT_CODES = {
    0: "Done.",
    1: "Failed or refused.",
    2: "Wrong use of the command line.",
    3: "No daemon answers at the socket, or not in time.",
    4: "No such jail or rule.",
    5: "Not permitted.",
    6: "check or doctor found something.",
}
FOUND_SOMETHING = 6
"""No error: what `check` and `doctor` return."""


class JaildaemonError(Exception):
    """Base of every error that a user may see.

    `what` was asked, on `on`, and failed because of `why`; `hint` says what can
    be done.  `exit_code` is the command's, `varlink` the error's name on the
    control socket (docs/protocol.md), None where it never travels.
    """

    exit_code = 1
    varlink: str | None = None

    def __init__(self, what: str, on: str, why: str, hint: str | None = None) -> None:
        super().__init__(what, on, why, hint)
        self.what, self.on, self.why, self.hint = what, on, why, hint

    def __str__(self) -> str:
        """Return the one line that is shown and logged."""
        text = ": ".join(part for part in (self.what, self.on, self.why) if part)
        return f"{text} ({self.hint})" if self.hint else text

    def lines(self) -> list[str]:
        """Return it as it is shown, a line for each thing that is wrong."""
        return [str(self)]

    def parameters(self) -> dict[str, object]:
        """Return the error's parameters on the control socket."""
        named = {"what": self.what, "on": self.on, "why": self.why}
        return {**named, "hint": self.hint} if self.hint else dict(named)


class UsageError(JaildaemonError):
    """The command line is not what the man page says."""

    exit_code = 2


class NoDaemon(JaildaemonError):
    """Nothing answers at the control socket."""

    exit_code = 3


class NoSuchJail(JaildaemonError):
    """The jail does not exist, or has ended."""

    exit_code = 4
    varlink = "org.jaildaemon.NoSuchJail"


class NoSuchRule(JaildaemonError):
    """No rule has that id, JAIL/TITLE or TITLE."""

    exit_code = 4
    varlink = "org.jaildaemon.NoSuchRule"


class Ambiguous(JaildaemonError):
    """Several rules fit; the candidates are named."""

    exit_code = 4
    varlink = "org.jaildaemon.Ambiguous"

    def __init__(self, what: str, on: str, candidates: list[str]) -> None:
        super().__init__(what, on, "several rules fit: " + ", ".join(candidates))
        self.candidates = candidates

    def parameters(self) -> dict[str, object]:
        """Return the error's parameters on the control socket."""
        return {"what": self.what, "on": self.on, "candidates": self.candidates}


class NotPermitted(JaildaemonError):
    """The caller, or the daemon itself, lacks the right."""

    exit_code = 5
    varlink = "org.jaildaemon.NotPermitted"


class Refused(JaildaemonError):
    """Understood, and not done."""

    varlink = "org.jaildaemon.Refused"


class BadConfiguration(Refused):
    """The rules in files cannot be used: `why` has everything that is wrong, a line each."""

    varlink = "org.jaildaemon.BadConfiguration"

    def lines(self) -> list[str]:
        """Return file: rule: field: what, of each."""
        lines = self.why.split("\n")
        return [*lines, self.hint] if self.hint else lines


BY_VARLINK: dict[str, type[JaildaemonError]] = {
    kind.varlink: kind
    for kind in (NoSuchJail, NoSuchRule, Ambiguous, NotPermitted, Refused, BadConfiguration)
    if kind.varlink
}
