"""Durations are read with a unit or as seconds, and written with a unit."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.duration import MAX_DURATION, format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("30s", 30),
        ("1.5m", 90),
        ("2h", 7200),
        ("7d", 604_800),
        ("1h30m", 5400),
        ("1d2h3m4s5ms", 93_784.005),
        ("0s1ms", 0.001),
        ("90m", 5400),
        (" 30s\n", 30),
        ("30", 30),
        ("1.5", 1.5),
        (" 10 ", 10),
        ("366d", 31_622_400),
    ],
)
def test_a_duration_is_read_with_its_unit(text: str, seconds: float) -> None:
    """Fractions, sequences of units and surrounding blanks are accepted; without a unit it is seconds."""
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "s", "0s", "0", "-5s", "+5s", "30 s", "30S", "30sec", "5us", "1e3s", ".5s",
        "5.s", "1_0s", "30m1h", "1s1s", "1h,30m", "٣s", "nan", "inf", "nans", "infs", "366d1ms", "0.0000001s",
        "9" * 400 + "d", "999999999999d", "30s; rm", "1h30",
    ],
)  # fmt: skip
def test_an_invalid_duration_is_rejected_with_the_expected_form(text: str) -> None:
    """After a number with a unit, a number without one could be of any unit."""
    with pytest.raises(ValueError, match=r"expected a number of seconds, or a duration with a unit.*at most 366d"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(0), "0s"),
        (timedelta(milliseconds=500), "500ms"),
        (timedelta(microseconds=1500), "1.5ms"),
        (timedelta(seconds=2.5), "2.5s"),
        (timedelta(seconds=10), "10s"),
        (timedelta(seconds=60), "1m"),
        (timedelta(minutes=90), "1h30m"),
        (timedelta(days=7), "7d"),
        (timedelta(days=1, microseconds=1), "1d0.000001s"),
        (timedelta(seconds=-90), "-1m30s"),
    ],
)
def test_a_duration_is_written_in_its_shortest_form(duration: timedelta, text: str) -> None:
    """With large units first, and fractions only below a minute."""
    assert format_duration(duration) == text


@given(st.timedeltas(min_value=timedelta(microseconds=1), max_value=MAX_DURATION))
def test_a_written_duration_is_read_as_the_same_value(duration: timedelta) -> None:
    """To the microsecond, over the whole range."""
    assert parse_duration(format_duration(duration)) == duration
