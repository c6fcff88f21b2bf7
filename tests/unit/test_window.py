"""Buckets, zones and days."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from totalizer.window import BASE, Grain, base_bucket, base_bucket_text, ceil_base, day_start, utc_moment, zone

OFFSETS = st.integers(-24 * 60 + 1, 24 * 60 - 1).map(lambda minutes: timezone(timedelta(minutes=minutes)))
MOMENTS = st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1), timezones=OFFSETS)


@given(MOMENTS)
def test_a_moment_lies_in_its_base_bucket(moment: datetime) -> None:
    start = base_bucket(moment)
    assert start <= moment < start + BASE
    assert start.utcoffset() == timedelta(0)
    assert (start - datetime(1970, 1, 1, tzinfo=UTC)) % BASE == timedelta(0)


@given(MOMENTS)
def test_ceil_base_is_the_first_bucket_not_before(moment: datetime) -> None:
    start = ceil_base(moment)
    assert start - BASE < moment <= start
    assert base_bucket(start) == start


@given(MOMENTS)
def test_the_bucket_of_a_minute_as_text_is_that_of_the_moment(moment: datetime) -> None:
    minute = moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M")
    assert base_bucket_text(minute) == base_bucket(moment).strftime("%Y-%m-%dT%H:%MZ")


def test_every_zone_has_offsets_of_whole_buckets() -> None:
    """What makes 15 minutes the base. A few zones were otherwise until 1979."""
    for name in available_timezones():
        for year in (1980, 2000, 2025):
            for month in (1, 7):
                offset = datetime(year, month, 1, tzinfo=ZoneInfo(name)).utcoffset()
                assert offset is not None
                assert offset % BASE == timedelta(0), (name, year, offset)


@pytest.mark.parametrize(
    "name", ["", "Mars/Olympus", "../etc/passwd", "/etc/passwd", "Europe", "a\0b", "Europe/Berlin ", "x" * 5000, "é"]
)
def test_an_unknown_zone_is_a_value_error_that_names_it(name: str) -> None:
    with pytest.raises(ValueError, match="unknown time zone") as caught:
        zone(name)
    assert repr(name)[:50] in str(caught.value)
    assert "Europe/Berlin" in str(caught.value)


def test_a_zone_is_found_by_name() -> None:
    assert zone("Europe/Berlin").key == "Europe/Berlin"


# What PostgreSQL 18 answers to SELECT day::timestamp AT TIME ZONE zone.
DAY_STARTS = [
    ("UTC", "2025-09-05", "2025-09-05T00:00Z"),
    ("Europe/Berlin", "2025-03-30", "2025-03-29T23:00Z"),
    ("Europe/Berlin", "2025-03-31", "2025-03-30T22:00Z"),
    ("Asia/Kathmandu", "2025-09-05", "2025-09-04T18:15Z"),
    ("Australia/Lord_Howe", "2025-10-05", "2025-10-04T13:30Z"),
    ("Australia/Lord_Howe", "2025-10-06", "2025-10-05T13:00Z"),
    # The clock jumps from 00:00 to 01:00: the day begins with the jump.
    ("America/Sao_Paulo", "2018-11-04", "2018-11-04T03:00Z"),
    ("America/Sao_Paulo", "2018-11-05", "2018-11-05T02:00Z"),
    # At 01:00 back to 00:00: midnight is there twice, the later one counts.
    ("America/Havana", "2025-11-02", "2025-11-02T05:00Z"),
    ("America/Havana", "2025-11-01", "2025-11-01T04:00Z"),
    # At 24:00 back to 23:00: midnight is there once, at the second end of the day before.
    ("America/Sao_Paulo", "2018-02-18", "2018-02-18T03:00Z"),
    # A day that Samoa did not have: it begins where the next one does.
    ("Pacific/Apia", "2011-12-30", "2011-12-30T10:00Z"),
    ("Pacific/Apia", "2011-12-31", "2011-12-30T10:00Z"),
]


@pytest.mark.parametrize(("name", "day", "starts"), DAY_STARTS)
def test_days_start_where_postgresql_starts_them(name: str, day: str, starts: str) -> None:
    assert day_start(date.fromisoformat(day), ZoneInfo(name)) == datetime.fromisoformat(starts)


@given(
    st.dates(date(1975, 1, 1), date(2036, 1, 1)),
    st.sampled_from(["Europe/Berlin", "America/Sao_Paulo", "America/Havana", "Australia/Lord_Howe", "Asia/Kathmandu"]),
)
def test_days_follow_one_another(day: date, name: str) -> None:
    start, following = (day_start(day + timedelta(days=ahead), ZoneInfo(name)) for ahead in (0, 1))
    assert timedelta(hours=22) <= following - start <= timedelta(hours=26)
    assert start.astimezone(ZoneInfo(name)).date() == day
    assert (following - timedelta(hours=3)).astimezone(ZoneInfo(name)).date() == day


def test_grains_tell_calendar_windows_from_even_ones() -> None:
    assert [grain.value for grain in Grain] == ["1m", "5m", "15m", "1h", "1d", "1w", "1mo", "1q", "1y"]
    assert [grain for grain in Grain if grain.calendar] == list(Grain)[4:]
    assert [grain.minutes for grain in Grain] == [1, 5, 15, 60, 0, 0, 0, 0, 0]
    assert [grain.months for grain in Grain] == [0, 0, 0, 0, 0, 0, 1, 3, 12]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2025-01-09", "2025-01-09T00:00+00:00"), ("2025-01-09T14:00", "2025-01-09T14:00+00:00"),
        ("2025-01-09T14:00+02:00", "2025-01-09T12:00+00:00"), ("2025-01-09T14:00Z", "2025-01-09T14:00+00:00"),
    ],
)  # fmt: skip
def test_a_time_that_names_no_zone_is_utc(text: str, moment: str) -> None:
    assert utc_moment(text).isoformat(timespec="minutes") == moment


def test_what_is_no_time_is_told_what_is() -> None:
    with pytest.raises(ValueError, match="must be an ISO 8601 date or time"):
        utc_moment("yesterday")
