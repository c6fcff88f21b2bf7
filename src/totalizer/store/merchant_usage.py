"""What merchants used: the table a bill is made from, and the exact sums that it comes to hold.

A value is only ever raised. What counters say and what is stored of the events are both at most what was tracked, so
the greater of the two is as well; and once all is loaded, the events say exactly that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import date, timedelta
from typing import Any, Final, NamedTuple

from psycopg import Connection

from totalizer.errors import OperationError

Rows = Connection[Any]

EVENT_TYPE: Final = "usage_records"
#: Whose counters have the plain names.
DEFAULT_ORGANIZATION: Final = "default"
#: Greatest value of the column; a day of more is told of as a failure.
VALUE_MAX: Final = 2**63 - 1
#: Rows read from the server at once.
PAGE_ROWS: Final = 5000
#: Lengths of time that usage is summed up by, all of UTC.
WINDOWS: Final = ("hour", "day", "week")

_UPSERT = """
ON CONFLICT (organization_id, date, merchant_id, metric_type)
DO UPDATE SET metric_value = excluded.metric_value, updated_at = now() WHERE u.metric_value < excluded.metric_value
"""
_RAISE = f"""
INSERT INTO totalizer.merchant_usage AS u (organization_id, merchant_id, date, metric_type, metric_value)
SELECT o, m, %(day)s, t, v
FROM unnest(%(organizations)s::uuid[], %(merchants)s::text[], %(metrics)s::text[], %(values)s::bigint[])
  AS new (o, m, t, v)
ORDER BY o, m, t {_UPSERT}"""

#: Buckets that are behind their events; those are read then.
DIRTY: Final = f"""
SELECT DISTINCT organization_id, bucket FROM totalizer.dirty_marks
WHERE event_type = '{EVENT_TYPE}' AND bucket >= %(start)s AND bucket < %(end)s
  AND scope = 'events' AND (rollup IS NULL OR rollup = 'usage_by_metric')
  AND (%(organization)s::uuid IS NULL OR organization_id = %(organization)s::uuid)"""
_MARKED = "unnest(%(dirty_organizations)s::uuid[], %(dirty_buckets)s::timestamptz[]) AS d (o, b)"


class Usage(NamedTuple):
    """What a merchant used of a metric on the day, or in the window, that is asked about."""

    organization_id: str
    merchant_id: str
    metric_type: str
    value: int


class Settled(NamedTuple):
    """What the events of a day come to.

    Attributes:
        records: how many sums there are.
        too_great: those that the table cannot hold.
    """

    records: int
    too_great: tuple[Usage, ...] = ()


def raise_values(connection: Rows, day: date, usages: Sequence[Usage]) -> None:
    """Raise what a day's rows hold to these values, each row once at most; lower values change nothing."""
    parameters = {
        "organizations": _array(usage.organization_id for usage in usages),
        "merchants": _array(_quoted(usage.merchant_id) for usage in usages),
        "metrics": _array(_quoted(usage.metric_type) for usage in usages),
        "values": _array(str(usage.value) for usage in usages),
    }
    connection.execute(_RAISE.encode(), {"day": day, **parameters})


def settle(connection: Rows, day: date, merchant_id: str | None = None) -> Settled:
    """Raise a day's rows to what is stored of its events.

    Each bucket is read either from the rollup or, if it is marked, from the events: what comes in meanwhile may be
    missing, and nothing is counted twice.

    Args:
        connection: in a transaction, as the refresher.
        day: UTC.
        merchant_id: only this merchant's rows, of every organisation.
    """
    parameters = _span(day) | {"organization": None, "merchant": merchant_id, "day": day, "most": VALUE_MAX}
    parameters |= dirty_of(connection.execute(DIRTY.encode(), parameters).fetchall())
    sums = exact_sums("day", merchant=merchant_id is not None)
    row = connection.execute(
        f"""
        WITH sums AS MATERIALIZED ({sums}), put AS (
            INSERT INTO totalizer.merchant_usage AS u (organization_id, merchant_id, date, metric_type, metric_value)
            SELECT organization_id, merchant_id, %(day)s, metric_type, amount FROM sums WHERE amount <= %(most)s
            ORDER BY 1, 2, 4 {_UPSERT}
        ) SELECT count(*),
            jsonb_agg(jsonb_build_array(organization_id, merchant_id, metric_type, amount::text))
                FILTER (WHERE amount > %(most)s)
        FROM sums""".encode(),
        parameters,
    ).fetchone()
    assert row is not None
    return Settled(row[0], tuple(Usage(str(o), m, t, int(v)) for o, m, t, v in row[1] or ()))


def exact_sums(window: str, *, merchant: bool = False, organization: bool = False) -> str:
    """The statement that sums usage up exactly: columns organization_id, merchant_id, metric_type, starts, amount.

    Its parameters are `start` and `end`, those of `dirty_of`, and `merchant` and `organization` where it is told so.

    Args:
        window: one of WINDOWS.
        merchant: of one merchant only.
        organization: of one organisation only.
    """
    assert window in WINDOWS
    own = (" AND {0}.organization_id = %(organization)s::uuid" if organization else "") + (
        " AND {0}.merchant_id = %(merchant)s" if merchant else ""
    )
    return f"""
        SELECT organization_id, merchant_id, metric_type, date_trunc('{window}', bucket, 'UTC') AS starts,
               sum(amount) AS amount
        FROM (
            SELECT organization_id, merchant_id, metric_type, bucket, amount FROM analytics.usage_by_metric_15m r
            WHERE bucket >= %(start)s AND bucket < %(end)s{own.format("r")}
              AND NOT EXISTS (SELECT FROM {_MARKED} WHERE d.o = r.organization_id AND d.b = r.bucket)
            UNION ALL
            SELECT e.organization_id, e.merchant_id, e.metric_type, d.b, e.amount
            FROM {_MARKED} JOIN events.{EVENT_TYPE} e
              ON e.organization_id = d.o AND e.used_at >= d.b
             AND e.used_at < d.b + interval '15 minutes'{own.format("e")}
        ) AS parts GROUP BY 1, 2, 3, 4"""


def dirty_of(rows: Sequence[tuple[Any, Any]]) -> dict[str, Any]:
    """The parameters of `exact_sums` that follow from the answer to DIRTY."""
    return {"dirty_organizations": [row[0] for row in rows], "dirty_buckets": [row[1] for row in rows]}


def behind(connection: Rows, day: date) -> int:
    """How many of a day's sums are not in the table yet.

    Args:
        connection: in a transaction, as the refresher.
        day: UTC.
    """
    parameters = _span(day) | {"organization": None, "day": day}
    parameters |= dirty_of(connection.execute(DIRTY.encode(), parameters).fetchall())
    row = connection.execute(
        f"""
        SELECT count(*) FROM ({exact_sums("day")}) AS s LEFT JOIN totalizer.merchant_usage u
          ON u.organization_id = s.organization_id AND u.date = %(day)s AND u.merchant_id = s.merchant_id
         AND u.metric_type = s.metric_type
        WHERE u.metric_value IS NULL OR u.metric_value < s.amount""".encode(),
        parameters,
    ).fetchone()
    assert row is not None
    return int(row[0])


def usages_of(connection: Rows, day: date) -> Iterator[list[Usage]]:
    """A day's rows of all organisations, in pages.

    Args:
        connection: as the refresher, autocommit; used for nothing else until the last page.
        day: UTC.
    """
    with connection.transaction(), connection.cursor(name="usages") as cursor:
        cursor.execute(
            "SELECT u.organization_id::text, u.merchant_id, u.metric_type, u.metric_value "
            "FROM totalizer.organizations o "
            "JOIN totalizer.merchant_usage u ON u.organization_id = o.id AND u.date = %s",
            [day],
        )
        while rows := cursor.fetchmany(PAGE_ROWS):
            yield [Usage(*row) for row in rows]


def totals_of(connection: Rows, day: date) -> tuple[int, int]:
    """How many rows a day has, and of how many merchants."""
    row = connection.execute(
        "SELECT count(*), count(DISTINCT (u.organization_id, u.merchant_id)) FROM totalizer.organizations o "
        "JOIN totalizer.merchant_usage u ON u.organization_id = o.id AND u.date = %s",
        [day],
    ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def organization_named(connection: Rows, name: str) -> tuple[str, bool]:
    """The id of an organisation, and whether its counters have the plain names.

    Raises:
        OperationError: there is none of this name.
    """
    row = connection.execute("SELECT id::text FROM totalizer.organizations WHERE name = %s", [name]).fetchone()
    if row is None:
        raise OperationError(f"no organisation {name!r}; `totalizer keys create {name}` makes it")
    return str(row[0]), name == DEFAULT_ORGANIZATION


def organizations(connection: Rows) -> tuple[set[str], str | None]:
    """The ids of all organisations, and that of the one whose counters have the plain names."""
    rows = connection.execute(
        "SELECT id::text, name = %s FROM totalizer.organizations", [DEFAULT_ORGANIZATION]
    ).fetchall()
    return {row[0] for row in rows}, next((row[0] for row in rows if row[1]), None)


def _array(elements: Iterable[str]) -> str:
    """An array as PostgreSQL reads it. The driver puts lists together element by element, at ten times the cost."""
    return f"{{{','.join(elements)}}}"


def _quoted(text: str) -> str:
    if "\\" in text or '"' in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _span(day: date) -> dict[str, Any]:
    return {"start": f"{day}T00:00:00Z", "end": f"{day + timedelta(days=1)}T00:00:00Z"}
