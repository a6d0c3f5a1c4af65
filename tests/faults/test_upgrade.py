# SPDX-License-Identifier: BSD-2-Clause
"""From 0.1.0, which hosts may run, to this version: by `restart`, and by its journal."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import jaildaemon
from jaildaemon.core.journal import History, decode
from tests.faults.test_own_programs import install
from tests.faults.test_restart import restart
from tests.faults.world import World

ROOT = Path(__file__).resolve().parents[2]
OLD = "7633691"
"""The commit that hosts may run."""
JOURNAL = ROOT / "tests" / "data" / "journal-0.1.0.jsonl"
"""What a daemon of it wrote: rules of -c and of files, held, limited, fired, ended."""


def install_old(place: Path) -> Path:
    """Put the package of 0.1.0 there, built; returns what PYTHONPATH must have."""
    git = ["git", "-c", "safe.directory=*", "-C", str(ROOT), "archive", OLD, "src", "helper"]
    made = subprocess.run(git, capture_output=True, check=False)
    if made.returncode != 0:
        pytest.skip("cannot: the history is not here, as in an unpacked archive")
    tree = place.with_name("tree")
    tree.mkdir()
    subprocess.run(["tar", "-xf", "-", "-C", str(tree)], input=made.stdout, check=True)
    package = tree / "src" / "jaildaemon"
    build = ["sh", str(tree / "helper" / "build.sh"), str(package / "libexec")]
    subprocess.run(build, check=True, capture_output=True)
    place.mkdir()
    package.rename(place / "jaildaemon")
    return place


def test_an_armed_daemon_of_0_1_0_becomes_this_one(world: World) -> None:
    daemon, fifo, jail = world.daemon, world.fifo(), world.jail()
    place = install_old(world.directory / "installed")
    daemon.start(env={"PYTHONPATH": str(place)})
    assert daemon.call("Status")["version"] == "0.1.0"
    rules = [
        daemon.attach(jail.jail, "true", "HELD", respawn="after"),
        daemon.attach(jail.jail, "true", "LIMITED", respawn="after", limit="1/1h"),
        daemon.attach(jail.jail, f"echo rung > {fifo.path}", "ARMED", respawn="after"),
        daemon.attach(jail.jail, "true", "ONCE"),
        daemon.attach(jail.jail, f"read x < {fifo.path}; echo out; exit 7", "RUNS", respawn="now"),
    ]
    held, limited, armed, once, runs = rules
    daemon.call("Hold", rule=held)
    daemon.run(limited)
    daemon.wait("no probe for")
    daemon.ring(runs)
    run, pid = daemon.started(runs)
    daemon.armed(runs)
    before = daemon.rules()
    shutil.rmtree(place)
    install(place)
    restart(daemon)
    assert daemon.call("Status")["version"] == jaildaemon.__version__
    after = daemon.rules()
    for rule in rules:
        for field in ("state", "triggers", "title", "command", "policy"):
            assert after[rule][field] == before[rule][field], (rule, field)
        assert after[rule].get("probe_pid") == before[rule].get("probe_pid")
    assert [after[rule]["state"] for rule in (held, limited, once)] == ["held", "limited", "armed"]
    assert pid in daemon.children()
    fifo.write("\n")
    daemon.wait(f"run {run} ended: exit 7")
    daemon.ring(armed)
    assert fifo.line() == "rung"
    # And from here on by this version's own restart.
    daemon.until_armed([armed, once, runs])
    restart(daemon)
    daemon.call("Release", rule=held)
    daemon.until_armed([held])
    assert daemon.rule(limited)["state"] == "limited"
    assert daemon.end() == 0


def test_the_journal_of_0_1_0_means_what_it_meant() -> None:
    history = History()
    kinds = set()
    for line in JOURNAL.read_bytes().splitlines():
        record = decode(line)
        kinds.add(record["kind"])
        history.read(record)
    assert kinds == {
        *("boot", "rule", "armed", "trigger", "start", "pid", "end", "output", "hold", "release"),
        *("died", "refused", "unrule"),
    }
    known = {str(rule.record["title"]): rule for rule in history.rules.values() if not rule.gone}
    assert {title for title, rule in known.items() if rule.held is not None} == {"HELD", "FILE"}
    assert known["LIMITED"].triggers == 1
    assert len(known["LIMITED"].times) == 1
    assert known["ARMED"].triggers == 2
    assert history.last_id >= 5


@pytest.mark.skipif(sys.platform != "linux", reason="its jails were Linux's")
def test_a_daemon_starts_with_the_journal_of_0_1_0(world: World) -> None:
    daemon = world.daemon
    daemon.state.mkdir(mode=0o700)
    shutil.copy(JOURNAL, daemon.journal_path)
    daemon.journal_path.chmod(0o600)
    rules = world.directory / "rules.toml"
    text = '[[rule]]\nname = "file"\njail = "docker:none"\ntitle = "FILE"\ncommand = "true"\n'
    rules.write_text(text, encoding="ascii")
    daemon.start(env={"JAILDAEMON_CONFIG": str(rules)})
    assert not any("is skipped" in line for line in daemon.log)
    # Another boot: nothing of -c comes back, and what was held in a file is held.
    assert {rule["id"]: rule["state"] for rule in daemon.rules().values()} == {"file": "held"}
    restart(daemon)
    assert daemon.rule("file")["state"] == "held"
