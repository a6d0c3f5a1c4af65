# SPDX-License-Identifier: BSD-2-Clause
"""make bench: every figure of docs/performance.md, each beside its floor, in one run.

    python -m bench [--quick] [--sizes N,N] [--only PART,PART] [--json FILE]
    python -m bench --markdown FILE | --draw FILE

Needs root.  Whatever the figures are, the exit status is 0: they are for people.
"""

import argparse
import json
import os
import signal
import statistics
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from bench import arming, latency, machine, peers, plot, report, scale, startup
from bench.floor import Floor, FloorBell
from bench.population import MOST_DEATHS
from bench.report import Figure, missing, ratio
from bench.rig import FAILURES, Rig, Unmeasured, rig

RESULTS = Path(__file__).resolve().parent / "results"
PARTS = ("latency", "arming", "client", "scale", "peers", "plot")
ROWS_OF = {
    "latency": ("latency_idle", "latency_warm"),
    "arming": ("arming", "arming_pipelined"),
    "client": ("client",),
}
"""Which rows a part that fails leaves empty; those of scale say it at their size."""
AT = 100
"""The size at which a probe's memory is judged."""


def wishes() -> argparse.Namespace:
    """Return the options; --quick, and a system that is slow to be asked, change the defaults."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure jaildaemon against its floors."
    )
    parser.add_argument("--quick", action="store_true", help="two minutes, fewer rounds and sizes")
    parser.add_argument("--sizes", help="numbers of probes, in this order, as in 10,100")
    parser.add_argument("--rounds", type=int, help="shots of each bell")
    parser.add_argument("--idle", type=float, help="seconds to look at an idle daemon")
    parser.add_argument(
        "--most-deaths",
        type=int,
        default=MOST_DEATHS,
        metavar="N",
        help="kill a daemon of up to N probes; DANGER: above %(default)s a Linux kernel may lock "
        "up for good, so only where the whole machine may be lost",
    )
    parser.add_argument("--only", help=f"parts, of {','.join(PARTS)}")
    parser.add_argument("--no-install", action="store_true", help="install nothing")
    parser.add_argument("--emulated", action="store_true", help="say that the machine is emulated")
    parser.add_argument("--commit", help="which this is, in a tree without its repository")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the figures go")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="only show this result")
    parser.add_argument("--draw", type=Path, metavar="FILE", help="only draw this result")
    wish = parser.parse_args()
    short = wish.quick or not machine.LINUX
    sizes = wish.sizes or ("10,100" if short else "10,100,1000,3000")
    wish.sizes = list(dict.fromkeys(int(size) for size in sizes.split(",")))
    wish.rounds = wish.rounds or (60 if short else 300)
    wish.idle = wish.idle or (10.0 if short else 60.0)
    wish.parts = tuple(wish.only.split(",")) if wish.only else PARTS
    wish.emulated = wish.emulated or machine.emulated()
    if unknown := set(wish.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    if min(wish.sizes) < 1:
        parser.error("a size is at least 1")
    return wish


class Bench:
    """One run."""

    def __init__(self, wish: argparse.Namespace, path: Path) -> None:
        self._wish, self._path = wish, path
        self.noise = machine.Noise()
        self.figures: dict[str, Figure] = {}
        self.details: dict[str, Any] = {}
        self.scale: list[dict[str, Any]] = []
        self.peers: list[dict[str, Any]] = []
        self._floor: Floor | None = None
        self._why_no_floor = ""

    def run(self) -> None:
        """Measure what is wished for.  What there is is written down after each part."""
        try:
            with rig() as it:
                self._run(it)
        finally:
            self.save()

    def _run(self, it: Rig) -> None:
        try:
            self._floor = Floor(it.directory)
        except Unmeasured as error:
            self._why_no_floor = str(error)
        for part in PARTS:
            if part not in self._wish.parts or part == "plot":
                continue
            sys.stderr.write(f"bench: {part}\n")
            self.noise.look()
            try:
                getattr(self, f"_{part}")()
            except FAILURES as error:
                traceback.print_exc()
                for key in ROWS_OF.get(part, ()):
                    self.figures.setdefault(key, missing(f"it failed: {error}"))
            self.save()
        self.noise.look()

    def save(self) -> None:
        """Write the file, to the disk: what is measured next may bring the machine down."""
        with self._path.open("w", encoding="ascii") as file:
            file.write(json.dumps(self.result(), indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())

    # --- parts -----------------------------------------------------------------------------

    def _latency(self) -> None:
        """One bell of the floor and one of a daemon, in turn."""
        with rig() as it:
            floor = [] if self._floor is None else [FloorBell(it, self._floor)]
            bells = [latency.ProductBell(it, it.daemon()), *floor]
            for name, ring in (
                ("latency_idle", latency.in_turn),
                ("latency_warm", latency.back_to_back),
            ):
                found = [latency.summary(times) for times in ring(bells, self._wish.rounds)]
                self.details[name] = dict(zip(("product", "floor"), found, strict=False))
                self.figures[name] = self._compared(found, self._why_no_floor)

    def _compared(self, found: list[dict[str, Any]], why: str) -> Figure:
        """Return the figure of a bell and of the one it is compared with."""
        product, *rest = found
        words = f"p50 {product['p50']:.0f} us, p99 {product['p99']:.0f} us"
        if not rest:
            return Figure(why=f"{why}; {words}")
        floor = rest[0]
        return ratio(
            product["p50"],
            floor["p50"],
            "us",
            floor["halves"],
            f"{product['p50'] - floor['p50']:+.0f} us; p99 {product['p99']:.0f} us against "
            f"{floor['p99']:.0f} us; {product['shots']} pairs, the floor's halves "
            f"{floor['halves']:.1%} apart",
        )

    def _arming(self) -> None:
        if self._floor is None:
            why = missing(self._why_no_floor)
            self.figures |= {"arming": why, "arming_pipelined": why}
            return
        found = arming.measure(self._floor, min(self._wish.rounds, 3 if self._wish.quick else 8))
        helper = statistics.median(found.helper)
        pair = {"arming": found.awaited, "arming_pipelined": found.pipelined}
        for name, rates in pair.items():
            if rates.why:
                self.figures[name] = missing(rates.why)
                continue
            product, floor = rates.medians()
            more = (1 / product - 1 / floor) * 1e6
            self.figures[name] = ratio(
                product,
                floor,
                "/s",
                rates.noise,
                f"{more:+.0f} us for each probe; the helper's whole way in, from C, one after "
                f"the other: {helper:,.0f} /s, so {product / helper:.2f} x",
            )
            self.details[name] = {"product": rates.product, "floor": rates.floor}
        self.details["arming_helper"] = found.helper

    def _client(self) -> None:
        floor, product = startup.measure(max(1, self._wish.rounds // 6))
        one, other = (statistics.median(times) * 1e3 for times in (product, floor))
        noise = latency.halves(floor)
        self.figures["client"] = ratio(one, other, "ms", noise, f"{one - other:+.1f} ms")
        self.details["client"] = {"product": product, "floor": floor}

    def _scale(self) -> None:
        wish = self._wish
        rounds = max(1, wish.rounds // 2)
        measured = scale.Scale(
            self._floor,
            rounds=rounds,
            idle_seconds=wish.idle,
            most_deaths=wish.most_deaths,
        )
        for size in wish.sizes:
            sys.stderr.write(f"bench: {size} probes\n")
            found: dict[str, Any] = {"size": size, "why": {}}
            self.scale.append(found)
            try:
                measured.measure(size, found, self.save)
            except Unmeasured as error:
                found["why"]["all"] = str(error)
            except FAILURES as error:
                # With more of them it would fail the more.
                traceback.print_exc()
                found["why"]["what is missing"] = f"it failed: {error}"
                break
            finally:
                self.save()
        whole = [size for size in self.scale if "burst" in size]
        if not whole:
            return
        largest = max(whole, key=lambda found: int(found["size"]))
        self._many(largest)
        self._burst(largest)
        self._memory(largest, next((s for s in whole if s["size"] == AT), None))
        if "idle" in largest:
            idle = largest["idle"]
            count = idle.get("calls", idle["wake_ups"])
            note = f"with {largest['size']:,} probes, {idle['seconds']:.0f} s; {idle['wake_ups']} "
            note += "wake-ups in as long a time" + (
                f"; {idle['calls_why']}" if "calls_why" in idle else ""
            )
            self.figures["idle"] = Figure(float(count), notes=[note])

    def _many(self, largest: dict[str, Any]) -> None:
        found = largest["latency"]
        if "ten" not in found:
            self.figures["latency_many"] = missing(f"no size above {scale.OWN} was asked for")
            return
        figure = self._compared([found["many"], found["ten"]], "")
        figure.notes.insert(0, f"{largest['size']:,} probes in {largest['jails']} jails")
        self.figures["latency_many"] = figure

    def _burst(self, largest: dict[str, Any]) -> None:
        burst = largest["burst"]
        counts = [burst[name] for name in ("lost", "twice", "strange")]
        note = f"of {largest['size']:,}: {counts[0]} lost, {counts[1]} more than once"
        self.figures["burst_once"] = Figure(float(sum(counts)), notes=[note])
        if "floor_runs_per_second" not in burst:
            self.figures["burst"] = missing(self._why_no_floor)
            return
        bare = burst["bare_floor_runs_per_second"]
        self.figures["burst"] = ratio(
            burst["runs_per_second"],
            burst["floor_runs_per_second"],
            "/s",
            burst["floor_noise"],
            f"a floor whose output nobody reads: {bare:,.0f} /s, so "
            f"{burst['runs_per_second'] / bare:.2f} x",
        )

    def _memory(self, largest: dict[str, Any], at: dict[str, Any] | None) -> None:
        found = largest["memory"]
        of = f"with {largest['size']:,} probes"
        pss = found.get("daemon_pss_kb")
        of += "" if pss is None else f"; PSS {pss / 1024:.1f} MB"
        self.figures["daemon_memory"] = Figure(found["daemon_rss_kb"] / 1024, notes=[of])
        if at is None:
            self.figures["probe_memory"] = missing(f"{AT} was no size that was asked for")
            return
        probe = at["memory"]
        rest = f"RSS {probe['probe_rss_kb']:.1f} kB, "
        if "probe_pss_kb" not in probe:
            rest += f"{probe['available_kb']:.1f} kB less available; this system has no PSS"
            self.figures["probe_memory"] = missing(rest)
            return
        rest += f"Private_Dirty {probe['probe_private_dirty_kb']:.1f} kB, "
        rest += f"MemAvailable less by {probe['available_kb']:.1f} kB"
        self.figures["probe_memory"] = Figure(probe["probe_pss_kb"], notes=[rest])

    def _peers(self) -> None:
        rounds = max(1, self._wish.rounds // 5)
        self.peers = peers.measure(rounds, install=not self._wish.no_install)

    # --- what is told ------------------------------------------------------------------------

    def result(self) -> dict[str, Any]:
        """Return all of it, for the file."""
        commit, changed = machine.commit()
        noise = self.noise.verdict()
        emulated = self._wish.emulated
        return {
            "version": 1,
            "commit": self._wish.commit or commit,
            "changed_since": changed,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine.describe(),
            "emulated": emulated,
            "quick": self._wish.quick,
            "noise": noise,
            "rows": report.as_json(self.figures, worthless=worthless(noise, emulated=emulated)),
            "scale": sorted(self.scale, key=lambda found: int(found["size"])),
            "peers": self.peers,
            "details": self.details,
        }


def worthless(noise: dict[str, Any], *, emulated: bool) -> str:
    """Return what makes the figures mean nothing, if anything does."""
    return report.EMULATED if emulated else report.NOISY if noise["noisy"] else ""


def lines_of(result: dict[str, Any], figures: dict[str, Figure]) -> list[str]:
    """Return what is printed."""
    about, noise = result["machine"], result["noise"]
    what = f"{about['system']}, {about['cpus']} x {about['processor']}"
    changed = " and changes" if result["changed_since"] else ""
    lines = [
        f"jaildaemon {result['commit']}{changed}, {result['date']}",
        f"{what}{', virtual' if about['virtual'] else ''}, Python {about['python']}",
    ]
    loads = " to ".join(f"{load:.2f}" for load in noise["load_average"])
    lines.append(f"load average {loads}; while this slept others used {noise['at_rest']:.0%}")
    if result["emulated"]:
        lines.append("EMULATED: proves only that it runs; no figure means anything")
    lines += [f"TOO NOISY TO TELL: {why}" for why in noise["noisy"]]
    why = worthless(noise, emulated=result["emulated"])
    lines += ["", *report.table(figures, worthless=why)]
    if result["scale"]:
        lines += ["", *report.scale_table(result["scale"])]
    heading = "100 endpoints in one container: from the act inside to the command"
    if result["peers"]:
        lines += ["", heading, *report.peer_table(result["peers"])]
    else:
        lines += ["", f"other ways to do it: {report.NOT_MEASURED}"]
    return lines


def draw(result: dict[str, Any], path: Path, *, install: bool) -> None:
    """Draw the result of a file beside it, if there is anything to draw, and say so."""
    sizes = [size for size in result["scale"] if "burst" in size]
    if not sizes:
        return
    try:
        plot.have_matplotlib(install=install)
    except Unmeasured as error:
        print(error)
        return
    title = f"jaildaemon {result['commit']} on {result['machine']['kind']}"
    title += ", emulated: no time means anything" if result["emulated"] else ""
    plot.draw(sizes, title, path.with_suffix(".png"))
    print(f"       and {path.with_suffix('.png')}")


def end(number: int, _frame: FrameType | None) -> None:
    """Leave by an exception: probes must be taken down in small steps, and not be interrupted."""
    signal.signal(number, signal.SIG_IGN)
    sys.stderr.write("bench: ended; what was measured is written down\n")
    raise SystemExit(128 + number)


def main() -> int:
    """Measure, print, write down."""
    wish = wishes()
    if wish.markdown:
        result = json.loads(wish.markdown.read_text(encoding="ascii"))
        sys.stdout.write("\n".join(report.markdown(result)) + "\n")
        return 0
    if wish.draw:
        draw(json.loads(wish.draw.read_text(encoding="ascii")), wish.draw, install=False)
        return 0
    if os.geteuid() != 0:
        sys.stderr.write("bench: needs root\n")
        return 1
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    what = ["quick" if wish.quick else "bench", machine.kind()]
    what += ["emulated"] if wish.emulated else []
    what.append(wish.commit or machine.commit()[0])
    path: Path = wish.json or RESULTS / f"{'-'.join(what)}.json"
    bench = Bench(wish, path)
    bench.run()
    result = bench.result()
    print("\n".join(lines_of(result, bench.figures)))
    print(f"\nwritten to {path}")
    if "plot" in wish.parts:
        draw(result, path, install=not wish.no_install)
    return 0


if __name__ == "__main__":
    sys.exit(main())
