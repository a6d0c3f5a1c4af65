# SPDX-License-Identifier: BSD-2-Clause
"""A table for people: in a terminal as wide as that, elsewhere with nothing cut."""

from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size

NARROWEST = 8
"""What a column is cut to before another one is left out."""
ALIGNED = 40
"""Outside of a terminal: a longer cell is whole, and what follows it is not aligned."""


def table(
    columns: dict[str, list[str]],
    *,
    width: int | None,
    more: str,
    cut: Sequence[str] = (),
    drop: Sequence[str] = (),
    right: Sequence[str] = (),
) -> list[str]:
    """Return the lines, headings first; `width` is None where it is no terminal.

    Where there is too little room the widest column of `cut` is cut, and when all of
    them are narrow, columns are left out in the order of `drop`.  A column that is in
    neither is always whole.
    """
    most = ALIGNED if width is None else width
    sizes = {name: min(max(map(cell_len, [name, *cells])), most) for name, cells in columns.items()}
    if width is not None:
        _fit(sizes, width, cut, list(drop))
    kept = [[name, *columns[name]] for name in sizes]
    lines = []
    for row in zip(*kept, strict=True):
        cells = []
        for (name, size), text in zip(sizes.items(), row, strict=True):
            shown = _cut(text, size, more) if width is not None and name in cut else text
            room = " " * (size - cell_len(shown))
            cells.append(room + shown if name in right else shown + room)
        lines.append(" ".join(cells).rstrip())
    return lines


def _fit(sizes: dict[str, int], width: int, cut: Sequence[str], drop: list[str]) -> None:
    while sum(sizes.values()) + len(sizes) - 1 > width:
        wide = [name for name in cut if sizes.get(name, 0) > NARROWEST]
        if wide:
            sizes[max(wide, key=sizes.__getitem__)] -= 1
        elif drop:
            sizes.pop(drop.pop(0), None)
        else:
            return


def _cut(text: str, size: int, more: str) -> str:
    if cell_len(text) <= size:
        return text
    return set_cell_size(text, size - cell_len(more)) + more
