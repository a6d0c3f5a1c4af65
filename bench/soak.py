# SPDX-License-Identifier: BSD-2-Clause
"""make soak: torture for the daemon, then an account that must balance.

    python bench/soak.py [--seconds N] [--seed N] [--jails N] [--rules N]

In rounds: random signals to the rules of many jails while the daemon is killed
by kill -9, ended by SIGTERM or restarted by exec, and jails die.  Then:

  every HUP is recorded once, or is `unseen`: its probe died in the instant
    before a kill -9 (at most one per armed probe and death), or was rung when
    SIGTERM had been sent and it was being withdrawn; none in any other round
  no record is without a HUP, each record is at most one start, each start at
    most one run, and exactly one where nobody was killed
  no child, descriptor or memory is left over

Needs root.
"""

import argparse
import errno
import json
import os
import random
import select
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.faults.world import Daemon, World, wait_gone, world_in
from tests.kernel.processes import command_lines, memory_kib

STRIKES = 40
"""Signals in each round."""
WINDOW_ROUNDS = 10
"""At the end, without any death, to see whether the daemon grows: so many rounds are measured
together, and count as the least of them.  What waits for Python's collector goes up and down."""
MOST_WINDOWS = 8
"""What has grown gets another window, up to so many: a leak is there in all of them."""
GROWTH_KIB = 2048
PATIENCE_SECONDS = 60.0


class Unbalanced(SystemExit):
    """The account does not balance."""

    def __init__(self, why: str) -> None:
        super().__init__(f"soak: {why}")


class Reader:
    """Gives the lines that were added to a file since the last look, also where it is replaced."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._rest = b""
        """Of a line that was not all there when we looked."""

    def lines(self) -> list[bytes]:
        """Return the new lines."""
        found: list[bytes] = []
        while True:
            if self._file is not None:
                *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
                found += lines
                with suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(self._file.fileno()), os.stat(self._path)):
                        return found
                self._file.close()
            try:
                self._file = self._path.open("rb")
            except FileNotFoundError:
                self._file = None
                return found

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def stands(rule: dict[str, Any], shown: dict[int, str]) -> bool:
    """Say whether a rule's probe is its probe, and lives, by what ps(1) shows."""
    return str(rule["title"]) in shown.get(rule["probe_pid"], "")


def strike(rule: dict[str, Any], number: signal.Signals) -> Callable[[], None]:
    """Signal a rule's probe, and return what waits for its end.

    ProcessLookupError if it stands no more.
    """
    pid = rule["probe_pid"]
    if sys.platform != "linux":
        # No pidfd: but numbers go round to 99,999 before one comes back.
        os.kill(pid, number)
        return lambda: wait_gone(pid)
    pidfd = os.pidfd_open(pid)
    try:
        # The pidfd first: what is rung is what was looked at.
        words = Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8")
        if str(rule["title"]) not in words:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        signal.pidfd_send_signal(pidfd, number)
    except BaseException:
        os.close(pidfd)
        raise

    def wait() -> None:
        gone = select.select([pidfd], [], [], PATIENCE_SECONDS)[0]
        os.close(pidfd)
        if not gone:
            raise Unbalanced(f"{rule['id']}: its probe {pid} did not die of {number.name}")

    return wait


def grown(measured: list[int]) -> bool:
    """Say whether memory has grown from the first window to the last, in KiB."""
    return measured[-1] - measured[0] > GROWTH_KIB


class Soak:
    """What we did to the rules, and what is written about it."""

    def __init__(
        self, world: World, wish: argparse.Namespace, program: list[str] | None = None
    ) -> None:
        self.world, self.random = world, random.Random(wish.seed)
        self.daemon: Daemon = world.daemon
        self.daemon.start(program=program)
        self.jails = {jail.jail: jail for jail in (world.jail() for _ in range(wish.jails))}
        self.rules = wish.rules
        self.ran_path = world.directory / "ran"
        self._journal, self._ran = Reader(self.daemon.journal_path), Reader(self.ran_path)
        self.struck: list[Callable[[], None]] = []
        """Wait for the end of what we have rung."""
        self.recorded: Counter[str] = Counter()
        self.triggered: set[str] = set()
        self.interrupted: set[str] = set()
        self.late: set[str] = set()
        """Runs that were no shell yet when the daemon died, and so were not found by the next."""
        self.starts: Counter[str] = Counter()
        self.runs: Counter[str] = Counter()
        self.over: Counter[str] = Counter()
        self.tally: Counter[str] = Counter()

    def close(self) -> None:
        """Close what is read."""
        self._journal.close()
        self._ran.close()

    # --- what is there -------------------------------------------------------------

    def fill(self) -> None:
        """Attach until there are enough rules."""
        chance = self.random
        missing = self.rules - len(self.daemon.rules())
        for _ in range(missing):
            policy: dict[str, object] = {
                "respawn": chance.choice(["no", "after", "after", "now"]),
                "limit": chance.choice(["none", "none", "100/1s"]),
                "cooldown": chance.choice(["0s", "0s", "20ms"]),
                "settle": chance.choice(["0s", "0s", "0s", "30ms"]),
                "signal": chance.choice(["HUP", "HUP", "HUP", "USR1"]),
            }
            command = f"echo $JAILDAEMON_RUN >> {self.ran_path}"
            if chance.random() < 0.2:
                command += "; sleep 0.1"
            title = f"SOAK{chance.getrandbits(64):016x}"
            self.daemon.attach(chance.choice(list(self.jails)), command, title, **policy)

    def quiet(self) -> dict[str, dict[str, Any]]:
        """Wait until nothing is under way: every rule is armed; return them all."""
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            self.daemon.settled()
            rules = self.daemon.rules()
            status = self.daemon.call("Status")
            busy = [rule for rule in rules.values() if rule["state"] != "armed"]
            shown = command_lines()
            dead = [r for r in rules.values() if "probe_pid" in r and not stands(r, shown)]
            self.read()
            going_on = self.triggered - self.over.keys()  # what settles shows in nothing else
            if not (busy or dead or going_on or status["running"] or status["queued"]):
                return rules
            if time.monotonic() > end:
                raise Unbalanced(f"not armed again: {(busy or dead)[:3]}, not over: {going_on}")

    # --- what happens ----------------------------------------------------------------

    def strike(self, rules: list[dict[str, Any]]) -> Counter[str]:
        """Ring rules; return which were."""
        rung: Counter[str] = Counter()
        for rule in rules:
            number = signal.SIGHUP if rule["policy"]["signal"] == "HUP" else signal.SIGUSR1
            with suppress(OSError):
                self.struck.append(strike(rule, number))
                rung[rule["id"]] += 1
        return rung

    def round(self, disaster: str) -> None:
        """Ring some rules, have a disaster in the midst of it, and check the account."""
        self.fill()
        rules = self.quiet()
        self.account(Counter(), "nothing", Counter())
        victims: list[str] = []
        if self.random.random() < 0.3:
            victims = [self.random.choice(list(self.jails))]
        targets = [rule for rule in rules.values() if rule["jail"] not in victims]
        targets = self.random.sample(targets, min(STRIKES, len(targets)))
        cut = self.random.randrange(len(targets) + 1)
        rung = self.strike(targets[:cut])
        for victim in victims:
            self.jails.pop(victim).close()
            fresh = self.world.jail()
            self.jails[fresh.jail] = fresh
            self.tally["jails died"] += 1
        if disaster == "restart":
            self.daemon.launch_restart()
        elif disaster == "kill":
            os.kill(self.daemon.pid, signal.SIGKILL)
        elif disaster == "term":
            os.kill(self.daemon.pid, signal.SIGTERM)
        late = self.strike(targets[cut:])
        rung += late
        if disaster in ("kill", "term"):
            self.daemon.ended()
            self.daemon.start()
            self.tally["daemon deaths"] += 1
            while disaster == "kill" and self.random.random() < 0.5:
                # And again while it is still taking up what was.
                self.daemon.again()
                self.tally["daemon deaths"] += 1
        elif disaster == "restart" and self.daemon.restarted() != 0:
            raise Unbalanced("a restart was refused")
        while self.struck:
            self.struck.pop()()  # until it is dead it looks as if nobody had rung it
        self.quiet()
        self.tally[disaster] += 1
        excused = {"kill": rung, "term": late}.get(disaster, Counter())
        self.account(rung, disaster, excused)

    def read(self) -> None:
        """Take what was written in the journal since the last look."""
        for line in self._journal.lines():
            record = json.loads(line)
            kind, run = record["kind"], record.get("run", "")
            if kind == "trigger" or (kind == "refused" and not run):
                self.recorded[record["rule"]] += 1
                self.triggered |= {run} - {""}
            elif kind == "start":
                self.starts[run] += 1
            elif kind in ("end", "interrupted", "refused", "expired"):
                self.over[run] += 1
                if kind != "end":
                    self.interrupted.add(run)
                    self.tally[kind] += 1

    def account(self, rung: Counter[str], disaster: str, excused: Counter[str]) -> None:
        """Compare what was rung with what is written; only `excused` may be unseen."""
        self.read()
        recorded, interrupted = self.recorded, self.interrupted
        for line in self._ran.lines():
            run = line.decode().strip()
            if run in self.late:
                self.late.remove(run)
            else:
                self.runs[run] += 1
        more, missing = recorded - rung, rung - recorded
        if more:
            raise Unbalanced(f"recorded without a signal: {more}")
        if missing - excused:
            raise Unbalanced(f"signals without a record ({disaster}): {missing - excused}")
        self.tally[f"unseen at {disaster}"] += missing.total()
        self.tally["signals"] += rung.total()
        self.tally["recorded"] += recorded.total()
        twice = [run for counter in (self.starts, self.runs) for run, n in counter.items() if n > 1]
        if twice:
            raise Unbalanced(f"run twice: {twice}")
        stray = self.runs.keys() - self.starts.keys()
        lost = self.starts.keys() - self.runs.keys() - interrupted
        open_runs = self.starts.keys() - self.over.keys()
        if stray or lost or open_runs:
            raise Unbalanced(f"without a start {stray}, without a run {lost}, open {open_runs}")
        self.late |= (self.starts.keys() & interrupted) - self.runs.keys()
        self.tally["runs"] += len(self.runs)
        for seen in (self.starts, self.runs, self.over, recorded, interrupted, self.triggered):
            seen.clear()

    # --- what is left ------------------------------------------------------------------

    def children(self) -> None:
        """Wait until the probes are its only children, and none is a zombie."""
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            probes = {rule.get("probe_pid") for rule in self.daemon.rules().values()}
            others = set(self.daemon.children()) - probes
            if not others:
                return
            if time.monotonic() > end:
                raise Unbalanced(f"children that are no probes: {others}")
            self.daemon.settled()

    def memory(self) -> int:
        """Return the daemon's resident memory, in KiB."""
        return memory_kib(self.daemon.pid)

    def window(self) -> int:
        """Return the least memory after each of some rounds without any death, in KiB."""
        found = []
        for _ in range(WINDOW_ROUNDS):
            self.round("calm")
            found.append(self.memory())
        return min(found)

    def calm(self) -> None:
        """See that without any death it neither grows nor leaks."""
        self.window()  # the first rounds load and fill what stays
        measured = [self.window(), self.window()]
        while grown(measured):
            if len(measured) == MOST_WINDOWS:
                raise Unbalanced(f"it grows: {measured} KiB, each the least of a window")
            measured.append(self.window())
        self.tally["memory_kib"] = measured[-1]
        self.children()
        self.daemon.call("Detach", all=True)
        self.daemon.settled()
        self.children()
        if self.daemon.children():
            raise Unbalanced(f"children are left: {self.daemon.children()}")
        self.daemon.until_fds(self.daemon.fds_at_start)


def main() -> int:
    """Soak and print the account."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    parser.add_argument("--jails", type=int, default=32)
    parser.add_argument("--rules", type=int, default=200)
    wish = parser.parse_args()
    if os.geteuid() != 0:
        sys.stderr.write("soak: needs root\n")
        return 1
    print(f"soak: {wish.seconds:.0f} s, seed {wish.seed}", flush=True)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        soak = Soak(stack.enter_context(world_in(directory)), wish)
        stack.callback(soak.close)
        end = time.monotonic() + wish.seconds
        while time.monotonic() < end:
            soak.round(soak.random.choice(["kill"] * 7 + ["restart", "term", "nothing"]))
        # Its descriptors are counted from the start of one life.
        soak.daemon.end()
        soak.daemon.start()
        soak.calm()
        print("soak:", ", ".join(f"{what} {n}" for what, n in sorted(soak.tally.items())))
        print("soak: nothing lost, nothing run twice, nothing left over")
    return 0


if __name__ == "__main__":
    sys.exit(main())
