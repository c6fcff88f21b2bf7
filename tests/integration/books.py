"""Books of several organisations that can be corrupted by hand, in every grain and every kind of column."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from integration.rollup_model import MEASURES, catalog_with
from totalizer.catalog import Rollup
from totalizer.catalog.levels import Level
from totalizer.clock import SYSTEM_CLOCK
from totalizer.collect import Collector
from totalizer.store.ddl import rollup_states
from totalizer.store.plan import apply_plan, plan_catalog

ZONES = {"acme": "Europe/Berlin", "bits": "UTC", "coin": "Asia/Kathmandu"}
#: Clocks go forward in Berlin on 30 March 2025.
TURN = datetime(2025, 3, 30, 1, tzinfo=UTC)
#: What a value of a type is changed to by hand.
CHANGED = {
    "bigint": "{column} + 1", "numeric": "coalesce({column}, 0) + 0.0001", "text": "coalesce({column}, '') || '9'",
    "uuid": "gen_random_uuid()", "timestamptz": "coalesce({column}, now()) + interval '1 second'",
    "double precision": "coalesce({column}, 0) + 1",
}  # fmt: skip


class Corrupted(NamedTuple):
    """A row that was changed by hand."""

    organization: str
    rollup: str
    level: Level
    starts: Any
    name: str | None


class Books:
    """One database with events of three organisations in three zones, by its feed."""

    def __init__(self, feed: Any, rng: random.Random) -> None:
        self.feed, self.rng = feed, rng
        catalog = catalog_with(tuple(MEASURES))
        apply_plan(feed.administrator, plan_catalog(feed.administrator, catalog))
        feed.collector = Collector(catalog, SYSTEM_CLOCK, batch_events_max=100_000)
        self.rollup: Rollup = catalog.rollups["by_name"]
        self.event_type = catalog.event_types["things"]
        self.names = {feed.organization(name, zone): name for name, zone in ZONES.items()}
        for organization in self.names:
            self.send(organization, 40)
        feed.load()
        feed.refresh()

    def send(self, organization: str, count: int) -> None:
        """Acknowledge some events of today and some of around the change of clocks."""
        rng, times = self.rng, (TURN, datetime.now(UTC) - timedelta(hours=5))
        events = [
            {
                "id": f"e{rng.randrange(10**9)}",
                "at": (rng.choice(times) + timedelta(hours=rng.uniform(-4, 4))).isoformat(),
                "name": rng.choice(["a", "b"]), "bucket": rng.choice("xyz"), "starts": rng.randrange(9),
                "amount": f"{rng.uniform(0, 9):.2f}", "ratio": rng.uniform(-9, 9),
            }
            for _ in range(count)
        ]  # fmt: skip
        assert self.feed.send(organization, things=events).accepted == count

    def columns(self) -> list[str]:
        """The state columns."""
        return [state.column for state in rollup_states(self.rollup, self.event_type)]

    def table(self, level: Level) -> str:
        return f"analytics.{self.rollup.table(level)}"

    def rows(self) -> dict[str, list[Any]]:
        """Everything that is stored in the rollup's tables."""
        return {
            level.suffix: sorted(self.feed.rows(f"SELECT t::text FROM {self.table(level)} t"))
            for level in self.rollup.kept
        }

    def change(self, level: Level, column: str) -> Corrupted:
        """Change one value of one row."""
        type_of = {state.column: state.type for state in rollup_states(self.rollup, self.event_type)}[column]
        change = CHANGED.get(type_of, CHANGED["bigint"]).format(column=column)
        return self._statement(level, f"UPDATE {self.table(level)} SET {column} = {change}")

    def remove(self, level: Level) -> Corrupted:
        """Delete one row."""
        return self._statement(level, f"DELETE FROM {self.table(level)}")

    def invent(self, level: Level) -> Corrupted:
        """Insert a row that nothing is behind."""
        columns = ", ".join(["organization_id", level.key, *self.columns()])
        rows = self.feed.administrator.execute(
            f"INSERT INTO {self.table(level)} (name, {columns}) SELECT 'zzz', {columns} FROM {self.table(level)} "
            f"ORDER BY random() LIMIT 1 RETURNING organization_id::text, {level.key}, name"
        ).fetchall()
        return self._corrupted(level, rows)

    def _statement(self, level: Level, statement: str) -> Corrupted:
        table = self.table(level)
        rows = self.feed.administrator.execute(
            f"{statement} WHERE ctid = (SELECT ctid FROM {table} ORDER BY random() LIMIT 1) "
            f"RETURNING organization_id::text, {level.key}, name"
        ).fetchall()
        return self._corrupted(level, rows)

    def _corrupted(self, level: Level, rows: list[Any]) -> Corrupted:
        [(organization, starts, name)] = rows
        return Corrupted(self.names[organization], self.rollup.name, level, starts, name)
