"""Times as senders write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from totalizer.collect.times import EARLIEST, canonical_time

LATEST = "2025-09-05T10:05:00.000000Z"
END_OF_TIME = "9999-12-31T23:59:59.999999Z"

GOOD = [
    ("2025-09-05T10:00:00Z", "2025-09-05T10:00:00.000000Z"),
    ("2025-09-05T10:00:00.1Z", "2025-09-05T10:00:00.100000Z"),
    ("2025-09-05T10:00:00.123Z", "2025-09-05T10:00:00.123000Z"),
    ("2025-09-05T10:00:00.1234Z", "2025-09-05T10:00:00.123400Z"),
    ("2025-09-05T10:00:00.123456Z", "2025-09-05T10:00:00.123456Z"),
    ("2025-09-05T10:00:00.123456789Z", "2025-09-05T10:00:00.123456Z"),
    ("2025-09-05T10:00:00.999999999Z", "2025-09-05T10:00:00.999999Z"),
    ("2025-09-05T10:00:00,5Z", "2025-09-05T10:00:00.500000Z"),
    ("2025-09-05t10:00:00z", "2025-09-05T10:00:00.000000Z"),
    ("2025-09-05 10:00:00Z", "2025-09-05T10:00:00.000000Z"),
    ("2025-09-05T10:00Z", "2025-09-05T10:00:00.000000Z"),
    ("2025-09-05T10:00:00+00:00", "2025-09-05T10:00:00.000000Z"),
    ("2025-09-05T10:00:00-00:00", "2025-09-05T10:00:00.000000Z"),
    ("2025-09-05T12:00:00+02:00", "2025-09-05T10:00:00.000000Z"),
    ("2025-09-05T12:00:00+0200", "2025-09-05T10:00:00.000000Z"),
    ("2025-09-05T12:00:00+02", "2025-09-05T10:00:00.000000Z"),
    ("2025-09-05T15:45:00.25+05:45", "2025-09-05T10:00:00.250000Z"),
    ("2025-09-04T22:30:00-11:30", "2025-09-05T10:00:00.000000Z"),
    ("2025-09-06T09:59:00+23:59", "2025-09-05T10:00:00.000000Z"),
    ("2024-02-29T00:00:00Z", "2024-02-29T00:00:00.000000Z"),
    ("1970-01-01T00:00:00Z", EARLIEST),
    ("1969-12-31T23:00:00-01:00", EARLIEST),
    (LATEST, LATEST),
    (1_757_066_400_000, "2025-09-05T10:00:00.000000Z"),
    (1_757_066_400_123, "2025-09-05T10:00:00.123000Z"),
    (100_000_000_000, "1973-03-03T09:46:40.000000Z"),
]


@pytest.mark.parametrize(("sent", "stored"), GOOD)
def test_good_times(sent: str | int, stored: str) -> None:
    assert canonical_time(sent, LATEST) == stored


NO_TIME = "is not an RFC 3339 time"
BAD = [
    *((text, NO_TIME) for text in (
        "", "x", "Z", "now", "2025-09-05", "2025-09-05Z", "2025-W36-5T10:00:00Z", "20250905T100000Z",
        "2025-09-05T10Z", "2025-09-05T24:00:00Z", "2025-09-04T24:00:00Z", "2016-12-31T23:59:60Z",
        "2025-09-05T10:60:00Z", "2025-09-05T10:00:61Z", "2025-13-01T10:00:00Z", "2025-02-29T10:00:00Z",
        "2025-00-01T10:00:00Z", "2025-09-31T10:00:00.000Z", "2025-9-5T10:00:00Z", "2025-09-05T1:00:00Z",
        "2025-09-05T10:00:00.Z", "2025-09-05T10:00:00+24:00", "2025-09-05T10:00:00+01:00:30",
        "2025-09-05T10:00:00ZZ", "2025-09-05T10:00:00Z\n", " 2025-09-05T10:00:00Z", "2025-09-05T10:00:00 Z",
        "+2025-09-05T10:00:00Z", "02025-09-05T10:00:00Z", "٢٠٢٥-09-05T10:00:00Z", "2025-09-05T10:00:0٥Z",
        "2025-09-05T10:00:00.12٣Z", "2025-09-05T10:00:00.123 Z", "2025-09-05T10:00:00.\0\0\0Z", "0000-01-01T00:00:00Z",
        "2025-09-05T10:00:00.+12Z", "2025-09-05T10:00:00.1 2Z", "1757066400000", "a" * 10_000,
    )),
    ("2025-09-05T10:00:00", "names no time zone; end it with Z"),
    ("2025-09-05T10:05:00.000001Z", "is in the future; check the clock"),
    ("2025-09-05T12:06:00+02:00", "is in the future"),
    ("9999-12-31T23:59:59Z", "is in the future"),
    ("9999-12-31T23:59:59-01:00", "lies outside the years 1 to 9999"),
    ("0001-01-01T00:00:00+01:00", "lies outside the years 1 to 9999"),
    ("0001-01-01T00:00:00Z", "is before 1970"),
    ("0999-01-01T00:00:00Z", "is before 1970"),
    ("1969-12-31T23:59:59.999999Z", "is before 1970"),
    (1_757_066_400, "looks like seconds"),
    (0, "looks like seconds"),
    (-1_757_066_400_000, "is not milliseconds since 1970"),
    (99_999_999_999, "looks like seconds"),
    (253_402_300_800_000, "out of range"),
    (10**4000, "a number without end is not milliseconds"),
    (1_757_066_700_001, "is in the future"),
]  # fmt: skip


@pytest.mark.parametrize(("sent", "words"), BAD)
def test_bad_times_are_refused_with_the_value_and_the_reason(sent: str | int, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        canonical_time(sent, LATEST)
    message = str(caught.value)
    assert repr(sent)[1:10] in message or sent == 10**4000
    assert len(message) < 300


OFFSETS = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))
MOMENTS = st.datetimes(datetime(1970, 1, 3), datetime(9999, 12, 29), timezones=OFFSETS)


@given(MOMENTS, st.sampled_from(["auto", "seconds", "milliseconds", "microseconds"]), st.sampled_from("T "))
def test_a_time_is_what_datetime_makes_of_it(moment: datetime, timespec: str, separator: str) -> None:
    text = moment.isoformat(separator, timespec)
    meant = datetime.fromisoformat(text).astimezone(UTC)
    assert canonical_time(text, END_OF_TIME) == meant.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@given(MOMENTS.map(lambda moment: moment.astimezone(UTC)), st.integers(0, 9))
def test_any_number_of_digits_is_cut_to_six(moment: datetime, digits: int) -> None:
    fraction = f"{moment.microsecond:06d}789"[:digits]
    text = moment.strftime("%Y-%m-%dT%H:%M:%S") + (f".{fraction}" if fraction else "") + "Z"
    assert canonical_time(text, END_OF_TIME) == f"{text[:19]}.{fraction[:6]:0<6}Z"


@given(st.integers(100_000_000_000, 253_402_300_799_999))
def test_milliseconds_are_what_datetime_makes_of_them(value: int) -> None:
    meant = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=value)
    assert canonical_time(value, END_OF_TIME) == meant.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@given(st.text(max_size=40) | st.from_regex(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)?"))
def test_any_text_is_a_time_of_27_characters_or_a_value_error(text: str) -> None:
    try:
        stored = canonical_time(text, LATEST)
    except ValueError:
        return
    assert EARLIEST <= stored <= LATEST
    assert datetime.fromisoformat(stored).strftime("%Y-%m-%dT%H:%M:%S.%fZ") == stored
