# SPDX-License-Identifier: BSD-2-Clause
"""make soak: random signals to many rules in many jails, then an account that must balance.

    python bench/soak.py [--seconds N] [--seed N]

Every SIGHUP sent to an armed probe is one run; no other death is; at the end no
process, descriptor or rule is left over.  Needs root.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from figures import attach, daemon

from jaildaemon.backends import throwaway_jail
from jaildaemon.cli import client

JAILS = 4
RULES = 8  # in each jail
OTHERS = (signal.SIGTERM, signal.SIGKILL, signal.SIGQUIT, signal.SIGUSR1)


class Soak:
    """The rules as we believe them to be, and what we did to them."""

    def __init__(self, stack: ExitStack, directory: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.jails = [throwaway_jail() for _ in range(JAILS)]
        for jail in self.jails:
            stack.callback(jail.close)
        self.daemon, self.socket = daemon(stack, directory)
        self.armed: dict[str, int] = {}
        self.rule_of: dict[int, str] = {}
        self.respawn: dict[str, str] = {}
        self.names: dict[str, str] = {}
        self.struck: set[int] = set()
        self.sent: Counter[str] = Counter()
        self.ran: Counter[str] = Counter()
        self.fds_before = self.fds()

    def fds(self) -> int:
        """Return how many descriptors the daemon has."""
        return len(os.listdir(f"/proc/{self.daemon.pid}/fd"))

    def fill(self) -> None:
        """Attach until every jail has its rules."""
        for jail in self.jails:
            have = sum(rule.startswith(f"{jail.jail}/") for rule in self.respawn)
            for _ in range(RULES - have):
                title = f"SOAK{self.random.getrandbits(64):016x}"
                respawn = self.random.choice(["no", "after", "now"])
                code = self.random.choice([0, 1, 7])
                self.respawn[f"{jail.jail}/{title}"] = respawn
                attach(self.socket, jail.jail, f"exit {code}", title, respawn)

    def read_log(self, until: str) -> None:
        """Take the daemon's log up to a line that contains `until`."""
        names = self.names
        assert self.daemon.stderr is not None
        while True:
            line = self.daemon.stderr.readline()
            if not line:
                raise SystemExit("soak: the daemon died")
            rule = line.split()[1].rstrip(":")
            if "armed in jail" in line:
                jail = line.split("armed in jail ")[1].split()[0]
                title = line.rstrip().rpartition(": ")[2]
                names[rule] = f"{jail}/{title}"
                self.armed[names[rule]] = int(line.split(" as pid ")[1].split(":")[0])
            elif "signal from jail" in line:
                self.ran[names[rule]] += 1
            if until in line:
                return

    def quiet(self) -> None:
        """Read the log until nothing is under way: every run ended, every -r armed again."""
        while True:
            rules = client.call(self.socket, "List", {})["rules"]
            assert isinstance(rules, list)
            os.kill(self.daemon.pid, signal.SIGUSR1)
            self.read_log("status:")
            # A signal is sent when kill(2) returns, and seen when the daemon wakes up.
            unseen = any(rule.get("probe_pid") in self.struck for rule in rules)
            if not unseen and all(rule["state"] == "armed" for rule in rules):
                self.struck.clear()
                return

    def strike(self) -> None:
        """Signal some armed probes, mostly with HUP."""
        for name in self.random.sample(sorted(self.armed), min(8, len(self.armed))):
            number = signal.SIGHUP if self.random.random() < 0.8 else self.random.choice(OTHERS)
            pid = self.armed.pop(name)
            self.struck.add(pid)
            os.kill(pid, number)
            if number == signal.SIGHUP:
                self.sent[name] += 1
            if number != signal.SIGHUP or self.respawn[name] == "no":
                del self.respawn[name]

    def balance(self) -> None:
        """Compare what was sent with what ran."""
        if self.sent != self.ran:
            missing, more = self.sent - self.ran, self.ran - self.sent
            raise SystemExit(f"soak: sent - ran {missing}, ran - sent {more}")


def main() -> int:
    """Soak and print the account."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    wish = parser.parse_args()
    if os.geteuid() != 0:
        sys.stderr.write("soak: needs root\n")
        return 1
    sys.stdout.write(f"soak: {wish.seconds:.0f} s, seed {wish.seed}\n")
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        soak = Soak(stack, directory, wish.seed)
        end, rounds = time.monotonic() + wish.seconds, 0
        while time.monotonic() < end:
            soak.fill()
            soak.quiet()
            soak.strike()
            rounds += 1
        soak.quiet()
        soak.balance()
        client.call(soak.socket, "Detach", {"all": True})
        # When the status is logged, the end of the last connection has been seen.
        os.kill(soak.daemon.pid, signal.SIGUSR1)
        soak.read_log("status:")
        left = soak.fds() - soak.fds_before
        children = Path(f"/proc/{soak.daemon.pid}/task/{soak.daemon.pid}/children").read_text()
        if left or children:
            raise SystemExit(f"soak: left over: {left} descriptors, children {children!r}")
        sys.stdout.write(
            f"soak: {rounds} rounds, {soak.sent.total()} signals, {soak.ran.total()} runs, "
            "nothing lost, nothing run twice, nothing left over\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
