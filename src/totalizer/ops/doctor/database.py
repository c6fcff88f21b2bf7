"""How the database is set up: versions, schema, roles, grants, row security, partitions, marks, clock.

Each check takes a connection as the refresher, autocommit (that of the schema, one as the administrator), and raises
psycopg.Error if the database is away.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg import Connection

from totalizer.clock import Clock
from totalizer.ops.doctor.finding import Finding, ok

#: The first with UNIQUE NULLS NOT DISTINCT, which rollups need.
POSTGRES_MIN = 15
#: Days ahead for which there should be partitions, and must be.
AHEAD_WARNING, AHEAD_ERROR = 3, 1
#: A marked bucket that has waited longer, and how far clocks may be apart, seconds.
MARK_WARNING_S, CLOCK_WARNING_S, CLOCK_ERROR_S = 600.0, 2.0, 60.0
_MIGRATE = "run `totalizer migrate`"

_BAD_ROLES = """
    SELECT rolname, rolsuper, rolbypassrls, rolcanlogin FROM pg_roles
    WHERE rolname IN ('totalizer_writer', 'totalizer_refresher', 'totalizer_app', 'totalizer_owner')"""
#: Schema, table, and whether the app role may read or change it.
_APP_TABLES = """
    SELECT n.nspname || '.' || c.relname, c.relrowsecurity, EXISTS (SELECT FROM pg_policy WHERE polrelid = c.oid),
           has_table_privilege('totalizer_app', c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE'), n.nspname
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND n.nspname IN ('events', 'analytics', 'totalizer')
      AND has_table_privilege('totalizer_app', c.oid, 'SELECT')
      AND EXISTS (SELECT FROM pg_attribute WHERE attrelid = c.oid AND attname = 'organization_id' AND NOT attisdropped)
    ORDER BY 1"""
_MISSING_GRANTS = """
    SELECT role || ' ' || privilege || ' on events.' || name FROM totalizer.event_types,
        (VALUES ('totalizer_app', 'SELECT'), ('totalizer_writer', 'INSERT'), ('totalizer_refresher', 'SELECT'))
            AS needed (role, privilege)
    WHERE NOT has_table_privilege(role, format('events.%I', name), privilege) ORDER BY 1"""
_LAST_PARTITIONS = """
    SELECT e.name, coalesce(extract(epoch FROM max(p.ends) - now()) / 86400, -1)::float
    FROM totalizer.event_types e LEFT JOIN totalizer.partitions p ON p.event_type = e.name
    GROUP BY e.name ORDER BY 2, 1"""


def version(connection: Connection[Any]) -> Finding:
    """Is PostgreSQL new enough?"""
    major = connection.info.server_version // 10_000
    if major < POSTGRES_MIN:
        return Finding("PostgreSQL", "error", f"version {major}", f"upgrade it to {POSTGRES_MIN} or newer")
    return ok("PostgreSQL", f"version {major}.{connection.info.server_version % 10_000}")


def schema(connection: Connection[Any]) -> Finding:
    """Is the schema that of this version of the service?"""
    config = Config()
    config.set_main_option("script_location", "totalizer:store/migrations")
    wanted = ScriptDirectory.from_config(config).get_current_head()
    row = connection.execute("SELECT to_regclass('totalizer.schema_version') IS NOT NULL").fetchone()
    if row != (True,):
        return Finding("schema", "error", "there is none", _MIGRATE)
    found = connection.execute("SELECT version_num FROM totalizer.schema_version").fetchone()
    if found is None or found[0] != wanted:
        return Finding("schema", "error", f"at {found and found[0]}, this version needs {wanted}", _MIGRATE)
    return ok("schema", f"at {wanted}")


def roles(connection: Connection[Any]) -> Finding:
    """Can the service's roles do no more than they should?"""
    wrong = []
    for name, superuser, bypasses, logs_in in connection.execute(_BAD_ROLES):
        if superuser:
            wrong.append(f"{name} is a superuser: ALTER ROLE {name} NOSUPERUSER")
        if bypasses:
            wrong.append(f"{name} passes row security by: ALTER ROLE {name} NOBYPASSRLS")
        if logs_in and name == "totalizer_owner":
            wrong.append(f"{name} can log in: ALTER ROLE {name} NOLOGIN")
    for role in ("totalizer_app", "totalizer_writer"):
        row = connection.execute("SELECT pg_has_role(%s, 'totalizer_owner', 'MEMBER')", [role]).fetchone()
        if row == (True,):
            wrong.append(f"{role} can act as the owner: REVOKE totalizer_owner FROM {role}")
    if wrong:
        return Finding(
            "roles", "error", "; ".join(each.partition(":")[0] for each in wrong),
            "; ".join(each.partition(": ")[2] for each in wrong),
        )  # fmt: skip
    return ok("roles", "none can do more than it should")


def grants(connection: Connection[Any]) -> Finding:
    """May the service's roles do what they need, and the app change nothing that others wrote?"""
    missing = [row[0] for row in connection.execute(_MISSING_GRANTS)]
    if missing:
        return Finding("grants", "error", f"missing: {_some(missing)}", f"{_MIGRATE}, or GRANT them")
    loose = [row[0] for row in connection.execute(_APP_TABLES) if row[3] and row[4] in ("events", "analytics")]
    if loose:
        return Finding(
            "grants", "error", f"totalizer_app may change {_some(loose)}",
            f"REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON {', '.join(loose)} FROM totalizer_app",
        )  # fmt: skip
    return ok("grants", "each role has what it needs")


def row_security(connection: Connection[Any]) -> Finding:
    """Does every table that the app reads show an organisation its own rows only?"""
    tables = list(connection.execute(_APP_TABLES))
    off = [row[0] for row in tables if not row[1]]
    if off:
        statements = "; ".join(f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY" for name in off)
        return Finding("row security", "error", f"off on {_some(off)}: organisations see each other's rows", statements)
    bare = [row[0] for row in tables if not row[2]]
    if bare:
        return Finding("row security", "error", f"without a policy: {_some(bare)}; nobody sees rows", _MIGRATE)
    return ok("row security", f"on for all {len(tables)} tables with an organisation")


def partitions(connection: Connection[Any]) -> Finding:
    """Are there partitions for the coming days?"""
    rows = list(connection.execute(_LAST_PARTITIONS))
    short = [(name, days) for name, days in rows if days < AHEAD_WARNING]
    if not short:
        return ok("partitions", f"{rows[0][1]:.0f} days ahead" if rows else "no event types")
    severity = "error" if short[0][1] < AHEAD_ERROR else "warning"
    named = _some([f"{name} ({max(days, 0):.1f} days)" for name, days in short])
    remedy = "run `totalizer job run make_partitions`, and see that a scheduler runs: `totalizer job list`"
    return Finding("partitions", "error" if severity == "error" else "warning", f"too few ahead: {named}", remedy)


def marks(connection: Connection[Any]) -> Finding:
    """Are rollups brought up to their events?"""
    row = connection.execute(
        "SELECT count(*), extract(epoch FROM now() - min(marked_at))::float FROM totalizer.dirty_marks "
        "WHERE priority = 0"
    ).fetchone()
    assert row is not None
    if row[1] is not None and row[1] > MARK_WARNING_S:
        return Finding(
            "rollups", "warning", f"{row[0]} marked buckets, the oldest for {timedelta(seconds=round(row[1]))}",
            "see that a scheduler runs: `totalizer job list`, `totalizer job history refresh_rollups`",
        )  # fmt: skip
    return ok("rollups", f"{row[0]} marked buckets wait")


def clocks(connection: Connection[Any], clock: Clock) -> Finding:
    """Do this machine and the database agree what time it is?"""
    began = clock.now_ns()
    row = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float").fetchone()
    assert row is not None
    apart_s = abs((began + clock.now_ns()) / 2e9 - row[0])
    detail = f"{apart_s:.1f} s between this machine and the database"
    if apart_s < CLOCK_WARNING_S:
        return ok("clock", detail)
    remedy = "synchronise both by NTP: times of events and windows follow them"
    return Finding("clock", "error" if apart_s > CLOCK_ERROR_S else "warning", detail, remedy)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{', '.join(names[:5])}{more}"
