# SPDX-License-Identifier: BSD-2-Clause
"""Durations and rate limits as texts, and the window that keeps to a limit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaildaemon.core.limits import (
    MAX_SECONDS,
    Limit,
    Window,
    format_duration,
    parse_duration,
    parse_limit,
)

# --- durations --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0ms", 0.0),
        ("1ms", 0.001),
        ("9ms", 0.009),
        ("250ms", 0.25),
        ("999999999ms", 999999.999),
        ("0s", 0.0),
        ("1s", 1.0),
        ("90s", 90.0),
        ("007s", 7.0),
        ("1m", 60.0),
        ("1h", 3600.0),
        ("24h", 86400.0),
        ("1d", 86400.0),
        ("366d", 31_622_400.0),
        ("8784h", 31_622_400.0),
        ("527040m", 31_622_400.0),
        ("31622400s", 31_622_400.0),
    ],
)
def test_a_duration_is_a_whole_number_and_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


NO_DURATIONS = (
    "0|10|60000||s|ms| 10s|10s |10 s|10s\n|-1s|+1s|1.5s|10S|10sec|10us|1h30m|1_0s|0x1s|1e3s|٣s|none"
    "|1234567890ms"
)


@pytest.mark.parametrize("text", NO_DURATIONS.split("|"))
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_duration(text)
    words = 'is no duration, which is a number and ms, s, m, h or d, such as "10s"'
    assert str(caught.value) == f"{text!r} {words}"


@pytest.mark.parametrize("text", ["367d", "8785h", "527041m", "31622401s", "999999999d"])
def test_a_duration_over_a_year_is_refused(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_duration(text)
    assert str(caught.value) == f"{text!r} is longer than a year"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0s"),
        (0.001, "1ms"),
        (1.5, "1500ms"),
        (1.0, "1s"),
        (60.0, "1m"),
        (90.0, "90s"),
        (3600.0, "1h"),
        (5400.0, "90m"),
        (86400.0, "1d"),
        (90000.0, "25h"),
        (MAX_SECONDS, "366d"),
    ],
)
def test_a_duration_is_written_in_its_largest_unit(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


MILLISECONDS = {"ms": 1, "s": 1000, "m": 60 * 1000, "h": 3600 * 1000, "d": 24 * 3600 * 1000}
YEAR = 366 * MILLISECONDS["d"]


@st.composite
def durations(draw: st.DrawFn) -> str:
    """Give any good text of a duration."""
    unit = draw(st.sampled_from(list(MILLISECONDS)))
    return f"{draw(st.integers(0, min(999_999_999, YEAR // MILLISECONDS[unit])))}{unit}"


@given(text=durations())
def test_a_duration_comes_back_from_its_shortest_text(text: str) -> None:
    seconds = parse_duration(text)
    written = format_duration(seconds)
    assert parse_duration(written) == seconds
    total = round(seconds * 1000)
    exact = [f"{total // n}{unit}" for unit, n in MILLISECONDS.items() if total % n == 0]
    assert len(written) == min(map(len, exact))


# --- limits -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("none", None),
        ("30/1m", Limit(30, 60.0)),
        ("1/1ms", Limit(1, 0.001)),
        ("0001/1s", Limit(1, 1.0)),
        ("1000/366d", Limit(1000, MAX_SECONDS)),
    ],
)
def test_a_limit_is_a_number_in_a_time_or_none(text: str, limit: Limit | None) -> None:
    assert parse_limit(text) == limit


NO_LIMITS = (
    "|0/1m|1001/1m|99999/1m|-1/1m|1.5/1m|30|30/|/1m|NONE|None| 30/1m|30 /1m|30/1m\n|x/1m|٣/1m"
)


@pytest.mark.parametrize("text", NO_LIMITS.split("|"))
def test_what_is_no_limit_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_limit(text)
    assert str(caught.value) == (
        f'{text!r} is neither "none" nor N/DUR, such as "30/1m", N up to 1000'
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("30/60", "'60' is no duration, "),
        ("30/1m/2", "'1m/2' is no duration, "),
        ("30/367d", "'367d' is longer than a year"),
        ("30/0s", "'30/0s' is no limit: the time must not be 0"),
        ("30/0d", "'30/0d' is no limit: the time must not be 0"),
    ],
)
def test_the_time_of_a_limit_is_a_duration_and_not_nothing(text: str, why: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_limit(text)
    assert str(caught.value).startswith(why)


LIMITS = st.builds(Limit, st.integers(1, 5), st.integers(1, 40).map(lambda n: n / 2))


@given(limit=LIMITS)
def test_a_limit_comes_back_from_its_text(limit: Limit) -> None:
    assert parse_limit(str(limit)) == limit


# --- the window -------------------------------------------------------------------------


def test_a_window_without_a_limit_never_waits_and_keeps_nothing() -> None:
    window = Window(None, [1.0, 2.0])
    for _ in range(5000):
        window.note(3.0)
    assert window.wait(3.0) == 0.0


def test_at_the_limit_the_wait_is_until_the_oldest_leaves() -> None:
    window = Window(Limit(2, 10.0))
    assert window.wait(100.0) == 0.0
    window.note(100.0)
    assert window.wait(100.0) == 0.0
    window.note(103.0)
    assert [window.wait(now) for now in (103.0, 109.5, 110.0, 200.0)] == [7.0, 0.5, 0.0, 0.0]
    window.note(110.0)
    assert window.wait(110.0) == 3.0


def test_a_burst_in_one_instant_waits_the_whole_time() -> None:
    window = Window(Limit(3, 10.0))
    for _ in range(3):
        window.note(100.0)
    assert [window.wait(now) for now in (100.0, 109.0, 110.0)] == [10.0, 1.0, 0.0]


def test_a_window_goes_on_from_the_latest_times_of_an_earlier_one() -> None:
    assert Window(Limit(2, 10.0), [1.0, 95.0, 97.0]).wait(100.0) == 5.0
    assert Window(Limit(2, 10.0), [97.0]).wait(100.0) == 0.0


@given(
    limit=LIMITS,
    pauses=st.lists(st.integers(0, 30).map(lambda n: n / 2), max_size=60),
    cut=st.integers(0, 60),
)
def test_no_window_ever_holds_more_than_the_limit(
    limit: Limit, pauses: list[float], cut: int
) -> None:
    """Halves of seconds are exact, so nothing here is within a rounding."""
    now, window = 1000.0, Window(limit)
    times: list[float] = []
    for n, pause in enumerate(pauses):
        now += pause
        if n == cut:
            window = Window(limit, times)  # as after a restart
        wait = window.wait(now)
        inside = [t for t in times if t > now - limit.seconds]
        # Never too early, and never later than it must be.
        assert (wait > 0) == (len(inside) >= limit.count)
        if wait:
            later = now + wait
            assert len([t for t in times if t > later - limit.seconds]) < limit.count
            assert len([t for t in times if t > later - 0.25 - limit.seconds]) >= limit.count
            continue
        window.note(now)
        times.append(now)
    for start in times:
        assert len([t for t in times if start <= t < start + limit.seconds]) <= limit.count
