"""Turns of marks, moves of organisations between zones, corrections by hand, and what the commands say of it."""

from __future__ import annotations

from typing import Any

import pytest

from totalizer.errors import OperationError
from totalizer.rollup import refresh as engine
from totalizer.rollup.marks import BACKFILL, LIVE, WORK_TABLES, turns
from totalizer.rollup.refresh import refresh, refresh_shards
from totalizer.rollup.verify import verify
from totalizer.rollup.zones import check_zones, set_zone
from totalizer.store.keys import list_organizations
from totalizer.store.roles import Role

MARK = (
    "INSERT INTO totalizer.dirty_marks (organization_id, event_type, bucket, priority, rollup) "
    "SELECT %s, 'command_executions', bucket, %s, %s "
    "FROM generate_series('2025-01-01Z'::timestamptz, '2025-01-01 23:45Z', '15 minutes') AS bucket"
)


def filled(feed: Any, command: Any, zone: str = "UTC") -> str:
    organization: str = feed.organization("acme", zone)
    moments = [f"2025-01-{day:02d}T{hour:02d}:05:00Z" for day in (1, 2, 31) for hour in range(0, 24, 3)]
    feed.send(organization, command_executions=[command(executed_at=moment) for moment in moments])
    feed.load()
    return organization


def test_live_marks_come_before_a_backfill_and_stop_it(feed: Any, command: Any, monkeypatch: Any) -> None:
    organization = filled(feed, command)
    feed.refresh()
    feed.administrator.execute(MARK, [organization, BACKFILL, None])
    assert [turn.priority for turn in turns(feed.reader)] == [BACKFILL]
    feed.send(organization, command_executions=[command(executed_at="2025-01-01T12:06:00Z")])
    feed.load()
    assert [turn.priority for turn in turns(feed.reader)] == [LIVE]
    pieces: list[int] = []
    monkeypatch.setattr(engine, "_backfill_all", lambda connection: 0)
    pieces.append(refresh(feed.reader).buckets)
    # The backfill's mark on the same bucket is settled by the same work.
    assert pieces == [1]
    assert feed.one("SELECT count(*) FROM totalizer.dirty_marks") == 95
    monkeypatch.undo()
    assert feed.refresh() == 95
    assert all(balance.exact for balance in verify(feed.reader))


def test_a_mark_of_one_rollup_leaves_the_others_alone(feed: Any, command: Any) -> None:
    organization = filled(feed, command)
    feed.refresh()
    feed.administrator.execute("UPDATE analytics.command_usage_15m SET executions = 99")
    feed.administrator.execute(MARK, [organization, LIVE, "another"])
    assert feed.refresh() == 96
    assert feed.one("SELECT min(executions) FROM analytics.command_usage_15m") == 99
    feed.administrator.execute(MARK, [organization, LIVE, "command_usage"])
    feed.refresh()
    wrong = "SELECT count(*) FROM analytics.command_usage_15m WHERE executions = 99 AND bucket < '2025-01-02Z'"
    assert feed.one(wrong) == 0


def test_a_worker_leaves_to_others_what_they_have_locked(feed: Any, command: Any) -> None:
    filled(feed, command)
    [turn] = turns(feed.reader)
    other = feed.database.connect(Role.REFRESHER)
    with other.transaction():
        other.execute("SELECT pg_advisory_xact_lock(hashtext('rollup ' || %s), %s)", [turn.event_type, turn.shard])
        assert refresh(feed.reader) == (0, 1)
        assert refresh_shards(feed.reader, turn.event_type, [turn.shard]) is None
    assert feed.refresh() == 24


def test_many_live_marks_are_worked_off_in_spans_of_time_and_event_types_take_turns(
    feed: Any, command: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(engine, "MARKS_MAX", 8)
    monkeypatch.setattr(engine, "DENSE_BUCKETS_MIN", 1)
    monkeypatch.setattr(engine, "BACKFILL_EVENTS_MAX", 0)  # so that a span is as short as it can be
    organization = filled(feed, command)
    other = {
        "user_id": command()["user_id"], "agent_name": "a", "interaction_type": "t", "execution_time_ms": 1,
        "status": "success",
    }  # fmt: skip
    feed.send(organization, agent_interactions=[other | {"occurred_at": f"2025-01-0{day}T01:00:00Z"} for day in (1, 9)])
    feed.load()
    seen: list[tuple[str, str, int]] = []

    def watched(name: str) -> Any:
        really = getattr(engine, name)

        def call(connection: Any, event_type: str, *more: Any) -> Any:
            done = really(connection, event_type, *more)
            seen.append((name, event_type, done.buckets))
            return done

        return call

    for name in ("backfill", "refresh_shards"):
        monkeypatch.setattr(engine, name, watched(name))
    assert refresh(feed.reader).buckets == 26
    assert [each for each in seen if each[1] == "agent_interactions"] == [("refresh_shards", "agent_interactions", 2)]
    pieces = [(name, buckets) for name, event_type, buckets in seen if event_type == "command_executions"]
    assert pieces == [("refresh_shards", 8), *[("backfill", 1)] * 16]
    assert all(balance.exact for balance in verify(feed.reader))


@pytest.mark.parametrize("priority", [LIVE, BACKFILL])
def test_weeks_and_months_are_computed_with_the_last_mark_in_them(
    feed: Any, command: Any, monkeypatch: Any, priority: int
) -> None:
    monkeypatch.setattr(engine, "BACKFILL_EVENTS_MAX", 0)  # so that a span is as short as it can be
    organization = filled(feed, command, "America/Lima")
    feed.send(organization, command_executions=[command(executed_at="2025-02-01T05:00:00Z")])
    feed.load()
    feed.administrator.execute("UPDATE totalizer.dirty_marks SET priority = %s", [priority])
    shards = [turn.shard for turn in turns(feed.reader)]
    feed.reader.execute(WORK_TABLES)

    def totals(grain: str, suffix: str) -> list[str]:
        found = feed.rows(
            f"SELECT {grain}, sum(executions)::int FROM analytics.command_usage_{suffix} GROUP BY 1 ORDER BY 1"
        )
        return [f"{first:%m-%d}: {executions}" for first, executions in found]

    def spans(count: int) -> tuple[list[str], list[str]]:
        for _ in range(count):
            assert engine.backfill(feed.reader, "command_executions", shards, priority).buckets == 1
        # What is left out of a comparison is no mistake.
        [balance] = verify(feed.reader)
        assert (balance.mismatches, balance.dirty_buckets) == (
            {},
            feed.one("SELECT count(*) FROM totalizer.dirty_marks"),
        )
        return totals("week", "1w"), totals("month", "1mo")

    # Midnight of the first of February there; then the whole of its week, of which January has seven hours more.
    assert spans(1) == ([], ["02-01: 1"])
    assert spans(8) == (["01-27: 9"], ["02-01: 1"])
    assert spans(13) == (["01-27: 9"], ["02-01: 1"])
    assert spans(1) == (["01-27: 9"], ["01-01: 22", "02-01: 1"])
    # The first two events are of December there, and of the same week.
    assert spans(1) == (["01-27: 9"], ["01-01: 22", "02-01: 1"])
    assert spans(1) == (["12-30: 16", "01-27: 9"], ["12-01: 2", "01-01: 22", "02-01: 1"])


def test_a_mark_of_one_rollup_holds_up_the_weeks_of_no_other(feed: Any, command: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(engine, "BACKFILL_EVENTS_MAX", 0)
    organization = filled(feed, command)
    feed.refresh()
    feed.administrator.execute("DELETE FROM analytics.command_usage_1w")
    feed.administrator.execute(MARK, [organization, BACKFILL, "another"])
    feed.administrator.execute(
        "INSERT INTO totalizer.dirty_marks (organization_id, event_type, bucket, priority) "
        "VALUES (%s, 'command_executions', '2025-01-02T21:00:00Z', %s)",
        [organization, BACKFILL],
    )
    [turn] = turns(feed.reader)
    assert engine.backfill(feed.reader, "command_executions", [turn.shard]).buckets == 1
    assert feed.rows("SELECT week::text, sum(executions)::int FROM analytics.command_usage_1w GROUP BY 1") == [
        ("2024-12-30", 16)
    ]


def test_what_is_older_is_computed_while_newer_events_keep_coming(feed: Any, command: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(engine, "MARKS_MAX", 8)
    monkeypatch.setattr(engine, "DENSE_BUCKETS_MIN", 1)
    monkeypatch.setattr(engine, "BACKFILL_EVENTS_MAX", 0)
    organization = filled(feed, command)
    really, left = engine.backfill, []

    def busy(connection: Any, *more: Any, **named: Any) -> Any:
        done = really(connection, *more, **named)
        left.append(feed.one("SELECT count(*) FROM totalizer.dirty_marks WHERE bucket < '2025-02-01Z'"))
        if len(left) < 100 and left[-1]:
            feed.administrator.execute(
                "INSERT INTO totalizer.dirty_marks (organization_id, event_type, bucket) "
                "VALUES (%s, 'command_executions', '2025-03-01Z')",
                [organization],
            )
        return done

    monkeypatch.setattr(engine, "backfill", busy)
    feed.refresh()
    # Eight are taken at first; then each turn has one of the new and one of the old.
    assert left[:5] == [15, 15, 14, 14, 13]
    assert len(left) < 100
    assert all(balance.exact for balance in verify(feed.reader))


def test_taking_marks_reads_no_more_of_the_index_than_it_takes(feed: Any, command: Any) -> None:
    organization = filled(feed, command)
    feed.administrator.execute(
        "INSERT INTO totalizer.dirty_marks (organization_id, event_type, bucket) SELECT %s, 'command_executions', "
        "'2025-01-01Z'::timestamptz + n * interval '15 minutes' FROM generate_series(1, 50000) AS n",
        [organization],
    )
    feed.administrator.execute("VACUUM ANALYZE totalizer.dirty_marks")
    [turn] = turns(feed.reader)
    [(plan,)] = feed.reader.execute(
        "EXPLAIN (ANALYZE, FORMAT JSON) SELECT bucket FROM totalizer.dirty_marks "
        "WHERE event_type = %s AND shard = %s AND priority = 0 ORDER BY bucket DESC LIMIT 100",
        [turn.event_type, turn.shard],
    ).fetchall()
    scan = plan[0]["Plan"]["Plans"][0]
    assert scan["Index Name"] == "dirty_marks_by_turn"
    assert scan["Actual Rows"] == 100


def test_an_organisation_moves_to_another_zone(feed: Any, command: Any) -> None:
    organization = filled(feed, command)
    feed.refresh()
    change = set_zone(feed.administrator, "acme", "Asia/Kathmandu")
    assert change == (organization, "UTC", "Asia/Kathmandu", 5, None)
    assert [row.time_zone for row in list_organizations(feed.administrator)] == ["Asia/Kathmandu"]
    assert all(balance.exact for balance in verify(feed.reader)), "what is marked is left out, all else is right"
    assert feed.one("SELECT count(*) FROM analytics.command_usage_1d") == 0
    # Quarters are as they were, and are not computed again.
    assert feed.one("SELECT count(*) FROM totalizer.dirty_marks WHERE scope = 'events'") == 0
    feed.refresh()
    days = feed.rows("SELECT day::text, sum(executions)::int FROM analytics.command_usage_1d GROUP BY 1 ORDER BY 1")
    # 18:15 UTC is midnight there.
    assert days == [("2025-01-01", 7), ("2025-01-02", 8), ("2025-01-03", 1), ("2025-01-31", 7), ("2025-02-01", 1)]
    months = feed.rows(
        "SELECT month::text, sum(executions)::int FROM analytics.command_usage_1mo GROUP BY 1 ORDER BY 1"
    )
    assert months == [("2025-01-01", 23), ("2025-02-01", 1)]
    assert all(balance.exact for balance in verify(feed.reader))


@pytest.mark.parametrize(("name", "zone"), [("nobody", "UTC"), ("acme", "Mars/Olympus"), ("acme", "+01:00")])
def test_who_or_what_is_not_known_is_refused(feed: Any, name: str, zone: str) -> None:
    feed.organization("acme")
    with pytest.raises(OperationError, match=r"there is no organisation 'nobody'|is not known; use an IANA name"):
        set_zone(feed.administrator, name, zone)


def test_a_change_of_the_time_zone_database_is_found_and_mended(feed: Any, command: Any) -> None:
    filled(feed, command, "Europe/Berlin")
    feed.organization("elsewhere", "America/Lima")
    feed.refresh()
    assert check_zones(feed.reader) == {}, "the first look has nothing to compare with"
    assert check_zones(feed.reader) == {}
    # As a database leaves it whose clocks were others in January 2025: an event stands on another day.
    feed.administrator.execute(
        "UPDATE totalizer.zone_fingerprints SET fingerprint = '' "
        "WHERE month = '2025-01-01' AND time_zone = 'Europe/Berlin'"
    )
    feed.administrator.execute("UPDATE analytics.command_usage_1d SET day = day + 7 WHERE day = '2025-01-02'")
    assert check_zones(feed.reader) == {"zones": ["Europe/Berlin"], "days": 3}
    feed.refresh()
    assert all(balance.exact for balance in verify(feed.reader))
    assert check_zones(feed.reader) == {}


@pytest.mark.parametrize("table", ["events.command_executions", "partitions.command_executions_p20250102"])
def test_corrections_by_the_table_or_by_a_partition_mark_what_they_touch(feed: Any, command: Any, table: str) -> None:
    filled(feed, command)
    feed.refresh()
    marked = "SELECT count(DISTINCT bucket) FROM totalizer.dirty_marks WHERE bucket::date = '2025-01-02'"
    feed.administrator.execute(
        f"UPDATE {table} SET status = 'error' WHERE executed_at < '2025-01-02T03:00:00Z'".encode()
    )
    assert feed.one(marked) == 1
    feed.administrator.execute(f"DELETE FROM {table} WHERE executed_at > '2025-01-02T20:00:00Z'".encode())
    assert feed.one(marked) == 2
    feed.administrator.execute(f"TRUNCATE {table}".encode())
    assert feed.one(marked) == 8
    feed.refresh()
    assert [balance.mismatches for balance in verify(feed.reader)] == [{}]
