# SPDX-License-Identifier: BSD-2-Clause
"""The subcommands of the installed program against a real daemon: what they print, to the letter.

Words stand for what differs from run to run: JAIL, PID, RUN, TIME and SECONDS.
"""

import json
import os
import re
import select
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jaildaemon import __version__
from jaildaemon.cli import doctor, logview
from tests.daemon.conftest import need_root
from tests.daemon.product import JAILDAEMON, LONGEST_SECONDS, Daemon, Lines, run, wait_until

VARIES = [
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME"),
    (r"\b[0-9a-f]{8,}-\d+\.(\d+)", r"RUN.\1"),
    (r"\bpid \d+", "pid PID"),
    (r"after \d+\.\d{3} s", "after SECONDS s"),
    (r"up \d+[ms\d]*", "up SECONDS"),
]


@pytest.fixture
def tell(daemon: Daemon, jail: str) -> Callable[..., str]:
    """Give what runs a subcommand and returns what it prints; `code` is its exit status."""

    def told(line: str, code: int = 0) -> str:
        words = [word.replace("JAIL", jail) for word in line.split()]
        done = run(*words, "-f", daemon.socket)
        text = done.stdout + done.stderr
        assert done.returncode == code, text
        for pattern, word in VARIES:
            text = re.sub(pattern, word, text)
        text = text.replace(str(daemon.socket), "SOCKET")
        # Where a jail stands: FreeBSD's may have the number of a limit or an exit status.
        return re.sub(rf"\b{jail}(?=/[ABC]| +BELL)", "JAIL", text)

    return told


def arm(daemon: Daemon, jail: str, command: str, title: str, *more: str) -> None:
    """Arm a rule."""
    done = run("-c", command, "-j", jail, "-t", title, "-f", daemon.socket, *more)
    assert (done.returncode, done.stderr) == (0, "")


def wait_state(daemon: Daemon, state: str) -> None:
    """Wait until the one rule is in a state."""
    wait_until(
        lambda: [r["state"] for r in daemon.call("List")["parameters"]["rules"]] == [state], state
    )


Tell = Callable[..., str]


def test_from_the_first_to_the_last(daemon: Daemon, jail: str, tell: Tell) -> None:
    arm(daemon, jail, "echo hello; exit 3", "BELL", "-r", "--cooldown", "1h")
    assert tell("fire --dry-run BELL") == (
        "would run   echo hello; exit 3\n"
        "as          root, on the host, by /bin/sh -c\n"
        "limits      30/1m triggers, 1 at once, cooldown 1h\n"
        "then        another probe, when the command has ended\n"
        "nothing is in its way\n"
    )
    assert tell("fire BELL") == "run RUN.1: echo hello; exit 3\n"
    daemon.lines.wait_for(" s: cooldown")  # no probe for an hour, or what is left of it
    wait_until(lambda: "wrote" in tell("log t1"), "its output is read")
    assert tell("fire BELL", 1) == ("jaildaemon: fire: t1: the cooldown of 1h is not over\n")
    assert tell("fire --dry-run t1", 1).endswith("refused now: the cooldown of 1h is not over\n")
    table = tell("list").splitlines()
    assert table[0].split() == "ID STATE JAIL TITLE COMMAND LAST NEXT REFUSED".split()
    assert re.fullmatch(
        r"t1 cooling JAIL +BELL +echo hello; exit 3 +\d+s +(1h|59m\d*s?) +0", table[1]
    )
    assert table[2:] == ["t1: not armed: the cooldown of 1h is not over"]
    assert tell("hold --all") == "held t1\n"
    assert tell("release BELL") == "released t1\n"
    assert tell("release --all") == "released nothing\n"
    assert tell("detach --all") == "detached t1\n"
    assert tell("list") == "no rules\n"
    assert tell("log BELL") == (
        "TIME t1 JAIL/BELL: new, asked for by uid 0 pid PID\n"
        "TIME t1 JAIL/BELL: armed\n"
        "TIME t1 JAIL/BELL: fired by uid 0 pid PID, run 1\n"
        "TIME t1 JAIL/BELL: run 1 ended: exit 3 after SECONDS s\n"
        "TIME t1 JAIL/BELL: run 1 wrote\n"
        "    | hello\n"
        "TIME t1 JAIL/BELL: held by uid 0 pid PID\n"
        "TIME t1 JAIL/BELL: released by uid 0 pid PID\n"
        "TIME t1 JAIL/BELL: gone: withdrawn by uid 0 pid PID\n"
    )
    assert tell("log -n 1") == tell("log").splitlines(keepends=True)[-1]
    assert tell("status") == (
        f"jaildaemon {__version__}, pid PID, up SECONDS\n"
        "rules     0\nprobes    0\nrunning   0\nqueued    0\ntriggers  1\nrefused   0\n"
    )


def test_explain_says_all_about_a_bell(daemon: Daemon, jail: str, tell: Tell) -> None:
    arm(daemon, jail, "true", "A+B", "-R", "-u", "5", "--signal", "USR1", "--run-as", "root")
    pid = daemon.call("List")["parameters"]["rules"][0]["probe_pid"]
    proc = (
        "or without pkill:\n"
        "    for p in /proc/[0-9]*; do\n"
        '        t=; { IFS= read -r t <"$p/cmdline"; } 2>/dev/null || :\n'
        '        [ "$t" != "jaildaemon: A+B" ] || kill -USR1 "${p#/proc/}"\n'
        "    done\n"
    )
    assert pid > 0
    assert tell("explain JAIL A+B") == (
        "rule        t1, JAIL/A+B\n"
        "from        jaildaemon -c\n"
        "armed       yes, pid PID of the host\n"
        "would run   true\n"
        "as          root, on the host, by /bin/sh -c\n"
        "limits      30/1m triggers, 8 at once\n"
        "then        another probe, at once\n"
        "rung by     SIGUSR1 from root, or uid 5 in the jail:\n"
        "    pkill -USR1 -f '^jaildaemon: A[+]B'\n" + (proc if sys.platform == "linux" else "")
    )
    assert tell("explain JAIL C", 4) == (
        "jaildaemon: explain: JAIL/C: no rule is for it (see jaildaemon list)\n"
    )


ERRORS = [
    ("fire nope", 4, "fire: nope: no such rule (see jaildaemon list)"),
    ("hold nope", 4, "hold: nope: no such rule (see jaildaemon list)"),
    ("release nope", 4, "release: nope: no such rule (see jaildaemon list)"),
    ("log nope", 4, "log: nope: nothing is known of such a rule"),
    ("log -n 1001", 1, "log: last 1001: is not from 0 to 1000"),
]


@pytest.mark.parametrize(("line", "code", "told"), ERRORS, ids=[e[0] for e in ERRORS])
def test_what_cannot_be_is_said_in_one_line(
    served: Daemon, line: str, code: int, told: str
) -> None:
    done = run(*line.split(), "-f", served.socket)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", f"jaildaemon: {told}\n")


@pytest.mark.parametrize(
    "line",
    ["list", "status", "log", "log -F", "explain x", "fire x", "hold x", "release x", "metrics"],
)
def test_without_a_daemon_each_says_so(directory: Path, line: str) -> None:
    done = run(*line.split(), "-f", directory / "none")
    what = "status" if line == "metrics" else line.split(maxsplit=1)[0]
    assert done.stderr == (
        f"jaildaemon: {what}: {directory}/none: no daemon is running"
        " (start one with jaildaemon -D, or name its socket with -f)\n"
    )
    assert (done.returncode, done.stdout) == (3, "")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("hold", "one of the arguments RULE --all is required"),
        ("release t1 --all", "argument --all: not allowed with argument RULE"),
        ("log -n x", "argument -n: 'x' is no number from 0 to 1000"),
        ("explain", "the following arguments are required: JAIL"),
        ("fire", "the following arguments are required: RULE"),
    ],
)
def test_wrong_use_is_named(line: str, told: str) -> None:
    done = run(*line.split())
    assert done.returncode == 2
    assert done.stderr.endswith(f"jaildaemon {line.split(maxsplit=1)[0]}: error: {told}\n")


def test_json_is_for_programs(daemon: Daemon, jail: str) -> None:
    arm(daemon, jail, "true", "BELL", "-r")

    def answer(*words: str) -> dict[str, object]:
        done = run(*words, "--json", "-f", daemon.socket)
        assert done.returncode == 0, done.stderr
        found: dict[str, object] = json.loads(done.stdout)
        assert found.pop("version") == 1
        return found

    assert answer("fire", "--dry-run", "BELL") == {"would_run": "true"}
    assert answer("fire", "BELL").keys() == {"run", "would_run"}
    wait_state(daemon, "armed")
    assert answer("hold", "BELL") == {"ids": ["t1"]}
    assert answer("release", "BELL") == {"ids": ["t1"]}
    assert "'id': 't1'" in str(answer("explain", jail)["rules"])
    assert answer("status")["daemon_version"] == __version__
    done = run("log", "--json", "-f", daemon.socket)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {line["version"] for line in lines} == {1}
    assert [line["entry"]["kind"] for line in lines][:3] == ["boot", "rule", "armed"]
    assert re.fullmatch(r"[\d-]+T[\d:]+\.\d{3}Z", lines[0]["entry"]["time"])


@pytest.fixture
def following(daemon: Daemon, jail: str) -> Iterator[Lines]:
    """Give the lines of a `log -F`."""
    assert jail
    words = [str(word) for word in (JAILDAEMON, "log", "-F", "-f", daemon.socket)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield Lines(process.stdout.fileno())
        process.terminate()


def test_log_follows(daemon: Daemon, jail: str, following: Lines) -> None:
    assert (following.next() or "").endswith("the daemon started")
    arm(daemon, jail, "echo '\033[31mred'", "BELL")
    assert "new, asked for by uid 0" in following.wait_for("BELL")
    following.wait_for("armed")
    run("fire", "BELL", "-f", daemon.socket)
    following.wait_for("fired by uid 0")
    following.wait_for("run 1 ended: exit 0")
    following.wait_for("run 1 wrote")
    assert following.next() == "    | \\x1b[31mred"


def test_a_hold_survives_the_daemon(directory: Path, jail: str) -> None:
    state = directory / "state"
    first = Daemon(directory, state=state)
    arm(first, jail, "true", "BELL", "-r")
    assert run("hold", "BELL", "-f", first.socket).returncode == 0
    first.stop(9)
    second = Daemon(directory, state=state)
    (rule,) = second.call("List")["parameters"]["rules"]
    assert rule["state"] == "held"
    assert rule["reason"].startswith("held by uid 0 pid ")
    assert run("release", "BELL", "-f", second.socket).returncode == 0
    wait_state(second, "armed")
    second.stop()


# --- metrics and doctor ------------------------------------------------------------------


def test_metrics_are_what_prometheus_reads(daemon: Daemon, jail: str, directory: Path) -> None:
    arm(daemon, jail, "true", 'A"\\B', "-r")
    run("fire", "t1", "-f", daemon.socket)
    wait_state(daemon, "armed")
    done = run("metrics", "-f", daemon.socket)
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    labels = f'{{jail="{jail}",rule="t1",title="A\\"\\\\B"}}'
    for line in (
        "jaildaemon_up 1.0",
        f'jaildaemon_build_info{{version="{__version__}"}} 1.0',
        "jaildaemon_probes 1.0",
        "jaildaemon_triggers_total 1.0",
        "jaildaemon_refused_total 0.0",
        "jaildaemon_queue 0.0",
        'jaildaemon_rules{state="armed"} 1.0',
        'jaildaemon_rules{state="held"} 0.0',
        f"jaildaemon_rule_triggers_total{labels} 1.0",
    ):
        assert line in lines
    assert any(
        x.startswith(f"jaildaemon_rule_last_trigger_timestamp_seconds{labels}") for x in lines
    )
    file = directory / "metrics.prom"
    done = run("metrics", "-o", file, "-f", daemon.socket)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "jaildaemon_up 1.0" in file.read_text(encoding="utf-8")
    assert [p.name for p in directory.iterdir() if p.name.startswith("metrics")] == [file.name]


def test_a_file_says_that_there_is_no_daemon(directory: Path) -> None:
    file = directory / "m.prom"
    file.write_text("old")
    assert run("metrics", "-o", file, "-f", directory / "none").returncode == 3
    assert file.read_text().splitlines()[-1] == "jaildaemon_up 0.0"
    done = run("metrics", "-o", directory / "no" / "m", "-f", directory / "none")
    assert done.stderr == f"jaildaemon: metrics: {directory}/no/m: No such file or directory\n"
    assert done.returncode == 1


def test_doctor_finds_nothing_where_all_is_well(daemon: Daemon, jail: str) -> None:
    need_root()
    arm(daemon, jail, "true", "BELL")
    done = run("doctor", "-f", daemon.socket)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert {line[:5] for line in done.stdout.splitlines()} == {"ok   "}
    assert "ok   arming: a probe stood in a jail made for it\n" in done.stdout
    assert f"ok   daemon: version {__version__}, pid {daemon.pid}\n" in done.stdout
    assert done.stdout.endswith("ok   rules: 1 from -c\n")


def test_doctor_names_a_rule_that_cannot_be_armed_and_its_file() -> None:
    rules = [
        {"id": "t1", "state": "armed", "source": "transient"},
        {
            "id": "web/A",
            "state": "failing",
            "source": "/etc/jaildaemon.toml",
            "reason": "no memory",
        },
        {"id": "web/B", "state": "failing", "source": "/etc/jaildaemon.toml", "reason": "the same"},
    ]
    assert doctor._rules(rules[:1]).found == "1 from -c"
    found = doctor._rules(rules)
    assert found.parameters() == {
        "name": "rules",
        "ok": False,
        "found": "web/A from /etc/jaildaemon.toml is not armed: no memory; and 1 more",
        "hint": "jaildaemon log shows what was tried",
    }


def test_doctor_says_what_to_do(directory: Path) -> None:
    done = run("doctor", "--json", "-f", directory / "none")
    assert done.returncode == 6
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["daemon"] == {
        "name": "daemon",
        "ok": False,
        "found": f"{directory}/none: no daemon is running",
        "hint": "start one with jaildaemon -D, or name its socket with -f",
    }
    if os.geteuid() == 0:
        directory.chmod(0o777)
        done = run("doctor", "-f", directory / "none")
        assert f"BAD  socket: its directory {directory} can be written by others" in done.stdout
        assert f"     chmod go-w {directory}\n" in done.stdout


def test_doctor_without_root_says_so(directory: Path) -> None:
    need_root()
    if shutil.which("setpriv") is None:
        pytest.skip("cannot: setpriv(1) is Linux's")
    pass_through = "+dac_read_search"
    before = (
        *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
        *(f"--inh-caps={pass_through}", f"--ambient-caps={pass_through}", "--"),
    )
    done = run("doctor", "-f", directory / "none", before=before)
    assert done.returncode == 6
    assert "BAD  user: uid 65534\n     run this as root\n" in done.stdout
    assert "BAD  arming: not tried: only root may enter a jail\n" in done.stdout


def test_who_has_read_enough_is_no_error(daemon: Daemon, jail: str) -> None:
    assert jail
    words = [str(word) for word in (JAILDAEMON, "log", "-F", "-f", daemon.socket)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], LONGEST_SECONDS)[0]
        process.stdout.close()
        arm(daemon, jail, "true", "BELL")
        assert process.wait(LONGEST_SECONDS) == 1
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_a_rule_that_is_called_as_its_jail_and_title_is_named_once() -> None:
    entry = {"time": "2026-11-25T22:28:02.000Z", "kind": "armed", "rule": "docker:web/BELL"}
    entry |= {"jail": "docker:web", "title": "BELL"}
    assert logview.Lines().of(entry) == ["2026-11-25 22:28:02 docker:web/BELL: armed"]
