"""Alerts for those who look: from the database, or from this machine's file while the database is away."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from psycopg import AsyncConnection, Connection
from psycopg.rows import dict_row

from totalizer.alerts.ruled import rule_of
from totalizer.clock import utc_datetime
from totalizer.edge.daemon.alerts import STATE_FILE, Remembered

Rows = Connection[Any]

#: Entries of the history in one answer.
HISTORY_MAX = 500
STANDING = "SELECT host, key, rule, severity, message, remedy, since FROM totalizer.alerts ORDER BY since, host, key"
SILENCES = (
    "SELECT id, rule, until, reason, made_by, made_at FROM totalizer.alert_silences WHERE until > now() ORDER BY id"
)
HISTORY = (
    "SELECT at, host, key, rule, kind, severity, message, silenced FROM totalizer.alert_history "
    "WHERE %(rule)s::text IS NULL OR rule = %(rule)s ORDER BY at DESC, id LIMIT %(limit)s"
)
SILENCE = (
    "INSERT INTO totalizer.alert_silences (rule, until, reason, made_by) "
    "VALUES (%s, now() + make_interval(secs => %s), %s, %s) RETURNING id, until"
)
END_SILENCE = "UPDATE totalizer.alert_silences SET until = now() WHERE until > now() AND (id = %s OR rule = %s)"


def rows(connection: Rows, query: str, parameters: Any = None) -> list[dict[str, Any]]:
    """Rows of one of the queries above, by column."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query.encode(), parameters).fetchall()


async def rows_of(connection: AsyncConnection[Any], query: str, parameters: Any = None) -> list[dict[str, Any]]:
    """The same, on an event loop."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        return await (await cursor.execute(query.encode(), parameters)).fetchall()


def standing_in(folder: Path, host: str) -> list[dict[str, Any]]:
    """What stands by the file of this machine's monitor; [] if there is none that can be read."""
    try:
        found = msgspec.json.decode((folder / STATE_FILE).read_bytes(), type=dict[str, Remembered])
    except (OSError, msgspec.DecodeError):
        return []
    return [
        {"host": host, "key": key, "rule": rule_of(key), "severity": one.severity, "message": one.message,
         "since": _moment(one.first_at)}
        for key, one in found.items()
    ]  # fmt: skip


def _moment(ms: int) -> datetime:
    return utc_datetime(ms * 1_000_000)
