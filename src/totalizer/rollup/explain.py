"""What one cell of a rollup is made of: the rows of each finer grain, down to the events."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any, NamedTuple

from psycopg import Connection
from psycopg.rows import dict_row

from totalizer.catalog import EventType, Rollup
from totalizer.catalog.levels import BASE, DAY, HOUR, LEVELS, MINUTE, MONTH, WEEK, Level
from totalizer.catalog.quoting import quoted, quoted_list
from totalizer.errors import OperationError
from totalizer.rollup.cell import Cell, find_cells
from totalizer.rollup.comparison import Part, local_day
from totalizer.rollup.statements import base_of
from totalizer.store.ddl import rollup_states
from totalizer.store.plan import read_applied

#: The first and last moment, or local day, of what contains a moment.
_KEYS = {
    MINUTE: "date_trunc('minute', at, 'UTC')",
    BASE: base_of("at"),
    HOUR: "date_trunc('hour', at, 'UTC')",
    DAY: "day",
    WEEK: "date_trunc('week', day::timestamp)::date",
    MONTH: "date_trunc('month', day::timestamp)::date",
}
_LENGTHS = {MINUTE: "1 minute", BASE: "15 minutes", HOUR: "1 hour", DAY: "1 day", WEEK: "7 days", MONTH: "1 month"}


class Asked(NamedTuple):
    """Which cell.

    Attributes:
        organization, rollup: names.
        grain: a suffix, such as `1d`.
        at: a moment in it; of a date without time, that local day.
        dimensions: the row's; those that are not given may be anything.
    """

    organization: str
    rollup: str
    grain: str
    at: datetime | date
    dimensions: Mapping[str, str] = {}


class Layer(NamedTuple):
    """The rows of one grain, or events, that lie in the cell.

    Attributes:
        name: suffix of the grain, or `events`.
        total: how many there are.
        rows: the first of them, in order of time.
    """

    name: str
    total: int
    rows: list[dict[str, Any]]


class Explained(NamedTuple):
    """A cell and what it is made of.

    Attributes:
        starts, ends: its moments.
        layers: the cell's own rows, then those of each finer grain it is made from, and the events.
        marks: of what lies in it: bucket, rollup (None: all), scope and priority.
        wrong: rows of the cell that differ from what they are made from, and are not marked.
    """

    starts: datetime
    ends: datetime
    layers: list[Layer]
    marks: list[dict[str, Any]]
    wrong: list[Cell]


def explain(connection: Connection[Any], asked: Asked, rows_max: int = 20) -> Explained:
    """What a cell is made of, in one snapshot.

    Args:
        connection: autocommit, as the refresher role.
        asked: which.
        rows_max: how many rows of each grain to tell.

    Raises:
        OperationError: there is no such organisation, rollup, grain or dimension.
    """
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        rollup, event_type, level = _declared(connection, asked)
        owner, starts, ends = _span(connection, asked, level)
        sources = [level, *_sources(level, rollup)]
        layers = [
            _layer(connection, rollup, event_type, each, owner, starts, ends, asked, rows_max) for each in sources
        ]
        layers.append(_layer(connection, rollup, event_type, None, owner, starts, ends, asked, rows_max))
        marks = _dicts(
            connection,
            "SELECT bucket, rollup, scope, priority, marked_at FROM totalizer.dirty_marks WHERE organization_id = %s "
            "AND event_type = %s AND bucket >= date_bin('15 minutes', %s, 'epoch'::timestamptz) AND bucket < %s "
            "AND (rollup IS NULL OR rollup = %s) ORDER BY 1 LIMIT %s",
            [owner, event_type.name, starts, ends, rollup.name, rows_max],
        )  # fmt: skip
        part = Part((owner,), starts, ends)
        wrong = [
            cell
            for each in reversed(sources)
            for cell in find_cells(connection, rollup, each, event_type, part, rows_max, rows_max)
            if all(str(cell.dimensions[name]) == value for name, value in asked.dimensions.items())
        ]
    return Explained(starts, ends, layers, marks, [cell._replace(organization=asked.organization) for cell in wrong])


def _declared(connection: Connection[Any], asked: Asked) -> tuple[Rollup, EventType, Level]:
    applied = read_applied(connection)
    rollup = applied.rollups.get(asked.rollup)
    if rollup is None:
        raise OperationError(f"there is no rollup {asked.rollup!r}; there are {', '.join(sorted(applied.rollups))}")
    level = next((level for level in rollup.kept if level.suffix == asked.grain), None)
    if level is None:
        raise OperationError(f"{rollup.name} keeps no grain {asked.grain!r}; it keeps {', '.join(rollup.levels)}")
    for name in asked.dimensions:
        if name not in rollup.dimensions:
            raise OperationError(f"{rollup.name} has no dimension {name!r}; it has {', '.join(rollup.dimensions)}")
    return rollup, applied.event_types[rollup.event_type], level


def _span(connection: Connection[Any], asked: Asked, level: Level) -> tuple[str, datetime, datetime]:
    """The organisation's id, and the bounds of what contains the moment."""
    local = not isinstance(asked.at, datetime)
    moment = "%(at)s::timestamp AT TIME ZONE time_zone" if local else "%(at)s::timestamptz"
    starts = _KEYS[level]
    length = f"interval '{_LENGTHS[level]}'"
    bounds = f"{starts}, {starts} + {length}"
    if level.local:
        bounds = f"{starts}::timestamp AT TIME ZONE time_zone, ({starts} + {length}) AT TIME ZONE time_zone"
    row = connection.execute(
        f"SELECT o.id::text, {bounds} FROM totalizer.organizations o, LATERAL (SELECT {moment} AS at) AS asked, "
        f"{local_day('at', 'time_zone')} WHERE o.name = %(name)s".encode(),
        {"at": asked.at, "name": asked.organization},
    ).fetchone()
    if row is None:
        raise OperationError(f"there is no organisation {asked.organization!r}")
    return row[0], row[1], row[2]


def _sources(level: Level, rollup: Rollup) -> list[Level]:
    """The grains it is made from, the coarsest first."""
    found: list[Level] = []
    while level.source is not None:
        level = next(each for each in LEVELS if each.suffix == level.source)
        found.append(level)
    return [each for each in found if rollup.keeps(each)]


def _layer(
    connection: Connection[Any], rollup: Rollup, event_type: EventType, level: Level | None, owner: str,
    starts: datetime, ends: datetime, asked: Asked, rows_max: int,
) -> Layer:  # fmt: skip
    if level is None:
        time, table = quoted(event_type.time_field), f"events.{quoted(event_type.name)}"
        fields = [measure.field for measure in rollup.measures if measure.field]
        columns = quoted_list(list(dict.fromkeys([event_type.time_field, "id", *rollup.dimensions, *fields])))
        span = f"{time} >= %(starts)s AND {time} < %(ends)s"
    else:
        time, table = quoted(level.key), f"analytics.{quoted(rollup.table(level))}"
        states = (state.column for state in rollup_states(rollup, event_type))
        columns = quoted_list([level.key, *rollup.dimensions, *states])
        span = f"{time} >= %(starts)s AND {time} < %(ends)s"
        if level.local:
            zone = "(SELECT time_zone FROM totalizer.organizations WHERE id = %(owner)s)"
            span = f"{time} >= (%(starts)s AT TIME ZONE {zone})::date AND {time} < (%(ends)s AT TIME ZONE {zone})::date"
    own = "".join(f" AND {quoted(name)}::text = %(d{n})s" for n, name in enumerate(asked.dimensions))
    parameters = {
        "owner": owner, "starts": starts, "ends": ends,
        **{f"d{n}": value for n, value in enumerate(asked.dimensions.values())},
    }  # fmt: skip
    rows = _dicts(
        connection,
        f"SELECT {columns}, count(*) OVER () AS _of FROM {table} WHERE organization_id = %(owner)s AND {span}{own} "
        f"ORDER BY {time} LIMIT {rows_max}",
        parameters,
    )
    count = rows[0]["_of"] if rows else 0
    for row in rows:
        del row["_of"]
    return Layer("events" if level is None else level.suffix, count, rows)


def _dicts(connection: Connection[Any], statement: str, parameters: Any) -> list[dict[str, Any]]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(statement.encode(), parameters).fetchall()
