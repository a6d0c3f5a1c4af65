# SPDX-License-Identifier: BSD-2-Clause
"""One picture of cost against size."""

import importlib.util
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.report import dig
from bench.rig import Unmeasured

HOW = "install it with: .venv/bin/pip install -e '.[bench]'"
PANELS = [
    (
        "signal to command, p50",
        "us",
        1.0,
        {"latency.many.p50": "n probes", "latency.ten.p50": "10"},
    ),
    ("memory of a probe", "kB", 1.0, {"memory.probe_pss_kb": "PSS", "memory.probe_rss_kb": "RSS"}),
    ("the daemon's RSS", "MB", 1 / 1024, {"memory.daemon_rss_kb": "RSS"}),
    (
        "daemon's CPU",
        "ms",
        1.0,
        {"arming.cpu_ms": "for each probe armed", "burst.cpu_ms": "for each trigger"},
    ),
    (
        "a second",
        "",
        1.0,
        {
            "arming.per_second": "armed",
            "burst.runs_per_second": "runs in a burst",
            "burst.floor_runs_per_second": "runs of the floor",
        },
    ),
    (
        "until all stand again",
        "s",
        1.0,
        {"restart.seconds": "restart", "recovery.seconds": "kill -9"},
    ),
]


def have_matplotlib(*, install: bool) -> None:
    """Unmeasured where there is no matplotlib, and none can be installed into the environment."""
    if importlib.util.find_spec("matplotlib") is None and install:
        # Only as it comes ready: to compile it is a matter of hours on some systems.
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--only-binary", ":all:"]
        subprocess.run([*pip, "matplotlib"], capture_output=True, check=False)
        importlib.invalidate_caches()
    if importlib.util.find_spec("matplotlib") is None:
        raise Unmeasured(f"no picture: there is no matplotlib; {HOW}")


def draw(sizes: Sequence[Mapping[str, Any]], title: str, path: Path) -> None:
    """Draw a panel for each cost."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(12, 7))
    for axis, (name, unit, factor, lines) in zip(axes.flat, PANELS, strict=True):
        for line, label in lines.items():
            values = [(size["size"], dig(size, line)) for size in sizes]
            there = [(size, value * factor) for size, value in values if value is not None]
            if there:
                axis.plot(*zip(*there, strict=True), marker="o", label=label)
                axis.legend()
        axis.set(title=f"{name} [{unit}]" if unit else name, xscale="log", xlabel="probes")
        axis.set_ylim(bottom=0)
        axis.grid(visible=True, alpha=0.3)
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
