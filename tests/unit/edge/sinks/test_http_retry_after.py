"""The Retry-After header in both its forms, and in forms it does not have."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from totalizer.edge.sinks.retry_after import RETRY_AFTER_S_MAX, retry_after_s

NOW_S = 1_757_066_400
NOW_NS = NOW_S * 1_000_000_000


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("", None),
        ("0", 0.0),
        (" 120 ", 120.0),
        ("86400", 86_400.0),
        ("86401", RETRY_AFTER_S_MAX),
        ("9" * 5000, RETRY_AFTER_S_MAX),
        ("-5", None),
        ("1.5", None),
        ("١٢", None),
        ("soon", None),
        (formatdate(NOW_S + 30, usegmt=True), 30.0),
        (formatdate(NOW_S + 30), 30.0),
        (formatdate(NOW_S - 30, usegmt=True), 0.0),
        (formatdate(NOW_S + 10**7, usegmt=True), RETRY_AFTER_S_MAX),
        ("Fri, 05 Sep 2025 12:00:30 +0200", 30.0),
        ("Friday, 05-Sep-25 10:00:30 GMT", 30.0),
        ("Fri Sep  5 10:00:30 2025", 30.0),
        ("Fri, 99 Sep 2025 10:00:30 GMT", None),
        ("Fri, 05 Sep 99999999 10:00:30 GMT", None),
    ],
)
def test_seconds_and_dates(value: str | None, expected: float | None) -> None:
    assert retry_after_s(value, None, NOW_NS) == expected


def test_a_date_is_counted_from_the_servers_own_date() -> None:
    ahead = NOW_S + 86_400 * 365
    assert retry_after_s(formatdate(ahead + 30), formatdate(ahead), NOW_NS) == 30.0
    assert retry_after_s(formatdate(NOW_S + 30), "nonsense", NOW_NS) == 30.0


@given(st.text(), st.text())
def test_nothing_in_a_header_hurts(value: str, date: str) -> None:
    seconds = retry_after_s(value, date, NOW_NS)
    assert seconds is None or 0 <= seconds <= RETRY_AFTER_S_MAX
