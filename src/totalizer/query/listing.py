"""Single events, the latest first, a page of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from psycopg import AsyncConnection

from totalizer.catalog import EventType
from totalizer.catalog.quoting import quoted, quoted_list
from totalizer.errors import Refusal, Refused
from totalizer.prepared import prepared
from totalizer.query.filters import conditions_sql, groupable, read_filters, wrong
from totalizer.query.moments import moment, time_zone_of
from totalizer.query.opaque import decoded, encoded, fingerprint
from totalizer.query.parse import RANGE_DEFAULT, row_limit
from totalizer.query.question import Filter
from totalizer.query.result import plain
from totalizer.query.run import Made
from totalizer.query.state import State

_OWN = ("start_date", "end_date", "time_zone", "limit", "cursor")
#: Events of a page unless the request says otherwise.
EVENTS_DEFAULT = 100


class Listing(msgspec.Struct, frozen=True):
    """A question for events.

    Attributes:
        event_type: of which type.
        start, end: the range of their times, end excluded, UTC.
        zone: in which times are told.
        filters: conditions.
        limit: events at most.
        after: time and id of the last event of the page before.
    """

    event_type: str
    start: datetime
    end: datetime
    zone: str
    filters: tuple[Filter, ...]
    limit: int
    after: tuple[str, str] | None = None


@prepared
class _Cursor(msgspec.Struct, array_like=True):
    query: str
    end: str
    time: str
    id: str


def parse_listing(
    event_type: EventType, parameters: Mapping[str, Sequence[str]], now: datetime, own_zone: str, organization_id: str
) -> Listing:
    """The question that request parameters ask.

    Args:
        event_type: of the events.
        parameters: name → values; those that are not of the question itself filter by the dimension of their name.
        now: the end when none is given.
        own_zone: the organisation's.
        organization_id: whose; a cursor is good for them only.

    Raises:
        Refused: a parameter cannot be used; the message names it, its value and what can.
    """
    for name in _OWN:
        if len(parameters.get(name, ())) > 1:
            raise wrong(name, list(parameters[name]), "may be given once")
    one = {name: parameters[name][0] for name in _OWN if parameters.get(name)}
    here = time_zone_of(one.get("time_zone", own_zone))
    cursor = _read(one["cursor"]) if "cursor" in one else None
    if cursor is not None:
        now = datetime.fromisoformat(cursor.end)
    end = moment("end_date", one.get("end_date"), here, is_end=True) or now
    start = moment("start_date", one.get("start_date"), here, is_end=False) or end - RANGE_DEFAULT
    if start >= end:
        raise wrong("start_date", start.isoformat(), f"must be before end_date {end.isoformat()}")
    conditions = {name: list(values) for name, values in parameters.items() if name not in _OWN}
    for name, values in conditions.items():
        if event_type.field(name) is None:
            known = ", ".join((*_OWN, *groupable(event_type)))
            raise wrong(name, ",".join(values), f"unknown parameter; use some of {known}")
    limit = row_limit(one.get("limit", EVENTS_DEFAULT))
    listing = Listing(event_type.name, start, end, here.key, read_filters(event_type, conditions), limit)
    if cursor is None:
        return listing
    if cursor.query != _fingerprint(listing, organization_id):
        raise wrong("cursor", f"{one['cursor']:.50}", "belongs to another query; repeat the query it came from")
    return msgspec.structs.replace(listing, after=(cursor.time, cursor.id))


async def list_events(
    connection: AsyncConnection[Any], event_type: EventType, organization_id: str, state: State, listing: Listing
) -> Made:
    """A page of events.

    Args:
        connection: in a snapshot.
        event_type: of the events.
        organization_id: whose.
        state: of the snapshot.
        listing: the question.
    """
    columns = ["id", event_type.time_field, *(field.name for field in event_type.fields), "source", "external_id"]
    parameters: dict[str, Any] = {
        "organization": organization_id, "start": listing.start, "end": listing.end, "limit": listing.limit + 1,
    }  # fmt: skip
    time = f"r.{quoted(event_type.time_field)}"
    conditions = conditions_sql(listing.filters, event_type, parameters, "e")
    if listing.after is not None:
        parameters |= {"time": listing.after[0], "id": listing.after[1]}
        conditions += f" AND ({time}, r.id) < (%(time)s::timestamptz, %(id)s::uuid)"
    cursor = await connection.execute(
        (
            f"SELECT {quoted_list(columns)} FROM events.{quoted(event_type.name)} r "
            f"WHERE r.organization_id = %(organization)s::uuid AND {time} >= %(start)s::timestamptz "
            f"AND {time} < %(end)s::timestamptz{conditions} ORDER BY {time} DESC, r.id DESC LIMIT %(limit)s"
        ).encode(),
        parameters,
    )
    rows = await cursor.fetchall()
    page, zone = rows[: listing.limit], time_zone_of(listing.zone)
    data = []
    for row in page:
        shown = {name: plain(value) for name, value in zip(columns, row, strict=True)}
        data.append(shown | {event_type.time_field: row[1].astimezone(zone).isoformat()})
    next_cursor = None
    if len(rows) > listing.limit:
        next_cursor = _encode(listing, organization_id, page[-1][1], page[-1][0])
    return Made(
        {
            "data": data, "next_cursor": next_cursor, "as_of": state.now.isoformat(), "exact": True,
            "source": "events",
            "query": {
                "event_type": event_type.name, "start_date": listing.start.astimezone(zone).isoformat(),
                "end_date": listing.end.astimezone(zone).isoformat(), "time_zone": listing.zone,
                "filters": {each.field: list(each.values) for each in listing.filters}, "limit": listing.limit,
            },
        },
        kept=True,
    )  # fmt: skip


def _encode(listing: Listing, organization_id: str, time: datetime, event_id: UUID) -> str:
    question = _fingerprint(listing, organization_id)
    return encoded(_Cursor(question, listing.end.isoformat(), time.isoformat(), str(event_id)))


def _read(text: str) -> _Cursor:
    try:
        cursor = decoded(text, _Cursor)
        moments = [datetime.fromisoformat(each) for each in (cursor.end, cursor.time)]
        UUID(cursor.id)
        if all(each.tzinfo for each in moments):
            return cursor
    except (ValueError, msgspec.MsgspecError, RecursionError):
        pass
    raise Refused(Refusal.INVALID_QUERY, f"cursor={text:.50}: is no cursor; send next_cursor as it was")


def _fingerprint(listing: Listing, organization_id: str) -> str:
    return fingerprint(organization_id, msgspec.structs.replace(listing, limit=0, after=None))
