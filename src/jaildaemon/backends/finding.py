# SPDX-License-Identifier: BSD-2-Clause
"""What `doctor` finds: one thing, whether it is as it must be, and what to do if not."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `doctor`.  The hint is told where something is wrong."""

    name: str
    ok: bool
    found: str
    hint: str | None = None

    def parameters(self) -> dict[str, object]:
        """Return it as JSON."""
        named = {"name": self.name, "ok": self.ok, "found": self.found}
        return {**named, "hint": self.hint} if self.hint and not self.ok else dict(named)


def tried(name: str, look: Callable[[], str], hint: str) -> Finding:
    """Do the thing itself, which says what came of it; OSError is that it cannot be done."""
    try:
        return Finding(name, ok=True, found=look())
    except OSError as error:
        return Finding(name, ok=False, found=error.strerror or str(error), hint=hint)


def first_line(path: str) -> str:
    """Return the first line of a file of the kernel's; OSError."""
    return Path(path).read_text(encoding="ascii", errors="replace").split("\n")[0].strip("\0 ")
