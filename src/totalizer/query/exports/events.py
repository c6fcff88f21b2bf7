"""Events in the order of their times: what is asked for, and a page of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from psycopg import AsyncConnection

from totalizer.catalog import Catalog, EventType
from totalizer.catalog.quoting import quoted
from totalizer.query.exports.columns import Kind, event_columns
from totalizer.query.exports.horizon import settled_sql
from totalizer.query.exports.ticket import Ticket, read_key
from totalizer.query.filters import conditions_sql, event_type_of, groupable, read_filters, wrong
from totalizer.query.moments import moment, time_zone_of
from totalizer.query.parse import EVENT_TYPE_DEFAULT
from totalizer.query.question import Filter

#: Parameters of an export of events that are no conditions.
OWN = (
    "event_type", "start_date", "end_date", "time_zone", "stored_since", "limit", "cursor", "position", "after",
)  # fmt: skip
#: Events read at once. Each page is a transaction of its own, so that a slow reader holds none.
PAGE_ROWS = 2000

Row = tuple[Any, ...]


class Wanted(msgspec.Struct, frozen=True):
    """The events of an export.

    Attributes:
        event_type: of which type.
        start, end: the range of their times, end excluded; None for no bound.
        filters: conditions.
        stored_since: only those stored from then on.
    """

    event_type: str
    start: datetime | None
    end: datetime | None
    filters: tuple[Filter, ...]
    stored_since: datetime | None = None


class Asked(msgspec.Struct, frozen=True):
    """A request for an export.

    Attributes:
        wanted: the events.
        limit: events at most; None for as many as an export may have.
        cursor: of the export to go on with.
        position: time and id of the last event that the client has of it.
        after: of an earlier export, to have what was stored after it.
    """

    wanted: Wanted
    limit: int | None = None
    cursor: str | None = None
    position: tuple[str, str] | None = None
    after: str | None = None


def parse_events(catalog: Catalog, parameters: Mapping[str, Sequence[str]], own_zone: str) -> Asked:
    """The export that request parameters ask for.

    Args:
        catalog: what there is.
        parameters: name → values; those that are not of the export itself filter by the dimension of their name.
        own_zone: the organisation's, in which dates are read when the request names none.

    Raises:
        Refused: a parameter cannot be used; the message names it, its value and what can.
    """
    for name in OWN:
        if len(parameters.get(name, ())) > 1:
            raise wrong(name, list(parameters[name]), "may be given once")
    one = {name: parameters[name][0] for name in OWN if parameters.get(name)}
    event_type = event_type_of(catalog, one.get("event_type", EVENT_TYPE_DEFAULT))
    here = time_zone_of(one.get("time_zone", own_zone))
    start = moment("start_date", one.get("start_date"), here, is_end=False)
    end = moment("end_date", one.get("end_date"), here, is_end=True)
    if start is not None and end is not None and start >= end:
        raise wrong("start_date", start.isoformat(), f"must be before end_date {end.isoformat()}")
    if "cursor" in one and "after" in one:
        raise wrong("cursor", f"{one['cursor']:.50}", "goes on with an export, and after begins one: give one of them")
    if "position" in one and "cursor" not in one:
        raise wrong("position", one["position"], "goes with the cursor of the export that broke off")
    conditions = {name: list(values) for name, values in parameters.items() if name not in OWN}
    for name, values in conditions.items():
        if event_type.field(name) is None:
            known = ", ".join((*OWN, *groupable(event_type)))
            raise wrong(name, ",".join(values), f"unknown parameter; use some of {known}")
    stored_since = moment("stored_since", one.get("stored_since"), here, is_end=False)
    wanted = Wanted(event_type.name, start, end, read_filters(event_type, conditions), stored_since)
    position = _position(one["position"]) if "position" in one else None
    return Asked(wanted, _limit(one.get("limit")), one.get("cursor"), position, one.get("after"))


async def read_page(
    connection: AsyncConnection[Any],
    event_type: EventType,
    organization_id: str,
    wanted: Wanted,
    ticket: Ticket,
    limit: int,
) -> list[Row]:
    """The events after the ticket's place, of those it is for.

    Args:
        connection: in a snapshot.
        event_type: of the events.
        organization_id: whose.
        wanted: which.
        ticket: of the export.
        limit: events at most.
    """
    parameters: dict[str, Any] = {"organization": organization_id, "limit": limit}
    time = f"r.{quoted(event_type.time_field)}"
    conditions = conditions_sql(wanted.filters, event_type, parameters, "e")
    for column, op, name, value in (
        (time, ">=", "start", wanted.start),
        (time, "<", "end", wanted.end),
        ("r.stored_at", ">=", "stored_since", wanted.stored_since),
    ):
        if value is not None:
            parameters[name] = value
            conditions += f" AND {column} {op} %({name})s::timestamptz"
    if ticket.key is not None:
        parameters |= {"time": ticket.key[0], "id": ticket.key[1]}
        # The second is implied, and without it every partition would be looked into for each page.
        conditions += f" AND ({time}, r.id) > (%(time)s::timestamptz, %(id)s::uuid) AND {time} >= %(time)s::timestamptz"
    conditions += settled_sql(ticket.until, ticket.since, parameters)
    cursor = await connection.execute(
        (
            f"SELECT {_selected(event_type)} FROM events.{quoted(event_type.name)} r "
            f"WHERE r.organization_id = %(organization)s::uuid{conditions} ORDER BY {time}, r.id LIMIT %(limit)s"
        ).encode(),
        parameters,
        binary=True,
    )
    rows: list[Row] = await cursor.fetchall()
    return rows


def _selected(event_type: EventType) -> str:
    # JSON as its text: every digit of its numbers stays. Ids too: no format needs more, and texts are made sooner.
    as_text = (Kind.JSON, Kind.UUID)
    return ", ".join(
        f"r.{quoted(column.name)}{'::text' if column.kind in as_text else ''}" for column in event_columns(event_type)
    )


def _limit(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and 1 <= len(text) <= 12 and int(text) > 0):
        raise wrong("limit", text, "must be a whole number from 1")
    return int(text)


def _position(text: str) -> tuple[str, str]:
    time, _, event_id = text.partition(",")
    try:
        return read_key(time.replace(" ", "+"), event_id)
    except ValueError:
        raise wrong("position", text, "must be the time and the id of the last event you have: TIME,ID") from None
