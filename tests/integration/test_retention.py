"""What is older than it is to be kept goes, and nothing else does; late events are counted all the same."""

from __future__ import annotations

import threading
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import pytest

from totalizer.catalog.retention import Retention, complete
from totalizer.errors import OperationError
from totalizer.rollup.late import apply_late
from totalizer.rollup.retention import cleanup_old_data
from totalizer.rollup.verify import verify
from totalizer.rollup.zones import set_zone
from totalizer.store import late, partitions, retention
from totalizer.store.late import Selection
from totalizer.store.roles import Role

#: The day on which tests begin: far from any clock change.
TODAY = date(2026, 6, 15)


def at(days_ago: float, today: date = TODAY) -> str:
    """A moment so many days before noon of a day."""
    return (datetime(today.year, today.month, today.day, 12, tzinfo=UTC) - timedelta(days=days_ago)).isoformat()


def send(feed: Any, command: Any, organization: str, *days_ago: float, ids: bool = True, **fields: Any) -> None:
    """Commands of some ages, loaded."""
    events = [command(executed_at=at(age), **({"id": f"{age}"} if ids else {}), **fields) for age in days_ago]
    feed.send(organization, command_executions=events)
    feed.load()


def totals(feed: Any, organization: str) -> dict[str, int]:
    """Executions of an organisation in each grain's table."""
    return {
        grain: int(
            feed.one(
                f"SELECT coalesce(sum(executions), 0) FROM analytics.command_usage_{grain} WHERE organization_id = %s",
                organization,
            )
        )
        for grain in ("15m", "1h", "1d", "1w", "1mo")
    }


def stored(feed: Any, organization: str) -> int:
    return int(feed.one("SELECT count(*) FROM events.command_executions WHERE organization_id = %s", organization))


def set_days(feed: Any, organization: str | None, raw: int | None, **more: Any) -> None:
    retention.set_retention(feed.administrator, "command_executions", organization, complete(raw, **more))


def clean(feed: Any, today: date = TODAY, **more: Any) -> dict[str, Any]:
    return cleanup_old_data(feed.reader, today=today, **more)


def test_each_grain_is_kept_for_its_time_and_days_for_ever(feed: Any, command: Any) -> None:
    """
    days ago   400      200      150     100      50     1
    events      .        .        .       .       x      x     90
    15 min      .        .        .       x       x      x     120
    hours       .        .        x       x       x      x     180
    days        x        x        x       x       x      x
    """
    organization = feed.organization()
    send(feed, command, organization, 400, 200, 150, 100, 50, 1)
    feed.refresh()
    result = clean(feed)
    assert (result["status"], result["retention_days"]) == ("done", 90)
    assert (result["partitions_dropped"], result["events_removed"]) == (4, 4)
    assert result["rollup_rows_removed"] == {"command_usage_15m": 3, "command_usage_1h": 2}
    assert result["ids_forgotten"] == 3, "ids are remembered 30 days longer than events"
    assert stored(feed, organization) == 2
    assert totals(feed, organization) == {"15m": 3, "1h": 4, "1d": 6, "1w": 6, "1mo": 6}
    again = clean(feed)
    assert (again["events_removed"], again["partitions_dropped"], again["ids_forgotten"]) == (0, 0, 0)
    assert all(balance.exact for balance in verify(feed.reader))


def test_what_is_still_to_be_rolled_up_stays(feed: Any, command: Any) -> None:
    organization = feed.organization()
    send(feed, command, organization, 130, 120, 110)
    feed.refresh()
    send(feed, command, organization, 120.01)
    result = clean(feed)
    assert result["partitions_dropped"] == 1, "only what is older than the marked bucket"
    assert stored(feed, organization) == 3
    feed.refresh()
    assert clean(feed)["partitions_dropped"] == 2
    assert totals(feed, organization)["1d"] == 4
    assert all(balance.exact for balance in verify(feed.reader))


def test_a_mark_of_any_scope_and_rollup_keeps_its_partition(feed: Any, command: Any) -> None:
    organization = feed.organization()
    send(feed, command, organization, 120)
    feed.refresh()
    bucket = at(120)
    for columns, values in (("rollup, priority", "'command_usage', 1"), ("scope", "'days'")):
        feed.reader.execute(
            f"INSERT INTO totalizer.dirty_marks (organization_id, event_type, bucket, {columns}) "
            f"VALUES (%s, 'command_executions', %s, {values})",
            [organization, bucket],
        )
        assert clean(feed)["partitions_dropped"] == 0
        feed.refresh()
    assert clean(feed)["partitions_dropped"] == 1


def test_one_organisation_may_keep_less_and_another_more(feed: Any, command: Any) -> None:
    usual, short, long = (feed.organization(name) for name in ("usual", "short", "long"))
    set_days(feed, "short", 10)
    set_days(feed, "long", 150)
    for organization in (usual, short, long):
        send(feed, command, organization, 140, 100, 50, 5)
    feed.refresh()
    result = clean(feed)
    assert result["partitions_dropped"] == 0, "long's events hold the partitions"
    assert result["events_removed"] == 2 + 3
    assert [stored(feed, each) for each in (usual, short, long)] == [2, 1, 4]
    assert all(balance.exact for balance in verify(feed.reader))
    # A partition goes after 180 days whatever one organisation has set.
    set_days(feed, "long", 1000)
    later = clean(feed, TODAY + timedelta(days=60))
    assert later["partitions_dropped"] == 1
    assert [stored(feed, each) for each in (usual, short, long)] == [1, 0, 3]
    assert all(balance.exact for balance in verify(feed.reader))


def test_what_is_set_goes_before_what_is_declared_and_that_before_what_is_asked_for(feed: Any) -> None:
    applied = {"a": None, "commits": Retention(None, None, None)}
    types = {name: type("T", (), {"retention": declared})() for name, declared in applied.items()}
    said = [
        retention.Set("a", "one", "one", 500, 530, 1000, None),
        retention.Set("commits", None, None, 9, 39, 39, None),
    ]
    found = retention.effective(types, said, retention.Policy(90, 180), 30)  # type: ignore[arg-type]
    assert found["a", None] == Retention(30, 60, 60)
    assert found["a", "one"].raw_days == 180, "the bound of partitions"
    assert found["commits", None].raw_days == 9
    unsaid = retention.effective(types, [], retention.Policy(90, 180), 30)  # type: ignore[arg-type]
    assert unsaid["commits", None].raw_days is None, "what is declared is not shortened by what is asked for"


def test_commits_are_kept_for_ever(feed: Any) -> None:
    organization = feed.organization()
    commit = {"repository": "r", "commit_hash": "abcdef", "author": "a", "is_merge": False, "files_changed": 1,
              "lines_added": 1, "lines_removed": 1, "committed_at": "1999-01-01T00:00:00Z"}  # fmt: skip
    feed.send(organization, commits=[commit])
    feed.load()
    feed.refresh()
    assert clean(feed, retention_days=1)["events_removed"] == 0
    assert feed.one("SELECT count(*) FROM events.commits") == 1


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        (Retention(90, 91, 180), "quarter hours are kept 91 days"),
        (Retention(90, 120, 100), "hours are kept 100 days"),
        (Retention(90, 120, 180, 130), "days are kept 130 days"),
        (Retention(None, 120, 180), "events for ever"),
        (Retention(90, None, 180), "quarter hours for ever"),
    ],
)
def test_figures_that_do_not_go_together_are_refused(feed: Any, figures: Retention, words: str) -> None:
    with pytest.raises(OperationError, match=words):
        retention.set_retention(feed.administrator, "command_executions", None, figures)


def test_nothing_above_the_floor_can_be_removed_by_the_role_that_removes(feed: Any, command: Any) -> None:
    organization = feed.organization()
    send(feed, command, organization, 100, 1)
    feed.refresh()
    retention.raise_floors(feed.reader, "command_executions", None, complete(90), TODAY)
    feed.reader.execute("DELETE FROM events.command_executions")
    assert stored(feed, organization) == 1
    [partition, *_] = [
        p
        for p in partitions.list_partitions(feed.reader, "command_executions")
        if p.ends > datetime(2026, 6, 1, tzinfo=UTC)
    ]
    with pytest.raises(psycopg.errors.RaiseException, match="not below every floor"):
        partitions.drop_partition(feed.reader, partition, {})


def test_a_reader_with_an_open_transaction_is_not_waited_for_and_blocks_nobody(
    feed: Any, command: Any, database: Any
) -> None:
    organization = feed.organization()
    send(feed, command, organization, 100, 1)
    feed.refresh()
    reader = database.connect(Role.REFRESHER, autocommit=False)
    reader.execute("SELECT count(*) FROM events.command_executions")
    done: list[dict[str, Any]] = []
    run = threading.Thread(target=lambda: done.append(cleanup_old_data(database.connect(Role.REFRESHER), today=TODAY)))
    run.start()
    loaded = 0
    while run.is_alive():  # nine seconds of tries
        send(feed, command, organization, 2, ids=False)
        loaded += 1
        feed.refresh()
    run.join()
    assert done[0]["status"] == "partly"
    assert done[0]["partitions_in_use"] == ["command_executions_p20260307"]
    assert loaded > 20, "loading and rolling up went on"
    reader.rollback()
    assert clean(feed)["partitions_dropped"] == 1
    assert totals(feed, organization)["1mo"] == 2 + loaded
    assert all(balance.exact for balance in verify(feed.reader))


def test_two_runs_at_once_do_it_once(feed: Any, command: Any, database: Any) -> None:
    organization = feed.organization()
    send(feed, command, organization, 100)
    feed.refresh()
    other = database.connect(Role.REFRESHER)
    other.execute("SELECT pg_advisory_lock(hashtext('totalizer retention'))")
    assert clean(feed)["status"] == "running"
    assert stored(feed, organization) == 1
    other.execute("SELECT pg_advisory_unlock(hashtext('totalizer retention'))")
    assert clean(feed)["status"] == "done"


def test_late_events_are_added_where_they_belong_and_noted(feed: Any, command: Any) -> None:
    organization = feed.organization("acme", "America/New_York")
    send(feed, command, organization, 300, 150, 100, 50)
    feed.refresh()
    clean(feed)
    send(feed, command, organization, 300.01, 150.01, 100.01, 50.01)
    assert stored(feed, organization) == 2, "what is late is in no partition"
    assert feed.rows("SELECT state, count(*)::int FROM totalizer.late_events GROUP BY 1 ORDER BY 1") == [
        ("held", 2), ("late", 1),
    ]  # fmt: skip
    feed.refresh()
    assert apply_late(feed.reader, "me")["events"] == 1
    assert totals(feed, organization) == {"15m": 4, "1h": 5, "1d": 6, "1w": 6, "1mo": 6}
    # Its id may have been forgotten: somebody says that those that are held count.
    ids = late.late_ids(feed.reader, Selection(("held",)))
    assert late.release(feed.reader, ids) == 2
    done = apply_late(feed.reader, "me")
    assert done["rows"] == {
        f"command_usage_{grain}": rows for grain, rows in (("1h", 1), ("1d", 2), ("1w", 2), ("1mo", 2))
    }
    assert totals(feed, organization) == {"15m": 4, "1h": 6, "1d": 8, "1w": 8, "1mo": 8}
    assert all(balance.exact for balance in verify(feed.reader))
    audit = feed.rows(
        "SELECT applied_by, rollup, events, rows, added -> 0 ->> 'executions' FROM totalizer.late_applied ORDER BY id"
    )
    rows = {f"command_usage_{grain}": 1 for grain in ("15m", "1h", "1d", "1w", "1mo")}
    assert audit[0] == ("me", "command_usage", 1, rows, "1")
    assert audit[1][:3] == ("me", "command_usage", 2)
    assert apply_late(feed.reader)["events"] == 0


def test_duplicates_of_late_events_are_known(feed: Any, command: Any) -> None:
    organization = feed.organization()
    send(feed, command, organization, 100, 50)
    feed.refresh()
    clean(feed)
    for _ in range(2):
        send(feed, command, organization, 100, 101, 102, 102, 200)
        apply_late(feed.reader)
    assert totals(feed, organization)["1mo"] == 2 + 2
    assert feed.rows("SELECT state, count(*)::int FROM totalizer.late_events GROUP BY 1 ORDER BY 1") == [
        ("applied", 2), ("held", 1),
    ]  # fmt: skip
    ledger = (
        "SELECT sum(accepted)::int, sum(loaded)::int, sum(duplicate)::int, sum(conflict)::int FROM totalizer.ledger"
    )
    assert feed.rows(ledger) == [(12, 5, 7, 0)]
    assert all(balance.exact for balance in verify(feed.reader))


def test_a_late_event_without_id_is_counted_once_for_each_acknowledgement(feed: Any, command: Any) -> None:
    organization = feed.organization()
    send(feed, command, organization, 100, 1, ids=False)
    feed.refresh()
    clean(feed)
    send(feed, command, organization, 100, 100, ids=False)
    apply_late(feed.reader)
    assert totals(feed, organization)["1d"] == 4
    assert all(balance.exact for balance in verify(feed.reader))


def test_a_late_event_that_cannot_be_stored_is_a_dead_letter(feed: Any, command: Any) -> None:
    organization = feed.organization()
    send(feed, command, organization, 100)
    feed.refresh()
    clean(feed)
    admission = feed.collector.admit_batch(
        organization, b'{"command_executions": [%s, %s]}' % (
            b'{"user_id": "7f1f9d9a-55d6-4f4c-8f6a-0e6f0a3b9c11", "command_name": "a", "execution_time_ms": 100, '
            b'"status": "success", "executed_at": "%s"}' % at(101).encode(),
            b'{"user_id": "7f1f9d9a-55d6-4f4c-8f6a-0e6f0a3b9c11", "command_name": "b", "execution_time_ms": 3333, '
            b'"status": "success", "executed_at": "%s"}' % at(102).encode(),
        ),
    )  # fmt: skip
    feed.append(admission.payload.replace(b"\t3333\t", b"\tnone\t"))
    feed.load()
    assert feed.rows("SELECT state, count(*)::int FROM totalizer.late_events GROUP BY 1") == [("late", 1)]
    assert feed.rows("SELECT sqlstate FROM totalizer.dead_letters") == [("22P02",)]


def test_another_organisations_late_events_and_floors_are_out_of_reach(feed: Any, command: Any, database: Any) -> None:
    mine, theirs = feed.organization("mine"), feed.organization("theirs")
    set_days(feed, "theirs", 40)
    for organization in (mine, theirs):
        send(feed, command, organization, 100)
    feed.refresh()
    clean(feed)
    for organization in (mine, theirs):
        send(feed, command, organization, 101)
    apply_late(feed.reader)
    app = database.connect(Role.APP, autocommit=False)
    app.execute("SELECT set_config('app.current_org_id', %s, true)", [mine])
    for table in ("late_events", "late_applied", "removed_events"):
        [row] = app.execute(
            f"SELECT count(*), count(*) FILTER (WHERE organization_id = '{mine}') FROM totalizer.{table}"
        )
        assert row == (1, 1), table
    [row] = app.execute("SELECT count(organization_id) FROM totalizer.retention_floors")
    assert row == (0,)


def test_days_whose_quarters_are_gone_outlive_a_change_of_zone(feed: Any, command: Any) -> None:
    organization = feed.organization()
    send(feed, command, organization, 300, 121, 100, 50)
    feed.refresh()
    clean(feed)
    change = set_zone(feed.administrator, "acme", "Asia/Tokyo")
    assert change.kept_until == TODAY - timedelta(days=120)
    feed.refresh()
    assert totals(feed, organization) == {"15m": 2, "1h": 3, "1d": 4, "1w": 4, "1mo": 4}
    send(feed, command, organization, 300.3, 60.3)
    late.release(feed.reader, late.late_ids(feed.reader, Selection(("held",))))
    apply_late(feed.reader)
    feed.refresh()
    assert totals(feed, organization)["1mo"] == 6
    assert all(balance.exact for balance in verify(feed.reader))


def test_nothing_is_lost_when_every_quarter_is_gone_before_a_change_of_zone(feed: Any, command: Any) -> None:
    organization = feed.organization()
    send(feed, command, organization, 300, 200)
    feed.refresh()
    clean(feed)
    set_zone(feed.administrator, "acme", "Asia/Tokyo")
    feed.refresh()
    assert totals(feed, organization) == {"15m": 0, "1h": 0, "1d": 2, "1w": 2, "1mo": 2}


def test_what_is_marked_below_the_floor_by_anybody_is_not_computed(feed: Any, command: Any) -> None:
    organization = feed.organization()
    feed.organization("long")
    set_days(feed, "long", 150)
    send(feed, command, organization, 100, 1)
    send(feed, command, feed.organization("long"), 100)
    feed.refresh()
    clean(feed)
    assert stored(feed, organization) == 1
    feed.administrator.execute(
        "INSERT INTO totalizer.dirty_marks (organization_id, event_type, bucket) "
        "SELECT organization_id, 'command_executions', bucket FROM analytics.command_usage_15m"
    )
    feed.refresh()
    assert totals(feed, organization) == {"15m": 2, "1h": 2, "1d": 2, "1w": 2, "1mo": 2}
    assert feed.one("SELECT count(*) FROM totalizer.dirty_marks") == 0
