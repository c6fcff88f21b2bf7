"""Removing what is older than it is to be kept: floors first, then what lies below them.

The order is what makes it safe. A floor is raised, and that is committed, before anything below it is removed: from
then on nothing below it is computed from events, and events that come below it go another way (see `late`). A run that
is killed anywhere is done by the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from functools import partial
from typing import Any, NamedTuple

from psycopg import Connection

from totalizer import failpoint
from totalizer.catalog import EventType
from totalizer.catalog.levels import BASE, DAY, HOUR
from totalizer.catalog.retention import Retention
from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.failpoint import Failpoint
from totalizer.store import partitions, removal, retention
from totalizer.store.partitions import Partition
from totalizer.store.plan import Applied, read_applied
from totalizer.store.retention import Floors, Policy

Rows = Connection[Any]

#: The floor that holds for each grain. Weeks and months are kept for ever, minutes by the refresh.
LEVEL_FLOORS = ((BASE, "base_floor"), (HOUR, "hour_floor"), (DAY, "day_floor"))


class Due(NamedTuple):
    """What one event type's partitions are held against: its floors, those of all organisations and their own."""

    event_type: EventType
    of_all: Floors
    own: list[Floors]

    def below_all(self, partition: Partition) -> bool:
        """True if nobody's events in the partition are kept."""
        floors = [self.of_all, *self.own]
        return all(each.raw_floor is not None and partition.ends <= each.raw_floor for each in floors)

    def below_some(self, partition: Partition) -> bool:
        """True if somebody's events in the partition are to go and others' are not."""
        return self._held(partition) or any(
            each.raw_floor is not None and partition.starts < each.raw_floor for each in self.own
        )

    def only_own(self, partition: Partition) -> bool:
        """True if events of organisations without a floor of their own stay as long as the partition does."""
        return not self._held(partition)

    def _held(self, partition: Partition) -> bool:
        """True if all of it were to go, but for organisations that keep their events longer."""
        return self.of_all.raw_floor is not None and partition.ends <= self.of_all.raw_floor


def cleanup_old_data(
    connection: Rows, retention_days: int | None = None, *, policy: Policy | None = None, today: date | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> dict[str, Any]:  # fmt: skip
    """Remove what is older than it is to be kept.

    Never removes events of buckets that are still to be recomputed, nor takes a floor back.

    Args:
        connection: as the refresher, autocommit.
        retention_days: days for which events are kept of types about which nothing is set or declared; None: as the
            policy says.
        policy: how long things are kept about which nothing is said; the shipped one if None.
        today: the present UTC day; the database's if None.
        clock: for pauses and durations.

    Returns:
        `status` (`done`; `partly` if a table was in use all the time; `running` if another run is at it, and nothing
        was done), `retention_days`, `partitions_dropped`, `partitions_in_use` (names), `events_removed`,
        `ids_forgotten`, `rollup_rows_removed` (by table), `late_events_removed`, `duration_ms`.

    Raises:
        ValueError: `retention_days` is less than 1.
        psycopg.Error: the database is away; the next run goes on.
    """
    policy = policy or Policy()
    if retention_days is not None and retention_days < 1:
        raise ValueError(f"retention_days is {retention_days}; it must be 1 or more")
    started = clock.monotonic()
    done = _Done(retention_days if retention_days is not None else policy.raw_days)
    with _alone(connection) as alone:
        if alone:
            applied = read_applied(connection)
            kept = retention.effective(applied.event_types, retention.list_set(connection), policy, retention_days)
            _raise_all(connection, kept, today or _today(connection), clock)
            _remove_all(connection, applied, kept, done, clock)
    return done.result(alone=alone, duration_ms=round(1000 * (clock.monotonic() - started)))


class _Done:
    """What a run has removed so far."""

    def __init__(self, retention_days: int) -> None:
        self.retention_days = retention_days
        self.dropped, self.in_use = 0, list[str]()
        self.table_in_use: str | None = None
        self.events = self.ids = self.late = 0
        self.rollup_rows: dict[str, int] = {}

    def result(self, *, alone: bool, duration_ms: int) -> dict[str, Any]:
        """As `cleanup_old_data` returns it."""
        return {
            "status": ("partly" if self.in_use else "done") if alone else "running",
            "retention_days": self.retention_days,
            "partitions_dropped": self.dropped,
            "partitions_in_use": self.in_use,
            "events_removed": self.events,
            "ids_forgotten": self.ids,
            "rollup_rows_removed": self.rollup_rows,
            "late_events_removed": self.late,
            "duration_ms": duration_ms,
        }


@contextmanager
def _alone(connection: Rows) -> Iterator[bool]:
    """One run at a time: what was counted is not removed by another between."""
    key = "hashtext('totalizer retention')"
    row = connection.execute(f"SELECT pg_try_advisory_lock({key})").fetchone()
    alone = row == (True,)
    try:
        yield alone
    finally:
        if alone and not connection.closed and not connection.broken:
            connection.execute(f"SELECT pg_advisory_unlock({key})")


def _today(connection: Rows) -> date:
    row = connection.execute("SELECT (now() AT TIME ZONE 'UTC')::date").fetchone()
    assert row is not None
    today: date = row[0]
    return today


def _raise_all(connection: Rows, kept: dict[tuple[str, str | None], Retention], today: date, clock: Clock) -> None:
    """Raise every floor. Organisations first: one whose own is to be lower must have it before that of all rises."""
    named = {(floors.event_type, floors.organization_id) for floors in retention.list_floors(connection)}
    wanted = kept | {
        (event_type, owner): kept[event_type, None]
        for event_type, owner in named
        if (event_type, owner) not in kept and (event_type, None) in kept
    }
    for (event_type, owner), figures in sorted(wanted.items(), key=lambda item: item[0][1] is None):
        retention.raise_floors(connection, event_type, owner, figures, today, clock)
        if failpoint.ARMED:
            failpoint.hit(Failpoint.FLOOR_RAISED)


def _remove_all(
    connection: Rows, applied: Applied, kept: dict[tuple[str, str | None], Retention], done: _Done, clock: Clock
) -> None:
    floors = retention.list_floors(connection)
    for event_type in applied.event_types.values():
        mine = [each for each in floors if each.event_type == event_type.name]
        none_yet = Floors(event_type.name, None, None, None, None, None, None)
        of_all = next((each for each in mine if each.organization_id is None), none_yet)
        if mine:
            due = Due(event_type, of_all, [each for each in mine if each.organization_id is not None])
            for partition in partitions.list_partitions(connection, event_type.name):
                # Who holds one partition's table holds all of them: another time.
                if done.table_in_use != event_type.name:
                    _thin_out(connection, due, partition, done, clock)
            done.ids += _repeated(partial(removal.forget_ids, connection, event_type), Failpoint.IDS_FORGOTTEN)
            _remove_rollups(connection, applied, event_type, done)
    for (name, owner), figures in kept.items():
        if figures.raw_days is not None:
            remove = partial(removal.remove_applied, connection, name, figures.raw_days, owner)
            done.late += _repeated(remove, Failpoint.LATE_REMOVED)
    removal.sum_up_removed(connection)


def _thin_out(connection: Rows, due: Due, partition: Partition, done: _Done, clock: Clock) -> None:
    """Drop a partition, or remove from it what is not kept."""
    if due.below_all(partition):
        counted = partitions.count_rows(connection, partition, due.event_type.time_field)
        if failpoint.ARMED:
            failpoint.hit(Failpoint.PARTITION_COUNTED)
        if not partitions.drop_partition(connection, partition, counted, clock):
            done.in_use.append(partition.name)
            done.table_in_use = partition.event_type
            return
        done.dropped += 1
        done.events += sum(counted.values())
        if failpoint.ARMED:
            failpoint.hit(Failpoint.PARTITION_DROPPED)
    elif due.below_some(partition):
        remove = partial(removal.remove_events, connection, due.event_type, partition, own=due.only_own(partition))
        done.events += _repeated(remove, Failpoint.EVENTS_REMOVED)


def _remove_rollups(connection: Rows, applied: Applied, event_type: EventType, done: _Done) -> None:
    for rollup in applied.rollups.values():
        if rollup.event_type != event_type.name:
            continue
        for level, floor in LEVEL_FLOORS:
            if not rollup.keeps(level):
                continue
            table = rollup.table(level)
            remove = partial(removal.remove_rollup_rows, connection, event_type.name, table, level.key, floor)
            if rows := _repeated(remove, Failpoint.ROLLUP_ROWS_REMOVED):
                done.rollup_rows[table] = rows


def _repeated(remove: Callable[[], int], passed: Failpoint) -> int:
    """Remove batch after batch until there is nothing more; returns how many rows."""
    total = 0
    while rows := remove():
        total += rows
        if failpoint.ARMED:
            failpoint.hit(passed)
    return total
