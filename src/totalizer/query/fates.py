"""What became of an organisation's events: of one receipt, by the hour, and what is in quarantine."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from totalizer.query.run import snapshot

#: What a sender is told of events that PostgreSQL itself had nothing to say about.
_MESSAGES = {
    "duplicate": "an event with this id was stored before, or stands further up in the request",
    "conflict": "an event with this id and other contents was stored before; that one is kept",
    "dropped": "it was in quarantine and was dropped",
}
#: Fates of `event_fates`, in the order in which answers have them.
FATES = ("duplicate", "conflict", "quarantined", "dropped")
#: What a page of the quarantine shows of each event; `line` is for one event only.
_SHOWN = (
    "id, event_type, sqlstate AS code, reason AS message, created_at AS quarantined_at, retries, retried_at, "
    "journal_id::text AS journal"
)

Pool = AsyncConnectionPool[Any]


class Outcome(msgspec.Struct, frozen=True):
    """What became of the events of one journal record.

    Attributes:
        status: `done`, or `pending` while the record is not loaded.
        accepted: how many events it holds.
        loaded, duplicate, conflict, quarantined, dropped, lost: how many of them have that fate; together `accepted`
            when it is done.
        items: those that are not stored: event_type, index, id, status, code, message, quarantine_id.
    """

    status: str
    accepted: int
    loaded: int
    duplicate: int
    conflict: int
    quarantined: int
    dropped: int
    lost: int
    items: list[dict[str, Any]]


async def outcome(pool: Pool, organization_id: str, journal_id: str, sequence: int, accepted: int) -> Outcome:
    """What became of the events of a record, in one snapshot.

    Args:
        organization_id: whose.
        journal_id: UUID of the journal.
        sequence: number of the record.
        accepted: how many events it holds.

    Raises:
        Refused: the database is away.
    """
    async with snapshot(pool, organization_id) as connection:
        cursor = await connection.execute(
            "SELECT EXISTS (SELECT FROM totalizer.journal_offsets WHERE journal_id = %(journal)s "
            "AND sequence >= %(sequence)s), (SELECT reason FROM totalizer.journal_gaps WHERE journal_id = %(journal)s "
            "AND %(sequence)s BETWEEN first AND last LIMIT 1)",
            {"journal": journal_id, "sequence": sequence},
        )
        row = await cursor.fetchone()
        assert row is not None
        done, missing = row
        cursor = await connection.execute(
            "SELECT event_type, fate, places, ids, code, reason, dead_letter_id FROM totalizer.event_fates "
            "WHERE organization_id = %s AND journal_id = %s AND sequence = %s",
            [organization_id, journal_id, sequence],
        )
        items = [item for row in await cursor.fetchall() for item in _items(*row)]
    items.sort(key=lambda item: (item["event_type"], item["index"]))
    counts = {fate: sum(item["status"] == fate for item in items) for fate in FATES}
    if not done:
        return Outcome("pending", accepted, 0, **counts, lost=0, items=items)
    if missing is not None:
        message = f"the record that held these events {missing}"
        lost = {"event_type": None, "index": None, "id": None, "status": "lost", "code": "lost", "message": message}
        return Outcome("done", accepted, 0, **counts, lost=accepted, items=[{**lost, "quarantine_id": None}])
    return Outcome("done", accepted, accepted - sum(counts.values()), **counts, lost=0, items=items)


def _items(
    event_type: str, fate: str, places: list[int], ids: list[str], code: str | None, reason: str | None,
    letter_id: int | None,
) -> list[dict[str, Any]]:  # fmt: skip
    return [
        {
            "event_type": event_type, "index": place, "id": event_id, "status": fate, "code": code or fate,
            "message": reason or _MESSAGES.get(fate, ""), "quarantine_id": letter_id,
        }
        for place, event_id in zip(places, ids, strict=True)
    ]  # fmt: skip


async def books(pool: Pool, organization_id: str, hours: int) -> dict[str, Any]:
    """Sums of what an organisation has sent and what became of it, by the hour of receipt.

    Args:
        organization_id: whose.
        hours: how many, back from the present one.

    Raises:
        Refused: the database is away.
    """
    async with snapshot(pool, organization_id) as connection:
        row = await (await connection.execute("SELECT now(), date_trunc('hour', now(), 'UTC')")).fetchone()
        assert row is not None
        as_of, since = row[0], row[1] - timedelta(hours=hours - 1)
        async with connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(
                "SELECT received_hour AS hour, sum(accepted)::bigint AS accepted, sum(loaded)::bigint AS loaded, "
                "sum(duplicate)::bigint AS duplicate, sum(conflict)::bigint AS conflict, "
                "sum(dead_lettered)::bigint AS quarantined, sum(dropped)::bigint AS dropped FROM totalizer.ledger "
                "WHERE organization_id = %s AND received_hour >= %s GROUP BY 1 ORDER BY 1",
                [organization_id, since],
            )
            accepted = {row["hour"]: row for row in await cursor.fetchall()}
            await cursor.execute(
                "SELECT hour, code, sum(events)::bigint AS events FROM totalizer.rejected_events "
                "WHERE organization_id = %s AND hour >= %s GROUP BY 1, 2 ORDER BY 1, 2",
                [organization_id, since],
            )
            rejected = await cursor.fetchall()
    return {"as_of": as_of, "since": since, **_summed(accepted, rejected)}


_FIGURES = ("accepted", "loaded", "duplicate", "conflict", "quarantined", "dropped")


def _summed(accepted: Mapping[datetime, dict[str, Any]], rejected: list[dict[str, Any]]) -> dict[str, Any]:
    hours = {hour: {"rejected": 0, **dict(row)} for hour, row in accepted.items()}
    codes: dict[str, int] = {}
    for row in rejected:
        empty = {"rejected": 0, "hour": row["hour"], **dict.fromkeys(_FIGURES, 0)}
        hours.setdefault(row["hour"], empty)["rejected"] += row["events"]
        codes[row["code"]] = codes.get(row["code"], 0) + row["events"]
    for row in hours.values():
        row["sent"] = row["accepted"] + row["rejected"]
    totals = {name: sum(row[name] for row in hours.values()) for name in ("sent", "rejected", *_FIGURES)}
    return {**totals, "rejected_by_code": codes, "hours": [hours[hour] for hour in sorted(hours)]}


async def quarantined(
    pool: Pool, organization_id: str, *, event_type: str | None, before: int | None, limit: int
) -> list[dict[str, Any]]:
    """Events in quarantine, newest first.

    Args:
        organization_id: whose.
        event_type: only of this type; None for all.
        before: only those with a smaller number; None from the newest on.
        limit: how many at most.

    Raises:
        Refused: the database is away.
    """
    async with snapshot(pool, organization_id) as connection, connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            f"SELECT {_SHOWN} FROM totalizer.dead_letters WHERE organization_id = %(organization)s "
            "AND (%(type)s::text IS NULL OR event_type = %(type)s) AND (%(before)s::bigint IS NULL OR id < %(before)s) "
            "ORDER BY id DESC LIMIT %(limit)s",
            {"organization": organization_id, "type": event_type, "before": before, "limit": limit},
        )
        return await cursor.fetchall()


async def quarantined_event(pool: Pool, organization_id: str, letter_id: int) -> dict[str, Any] | None:
    """One event in quarantine, with `columns` and `line`; None if the organisation has none of that number.

    Raises:
        Refused: the database is away.
    """
    async with snapshot(pool, organization_id) as connection, connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            f"SELECT {_SHOWN}, columns, line FROM totalizer.dead_letters WHERE organization_id = %s AND id = %s",
            [organization_id, letter_id],
        )
        return await cursor.fetchone()
