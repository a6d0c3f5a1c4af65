# SPDX-License-Identifier: BSD-2-Clause
"""What was tried, and what came of it."""

from dataclasses import dataclass, field


@dataclass
class Tally:
    """What was tried, and what came of it."""

    attempts: dict[str, int] = field(default_factory=dict)
    wins: dict[str, str] = field(default_factory=dict)
    controls: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def attack(self, name: str, attempts: int, wins: int | bool, how: str = "") -> None:
        """Note an attack on ours; a win is a failed test."""
        self.attempts[name] = self.attempts.get(name, 0) + attempts
        if wins:
            self.wins[name] = how or str(wins)
        assert attempts > 0, f"{name}: nothing was tried"
        assert wins == 0, f"{name} SUCCEEDED AGAINST US: {wins} of {attempts}: {how}"

    def control(self, name: str, wins: int | bool, how: str = "") -> None:
        """Note the same attack on the naive probe: it must win."""
        assert wins > 0, f"{name}: the naive probe withstood, so nothing is proved"
        self.controls[name] = how or str(wins)

    def note(self, text: str) -> None:
        """Note a figure."""
        self.notes.append(text)
