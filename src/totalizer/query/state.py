"""What a snapshot says before anything is asked of it: its time, the organisation's zone, the version of the data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

from psycopg import AsyncConnection

from totalizer.errors import Refusal, Refused
from totalizer.journal import Position


class State(NamedTuple):
    """A snapshot.

    Attributes:
        now: when it was taken.
        own_zone: the zone in which the organisation's days are kept.
        stamps: event type → what changes with every change of its events.
        loaded: how far each journal is loaded.
        has_floors: True if what is old is removed in this database; one that was not migrated yet has no such thing.
    """

    now: datetime
    own_zone: str
    stamps: dict[str, tuple[str, ...]]
    loaded: dict[str, Position]
    has_floors: bool = False

    def version(self, event_types: Iterable[str]) -> str:
        """The version of these events: two snapshots of one version hold the same events of these types."""
        text = ";".join(f"{name}={','.join(self.stamps.get(name, ()))}" for name in sorted(event_types))
        return hashlib.blake2b(f"{self.own_zone};{text}".encode(), digest_size=12).hexdigest()


async def read_state(connection: AsyncConnection[Any], organization_id: str) -> State:
    """The state of a snapshot.

    Raises:
        Refused: there is no such organisation any more.
    """
    cursor = await connection.execute(
        "SELECT now(), time_zone, ARRAY(SELECT ARRAY[event_type, stamp::text] FROM totalizer.data_versions "
        "WHERE organization_id = %(organization)s ORDER BY event_type, slot), "
        "ARRAY(SELECT ARRAY[journal_id::text, segment::text, position::text] FROM totalizer.journal_offsets), "
        "to_regprocedure('totalizer.floors_of(text,uuid)') IS NOT NULL "
        "FROM totalizer.organizations WHERE id = %(organization)s",
        {"organization": organization_id},
    )
    row = await cursor.fetchone()
    if row is None:
        raise Refused(Refusal.FORBIDDEN, "this organisation does not exist any more")
    now, own_zone, stamps, offsets, has_floors = row
    by_type: dict[str, tuple[str, ...]] = {}
    for event_type, stamp in stamps:
        by_type[event_type] = (*by_type.get(event_type, ()), stamp)
    loaded = {journal: Position(int(segment), int(position)) for journal, segment, position in offsets}
    return State(now, own_zone, by_type, loaded, has_floors)
