"""Bringing a database to the present: roles, the fixed schema (Alembic), then the catalog."""

from __future__ import annotations

from typing import Any

from alembic import command
from alembic.config import Config
from psycopg import Connection

from totalizer.catalog import Catalog
from totalizer.store import views
from totalizer.store.plan import apply_plan, plan_catalog
from totalizer.store.roles import Role, ensure_roles


def migrate(connection: Connection[Any], catalog: Catalog, secret: str) -> list[str]:
    """Everything `totalizer migrate` does. Safe to run again, and from several machines at once.

    Args:
        connection: autocommit, as an administrator who may create roles in this database.
        catalog: the event types and rollups to provide.
        secret: the installation's secret.

    Returns:
        What was done, a line each; empty when the database was up to date.

    Raises:
        CatalogChangeRefused: the catalog would destroy stored data; nothing of it was applied.
    """
    # One migration at a time: others wait here and then find nothing to do.
    connection.execute("SELECT pg_advisory_lock(hashtext('totalizer migrate'))")
    try:
        ensure_roles(connection, secret)
        done = upgrade_schema(connection)
        plan = plan_catalog(connection, catalog)
        done += apply_plan(connection, plan)
        return done + _make_views(connection, catalog)
    finally:
        connection.execute("SELECT pg_advisory_unlock(hashtext('totalizer migrate'))")


def _make_views(connection: Connection[Any], catalog: Catalog) -> list[str]:
    """The views over the shipped rollups; materialised ones are filled, since one that never was cannot be read."""
    if not all(name in catalog.rollups for name in views.ROLLUPS):
        return []
    made = views.create_plain(connection)
    connection.execute(f"SET ROLE {Role.REFRESHER.value}")
    try:
        for view in views.MATERIALIZED:
            if views.create_materialized(connection, view):
                views.refresh_materialized(connection, view)
                made.append(view.name)
    finally:
        connection.execute("RESET ROLE")
    return [f"view analytics.{name}" for name in made]


def upgrade_schema(connection: Connection[Any]) -> list[str]:
    """`alembic upgrade head` as the owner; returns the revisions that were applied."""
    before = _revision(connection)
    config = Config()
    config.set_main_option("script_location", "totalizer:store/migrations")
    config.attributes["connection"] = connection
    autocommit = connection.autocommit
    connection.execute(f"SET ROLE {Role.OWNER.value}")
    try:
        connection.autocommit = False
        command.upgrade(config, "head")
        connection.commit()
    finally:
        connection.rollback()
        connection.autocommit = autocommit
        connection.execute("RESET ROLE")
    after = _revision(connection)
    return [] if before == after else [f"schema: {before or 'empty'} → {after}"]


def _revision(connection: Connection[Any]) -> str | None:
    if connection.execute("SELECT to_regclass('totalizer.schema_version')").fetchone() == (None,):
        return None
    row = connection.execute("SELECT version_num FROM totalizer.schema_version").fetchone()
    return None if row is None else str(row[0])
