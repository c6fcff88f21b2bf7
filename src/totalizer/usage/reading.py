"""What one organisation's merchants used, for those who ask over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any, NamedTuple

from psycopg import AsyncConnection

from totalizer.store.merchant_usage import DIRTY, dirty_of, exact_sums

Rows = AsyncConnection[Any]


class Used(NamedTuple):
    """What was used of a metric in a window.

    Attributes:
        starts: of the window, UTC.
        metric_type: of what.
        value: how much.
    """

    starts: datetime
    metric_type: str
    value: int


async def exact_usage(
    connection: Rows, organization_id: str, merchant_id: str, start: datetime, end: datetime, window: str
) -> list[Used]:
    """What a merchant used, from rollups and, where those are behind, from events; by window and metric.

    Args:
        connection: in a transaction that sees the organisation.
        organization_id, merchant_id: whose.
        start, end: beginnings of windows; the end excluded.
        window: one of WINDOWS.
    """
    parameters: dict[str, Any] = {
        "organization": organization_id, "merchant": merchant_id, "start": start, "end": end,
    }  # fmt: skip
    parameters |= dirty_of(await (await connection.execute(DIRTY.encode(), parameters)).fetchall())
    sums = exact_sums(window, merchant=True, organization=True)
    rows = await (
        await connection.execute(
            f"SELECT starts, metric_type, amount FROM ({sums}) AS s ORDER BY 1, 2".encode(), parameters
        )
    ).fetchall()
    return [Used(starts, metric_type, int(value)) for starts, metric_type, value in rows]


async def stored_usage(
    connection: Rows, organization_id: str, merchant_id: str, days: Sequence[date]
) -> dict[tuple[date, str], int]:
    """What the table has of a merchant, by day and metric."""
    rows = await (
        await connection.execute(
            "SELECT date, metric_type, metric_value FROM totalizer.merchant_usage "
            "WHERE organization_id = %s AND date = ANY (%s) AND merchant_id = %s",
            [organization_id, list(days), merchant_id],
        )
    ).fetchall()
    return {(day, metric_type): value for day, metric_type, value in rows}


async def usage_of_day(
    connection: Rows, organization_id: str, day: date, metric_type: str | None, after: tuple[str, str], limit: int
) -> list[tuple[str, str, int, datetime]]:
    """A page of what the table has of a day: merchant, metric, value and when it was last raised.

    Args:
        connection: in a transaction that sees the organisation.
        organization_id: whose.
        day: UTC.
        metric_type: only of this metric.
        after: merchant and metric of the last row of the page before; two empty texts for the first page.
        limit: rows at most.
    """
    return await (
        await connection.execute(
            "SELECT merchant_id, metric_type, metric_value, updated_at FROM totalizer.merchant_usage "
            "WHERE organization_id = %(organization)s AND date = %(day)s "
            "AND (merchant_id, metric_type) > (%(merchant)s, %(metric)s) "
            "AND (%(only)s::text IS NULL OR metric_type = %(only)s) ORDER BY merchant_id, metric_type LIMIT %(limit)s",
            {
                "organization": organization_id, "day": day, "merchant": after[0], "metric": after[1],
                "only": metric_type, "limit": limit,
            },
        )
    ).fetchall()  # fmt: skip
