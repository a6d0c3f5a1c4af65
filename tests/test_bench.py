# SPDX-License-Identifier: BSD-2-Clause
"""The benchmark says what it knows and no more, and its smallest form runs."""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import machine, peers, plot, population, report
from bench.__main__ import Bench, lines_of
from bench.report import ROWS, Figure, Row, missing, ratio
from bench.rig import Unmeasured

ROOT = Path(__file__).resolve().parent.parent


def rows_of(lines: list[str]) -> list[str]:
    """Return the lines of a table that end in a verdict."""
    return [line for line in lines if line.endswith(("measured", "met", "missed", "noisy"))]


# --- the table ---------------------------------------------------------------------


def test_a_row_that_did_not_run_says_so() -> None:
    rows = rows_of(report.table({}))
    assert len(rows) == len(ROWS)
    assert all(row.endswith(report.NOT_MEASURED) for row in rows)


def test_a_row_that_could_not_run_says_why() -> None:
    lines = report.table({"burst": missing("no C compiler; install gcc")})
    assert "    no C compiler; install gcc" in lines
    assert len(rows_of(lines)) == len(ROWS)


def test_both_figures_stand_in_the_table() -> None:
    lines = report.table({"client": ratio(30.25, 22.0, "ms", 0.01, "+8.2 ms")})
    (row,) = [line for line in lines if line.endswith(" met")]
    assert row.split() == "jaildaemon -c, the whole 30.2 ms 22 ms 1.38 x < 1.50 x met".split()
    assert "    +8.2 ms" in lines


MOST, LEAST, COUNT = Row("", 1.25, "x"), Row("", 0.5, "x", at_least=True), Row("", 0, "")


@pytest.mark.parametrize(
    ("row", "value", "noise", "said"),
    [
        (MOST, 1.25, 0.0, "met"),
        (MOST, 1.26, 0.0, "missed"),
        (LEAST, 0.5, 0.0, "met"),
        (LEAST, 0.49, 0.0, "missed"),
        (COUNT, 0.0, 0.0, "met"),
        (COUNT, 1.0, 0.0, "missed"),
        # What noise could have moved over the budget is not judged; what it could not, is.
        (MOST, 1.2, 0.1, "too noisy"),
        (MOST, 1.3, 0.1, "too noisy"),
        (MOST, 1.1, 0.1, "met"),
        (MOST, 1.5, 0.1, "missed"),
        (LEAST, 0.48, 0.1, "too noisy"),
        (LEAST, 0.6, 0.1, "met"),
        # A count is a count.
        (COUNT, 1.0, 9.9, "missed"),
    ],
)
def test_a_figure_is_judged_by_its_budget(row: Row, value: float, noise: float, said: str) -> None:
    assert report.verdict(row, Figure(value, noise=noise)) == said


MEMORY = Row("", 64, "MB")


def test_on_a_busy_machine_no_ratio_is_judged_and_everything_else_is() -> None:
    assert report.verdict(MOST, Figure(1.0), worthless=report.NOISY) == "too noisy"
    assert report.verdict(MEMORY, Figure(64.0), worthless=report.NOISY) == "met"
    assert report.verdict(COUNT, Figure(0.0), worthless=report.NOISY) == "met"
    assert report.verdict(MOST, missing("x"), worthless=report.NOISY) == report.NOT_MEASURED


def test_under_emulation_nothing_is_judged_but_counts() -> None:
    assert report.verdict(MOST, Figure(1.0), worthless=report.EMULATED) == "emulated"
    assert report.verdict(MEMORY, Figure(64.0), worthless=report.EMULATED) == "emulated"
    assert report.verdict(COUNT, Figure(1.0), worthless=report.EMULATED) == "missed"


SIZE: dict[str, Any] = {
    "size": 10000,
    "jails": 100,
    "arming": {"per_second": 412.7, "cpu_ms": 1.31},
    "memory": {"probe_pss_kb": 4.04, "daemon_rss_kb": 48212.0},
    "latency": {"many": {"p50": 1234.5, "p99": 2345.6}},
    "idle": {"calls": 0, "wake_ups": 0},
    "why": {"recovery": "the kernel may lock up when over 1000 probes die at once"},
}
PEERS: list[dict[str, Any]] = [
    {
        "what": "shell loop on a named pipe",
        "latency": {"p50": 1234.5, "p99": 2345.6},
        "memory_kb": 11763,
        "processes": 100,
        "ports": 0,
    },
    {"what": "webhook, called by curl", "why": "no webhook; install the package webhook"},
]


NOISE = {"load_average": [0.1, 0.9], "at_rest": 0.01, "noisy": []}


def result(**changes: Any) -> dict[str, Any]:
    """Return a whole result, which was never measured."""
    figures = {"latency_idle": ratio(1100.0, 1000.0, "us", 0.01, "+100 us")}
    return {
        "commit": "0123456789",
        "changed_since": False,
        "date": "2026-11-30T12:00:00+00:00",
        "machine": machine.describe(),
        "emulated": False,
        "noise": NOISE,
        "rows": report.as_json(figures),
        "scale": [SIZE] * 4,
        "peers": PEERS,
        **changes,
    }


def test_no_line_is_wider_than_a_terminal() -> None:
    figures = {key: ratio(98765.4, 98765.4, "/s", 0.0, "word " * 40) for key in ROWS}
    lines = lines_of(result(), figures)
    assert [line for line in lines[2:] if len(line) > 80] == []


def test_a_missing_figure_of_a_size_is_a_dash_and_says_why() -> None:
    lines = report.scale_table([SIZE])
    (recovery,) = [line for line in lines if line.startswith("after kill -9")]
    assert recovery.split()[-1] == "-"
    assert "10,000: recovery: not measured" in " ".join(lines)


def test_a_peer_that_cannot_be_had_says_so() -> None:
    lines = report.peer_table(PEERS)
    (webhook,) = [line for line in lines if line.startswith("webhook")]
    assert webhook.split()[-2:] == ["not", "measured"]
    assert "    no webhook; install the package webhook" in lines
    assert "other ways to do it: not measured" in lines_of(result(peers=[]), {})


def test_what_makes_figures_worthless_is_said_above_them() -> None:
    busy = {**NOISE, "noisy": ["others used 40% of the processors while this slept"]}
    lines = lines_of(result(emulated=True, noise=busy), {})
    assert "EMULATED: proves only that it runs; no figure means anything" in lines
    assert "TOO NOISY TO TELL: others used 40% of the processors while this slept" in lines
    assert not any("EMULATED" in line or "NOISY" in line for line in lines_of(result(), {}))


# --- the files -----------------------------------------------------------------------


def test_the_json_has_every_row_measured_or_not() -> None:
    rows = json.loads(json.dumps(result()))["rows"]
    assert [*rows] == [*ROWS]
    assert rows["latency_idle"]["verdict"] == "met"
    assert rows["latency_idle"]["value"] == pytest.approx(1.1)
    assert rows["burst"] == {
        **rows["burst"],
        "value": None,
        "budget": 0.6,
        "budget_unit": "x",
        "at_least": True,
        "verdict": "not measured",
    }


def test_a_result_becomes_tables_of_markdown() -> None:
    lines = report.markdown(result())
    assert lines[0].startswith("2026-11-30, commit 0123456789, ")
    tables = [line for line in lines[1:] if line]
    assert all(line.startswith(("| ", "|---")) for line in tables)
    assert len(rows_of([line.removesuffix(" |") for line in tables])) >= len(ROWS)


def test_ways_none_of_which_was_measured_are_no_table() -> None:
    lines = report.markdown(result(peers=PEERS[1:] * 2))
    why = "no webhook; install the package webhook"
    assert lines[-1] == f"Other ways to do it: not measured: {why}."
    assert not any("100 endpoints" in line for line in lines)


def test_without_matplotlib_the_reader_learns_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(Unmeasured, match=r"pip install -e '\.\[bench\]'"):
        plot.have_matplotlib(install=False)


def test_too_many_probes_are_not_killed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "LINUX", True)
    crowd = object.__new__(population.Population)
    crowd.size = population.MOST_DEATHS + 1
    with pytest.raises(Unmeasured, match="may lock up"):
        crowd.recover(population.MOST_DEATHS)


# --- the whole -------------------------------------------------------------------------


def test_the_smallest_form_runs(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root makes jails; run the tests as root")
    file = tmp_path / "bench.json"
    words = "--quick --sizes 3 --rounds 1 --idle 0.1 --no-install --commit 0123abcd --only"
    argv = [
        sys.executable,
        "-m",
        "bench",
        *words.split(),
        "latency,arming,client,scale",
        "--json",
        str(file),
    ]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(file.read_text(encoding="ascii"))
    assert found["commit"] == "0123abcd"
    assert found["emulated"] == machine.emulated()
    assert found["scale"][0]["burst"]["lost"] == found["scale"][0]["burst"]["twice"] == 0
    assert found["scale"][0]["restart"]["same_probes"] == 3
    assert found["rows"]["daemon_memory"]["value"] > 1
    assert found["rows"]["probe_memory"]["verdict"] == "not measured"  # 100 was not asked for
    if shutil.which("cc"):
        assert found["rows"]["arming"]["value"], done.stderr
        assert len(found["details"]["arming_helper"]) == 1
    assert found["peers"] == []
    assert "other ways to do it: not measured" in done.stdout


def test_other_ways_are_measured_in_the_same_container() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root makes jails; run the tests as root")
    if not machine.LINUX:
        (ours,) = peers.measure(1, (peers.Ours,), install=False)
        assert ours["why"].startswith("compared on Linux only")
        return
    if not shutil.which("pkill"):
        pytest.skip("pkill is missing; install the package procps")
    ours, loop = peers.measure(1, (peers.Ours, peers.Loop), install=False)
    assert (ours["processes"], ours["ports"]) == (peers.ENDPOINTS + 1, 0)
    assert (loop["processes"], loop["ports"]) == (peers.ENDPOINTS, 0)
    assert ours["latency"]["shots"] == loop["latency"]["shots"] == 1


def test_what_cannot_be_installed_is_named() -> None:
    with pytest.raises(Unmeasured, match="install the package nosuchpackage"):
        peers.program("nosuchprogram", "nosuchpackage", install=False)


def test_a_part_that_fails_says_so_and_the_others_go_on(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root makes jails; run the tests as root")
    file = tmp_path / "bench.json"
    argv = [sys.executable, "-m", "bench", "--only", "latency,client,plot", "--json", str(file)]
    env = {**os.environ, "JAILDAEMON": shutil.which("false") or "false"}
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(file.read_text(encoding="ascii"))["rows"]
    assert rows["latency_idle"]["why"] == "it failed: the daemon has ended"
    assert rows["client"]["why"] == "it failed: the daemon has ended"
    assert done.stderr.count("ConnectionError: the daemon has ended") == 2


def test_without_a_floor_the_product_is_measured_all_the_same() -> None:
    bench = Bench(argparse.Namespace(rounds=1), Path("unused"))
    figure = bench._compared([{"p50": 1200.0, "p99": 2300.0}], "no C compiler")
    assert (figure.value, figure.why) == (None, "no C compiler; p50 1200 us, p99 2300 us")
