# SPDX-License-Identifier: BSD-2-Clause
"""A reboot of the host is no way round the limit or the cooldown of a rule in a file."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaildaemon.core.journal import History, KnownRule, Record, decode, encode
from jaildaemon.core.limits import MAX_SECONDS, Limit, Window
from tests.core.past import replayed

WALL = 1_700_000_000.0
WINDOW = 3600.0
ROUNDED = 1e-3
POLICY = {"limit": "2/1h", "cooldown": "30m"}
RULE = {"rule": "bell", "jail": "web", "title": "BELL", "command": "true", "policy": POLICY}


@dataclass
class Host:
    """A host with a clock on the wall, which somebody may set, and one that begins at each boot."""

    wall: float = WALL
    steady: float = 10.0
    boots: int = 0
    records: list[Record] = field(default_factory=list)
    rings: list[float] = field(default_factory=list)
    """By the wall clock of an onlooker, which nobody sets."""
    true: float = WALL
    last_end: float | None = None

    def write(self, kind: str, **values: object) -> None:
        """Write a record, now."""
        self.records.append({"kind": kind, "t": self.wall, "s": self.steady, **values})

    def start(self) -> None:
        """Start the daemon."""
        self.write("boot", boot=f"boot {self.boots}")
        self.write("rule", **RULE, identity={}, source="/etc/jaildaemon.toml")

    def pass_time(self, seconds: float) -> None:
        """Let time pass."""
        self.wall += seconds
        self.steady += seconds
        self.true += seconds

    def ring(self) -> None:
        """Ring, and let the command run."""
        run = f"r{len(self.rings)}"
        self.rings.append(self.true)
        for kind in ("trigger", "start", "end"):
            self.write(kind, rule="bell", run=run)
        self.last_end = self.true

    def ring_into_a_reboot(self) -> None:
        """Ring, and let the host not survive the command."""
        run = f"r{len(self.rings)}"
        self.rings.append(self.true)
        for kind in ("trigger", "start"):
            self.write(kind, rule="bell", run=run)
        self.down()
        self.write("interrupted", rule="bell", run=run, boot=f"boot {self.boots}")
        self.last_end = self.true
        self.start()

    def down(self) -> None:
        """Let the host go down, and come up after half a minute."""
        self.pass_time(30.0)
        self.steady = 7.0
        self.boots += 1

    def reboot(self) -> None:
        """Start the host anew."""
        self.down()
        self.start()

    def known(self) -> KnownRule:
        """Return what the next daemon knows."""
        return replayed(self.records).rules["bell"]

    def wait(self) -> float:
        """Return how long the limit keeps the rule closed."""
        return Window(Limit(2, WINDOW), self.known().times).wait(self.steady)

    def cooling(self) -> float:
        """Return how long its cooldown keeps the rule closed."""
        end = self.known().last_end
        return 0.0 if end is None else max(0.0, end + 1800.0 - self.steady)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ring", "ring into a reboot", "reboot", "pass", "set"]),
        st.floats(-4e8, 4e8) | st.floats(0.0, 2.0 * WINDOW),
    ),
    max_size=12,
)


def lived(steps: list[tuple[str, float]], *, settable: bool) -> Host:
    """Let it all happen."""
    host = Host()
    host.start()
    for what, seconds in steps:
        match what:
            case "ring":
                host.ring()
            case "ring into a reboot":
                host.ring_into_a_reboot()
            case "reboot":
                host.reboot()
            case "pass":
                host.pass_time(abs(seconds) % (3.0 * WINDOW))
            case "set" if settable:
                host.wall = max(0.0, host.wall + seconds)
    return host


@settings(max_examples=200)
@given(steps=STEPS)
def test_with_a_clock_that_nobody_sets_reboots_change_nothing(
    steps: list[tuple[str, float]],
) -> None:
    host = lived(steps, settable=False)
    latest = host.rings[-2:]
    wait = max(0.0, latest[0] + WINDOW - host.true) if len(latest) == 2 else 0.0
    assert host.wait() == pytest.approx(wait, abs=ROUNDED)
    cooling = 0.0 if host.last_end is None else max(0.0, host.last_end + 1800.0 - host.true)
    assert host.cooling() == pytest.approx(cooling, abs=ROUNDED)
    known = host.known()
    assert known.triggers == len(host.rings)
    assert known.last_trigger == (pytest.approx(host.rings[-1]) if host.rings else None)


@settings(max_examples=200)
@given(steps=STEPS)
def test_however_the_clock_is_set_no_rule_is_closed_for_longer_than_its_window(
    steps: list[tuple[str, float]],
) -> None:
    host = lived(steps, settable=True)
    for _ in range(2):
        assert 0.0 <= host.wait() <= WINDOW + ROUNDED
        assert 0.0 <= host.cooling() <= 1800.0 + ROUNDED
        host.reboot()
    host.pass_time(WINDOW + ROUNDED)
    assert (host.wait(), host.cooling()) == (0.0, 0.0)


@settings(max_examples=200)
@given(steps=STEPS, more=STEPS)
def test_a_new_journal_goes_on_the_same_through_reboots(
    steps: list[tuple[str, float]], more: list[tuple[str, float]]
) -> None:
    host = lived(steps, settable=True)
    anew = [decode(line) for line in encode(replayed(host.records).snapshot()).splitlines()]
    written = len(host.records)
    for what, seconds in more:
        if what == "set":
            host.wall = max(0.0, host.wall + seconds)
        elif what == "pass":
            host.pass_time(abs(seconds) % WINDOW)
        else:
            host.reboot()
    whole = replayed(host.records).rules["bell"]
    again = replayed([*anew, *host.records[written:]]).rules["bell"]
    assert list(again.times) == pytest.approx(list(whole.times), abs=ROUNDED)
    assert (again.triggers, again.last_trigger) == (whole.triggers, whole.last_trigger)


def test_the_clock_that_was_right_last_counts_not_the_one_of_the_trigger() -> None:
    """A host without a clock of its own begins in 1970, until a server tells it the time."""
    host = Host(wall=100.0)
    host.start()
    host.ring()
    host.ring()
    host.wall = WALL
    host.pass_time(60.0)
    host.write("armed", rule="bell")
    host.reboot()
    assert host.wait() == pytest.approx(WINDOW - 90.0)


def test_a_new_journal_says_when_its_boot_began_by_the_clock_that_was_right_last() -> None:
    host = Host(wall=100.0)
    host.start()
    host.wall = WALL
    host.ring()
    host.ring()
    host.records = replayed(host.records).snapshot()
    host.reboot()
    assert host.wait() == pytest.approx(WINDOW - 30.0)


def test_a_host_that_begins_in_1970_closes_a_rule_for_its_window_and_no_longer() -> None:
    host = Host()
    host.start()
    host.ring()
    host.ring()
    host.wall = -30.0
    host.reboot()
    assert host.wait() == WINDOW
    host.pass_time(WINDOW)
    assert host.wait() == 0.0


def test_what_the_next_boot_says_of_the_last_one_moves_no_clock() -> None:
    """A daemon of 0.1.0 wrote `interrupted` and `break` before its `boot`, by the new clock."""
    host = Host()
    host.start()
    host.ring()
    host.ring()
    host.down()
    host.pass_time(600.0)
    for kind in ("interrupted", "expired", "break"):
        host.write(kind, rule="bell", run="r9")
    host.start()
    assert host.wait() == pytest.approx(WINDOW - 630.0)


def test_times_that_matter_no_more_are_forgotten() -> None:
    host = Host()
    host.start()
    host.ring()
    host.wall += MAX_SECONDS
    host.reboot()
    assert (list(host.known().times), host.known().last_end) == ([], None)
    assert (host.known().triggers, host.known().last_trigger) == (1, WALL)


def test_a_rule_of_the_command_line_is_forgotten_with_its_jail() -> None:
    host = Host()
    host.write("boot", boot="boot 0")
    host.write("rule", **{**RULE, "rule": "t1"}, identity={})
    host.down()
    host.start()
    history = replayed(host.records)
    assert isinstance(history, History)
    assert list(history.rules) == ["bell"]
