"""Row-level security, proven by trying."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from totalizer.store.roles import Role

pytestmark = pytest.mark.usefixtures("feed")
TABLES = ("events.command_executions", "analytics.command_usage_15m", "analytics.command_usage_1d")


@pytest.fixture
def two(feed: Any, command: Any) -> tuple[str, str]:
    """Two organisations with three and five events, loaded and rolled up."""
    mine, theirs = feed.organization("mine"), feed.organization("theirs")
    feed.send(mine, command_executions=[command() for _ in range(3)])
    feed.send(theirs, command_executions=[command(id=str(n)) for n in range(5)])
    feed.load()
    feed.refresh()
    feed.send(theirs, command_executions=[command()])
    feed.load()  # leaves a mark
    return mine, theirs


def counted(table: str) -> str:
    return (
        f"SELECT count(*) FROM {table}"
        if table.startswith("events")
        else f"SELECT coalesce(sum(executions), 0) FROM {table}"
    )


@pytest.mark.parametrize("table", TABLES)
def test_without_an_organisation_no_rows(database: Any, two: Any, table: str) -> None:
    app = database.connect(Role.APP)
    assert app.execute(counted(table)).fetchone() == (0,)
    with app.transaction():
        app.execute("SELECT set_config('app.current_org_id', %s, true)", [two[0]])
        assert app.execute(counted(table)).fetchone() == (3,)
    # A finished SET LOCAL leaves an empty string, not null.
    assert app.execute(counted(table)).fetchone() == (0,)


@pytest.mark.parametrize(
    "table", [*TABLES, "totalizer.dirty_marks", "totalizer.load_ledger", "totalizer.organizations"]
)
def test_asking_for_another_organisation_by_name_finds_nothing(database: Any, two: Any, table: str) -> None:
    mine, theirs = two
    column = "id" if table.endswith("organizations") else "organization_id"
    with database.connect(Role.APP).transaction(), database.connect(Role.APP, autocommit=False) as app:
        app.execute("SELECT set_config('app.current_org_id', %s, true)", [mine])
        assert app.execute(f"SELECT count(*) FROM {table} WHERE {column} = %s", [theirs]).fetchone() == (0,)
        app.execute("SELECT set_config('app.current_org_id', %s, true)", [theirs])
        assert app.execute(f"SELECT count(*) > 0 FROM {table} WHERE {column} = %s", [theirs]).fetchone() == (True,)


def test_a_wrong_organisation_setting_is_an_error_and_not_all_rows(database: Any, two: Any) -> None:
    app = database.connect(Role.APP)
    app.execute("SET app.current_org_id = 'no uuid'")
    with pytest.raises(psycopg.errors.InvalidTextRepresentation):
        app.execute(counted(TABLES[0]))


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO analytics.command_usage_15m (organization_id, bucket) VALUES (gen_random_uuid(), now())",
        "DELETE FROM events.command_executions",
        "UPDATE events.command_executions SET status = 'error'",
        "SELECT * FROM events.command_executions_keys",
        "SELECT * FROM totalizer.api_keys",
        "INSERT INTO totalizer.journal_offsets (journal_id) VALUES (gen_random_uuid())",
        "SELECT totalizer.ensure_partition('commits', '2020-01-01')",
        "ALTER TABLE events.command_executions DISABLE ROW LEVEL SECURITY",
        "SET ROLE totalizer_owner",
        "SET ROLE totalizer_writer",
        "CREATE TABLE public.mine (x int)",
    ],
)
def test_the_app_role_may_only_read(database: Any, two: Any, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        database.connect(Role.APP).execute(statement)


def test_a_partition_cannot_be_read_past_its_parents_policy(database: Any, feed: Any, two: Any) -> None:
    partition = feed.one(
        "SELECT relname FROM pg_class WHERE relnamespace = 'partitions'::regnamespace "
        "AND relname LIKE 'command_executions_p%%' AND relkind = 'r' LIMIT 1"
    )
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        database.connect(Role.APP).execute(f"SELECT * FROM partitions.{partition}")


def test_the_writer_cannot_read_keys_or_touch_rollups(database: Any, two: Any) -> None:
    writer = database.connect(Role.WRITER)
    for statement in ("SELECT * FROM totalizer.api_keys", "DELETE FROM analytics.command_usage_15m"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            writer.execute(statement)


def test_no_process_role_is_owner_or_superuser(feed: Any) -> None:
    roles = feed.rows(
        "SELECT rolname, rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolcanlogin FROM pg_roles "
        "WHERE rolname LIKE 'totalizer_%%' ORDER BY 1"
    )
    assert [row[0] for row in roles] == [
        "totalizer_app", "totalizer_owner", "totalizer_refresher", "totalizer_writer",
    ]  # fmt: skip
    assert all(row[1:5] == (False, False, False, False) for row in roles)
    assert [row[0] for row in roles if not row[5]] == ["totalizer_owner"], "nobody logs in as the owner"


def test_every_table_of_tenants_has_forced_row_security(feed: Any) -> None:
    unsecured = feed.rows(
        "SELECT relname FROM pg_class WHERE relnamespace IN ('events'::regnamespace, 'analytics'::regnamespace) "
        "AND relkind IN ('r', 'p') AND relname NOT LIKE '%%\\_keys' AND NOT (relrowsecurity AND relforcerowsecurity)"
    )
    assert unsecured == []
