"""Schedules: the moments before and after any other, over changes of the clock too.

──●───────────●───────now───●──▶        ● moments of the schedule
           before          after
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from totalizer.jobs.schedule import Cron, Every, Schedule

NEW_YORK = ZoneInfo("America/New_York")
SCHEDULES: list[Schedule] = [
    Every(timedelta(milliseconds=500)), Every(timedelta(minutes=15)), Every(timedelta(hours=6)), Cron(5), Cron(0, 1),
    Cron(0, 2, weekday=0), Cron(30, 2, day=1), Cron(30, 2, zone=NEW_YORK), Cron(5, zone=NEW_YORK),
    Cron(30, 1, day=28, zone=NEW_YORK), Cron(15, 0, weekday=6, zone=ZoneInfo("Asia/Kathmandu")),
    Cron(45, zone=ZoneInfo("Australia/Lord_Howe")),
]  # fmt: skip
MOMENTS = st.datetimes(datetime(1990, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))


@given(st.sampled_from(SCHEDULES), MOMENTS)
def test_no_moment_lies_between_the_one_before_and_the_one_after(schedule: Schedule, now: datetime) -> None:
    before, after = schedule.before(now), schedule.after(now)
    assert before <= now < after
    assert schedule.after(before) == after
    assert schedule.before(after) == after
    assert schedule.before(after - timedelta(microseconds=1)) == before


@pytest.mark.parametrize(
    ("schedule", "now", "before", "after"),
    [
        (Every(timedelta(minutes=15)), "2026-11-22T09:14:59", "2026-11-22T09:00", "2026-11-22T09:15"),
        (Cron(5), "2026-11-22T09:05", "2026-11-22T09:05", "2026-11-22T10:05"),
        (Cron(0, 1), "2026-11-22T00:59", "2026-11-21T01:00", "2026-11-22T01:00"),
        (Cron(0, 2, weekday=0), "2026-11-22T09:00", "2026-11-16T02:00", "2026-11-23T02:00"),
        (Cron(30, 2, day=1), "2026-03-01T02:29", "2026-02-01T02:30", "2026-03-01T02:30"),
        # 8 March 2026: from 02:00 to 03:00. The moment that is left out of the clock comes an hour later by it.
        (Cron(30, 2, zone=NEW_YORK), "2026-03-08T08:00", "2026-03-08T07:30", "2026-03-09T06:30"),
        # 1 November 2026: 01:00 to 02:00 come twice; the first counts, and hourly ones come in both.
        (Cron(30, 1, zone=NEW_YORK), "2026-11-01T06:45", "2026-11-01T05:30", "2026-11-02T06:30"),
        (Cron(30, zone=NEW_YORK), "2026-11-01T06:00", "2026-11-01T05:30", "2026-11-01T06:30"),
    ],
)
def test_moments(schedule: Schedule, now: str, before: str, after: str) -> None:
    moment, earlier, later = (datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (now, before, after))
    assert (schedule.before(moment), schedule.after(moment)) == (earlier, later)


@pytest.mark.parametrize(
    ("schedule", "text"),
    [
        (Every(timedelta(milliseconds=500)), "every 0.5 s"), (Every(timedelta(minutes=15)), "every 15 min"),
        (Every(timedelta(hours=6)), "every 6 h"), (Cron(5), "hourly at :05"), (Cron(0, 1), "daily 01:00 UTC"),
        (Cron(0, 2, weekday=0), "Monday 02:00 UTC"),
        (Cron(30, 2, day=1, zone=NEW_YORK), "monthly, day 1, 02:30 America/New_York"),
    ],
)  # fmt: skip
def test_words(schedule: Schedule, text: str) -> None:
    assert schedule.text == text
