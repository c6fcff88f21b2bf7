"""The materialised views: made where they are missing, and computed anew while they are read."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.store import views
from totalizer.store.views import MATERIALIZED, Materialized


def create_materialized_views(connection: Connection[Any], *, clock: Clock = SYSTEM_CLOCK) -> dict[str, Any]:
    """Make and fill the materialised views that are missing, or were made by another version.

    Args:
        connection: autocommit, as the refresher role. The database is migrated.
        clock: for the durations.

    Returns:
        By the view's name: `created` (False if it was there), and of those that were not, `rows` and `seconds`.

    Raises:
        psycopg.Error: the database is away, or lacks the rollups they are made of.
    """
    return {view.name: _created(connection, view, clock) for view in MATERIALIZED}


def refresh_materialized_views(connection: Connection[Any], *, clock: Clock = SYSTEM_CLOCK) -> dict[str, Any]:
    """Compute all materialised views anew, while they are read with the figures they had; missing ones are made.

    Args:
        connection: autocommit, as the refresher role.
        clock: for the durations.

    Returns:
        By the view's name: `rows` and `seconds`.

    Raises:
        psycopg.Error: the database is away, or lacks the rollups they are made of.
    """
    results = {}
    for view in MATERIALIZED:
        views.create_materialized(connection, view)
        results[view.name] = _refreshed(connection, view, clock)
    return results


def _created(connection: Connection[Any], view: Materialized, clock: Clock) -> dict[str, Any]:
    if not views.create_materialized(connection, view):
        return {"created": False}
    return {"created": True, **_refreshed(connection, view, clock)}


def _refreshed(connection: Connection[Any], view: Materialized, clock: Clock) -> dict[str, Any]:
    started = clock.monotonic()
    rows = views.refresh_materialized(connection, view)
    return {"rows": rows, "seconds": round(clock.monotonic() - started, 3)}
