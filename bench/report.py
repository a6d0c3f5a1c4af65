# SPDX-License-Identifier: BSD-2-Clause
"""The figures against their budgets: a table of 80 columns, and JSON.

A row that did not run is in the table all the same, as "not measured".
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

NOT_MEASURED = "not measured"
WIDTH = 80


@dataclass(frozen=True)
class Row:
    """One budget: docs/performance.md says what each is, and why that much."""

    what: str
    budget: float
    unit: str
    """Of the budget: x is a ratio to the floor."""
    at_least: bool = False


ROWS = {
    "latency_idle": Row("signal to the command's first instruction, p50, after a wait", 1.25, "x"),
    "latency_warm": Row("the same, shots back to back", 1.25, "x"),
    "latency_many": Row("the same after a wait, a random one of many, against 10", 1.1, "x"),
    "probe_memory": Row("memory of an idle probe, PSS, at 100", 8, "kB"),
    "daemon_memory": Row("the daemon's RSS with the most probes", 64, "MB"),
    "arming": Row("probes armed a second, each call awaited", 0.5, "x", at_least=True),
    "arming_pipelined": Row("the same, calls pipelined", 0.5, "x", at_least=True),
    "burst": Row("runs a second in a burst of all probes", 0.6, "x", at_least=True),
    "burst_once": Row("runs of it that were lost or came twice", 0, ""),
    "idle": Row("system calls while nothing happens", 0, ""),
    "client": Row("jaildaemon -c, the whole process", 1.5, "x"),
}


@dataclass
class Figure:
    """What was measured of a row.  `value` is judged; None with `why` if there is none."""

    value: float | None = None
    product: float | None = None
    floor: float | None = None
    unit: str = ""
    """Of product and floor."""
    noise: float = 0.0
    """How far the floor's own halves were apart: a share."""
    notes: list[str] = field(default_factory=list)
    why: str = ""


def ratio(product: float, floor: float, unit: str, noise: float, *notes: str) -> Figure:
    """Return the figure of a row whose budget is a ratio."""
    return Figure(product / floor, product, floor, unit, noise, list(notes))


def missing(why: str) -> Figure:
    return Figure(why=why)


EMULATED, NOISY = "emulated", "too noisy"


def verdict(row: Row, figure: Figure | None, *, worthless: str = "") -> str:
    """Judge a figure; one that noise could have moved over its budget is not judged.

    `worthless` says what all but the counts are on this machine: EMULATED or NOISY.
    """
    if figure is None or figure.value is None:
        return NOT_MEASURED
    if worthless and row.unit and (worthless == EMULATED or row.unit == "x"):
        return worthless
    met = figure.value >= row.budget if row.at_least else figure.value <= row.budget
    if row.unit == "x":
        low, high = figure.value / (1 + figure.noise), figure.value * (1 + figure.noise)
        if low < row.budget < high:
            return NOISY
    return "met" if met else "missed"


def number(value: float | None, unit: str = "") -> str:
    """Return a figure with three digits or so, and its unit."""
    if value is None:
        return "-"
    digits = 0 if abs(value) >= 100 or value == int(value) else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f} {unit}".rstrip()


COLUMNS = (26, 12, 11, 9, 9, 13)


def _lines(cells: Sequence[str]) -> list[str]:
    """Return one row of the table, its first cell in as many lines as it needs."""
    first, *others = cells
    head, *more = textwrap.wrap(first, COLUMNS[0] - 1) or [""]
    right = "".join(cell.rjust(width) for cell, width in zip(others, COLUMNS[1:], strict=True))
    return [f"{head.ljust(COLUMNS[0])}{right}", *more]


def _note(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH - 2, initial_indent="    ", subsequent_indent="    ")


def table(figures: Mapping[str, Figure], *, worthless: str = "") -> list[str]:
    """Return the table of the budgets, every row of it."""
    lines = _lines(["", "jaildaemon", "floor", "figure", "budget", "verdict"])
    lines.append("-" * WIDTH)
    for key, row in ROWS.items():
        figure = figures.get(key)
        said = verdict(row, figure, worthless=worthless)
        cells = ["", "", ""]
        notes: list[str] = []
        if figure is not None:
            # Without a floor the product's own figure is the one that is judged.
            shown = "" if figure.floor is None else number(figure.product, figure.unit)
            floor = "" if figure.floor is None else number(figure.floor, figure.unit)
            value = "" if figure.value is None else number(figure.value, row.unit)
            cells, notes = [shown, floor, value], [*figure.notes]
            if figure.why:
                notes.append(figure.why)
        sign = ">" if row.at_least else "<"
        budget = f"{sign} {number(row.budget, row.unit)}" if row.budget else "none"
        lines += _lines([row.what, *cells, budget, said])
        for note in notes:
            lines += _note(note)
    return lines


# --- what has no budget ------------------------------------------------------------------


def dig(tree: Mapping[str, Any], path: str) -> float | None:
    """Return the number at a.b.c, None where there is none."""
    found: Any = tree
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, int | float) else None


SCALE = [
    ("jails", "jails", 1.0, ""),
    ("armed a second", "arming.per_second", 1.0, ""),
    ("daemon's CPU for each", "arming.cpu_ms", 1.0, "ms"),
    ("latency, p50", "latency.many.p50", 1.0, "us"),
    ("latency, p99", "latency.many.p99", 1.0, "us"),
    ("the floor's then, p50", "latency.floor.p50", 1.0, "us"),
    ("a probe's PSS", "memory.probe_pss_kb", 1.0, "kB"),
    ("a probe's RSS", "memory.probe_rss_kb", 1.0, "kB"),
    ("less available for each", "memory.available_kb", 1.0, "kB"),
    ("daemon's RSS", "memory.daemon_rss_kb", 1 / 1024, "MB"),
    ("RSS after all of it", "rss_after_kb", 1 / 1024, "MB"),
    ("system calls when idle", "idle.calls", 1.0, ""),
    ("wake-ups when idle", "idle.wake_ups", 1.0, ""),
    ("restart by exec", "restart.seconds", 1.0, "s"),
    ("probes that stayed", "restart.same_probes", 1.0, ""),
    ("after kill -9, all armed", "recovery.seconds", 1.0, "s"),
    ("burst, runs a second", "burst.runs_per_second", 1.0, ""),
    ("the floor's", "burst.floor_runs_per_second", 1.0, ""),
    ("daemon's CPU a trigger", "burst.cpu_ms", 1.0, "ms"),
]


def scale_table(sizes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a column for each size, and below why a figure is missing."""
    width = min(12, (WIDTH - 26) // max(1, len(sizes)))
    lines = ["probes".ljust(26) + "".join(f"{s['size']:,}".rjust(width) for s in sizes)]
    lines.append("-" * len(lines[0]))
    for label, path, factor, unit in SCALE:
        cells = []
        for size in sizes:
            value = dig(size, path)
            cells.append(number(None if value is None else value * factor, unit).rjust(width))
        lines.append(label.ljust(26) + "".join(cells))
    for size in sizes:
        for what, why in size.get("why", {}).items():
            lines += _note(f"{size['size']:,}: {what}: {NOT_MEASURED}: {why}")
    return lines


PEER_COLUMNS = (30, 12, 12, 12, 6, 6)


def peer_table(peers: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a row for each way to ring: latency, and what 100 of them hold while idle."""
    heads = ["", "p50", "p99", "memory", "procs", "ports"]

    def row(cells: Sequence[str]) -> str:
        rest = zip(cells[1:], PEER_COLUMNS[1:], strict=True)
        return cells[0].ljust(PEER_COLUMNS[0]) + "".join(c.rjust(w) for c, w in rest)

    lines = [row(heads), "-" * sum(PEER_COLUMNS)]
    for peer in peers:
        if peer.get("why"):
            lines.append(f"{peer['what'].ljust(PEER_COLUMNS[0])}{NOT_MEASURED.rjust(12)}")
            lines += _note(str(peer["why"]))
            continue
        memory = peer.get("memory_kb")
        cells = [
            number(peer["latency"]["p50"] / 1e3, "ms"),
            number(peer["latency"]["p99"] / 1e3, "ms"),
            NOT_MEASURED if memory is None else number(memory / 1024, "MB"),
            str(peer["processes"]),
            str(peer["ports"]),
        ]
        lines.append(row([str(peer["what"]), *cells]))
    return lines


def as_json(figures: Mapping[str, Figure], *, worthless: str = "") -> dict[str, Any]:
    """Return the table for programs: every row, measured or not."""
    rows = {}
    for key, row in ROWS.items():
        figure = figures.get(key)
        rows[key] = {
            **asdict(row),
            **asdict(figure or Figure()),
            "budget_unit": row.unit,
            "verdict": verdict(row, figure, worthless=worthless),
        }
    return rows


def markdown(result: Mapping[str, Any]) -> list[str]:
    """Return a result as the tables of docs/performance.md and README.md."""
    about = result["machine"]
    where = f"{about['system']}, {about['cpus']} x {about['processor']}"
    state = ", emulated" if result["emulated"] else ", virtual" if about["virtual"] else ""
    lines = [f"{result['date'][:10]}, commit {result['commit']}, {where}{state}:", ""]
    lines += ["| what | jaildaemon | floor | figure | budget | |", "|---|---|---|---|---|---|"]
    for row in result["rows"].values():
        pair = [number(row[k], row["unit"]) for k in ("product", "floor")]
        sign = ">" if row["at_least"] else "<"
        budget = f"{sign} {number(row['budget'], row['budget_unit'])}" if row["budget"] else "none"
        cells = [
            row["what"],
            *pair,
            number(row["value"], row["budget_unit"]),
            budget,
            row["verdict"],
        ]
        lines.append(f"| {' | '.join(cells)} |")
    sizes = result["scale"]
    if sizes:
        heads = " | ".join(f"{size['size']:,}" for size in sizes)
        lines += ["", f"| probes | {heads} |"]
        lines.append("|---" * (len(sizes) + 1) + "|")
    for label, path, factor, unit in SCALE if sizes else ():
        values = [dig(size, path) for size in sizes]
        cells = [number(None if v is None else v * factor, unit) for v in values]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    peers = result["peers"]
    if peers and all(peer.get("why") for peer in peers):
        whys = dict.fromkeys(str(peer["why"]) for peer in peers)
        return [*lines, "", f"Other ways to do it: {NOT_MEASURED}: {'; '.join(whys)}."]
    if peers:
        lines += ["", "| 100 endpoints | p50 | p99 | idle memory | processes | ports |"]
        lines.append("|---|---|---|---|---|---|")
    for peer in peers:
        cells = [f"{NOT_MEASURED}: {peer['why']}" if peer.get("why") else "", "", "", "", ""]
        if not peer.get("why"):
            memory = peer.get("memory_kb")
            cells = [number(peer["latency"][p] / 1e3, "ms") for p in ("p50", "p99")]
            cells.append(NOT_MEASURED if memory is None else number(memory / 1024, "MB"))
            cells += [str(peer["processes"]), str(peer["ports"])]
        lines.append(f"| {peer['what']} | {' | '.join(cells)} |")
    return lines
