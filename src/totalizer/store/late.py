"""SQL of late events: floors held still, events kept beside the event tables, and what became of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from psycopg import Connection
from psycopg.rows import class_row

from totalizer.catalog.quoting import quoted
from totalizer.store import audit
from totalizer.store.audit import Change
from totalizer.store.loading import Refound, Target, staged

Rows = Connection[Any]


class LateEvent(NamedTuple):
    """An event that came below its organisation's raw floor.

    Attributes:
        id: its number.
        organization_id, organization: whose.
        event_type: of what kind.
        event_time: when it happened.
        event_id: its stored id.
        state: `late`, `held` or `applied`.
        stored_at, applied_at: when it was loaded, and added to the rollups.
        columns, line: its values, as the collector rendered them.
        received_hour: the hour of receipt, under which the ledger counts it.
    """

    id: int
    organization_id: str
    organization: str | None
    event_type: str
    event_time: datetime
    event_id: str
    state: str
    stored_at: datetime
    applied_at: datetime | None
    columns: list[str]
    line: bytes
    received_hour: datetime


def hold_floors(connection: Rows) -> int:
    """Keep every floor where it is until this transaction ends; returns the number of the last change."""
    row = connection.execute("SELECT totalizer.hold_floors()").fetchone()
    assert row is not None
    return int(row[0])


def raw_floors(connection: Rows) -> list[tuple[str, str | None, str]]:
    """Every raw floor: event type, organisation (None: all that have none of their own), UTC day as text."""
    return connection.execute(
        "SELECT event_type, organization_id::text, to_char(raw_floor AT TIME ZONE 'UTC', 'YYYY-MM-DD') "
        "FROM totalizer.retention_floors WHERE raw_floor > '-infinity'"
    ).fetchall()


def keep_late(connection: Rows, target: Target, lines: Sequence[bytes], hours: Sequence[str]) -> Refound:
    """Keep late lines, of which some may be known already; the first of each id is kept.

    Ids that senders chose are found in the key table, like those of other events, and remembered there. Below the key
    floor they may have been forgotten: such an event is held until somebody says whether it counts.

    Args:
        connection: in a transaction that holds the floors, at a savepoint.
        target: what they would be lines of.
        lines: in order of arrival.
        hours: in which each was received, as PostgreSQL reads times.

    Raises:
        psycopg.Error: one of the lines is none of the target's, as when it is copied there.
    """
    with staged(connection, target, lines) as stage:
        known = connection.execute(
            _insert_late(target, stage.table),
            {
                "type": target.event_type, "columns": list(target.columns), "lines": list(lines),
                "hours": list(hours), "first": stage.first,
            },
        ).fetchall()  # fmt: skip
        return stage.refound([row[0] for row in known])


def _insert_late(target: Target, stage: str) -> str:
    """Keeps what is new; answers the ordinals of the other lines, in order."""
    time = quoted(target.time)
    below = f"{time} < coalesce((SELECT key_floor FROM totalizer.floors_of(%(type)s, organization_id)), '-infinity')"
    remember = "SELECT organization_id, id, event_time FROM first WHERE false"
    if target.keyed:
        remember = f"""
            INSERT INTO {target.keys} (organization_id, id, event_time)
            SELECT organization_id, id, event_time FROM first WHERE NOT held ORDER BY organization_id, id
            ON CONFLICT DO NOTHING RETURNING organization_id, id, event_time"""
        stored = f"SELECT FROM {target.keys} k WHERE k.organization_id = first.organization_id AND k.id = first.id"
    else:
        stored = (
            f"SELECT FROM {target.table} e WHERE e.organization_id = first.organization_id "
            f"AND e.{time} = first.event_time AND e.id = first.id"
        )
    fresh = (
        "held OR EXISTS (SELECT FROM remembered r WHERE (r.organization_id, r.id) = (first.organization_id, first.id))"
    )
    return f"""
        WITH first AS (
            SELECT DISTINCT ON (organization_id, id) ordinal, organization_id, id, {time} AS event_time,
                   {below if target.keyed else "false"} AS held
            FROM {stage} ORDER BY organization_id, id, ordinal
        ), remembered AS ({remember}
        ), kept AS (
            INSERT INTO totalizer.late_events
                (organization_id, event_type, event_time, event_id, columns, line, state, received_hour)
            SELECT organization_id, %(type)s, event_time, id, %(columns)s::text[],
                   (%(lines)s::bytea[])[ordinal - %(first)s + 1], CASE WHEN held THEN 'held' ELSE 'late' END,
                   (%(hours)s::timestamptz[])[ordinal - %(first)s + 1]
            FROM first WHERE {f"({fresh})" if target.keyed else "true"}
              AND ({"NOT held OR " if target.keyed else ""}NOT EXISTS ({stored}))
            ORDER BY organization_id, id
            ON CONFLICT DO NOTHING RETURNING organization_id, event_id
        )
        SELECT s.ordinal FROM {stage} s WHERE NOT EXISTS (
            SELECT FROM first f JOIN kept k ON k.organization_id = f.organization_id AND k.event_id = f.id
            WHERE f.ordinal = s.ordinal
        ) ORDER BY s.ordinal"""


_LATE = (
    "SELECT l.id, l.organization_id::text, o.name AS organization, l.event_type, event_time, event_id::text, state, "
    "stored_at, applied_at, columns, line, received_hour "
    "FROM totalizer.late_events l LEFT JOIN totalizer.organizations o ON o.id = l.organization_id"
)
_SELECTED = (
    "WHERE (%(ids)s::bigint[] IS NULL OR l.id = ANY (%(ids)s)) AND l.state = ANY (%(states)s) "
    "AND (%(organization)s::text IS NULL OR o.name = %(organization)s) "
    "AND (%(event_type)s::text IS NULL OR l.event_type = %(event_type)s)"
)


class Selection(NamedTuple):
    """Which late events: those that meet every condition given.

    Attributes:
        states: some of `late`, `held`, `applied`.
        ids: their numbers; None for any.
        organization: name of the one whose they are; None for anybody's.
        event_type: of what kind; None for any.
    """

    states: tuple[str, ...]
    ids: tuple[int, ...] | None = None
    organization: str | None = None
    event_type: str | None = None

    def parameters(self) -> dict[str, Any]:
        """As the statements take them."""
        return {
            "ids": None if self.ids is None else list(self.ids), "states": list(self.states),
            "organization": self.organization, "event_type": self.event_type,
        }  # fmt: skip


def list_late(connection: Rows, selection: Selection, limit: int) -> list[LateEvent]:
    """Late events, newest first.

    Args:
        connection: as the refresher.
        selection: which.
        limit: how many at most.
    """
    with connection.cursor(row_factory=class_row(LateEvent)) as cursor:
        return cursor.execute(
            f"{_LATE} {_SELECTED} ORDER BY l.id DESC LIMIT %(limit)s", {**selection.parameters(), "limit": limit}
        ).fetchall()


def count_late(connection: Rows, selection: Selection) -> dict[tuple[str | None, str, str], int]:
    """How many there are, by organisation's name, event type and state."""
    return {
        (organization, event_type, state): count
        for organization, event_type, state, count in connection.execute(
            "SELECT o.name, l.event_type, l.state, count(*) FROM totalizer.late_events l "
            f"LEFT JOIN totalizer.organizations o ON o.id = l.organization_id {_SELECTED} GROUP BY 1, 2, 3 "
            "ORDER BY 1, 2, 3",
            selection.parameters(),
        )
    }


def late_ids(connection: Rows, selection: Selection) -> list[int]:
    """The numbers of those that are selected, oldest first."""
    rows = connection.execute(
        "SELECT l.id FROM totalizer.late_events l LEFT JOIN totalizer.organizations o ON o.id = l.organization_id "
        f"{_SELECTED} ORDER BY 1",
        selection.parameters(),
    )
    return [row[0] for row in rows]


def release(connection: Rows, ids: Sequence[int]) -> int:
    """Say that held events count: they are late events from now on. Returns how many were held.

    Args:
        connection: as the refresher.
        ids: their numbers.
    """
    with connection.transaction():
        released = connection.execute(
            "WITH released AS (UPDATE totalizer.late_events SET state = 'late' WHERE id = ANY (%s) AND state = 'held' "
            "RETURNING organization_id::text, event_type, id) "
            "SELECT organization_id, event_type, array_agg(id ORDER BY id) FROM released GROUP BY 1, 2 ORDER BY 1, 2",
            [list(ids)],
        ).fetchall()
        for owner, event_type, numbers in released:
            audit.note(connection, Change("late.release", event_type, owner, after={"ids": numbers}))
    return sum(len(numbers) for _, _, numbers in released)


def lock_unapplied(connection: Rows, ids: Sequence[int]) -> list[LateEvent]:
    """Those of the events that no rollup holds, locked for this transaction."""
    with connection.cursor(row_factory=class_row(LateEvent)) as cursor:
        return cursor.execute(
            "SELECT id, organization_id::text, NULL AS organization, event_type, event_time, event_id::text, state, "
            "stored_at, applied_at, columns, line, received_hour FROM totalizer.late_events "
            "WHERE id = ANY (%s) AND state <> 'applied' ORDER BY id FOR UPDATE",
            [list(ids)],
        ).fetchall()


def delete_late(connection: Rows, ids: Sequence[int]) -> None:
    """Remove late events whose contents are kept elsewhere, or are not wanted any more."""
    connection.execute("DELETE FROM totalizer.late_events WHERE id = ANY (%s)", [list(ids)])
