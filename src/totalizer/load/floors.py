"""Which lines come too late for the event tables: older than what their organisation still keeps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from psycopg import Connection

from totalizer.event import DAY, ORGANIZATION
from totalizer.store import late


class Floors:
    """The raw floors, as this loader last saw them. They are read again only when one has risen.

    Floors are starts of UTC days, so a line's first 47 bytes tell; and only where a line's day lies below the highest
    floor of its type is any line looked at.
    """

    def __init__(self) -> None:
        self._change = -1
        #: By event type: the floor of all, and those of organisations that have their own; days as in a line.
        self._of_all: dict[str, bytes] = {}
        self._own: dict[str, dict[bytes, bytes]] = {}

    def hold(self, connection: Connection[Any]) -> None:
        """Know the floors, and keep them where they are until the connection's transaction ends.

        Args:
            connection: as writer, in the transaction that stores lines; outside of one, they are known only.
        """
        change = late.hold_floors(connection)
        if change != self._change:
            self._of_all, self._own = {}, {}
            for event_type, organization_id, day in late.raw_floors(connection):
                if organization_id is None:
                    self._of_all[event_type] = day.encode()
                else:
                    self._own.setdefault(event_type, {})[organization_id.encode()] = day.encode()
            self._change = change

    def places_of_late(self, event_type: str, days: Iterable[bytes], lines: Sequence[bytes]) -> list[int]:
        """Which of the lines are late, by their places.

        Args:
            event_type: of the lines.
            days: every day that a line has.
            lines: as the collector makes them.
        """
        of_all, own = self._floors_of(event_type)
        highest = max(of_all, *own.values()) if own else of_all
        if not highest or all(day >= highest for day in days):
            return []
        return [place for place, line in enumerate(lines) if line[DAY] < own.get(line[ORGANIZATION], of_all)]

    def kept(self, event_type: str, days: Iterable[bytes]) -> set[bytes]:
        """The days that may still get events of some organisation, and so need their partition."""
        of_all, own = self._floors_of(event_type)
        lowest = min(of_all, *own.values()) if own else of_all
        return {day for day in days if day >= lowest}

    def _floors_of(self, event_type: str) -> tuple[bytes, Mapping[bytes, bytes]]:
        return self._of_all.get(event_type, b""), self._own.get(event_type, {})
