"""The table that bills are made from equals the events of finished days: what was changed by hand is set right.

         finished days        yesterday   today
────────────────────────────│───────────│──────
 compared with the events      the aggregation's
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest

from scheduled import settings_of
from totalizer.jobs.run import Outcome, Runner
from totalizer.jobs.table import job_named
from totalizer.rollup.repair import repair, wrong_of
from totalizer.rollup.verify import Balance, Scope, verify

DAY = date(2025, 11, 1)
#: What is done by hand to a row of 7, and what is told of it.
CHANGES = (
    ("UPDATE totalizer.merchant_usage SET metric_value = 8", 8),
    ("UPDATE totalizer.merchant_usage SET metric_value = 6", 6),
    ("DELETE FROM totalizer.merchant_usage", None),
)


@pytest.fixture
def billed(shop: Any) -> Any:
    """Three days of two organisations are tracked, rolled up and aggregated."""
    for organization in ("default", "other"):
        with shop.tracker(organization) as tracker:
            for merchant, metric, amount in (("m1", "queries", 4), ("m1", "queries", 3), ("m2: {ö}", "tokens", 2**53)):
                for day in (DAY, DAY + timedelta(days=1), shop.today):
                    tracker.track(merchant, metric, amount, at=f"{day}T00:00:00Z")
    bring_in(shop)
    shop.job().aggregate_date_range(DAY, DAY + timedelta(days=1))
    return shop


def bring_in(shop: Any) -> None:
    shop.feed.load()
    shop.feed.refresh()


def usage_of(shop: Any, **scope: Any) -> list[Balance]:
    """The balances of usage that are not exact."""
    scope = {"event_type": "usage_records", **scope}
    return [balance for balance in verify(shop.feed.reader, Scope(**scope)) if not balance.exact]


def told(balance: Balance) -> list[str]:
    return [
        f"{cell.starts} {' '.join(cell.dimensions.values())}: should be {expected}, is {found}"
        for cell in balance.cells
        for expected, found in cell.values.values()
    ]


def test_a_number_changed_by_hand_is_found_named_and_set_right(billed: Any) -> None:
    before = billed.tables()
    assert usage_of(billed) == []
    for statement, found in CHANGES:
        billed.feed.administrator.execute(
            f"{statement} WHERE merchant_id = 'm1' AND date = '{DAY}' AND organization_id = '{billed.organization_id}'"
        )
        [wrong] = usage_of(billed)
        assert (wrong.organization, wrong.mismatches) == ("default", {"merchant_usage (day)": 1})
        assert told(wrong) == [f"{DAY} m1 queries: should be 7, is {found}"]
        assert wrong.only_late_usage is (found != 8)
        assert sum(repair(billed.feed.reader, each, repaired_by="a test") for each in wrong_of(wrong.cells)) == 1
        assert billed.tables() == before
    noted = billed.feed.rows("SELECT repaired_by, rollup, grain, rows, changes FROM totalizer.repairs ORDER BY id")
    assert {row[:4] for row in noted} == {("a test", "merchant_usage", "1d", 1)}
    assert [changes[0]["found"] and changes[0]["found"]["metric_value"] for *_, changes in noted] == [8, 6, None]
    assert noted[0][4][0]["dimensions"] == {"merchant_id": "m1", "metric_type": "queries"}


def test_what_is_compared_can_be_narrowed(billed: Any) -> None:
    billed.feed.administrator.execute(
        f"UPDATE totalizer.merchant_usage SET metric_value = 8 WHERE merchant_id = 'm1' AND date = '{DAY}'"
    )
    assert [balance.organization for balance in usage_of(billed)] == ["default", "other"]
    assert [balance.organization for balance in usage_of(billed, organization="other")] == ["other"]
    assert len(usage_of(billed, rollup="usage_by_metric")) == 2
    assert usage_of(billed, event_type=None, rollup="command_usage") == []
    later = billed.feed.one("SELECT '2025-11-01T00:00:01Z'::timestamptz")
    assert usage_of(billed, since=later) == [], "the day begins before"


def test_what_cannot_be_compared_is_left_out(billed: Any) -> None:
    """What is the aggregation's still, what has no events, marked days and those below the floor."""
    billed.feed.administrator.execute(f"DELETE FROM totalizer.merchant_usage WHERE date = '{billed.today}'")
    billed.redis.set(f"usage:another:{DAY}:queries", 5)
    billed.job().run(DAY)
    assert billed.table()["another", str(DAY), "queries"] == 5
    assert usage_of(billed) == []
    billed.feed.administrator.execute("UPDATE totalizer.merchant_usage SET metric_value = 1 WHERE merchant_id = 'm1'")
    assert [sum(balance.mismatches.values()) for balance in usage_of(billed)] == [2, 2]
    billed.feed.administrator.execute(
        "INSERT INTO totalizer.dirty_marks (organization_id, event_type, bucket) "
        "SELECT id, 'usage_records', '2025-11-02T12:00Z' FROM totalizer.organizations"
    )
    assert [sum(balance.mismatches.values()) for balance in usage_of(billed)] == [1, 1]
    billed.feed.administrator.execute(
        "INSERT INTO totalizer.retention_floors (event_type, raw_floor, base_floor) "
        "VALUES ('usage_records', '2025-11-04Z', '2025-11-01T12:00Z')"
    )
    assert usage_of(billed) == []


def test_the_nightly_job_brings_late_usage_in_and_fails_for_what_is_too_much(billed: Any) -> None:
    with billed.tracker() as tracker:
        tracker.track("m1", "queries", 5, at=f"{DAY}T12:00:00Z")
        tracker.track("m3", "queries", 2, at=f"{DAY}T12:00:00Z")
    bring_in(billed)
    [wrong] = usage_of(billed)
    assert told(wrong) == [f"{DAY} m1 queries: should be 12, is 7", f"{DAY} m3 queries: should be 2, is None"]
    done = nightly(billed)
    assert done.state == "done", done.error
    assert (done.result or {})["late_usage_rows"] == 2
    assert usage_of(billed) == []
    administrator = billed.feed.administrator
    administrator.execute("UPDATE totalizer.merchant_usage SET metric_value = 1 WHERE merchant_id = 'm1'")
    administrator.execute("UPDATE totalizer.merchant_usage SET metric_value = 3 WHERE merchant_id = 'm3'")
    failed = nightly(billed)
    assert failed.state == "failed"
    assert "1 of 2 do not balance: default/usage_records" in str(failed.error)
    values = {key: value for key, value in billed.tables().items() if key[1] == "m1" and key[2] != str(billed.today)}
    assert {value for key, value in values.items() if key[0] != billed.organization_id} == {7}
    assert {value for key, value in values.items() if key[0] == billed.organization_id} == {1}, "left to a person"


def nightly(shop: Any) -> Outcome:
    """The job `verify`."""
    settings = settings_of(shop.feed.database)
    return Runner(settings, "test").run_now(job_named(settings, "verify"))
