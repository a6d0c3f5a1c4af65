# SPDX-License-Identifier: BSD-2-Clause
"""Draws the life of a rule from the table that runs: python tools/diagram.py [--write].

Prints a mermaid diagram and a text table; with --write puts them between the
marks of docs/architecture.md.
"""

import sys
from pathlib import Path

from jaildaemon.core.lifecycle import TABLE, Cell, Event, Phase

PAGE = Path(__file__).resolve().parent.parent / "docs" / "architecture.md"
BEGIN = "<!-- What tools/diagram.py --write puts here; tests/test_promises.py compares. -->\n"
END = "<!-- The end of it. -->\n"
STANDING = (Phase.NEW, Phase.ARMING, Phase.ARMED, Phase.HOLDING, Phase.WITHDRAWING, Phase.LEAVING)
"""The phases with a probe, or one on its way; all of them in a line would be too wide to read."""


def picture() -> str:
    """Return the changes of phase as a mermaid state diagram; what changes nothing is left out."""
    ways: dict[tuple[str, str, str], list[str]] = {}
    for phase, row in TABLE.items():
        for event, cell in row.items():
            if cell is not None and cell != (phase, ()):
                after, actions = cell
                done = ", ".join(action.name for action in actions)
                ways.setdefault((phase.name, after.name, done), []).append(event.value)
    lines = ["stateDiagram-v2", "    [*] --> NEW: attach / ARM", "    [*] --> WAITING: in a file"]
    for (before, then, done), events in ways.items():
        words = ", ".join(events) + (f" / {done}" if done else "")
        lines.append(f"    {before} --> {then}: {words}")
    lines.append("    GONE --> [*]: no run is left")
    return "\n".join(lines) + "\n"


def _cell(phase: Phase, cell: Cell) -> str:
    if cell is None:
        return "-"
    after, actions = cell
    words = ["." if after is phase else after.name, *(action.name.lower() for action in actions)]
    return " ".join(words)


def table(phases: tuple[Phase, ...]) -> str:
    """Return every cell of these phases: the phase that follows ("." the same) and the actions.

    Events that can happen in none of them are left out.
    """
    lines = [["", *(phase.name for phase in phases)]]
    lines += [
        [event.value, *(_cell(phase, TABLE[phase][event]) for phase in phases)]
        for event in Event
        if any(TABLE[phase][event] for phase in phases)
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = (
        "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True))
        for line in lines
    )
    return "\n".join(line.rstrip() for line in padded) + "\n"


def drawn() -> str:
    """Return both, as they stand in the page."""
    without = tuple(phase for phase in Phase if phase not in STANDING)
    return f"```mermaid\n{picture()}```\n\n```\n{table(STANDING)}\n{table(without)}```\n"


def main(arguments: list[str]) -> int:
    """Print, or write."""
    if arguments != ["--write"]:
        sys.stdout.write(drawn())
        return 0
    before, begin, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        sys.stderr.write(f"{PAGE}: the marks are missing\n")
        return 1
    PAGE.write_text(before + BEGIN + drawn() + END + after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
