"""Feeding a test's database the way the server does: collector, journal, loader, rollup; without HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from totalizer.catalog import Catalog
from totalizer.clock import SYSTEM_CLOCK
from totalizer.collect import Admission, Collector
from totalizer.journal import Journal, claim
from totalizer.load import Loader
from totalizer.rollup.refresh import refresh
from totalizer.store.keys import create_organization
from totalizer.store.roles import Role


class Feed:
    """The path of an event into one database."""

    def __init__(self, database: Any, spool: Path, catalog: Catalog) -> None:
        self.database, self.spool = database, spool
        self.collector = Collector(catalog, SYSTEM_CLOCK, batch_events_max=100_000)
        self.journal: Journal = claim(spool, "api", segment_bytes=1 << 20, quota_bytes=1 << 30)
        self.loader = Loader(database.dsn(Role.WRITER), spool, rows_max=20_000)
        self.administrator = database.connect()
        self.reader = database.connect(Role.REFRESHER)

    def organization(self, name: str = "acme", time_zone: str = "UTC") -> str:
        """The id of an organisation, made if needed."""
        return create_organization(self.administrator, name, time_zone)

    def send(self, organization_id: str, **events: list[dict[str, Any]]) -> Admission:
        """Acknowledge a batch: it is durable when this returns."""
        admission = self.collector.admit_batch(organization_id, msgspec.json.encode(events))
        self.journal.append_and_wait(admission.payload)
        return admission

    def append(self, payload: bytes) -> None:
        """Put any bytes into the journal."""
        self.journal.append_and_wait(payload)

    def load(self) -> int:
        """Load what is durable; returns the rows taken from the journal."""
        return self.loader.drain()

    def refresh(self) -> int:
        """Bring the rollups up; returns how many buckets were recomputed."""
        return refresh(self.reader).buckets

    def one(self, query: str, *parameters: Any) -> Any:
        """The first value of a query's first row, as the refresher."""
        row = self.reader.execute(query.encode(), parameters or None).fetchone()
        assert row is not None
        return row[0]

    def rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """The rows of a query as the refresher."""
        return self.reader.execute(query.encode(), parameters or None).fetchall()

    def close(self) -> None:
        """End loader and journal."""
        self.loader.close()
        self.journal.close()


@pytest.fixture
def feed(database: Any, tmp_path: Path, catalog: Catalog) -> Iterator[Feed]:
    """A way into an empty database."""
    feed = Feed(database, tmp_path / "journal", catalog)
    yield feed
    feed.close()


USER = "7f1f9d9a-55d6-4f4c-8f6a-0e6f0a3b9c11"


@pytest.fixture
def command() -> Any:
    """Makes a command execution; every field can be given."""

    def make(**fields: Any) -> dict[str, Any]:
        return {
            "user_id": USER, "command_name": "plan", "execution_time_ms": 100, "status": "success", **fields,
        }  # fmt: skip

    return make
