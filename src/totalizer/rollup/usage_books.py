"""The table that bills are made from, in the proof that the books balance: it must equal the events of usage.

Compared are finished days: today and yesterday are still the aggregation's. A row that no event is behind is left out,
since other programs' counters are aggregated too; and so is a day with a mark, or below the floor of the quarters that
it is summed up from. Where the aggregation has never run there is nothing to compare.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from psycopg import Connection

from totalizer.catalog.levels import BASE, DAY
from totalizer.rollup.cell import Cell
from totalizer.rollup.comparison import Part
from totalizer.rollup.verify_floors import floors_of_side
from totalizer.store.merchant_usage import EVENT_TYPE, VALUE_MAX

#: What a row of the table is called in books and records, and the rollup whose quarters it is summed up from.
USAGE, SOURCE = "merchant_usage", "usage_by_metric"
_VALUE = "metric_value"

_KEYS = """
    FROM unnest(%(dates)s::date[], %(merchants)s::text[], %(metrics)s::text[], %(expected)s::bigint[],
                %(found)s::bigint[]) AS w (date, merchant_id, metric_type, expected, found)"""
# What somebody has changed meanwhile is left to the next look.
_SET = f"""
    UPDATE totalizer.merchant_usage u SET metric_value = w.expected, updated_at = now() {_KEYS}
    WHERE u.organization_id = %(organization)s::uuid AND u.date = w.date AND u.merchant_id = w.merchant_id
      AND u.metric_type = w.metric_type AND u.metric_value = w.found"""
_ADD = f"""
    INSERT INTO totalizer.merchant_usage (organization_id, date, merchant_id, metric_type, metric_value)
    SELECT %(organization)s::uuid, w.date, w.merchant_id, w.metric_type, w.expected {_KEYS} WHERE w.found IS NULL
    ON CONFLICT DO NOTHING"""


def find_usage_cells(connection: Connection[Any], part: Part, cells_max: int, rows_max: int) -> list[Cell]:
    """The rows that are not what the events say, those that say more than the events first.

    Args:
        connection: as the refresher role.
        part: which of them.
        cells_max: the most of one organisation.
        rows_max: the most of all.
    """
    rows = connection.execute(
        _cells(part).encode(),
        part.parameters() | {"cells_max": cells_max, "rows_max": rows_max, "most": VALUE_MAX}, prepare=False,
    )  # fmt: skip
    return [
        Cell(
            organization, organization, EVENT_TYPE, USAGE, DAY, day, {"merchant_id": merchant, "metric_type": metric},
            {_VALUE: int(expected)}, None if found is None else {_VALUE: found}, differing,
        )
        for organization, day, merchant, metric, expected, found, differing in rows
    ]  # fmt: skip


def put_right(connection: Connection[Any], cells: Sequence[Cell]) -> None:
    """Set rows of one organisation to what the events say.

    Args:
        connection: in a transaction, as the refresher role.
        cells: from `find_usage_cells`, at least one.
    """
    parameters = {
        "organization": cells[0].organization_id,
        "dates": [cell.starts for cell in cells],
        "merchants": [cell.dimensions["merchant_id"] for cell in cells],
        "metrics": [cell.dimensions["metric_type"] for cell in cells],
        "expected": [(cell.expected or {})[_VALUE] for cell in cells],
        "found": [cell.found and cell.found[_VALUE] for cell in cells],
    }
    connection.execute(_SET.encode(), parameters)
    connection.execute(_ADD.encode(), parameters)


def only_late(cells: Iterable[Cell]) -> bool:
    """True if all of an organisation's cells are usage that the table lacks: it came when its day was over.

    Args:
        cells: all that were found, in their order: a row that says too much would come first.
    """
    return all(
        cell.rollup == USAGE and (cell.found is None or cell.found[_VALUE] < (cell.expected or {})[_VALUE])
        for cell in cells
    )


def _cells(part: Part) -> str:
    own = "true" if part.organizations is None else "{}.organization_id = ANY (%(organizations)s::uuid[])"
    bounds = "" if part.starts is None else " AND side.day >= %(starts)s"
    bounds += "" if part.ends is None else " AND side.day < %(ends)s"
    return f"""
        WITH behind AS MATERIALIZED (
            SELECT DISTINCT organization_id, date_trunc('day', bucket, 'UTC') AS day FROM totalizer.dirty_marks m
            WHERE event_type = '{EVENT_TYPE}' AND scope = 'events' AND (rollup IS NULL OR rollup = '{SOURCE}')
              AND {own.format("m")}
        ), tracked AS (
            SELECT organization_id, day, merchant_id, metric_type, sum(amount) AS amount
            FROM (
                SELECT *, date_trunc('day', bucket, 'UTC') AS day FROM analytics.{SOURCE}_{BASE.suffix} r
                WHERE {own.format("r")} AND bucket < date_trunc('day', now(), 'UTC') - interval '1 day'
            ) AS side {floors_of_side(EVENT_TYPE)}
            WHERE (floors.owner IS NULL OR side.day >= floors.base_floor){bounds}
            GROUP BY 1, 2, 3, 4
        ), numbered AS (
            SELECT t.organization_id, u.metric_value AS found, t.merchant_id, t.metric_type, t.amount,
                   (t.day AT TIME ZONE 'UTC')::date AS date, count(*) OVER whose AS differing,
                   row_number() OVER (
                       PARTITION BY t.organization_id
                       ORDER BY u.metric_value > t.amount DESC NULLS LAST, t.day, t.merchant_id, t.metric_type
                   ) AS place
            FROM tracked t LEFT JOIN totalizer.merchant_usage u
              ON u.organization_id = t.organization_id AND u.date = (t.day AT TIME ZONE 'UTC')::date
             AND u.merchant_id = t.merchant_id AND u.metric_type = t.metric_type
            WHERE u.metric_value IS DISTINCT FROM t.amount AND t.amount <= %(most)s
              AND NOT EXISTS (SELECT FROM behind b WHERE b.organization_id = t.organization_id AND b.day = t.day)
              AND EXISTS (SELECT FROM totalizer.usage_aggregations)
            WINDOW whose AS (PARTITION BY t.organization_id)
        )
        SELECT organization_id::text, date, merchant_id, metric_type, amount, found, differing
        FROM numbered WHERE place <= %(cells_max)s ORDER BY place, organization_id LIMIT %(rows_max)s"""
