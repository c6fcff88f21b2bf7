"""From an empty database to the present, and from one catalog to the next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic import command
from alembic.config import Config

from totalizer import store
from totalizer.app import database_url
from totalizer.catalog.read import load_catalog, parse_catalog
from totalizer.errors import CatalogChangeRefused, OperationError, StoreUnavailable
from totalizer.rollup.verify import verify
from totalizer.settings import load_settings
from totalizer.store.connect import connected
from totalizer.store.migrate import migrate
from totalizer.store.plan import apply_plan, plan_catalog
from totalizer.store.roles import Role

SECRET = "a secret for tests"
#: The newest revision of the schema.
NEWEST = max(path.name[:4] for path in (Path(store.__file__).parent / "migrations/versions").glob("*.sql"))
CATALOG = """
[event_type.calls]
title = "Calls"
time = "called_at"
subject = "caller"
[event_type.calls.fields]
caller = { type = "text", required = true, length_max = 50 }
seconds = { type = "integer", minimum = 0 }
{more_fields}
[rollup.call_time]
event_type = "calls"
dimensions = [{dimensions}]
[rollup.call_time.measures]
calls = { kind = "count" }
{more_measures}
"""


def catalog_of(more_fields: str = "", dimensions: str = '"caller"', more_measures: str = "") -> Any:
    text = CATALOG.replace("{more_fields}", more_fields).replace("{dimensions}", dimensions)
    return parse_catalog([("calls.toml", text.replace("{more_measures}", more_measures))])


def test_migrating_twice_does_nothing_the_second_time(empty_database: Any) -> None:
    connection = empty_database.connect()
    first = migrate(connection, load_catalog(), SECRET)
    assert first[0] == f"schema: empty → {NEWEST}"
    assert "event type command_executions" in first
    assert migrate(connection, load_catalog(), SECRET) == []


def test_a_command_tells_in_plain_words_what_the_database_refuses(empty_database: Any) -> None:
    with pytest.raises(OperationError, match="`totalizer migrate`"), connected(empty_database.url) as connection:
        connection.execute("SELECT FROM totalizer.organizations")


def test_a_command_tells_in_plain_words_that_the_database_went_away(empty_database: Any) -> None:
    with pytest.raises(StoreUnavailable, match="run the command again"), connected(empty_database.url) as connection:
        connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")


def test_an_address_that_cannot_be_read_is_refused_and_not_shown() -> None:
    with pytest.raises(OperationError, match="DATABASE_URL cannot be read") as refused:
        database_url(load_settings(DATABASE_URL="postgresql://somebody:sec ret@host/name"))
    assert "ret@" not in str(refused.value)


def test_a_new_field_and_measure_are_added_and_filled(feed: Any, database: Any) -> None:
    administrator = feed.administrator
    apply_plan(administrator, plan_catalog(administrator, catalog_of()))
    feed.collector = type(feed.collector)(catalog_of(), feed.collector._clock, batch_events_max=10)
    organization = feed.organization()
    feed.send(organization, calls=[{"caller": "a", "seconds": 5}, {"caller": "a", "seconds": 7}])
    feed.load()
    feed.refresh()
    wider = catalog_of('line = { type = "text" }', more_measures='seconds = { kind = "sum", field = "seconds" }')
    plan = plan_catalog(administrator, wider)
    assert [step.title for step in plan.steps] == [
        "event type calls: new declaration",
        "rollup call_time: new declaration",
        "compute rollup call_time for the calls stored so far",
    ]
    apply_plan(administrator, plan)
    assert feed.refresh() == 1
    assert feed.rows("SELECT caller, calls, seconds FROM analytics.call_time_1d") == [("a", 2, 12)]
    assert all(balance.exact for balance in verify(feed.reader))


@pytest.mark.parametrize(
    ("wider", "words"),
    [
        (catalog_of(dimensions=""), "its dimensions are caller"),
        (
            parse_catalog(
                [
                    (
                        "calls.toml",
                        CATALOG.replace("{more_fields}", "")
                        .replace("{dimensions}", '"caller"')
                        .replace("{more_measures}", "")
                        .replace('seconds = { type = "integer", minimum = 0 }', 'seconds = { type = "number" }'),
                    )
                ]
            ),
            "field seconds is stored as integer",
        ),
    ],
)
def test_destructive_changes_are_refused_and_nothing_is_applied(feed: Any, wider: Any, words: str) -> None:
    administrator = feed.administrator
    apply_plan(administrator, plan_catalog(administrator, catalog_of()))
    plan = plan_catalog(administrator, wider)
    assert words in plan.refusals[0]
    with pytest.raises(CatalogChangeRefused, match=words):
        apply_plan(administrator, plan)
    again = plan_catalog(administrator, catalog_of())
    assert (again.steps, again.refusals) == ([], []), "what was declared before is still what is applied"


def test_a_failing_statement_leaves_nothing_half_done(feed: Any) -> None:
    administrator = feed.administrator
    administrator.execute("CREATE TABLE analytics.call_time_1d (x int)")
    with pytest.raises(Exception, match="already exists"):
        apply_plan(administrator, plan_catalog(administrator, catalog_of()))
    assert feed.one("SELECT to_regclass('events.calls')") is None
    assert administrator.execute("SELECT current_user").fetchone() == ("postgres",)


def test_partitions_are_made_once_with_their_grants(feed: Any, database: Any) -> None:
    writer = database.connect(Role.WRITER)
    first = writer.execute("SELECT totalizer.ensure_partition('command_executions', '2025-03-30')").fetchone()
    again = writer.execute("SELECT totalizer.ensure_partition('command_executions', '2025-03-30')").fetchone()
    month = writer.execute("SELECT totalizer.ensure_partition('commits', '2025-02-28')").fetchone()
    assert (first, again, month) == (("command_executions_p20250330",),) * 2 + (("commits_p202502",),)
    bounds = feed.rows(
        "SELECT relname, pg_get_expr(relpartbound, oid) FROM pg_class "
        "WHERE relname IN ('command_executions_p20250330', 'commits_p202502') ORDER BY 1"
    )
    assert bounds == [
        ("command_executions_p20250330", "FOR VALUES FROM ('2025-03-30 00:00:00+00') TO ('2025-03-31 00:00:00+00')"),
        ("commits_p202502", "FOR VALUES FROM ('2025-02-01 00:00:00+00') TO ('2025-03-01 00:00:00+00')"),
    ]


def test_a_step_back_keeps_the_books(feed: Any) -> None:
    """The version before knows no dropped letters: it has them as dead-lettered."""
    organization = feed.organization()
    assert migrate(feed.administrator, load_catalog(), SECRET) == []  # the owner's rights in a copied database
    feed.administrator.execute(
        "INSERT INTO totalizer.load_ledger VALUES (%s, 'commits', 5, 0, 0, -2, now(), 2)", [organization]
    )
    feed.administrator.execute(
        "INSERT INTO totalizer.load_ledger_hourly VALUES (%s, 'commits', now(), 4, 3, 1, 0, 0, 0)", [organization]
    )
    config = Config()
    config.set_main_option("script_location", "totalizer:store/migrations")
    with psycopg.connect(feed.database.url) as connection:
        connection.execute(f"SET ROLE {Role.OWNER.value}")
        connection.commit()
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")
        connection.commit()
    assert feed.rows("SELECT sum(loaded)::int, sum(dead_lettered)::int FROM totalizer.load_ledger") == [(8, 0)]
    assert migrate(feed.administrator, load_catalog(), SECRET)[0] == f"schema: 0001 → {NEWEST}"
    sums = "SELECT sum(accepted)::int, sum(loaded)::int, sum(duplicate)::int FROM totalizer.ledger"
    assert feed.rows(sums) == [(9, 8, 1)], "what a version before has not counted is the sum of the fates"
