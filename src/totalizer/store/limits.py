"""An organisation's own limits, where they are not the usual ones of the settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from psycopg import Connection, sql
from psycopg.rows import namedtuple_row

from totalizer.errors import OperationError

#: What is limited, in the order in which the server is told of it.
KINDS = ("requests", "batches", "reads", "bytes")


def list_limits(connection: Connection[Any], organization: str | None = None) -> list[Any]:
    """Organisations with their own limits (None: the usual one), by name: id, name and KINDS.

    Args:
        connection: as the administrator.
        organization: only this one.

    Raises:
        OperationError: there is no such organisation.
    """
    with connection.cursor(row_factory=namedtuple_row) as cursor:
        rows = cursor.execute(
            "SELECT o.id, o.name, l.requests, l.batches, l.reads, l.bytes FROM totalizer.organizations o "
            "LEFT JOIN totalizer.organization_limits l ON l.organization_id = o.id "
            "WHERE %(name)s::text IS NULL OR o.name = %(name)s ORDER BY o.name",
            {"name": organization},
        ).fetchall()
    if organization is not None and not rows:
        raise OperationError(f"no organisation {organization!r}; `totalizer keys list` shows those that have keys")
    return rows


def set_limits(connection: Connection[Any], organization: str, limits: Mapping[str, int | None]) -> None:
    """Change some of an organisation's limits.

    Args:
        connection: as the administrator.
        organization: its name.
        limits: by kind; None: the usual one again, 0: no limit. Kinds that are not named stay as they are.

    Raises:
        OperationError: there is no such organisation.
    """
    [row] = list_limits(connection, organization)
    kinds = [kind for kind in KINDS if kind in limits]
    if not kinds:
        return
    names = sql.SQL(", ").join(map(sql.Identifier, kinds))
    values = sql.SQL(", ").join(sql.Placeholder(kind) for kind in kinds)
    given = sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(sql.Identifier(kind)) for kind in kinds)
    connection.execute(
        sql.SQL(
            "INSERT INTO totalizer.organization_limits (organization_id, {}) VALUES (%(id)s, {}) "
            "ON CONFLICT (organization_id) DO UPDATE SET {}"
        ).format(names, values, given),
        {"id": row.id, **limits},
    )
