"""Time as text."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from totalizer.clock import SYSTEM_CLOCK, utc_datetime, utc_text

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MOMENTS = st.integers(min_value=-62_135_596_800_000_000_000, max_value=253_402_300_799_999_999_999)


@given(MOMENTS)
def test_text_is_what_datetime_says_cut_to_the_microsecond(now_ns: int) -> None:
    moment = EPOCH + timedelta(microseconds=now_ns // 1000)
    assert utc_datetime(now_ns) == moment
    text = utc_text(now_ns)
    assert len(text) == 27
    assert datetime.fromisoformat(text) == moment


@given(MOMENTS, MOMENTS)
def test_text_order_is_time_order(one: int, other: int) -> None:
    assert (utc_text(one) <= utc_text(other)) == (one // 1000 <= other // 1000)


def test_the_system_clock_is_the_machines() -> None:
    before_ns, before = time.time_ns(), time.monotonic()
    SYSTEM_CLOCK.sleep(0.001)
    assert before_ns < SYSTEM_CLOCK.now_ns()
    assert before + 0.001 <= SYSTEM_CLOCK.monotonic()
