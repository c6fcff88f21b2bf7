"""Row-level security, proven by trying."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from totalizer.store.keys import create_key, create_organization
from totalizer.store.roles import Role

pytestmark = pytest.mark.usefixtures("feed")
#: What tells of the fates of events.
FATES = (
    "totalizer.ledger", "totalizer.load_ledger_hourly", "totalizer.event_fates", "totalizer.dead_letters",
    "totalizer.rejected_events", "totalizer.merchant_usage",
)  # fmt: skip
TABLES = ("events.command_executions", "analytics.command_usage_15m", "analytics.command_usage_1d")


@pytest.fixture
def two(feed: Any, command: Any) -> tuple[str, str]:
    """Two organisations with three and five events, loaded and rolled up."""
    mine, theirs = feed.organization("mine"), feed.organization("theirs")
    feed.send(mine, command_executions=[command() for _ in range(3)])
    feed.send(theirs, command_executions=[command(id=str(n)) for n in range(5)])
    feed.load()
    feed.refresh()
    feed.send(theirs, command_executions=[command(), command(id="1")])
    feed.load()  # leaves a mark, and a duplicate's fate
    feed.administrator.execute(
        "INSERT INTO totalizer.load_ledger_hourly VALUES (%(o)s, 'commits', now(), 0, 0, 0, 0, 0, 0);", {"o": theirs}
    )
    feed.administrator.execute("INSERT INTO totalizer.merchant_usage VALUES (%s, 'm', now(), 'q', 1)", [theirs])
    feed.administrator.execute("INSERT INTO totalizer.rejected_events VALUES (%s, now(), '', 'x', 1)", [theirs])
    feed.administrator.execute(
        "INSERT INTO totalizer.dead_letters (organization_id, event_type, columns, keyed, line, sqlstate, reason, "
        "journal_id) VALUES (%s, 'commits', '{}', false, '', '', '', gen_random_uuid())", [theirs],
    )  # fmt: skip
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
    "table",
    [
        *TABLES,
        "totalizer.dirty_marks",
        "totalizer.load_ledger",
        "totalizer.organizations",
        "totalizer.data_versions",
        *FATES,
    ],
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
        "DELETE FROM totalizer.dead_letters",
        "UPDATE totalizer.event_fates SET fate = 'dropped'",
        "INSERT INTO totalizer.rejected_events VALUES (gen_random_uuid(), now(), '', 'x', 1)",
        "DELETE FROM totalizer.load_ledger",
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


@pytest.fixture
def two_with_keys(database: Any, two: Any) -> tuple[str, str, str]:
    """Two organisations, and a key of the second."""
    administrator = database.connect()
    first, second = (create_organization(administrator, name, "UTC") for name in ("keys one", "keys two"))
    create_key(administrator, second, "theirs")
    administrator.execute(
        "INSERT INTO totalizer.organization_limits (organization_id, requests) VALUES (%s, 5)", [second]
    )
    [row] = administrator.execute("SELECT id::text FROM totalizer.api_keys WHERE organization_id = %s", [second])
    return first, second, row[0]


def test_keys_and_limits_of_another_organisation_are_out_of_reach(database: Any, two_with_keys: Any) -> None:
    first, second, theirs = two_with_keys
    app = database.connect(Role.APP, autocommit=False)
    app.execute("SELECT set_config('app.current_org_id', %s, true)", [first])
    for statement in ("SELECT id FROM totalizer.api_keys", "SELECT requests FROM totalizer.organization_limits"):
        assert app.execute(statement).fetchall() == []
    for statement in (
        "UPDATE totalizer.api_keys SET revoked_at = now()",
        f"UPDATE totalizer.api_keys SET expires_at = now() WHERE id = '{theirs}'",
    ):
        assert app.execute(statement).rowcount == 0
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
        app.execute(
            "INSERT INTO totalizer.api_keys (organization_id, name, key_hash, scopes) VALUES (%s, 'x', 'x', '{admin}')",
            [second],
        )


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT key_hash FROM totalizer.api_keys",
        "UPDATE totalizer.api_keys SET key_hash = 'x'",
        "UPDATE totalizer.api_keys SET scopes = '{admin}'",
        "UPDATE totalizer.api_keys SET organization_id = gen_random_uuid()",
        "DELETE FROM totalizer.api_keys",
        "UPDATE totalizer.organization_limits SET requests = NULL",
        "INSERT INTO totalizer.organization_limits (organization_id) VALUES (gen_random_uuid())",
    ],
)
def test_what_the_app_role_may_not_do_even_to_its_own(database: Any, two_with_keys: Any, statement: str) -> None:
    app = database.connect(Role.APP, autocommit=False)
    app.execute("SELECT set_config('app.current_org_id', %s, true)", [two_with_keys[1]])
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        app.execute(statement)


def test_without_an_organisation_no_key_is_seen(database: Any, two_with_keys: Any) -> None:
    app = database.connect(Role.APP)
    assert app.execute("SELECT id FROM totalizer.api_keys").fetchall() == []
