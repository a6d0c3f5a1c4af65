# SPDX-License-Identifier: BSD-2-Clause
"""A rule that reboots the host at every boot is stopped, whatever the clock does."""

import pytest

from jaildaemon.core import breaker
from jaildaemon.core.journal import History

KEY = breaker.key("REBOOT_HOST", "shutdown -r now")
HOUR = breaker.WINDOW_SECONDS


def after(times: list[float]) -> breaker.Breaks:
    breaks: breaker.Breaks = {}
    for began in times:
        breaker.note(breaks, KEY, began)
    return breaks


def test_nine_are_not_a_loop_and_ten_within_an_hour_are() -> None:
    times = [1000.0 + 60 * n for n in range(10)]
    assert breaker.broken(after(times[:9]), KEY, 1600.0) is None
    assert breaker.broken(after(times), KEY, 1600.0) == 1000 + HOUR - 1600


def test_it_ends_when_the_first_of_the_ten_is_an_hour_old() -> None:
    breaks = after([1000.0 + 60 * n for n in range(10)])
    assert breaker.broken(breaks, KEY, 1000 + HOUR - 1) == 1
    assert breaker.broken(breaks, KEY, 1000 + HOUR) is None


def test_no_more_is_kept_than_can_matter() -> None:
    assert len(after([float(n) for n in range(1000)])[KEY]) == breaker.MAX_BREAKS


def test_a_clock_set_back_does_not_help() -> None:
    breaks = after([1_000_000.0 + 60 * n for n in range(10)])
    assert breaker.broken(breaks, KEY, 500.0) == HOUR


def test_another_rule_is_not_meant() -> None:
    breaks = after([1000.0] * 10)
    assert breaker.broken(breaks, breaker.key("OTHER", "shutdown -r now"), 1000.0) is None


@pytest.mark.parametrize("title", [None, "", "T"])
def test_title_and_command_cannot_be_confused(title: str | None) -> None:
    assert breaker.key(title, "x") != breaker.key(f"{title or ''}x", "")


def test_breaks_and_ids_survive_boots_and_a_new_journal() -> None:
    history = History()
    history.read({"kind": "boot", "boot": "one"})
    history.read({"kind": "rule", "rule": "t7"})
    history.read({"kind": "break", "rule": KEY, "began": 5.0})
    history.read({"kind": "boot", "boot": "two"})
    assert (history.breaks, history.last_id, history.rules) == ({KEY: [5.0]}, 7, {})
    anew = History()
    anew.read({"kind": "boot", "boot": "two", "last_id": 7, "breaks": {KEY: [5], "odd": 3}})
    assert (anew.breaks, anew.last_id) == ({KEY: [5.0]}, 7)
