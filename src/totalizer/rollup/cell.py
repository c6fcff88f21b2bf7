"""A row of a rollup that is not what it should be."""

from __future__ import annotations

import json
from datetime import date, datetime
from decimal import Decimal
from typing import Any, NamedTuple

from psycopg import Connection

from totalizer.catalog import EventType, Rollup
from totalizer.catalog.levels import BASE, DAY, HOUR, MINUTE, MONTH, WEEK, Level
from totalizer.rollup import comparison
from totalizer.rollup.comparison import Part

#: What each grain is called in a balance.
NAMES = {MINUTE: "minute", BASE: "base", HOUR: "hour", DAY: "day", WEEK: "week", MONTH: "month"}


class Cell(NamedTuple):
    """One row that differs from what it is made from.

    Attributes:
        organization_id, organization: whose.
        event_type, rollup: of which.
        level: the grain.
        starts: the row's moment, or its first local day.
        dimensions: the row's, by name.
        expected: the values it should have, by state column; None if there should be no row.
        found: the values it has; None if there is no row.
        differing: how many rows of that organisation and grain differ, this one among them.
    """

    organization_id: str
    organization: str
    event_type: str
    rollup: str
    level: Level
    starts: datetime | date
    dimensions: dict[str, Any]
    expected: dict[str, Any] | None
    found: dict[str, Any] | None
    differing: int

    @property
    def values(self) -> dict[str, tuple[Any, Any]]:
        """Those state columns that differ: what is expected, and what is found."""
        expected, found = self.expected or {}, self.found or {}
        return {
            name: (expected.get(name), found.get(name))
            for name in {**expected, **found}
            if self.expected is None or self.found is None or expected.get(name) != found.get(name)
        }

    def document(self) -> dict[str, Any]:
        """For programs."""
        return {
            "organization": self.organization, "rollup": self.rollup, "grain": self.level.suffix,
            "starts": self.starts.isoformat(), "dimensions": self.dimensions,
            "row": "missing" if self.found is None else "unfounded" if self.expected is None else "different",
            "measures": {name: {"expected": pair[0], "found": pair[1]} for name, pair in self.values.items()},
        }  # fmt: skip


def find_cells(
    connection: Connection[Any], rollup: Rollup, level: Level, event_type: EventType, part: Part, cells_max: int,
    rows_max: int,
) -> list[Cell]:  # fmt: skip
    """The rows of a part that differ, the oldest of each organisation.

    Args:
        connection: as the refresher role.
        rollup, level, event_type: what is compared.
        part: which of its rows.
        cells_max: the most of one organisation.
        rows_max: the most of all.
    """
    rows = connection.execute(
        comparison.cells(rollup, level, event_type, part).encode(),
        part.parameters() | {"cells_max": cells_max, "rows_max": rows_max}, prepare=False,
    )  # fmt: skip
    return [
        Cell(
            organization, organization, event_type.name, rollup.name, level, starts, _read(dimensions) or {},
            _read(expected), _read(found), differing,
        )
        for organization, starts, dimensions, expected, found, differing in rows
    ]  # fmt: skip


def _read(text: str | None) -> dict[str, Any] | None:
    """Decimals stay as they are stored."""
    return None if text is None else json.loads(text, parse_float=Decimal)
