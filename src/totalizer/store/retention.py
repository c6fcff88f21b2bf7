"""SQL of retention: what is set for whom, and the floors below which nothing is recomputed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, NamedTuple

import psycopg
from psycopg import Connection
from psycopg.rows import class_row

from totalizer.catalog import EventType
from totalizer.catalog.retention import Retention, capped, complete
from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.errors import OperationError
from totalizer.store import dead_letters

Rows = Connection[Any]

#: How often floors are tried to be raised while loaders are at work, and the pause between two tries.
RAISE_TRIES, RAISE_PAUSE_S = 20, 0.5
_FLOORS = (
    "SELECT event_type, organization_id::text, nullif(raw_floor, '-infinity') AS raw_floor, "
    "nullif(key_floor, '-infinity') AS key_floor, nullif(base_floor, '-infinity') AS base_floor, "
    "nullif(hour_floor, '-infinity') AS hour_floor, nullif(day_floor, '-infinity') AS day_floor"
)


class Set(NamedTuple):
    """What somebody has set; no organisation: for all that have nothing of their own."""

    event_type: str
    organization_id: str | None
    organization: str | None
    raw_days: int | None
    base_days: int | None
    hour_days: int | None
    day_days: int | None

    @property
    def retention(self) -> Retention:
        """The figures alone."""
        return Retention(self.raw_days, self.base_days, self.hour_days, self.day_days)


class Floors(NamedTuple):
    """What lies below has been removed, or is about to be; None where nothing was yet.

    Attributes:
        event_type: of which events.
        organization_id: of which organisation; None: of all that have none of their own.
        raw_floor: of events. No bucket below it is recomputed from events.
        key_floor: of the ids of events.
        base_floor, hour_floor, day_floor: of rollups.
    """

    event_type: str
    organization_id: str | None
    raw_floor: datetime | None
    key_floor: datetime | None
    base_floor: datetime | None
    hour_floor: datetime | None
    day_floor: date | None


class Policy(NamedTuple):
    """How long everything is kept where nobody has said otherwise.

    Attributes:
        raw_days: events of types whose declaration says nothing.
        partition_days: no organisation's own setting keeps events longer; None for no such bound. What holds for all
            organisations of a type is not bound by it.
    """

    raw_days: int = 90
    partition_days: int | None = 180


def list_set(connection: Rows) -> list[Set]:
    """What was set, by event type; first what holds for all organisations.

    Args:
        connection: as the refresher or the administrator.
    """
    with connection.cursor(row_factory=class_row(Set)) as cursor:
        return cursor.execute(
            "SELECT r.event_type, r.organization_id::text, o.name AS organization, raw_days, base_days, hour_days, "
            "day_days FROM totalizer.retention r LEFT JOIN totalizer.organizations o ON o.id = r.organization_id "
            "ORDER BY r.event_type, o.name NULLS FIRST"
        ).fetchall()


def set_retention(connection: Rows, event_type: str, organization: str | None, retention: Retention | None) -> None:
    """Say how long an event type's events and rollups are kept; None takes back what was said.

    Args:
        connection: as the administrator.
        event_type: its name.
        organization: name of the one it holds for; None for all that have nothing of their own.
        retention: what to keep.

    Raises:
        OperationError: there is no such event type or organisation, or the figures do not go together.
    """
    if retention is not None and (problem := retention.problem()):
        raise OperationError(problem)
    if not connection.execute("SELECT 1 FROM totalizer.event_types WHERE name = %s", [event_type]).fetchone():
        raise OperationError(f"no event type {event_type!r}; `totalizer catalog list` shows those there are")
    owner = None if organization is None else dead_letters.organization_id_of(connection, organization)
    if retention is None:
        connection.execute(
            "DELETE FROM totalizer.retention WHERE event_type = %s AND organization_id IS NOT DISTINCT FROM %s::uuid",
            [event_type, owner],
        )
        return
    connection.execute(
        "INSERT INTO totalizer.retention (event_type, organization_id, raw_days, base_days, hour_days, day_days) "
        "VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (event_type, organization_id) DO UPDATE SET "
        "(raw_days, base_days, hour_days, day_days, changed_at) = (excluded.raw_days, excluded.base_days, "
        "excluded.hour_days, excluded.day_days, now())",
        [event_type, owner, retention.raw_days, retention.base_days, retention.hour_days, retention.day_days],
    )


def effective(
    event_types: Mapping[str, EventType], said: list[Set], policy: Policy, raw_days: int | None = None
) -> dict[tuple[str, str | None], Retention]:
    """What is kept how long, by event type and organisation; no organisation: all that are not named.

    What somebody has set comes first, then the type's declaration, then `raw_days`, then the policy.

    Args:
        event_types: those of the database.
        said: what was set.
        policy: for types about which nothing is said.
        raw_days: in place of the policy's.
    """
    usual = complete(policy.raw_days if raw_days is None else raw_days)
    found: dict[tuple[str, str | None], Retention] = {
        (name, None): event_type.retention or usual for name, event_type in event_types.items()
    }
    for each in said:
        if each.organization_id is None and each.event_type in event_types:
            found[each.event_type, None] = each.retention
    for each in said:
        if each.organization_id is not None and each.event_type in event_types:
            found[each.event_type, each.organization_id] = capped(
                each.retention, _bound(policy, found[each.event_type, None])
            )
    return found


def _bound(policy: Policy, of_all: Retention) -> int | None:
    """The longest that one organisation's own setting keeps events: what holds for all is never shortened by it."""
    if policy.partition_days is None or of_all.raw_days is None:
        return None
    return max(policy.partition_days, of_all.raw_days)


def list_floors(connection: Rows) -> list[Floors]:
    """Every floor there is, by event type; first those of all organisations."""
    with connection.cursor(row_factory=class_row(Floors)) as cursor:
        return cursor.execute(
            f"{_FLOORS} FROM totalizer.retention_floors ORDER BY event_type, organization_id NULLS FIRST"
        ).fetchall()


def raise_floors(
    connection: Rows, event_type: str, organization_id: str | None, retention: Retention, today: date,
    clock: Clock = SYSTEM_CLOCK,
) -> Floors:  # fmt: skip
    """Raise floors to what a retention wants today, or as far as buckets that are still to be recomputed allow.

    Args:
        connection: as the refresher, autocommit.
        event_type: its name.
        organization_id: whose; None for those of all that have none of their own.
        retention: what to keep.
        today: the present day, UTC.
        clock: for the pauses between tries.

    Returns:
        The floors as they are now.

    Raises:
        psycopg.errors.LockNotAvailable: transactions of loaders held the floors at every try.
    """
    wanted = [_floor(days, today) for days in (retention.raw_days, retention.key_days, retention.base_days,
                                               retention.hour_days, retention.day_days)]  # fmt: skip
    for tries_left in reversed(range(RAISE_TRIES)):
        try:
            with connection.cursor(row_factory=class_row(Floors)) as cursor:
                row = cursor.execute(
                    f"{_FLOORS} FROM totalizer.raise_floors(%s, %s, coalesce(%s::timestamptz, '-infinity'), "
                    "coalesce(%s::timestamptz, '-infinity'), coalesce(%s::timestamptz, '-infinity'), "
                    "coalesce(%s::timestamptz, '-infinity'), coalesce((%s::timestamptz AT TIME ZONE 'UTC')::date, "
                    "'-infinity'))",
                    [event_type, organization_id, *wanted],
                ).fetchone()
            assert row is not None
            return row
        except psycopg.errors.LockNotAvailable:
            if not tries_left:
                raise
            clock.sleep(RAISE_PAUSE_S)
    raise AssertionError("not reached")


def _floor(days: int | None, today: date) -> datetime | None:
    """The start of the first UTC day that is kept; None if all are, or if that was before the calendar."""
    if days is None or days >= (today - date(1970, 1, 1)).days:
        return None
    return datetime.combine(today - timedelta(days=days), time.min, UTC)
