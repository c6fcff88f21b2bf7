"""The way of an event through collector, journal and loader into a database, with a ledger beside it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import psycopg

from crash.accounts import judge_database
from crash.oracle import Known, Ledger, Verdict, event_of
from support import Database
from totalizer.catalog import Catalog
from totalizer.clock import SYSTEM_CLOCK
from totalizer.collect import Collector
from totalizer.errors import StoreUnavailable
from totalizer.journal import Journal, claim
from totalizer.load import Loader
from totalizer.store.keys import create_organization
from totalizer.store.roles import Role

SEGMENT_BYTES, QUOTA_BYTES = 64 << 10, 16 << 20
#: Rows in one transaction: small, so that a fault finds several.
ROWS_MAX = 2
#: How often loading is tried again while the database refuses, and the pause before, seconds.
TRIES_MAX, PAUSE_S = 1000, 0.02

_numbers = itertools.count(1)


class Pipeline:
    """One organisation, one spool, one ledger.

    Args:
        database: where the events go.
        folder: for spool and ledger; made.
        catalog: the event types.

    Attributes:
        lines: how many lines were journalled.
        journalled: these lines, as `acknowledge` saw them.
    """

    def __init__(self, database: Database, folder: Path, catalog: Catalog) -> None:
        self.database, self.spool = database, folder / "journal"
        folder.mkdir(parents=True, exist_ok=True)
        self._catalog = catalog
        self.ledger = Ledger(folder / "ledger")
        self.collector = Collector(catalog, SYSTEM_CLOCK, batch_events_max=10_000)
        self.journal = self.open_journal()
        self.name = f"organisation {next(_numbers)}"
        self.lines = 0
        self.journalled: list[bytes] = []
        with psycopg.connect(database.url, autocommit=True) as connection:
            self.organization_id = create_organization(connection, self.name, "UTC")

    def open_journal(self) -> Journal:
        """Start writing, as a new API process would."""
        self.journal = claim(self.spool, "api", segment_bytes=SEGMENT_BYTES, quota_bytes=QUOTA_BYTES)
        return self.journal

    def acknowledge(self, names: Iterable[str], *, keyed: bool = True, altered: bool = False, day: int = 0) -> bytes:
        """Send events as one request and hear that they are durable; returns what was journalled.

        Args:
            names: of the events.
            keyed: False to send them without ids.
            altered: True for other contents under the same names.
            day: when they happened, a day of September 2025; 0 for now.
        """
        names = list(names)
        batch: dict[str, Any] = {"command_executions": [event_of(name, keyed=keyed, altered=altered) for name in names]}
        if day:
            batch["timestamp"] = f"2025-09-{day:02d}T10:00:00Z"
        body = msgspec.json.encode(batch)
        self.ledger.sent(*names)
        admission = self.collector.admit_batch(self.organization_id, body)
        assert admission.accepted == len(names)
        self.journal.append_and_wait(admission.payload)
        self.ledger.acknowledged(*names)
        self.lines += len(names)
        self.journalled += admission.payload.split(b"\n", 1)[1].splitlines(keepends=True)
        return admission.payload

    def some(self, prefix: str = "", *, batches: int = 4, size: int = 3) -> None:
        """Several batches, each on a day of its own, every other one without ids of the sender's."""
        for batch in range(batches):
            names = [f"{prefix}{batch}-{number}" for number in range(size)]
            self.acknowledge(names, keyed=batch % 2 == 0, day=batch + 1)

    def loader(self, dsn: str | None = None) -> Loader:
        """A loader of this spool."""
        return Loader(dsn or self.database.dsn(Role.WRITER), self.spool, rows_max=ROWS_MAX)

    def load(self, loader: Loader | None = None) -> int:
        """Load all that is durable, trying again as the loader's own loop does; returns how often it failed."""
        mine = loader or self.loader()
        try:
            for failures in range(TRIES_MAX):
                try:
                    mine.drain()
                except (psycopg.Error, StoreUnavailable):
                    mine.close()
                    time.sleep(PAUSE_S)
                else:
                    return failures
            raise AssertionError(f"loading failed {TRIES_MAX} times")
        finally:
            mine.close()

    def refuse_bad_rows(self) -> None:
        """From now on the table refuses events whose name has `bad` in it, as a column too narrow would."""
        with self.database_as(None) as administrator:
            administrator.execute(
                "ALTER TABLE events.command_executions DROP CONSTRAINT IF EXISTS not_bad, "
                "ADD CONSTRAINT not_bad CHECK (context->>'of' NOT LIKE '%bad%')"
            )

    def dead_letters(self) -> list[tuple[bytes, str, str]]:
        """Lines kept aside, with SQLSTATE and reason."""
        with self.database_as(Role.REFRESHER) as connection:
            rows = connection.execute(
                "SELECT line, sqlstate, reason FROM totalizer.dead_letters WHERE organization_id = %s ORDER BY line",
                [self.organization_id],
            ).fetchall()
        return [(bytes(line), sqlstate, reason) for line, sqlstate, reason in rows]

    def known(self) -> Known:
        """What the ledger says."""
        return self.ledger.known()

    def verdict(self) -> Verdict:
        """What the oracle says of the database."""
        with self.database_as(Role.REFRESHER) as connection:
            return judge_database(connection, self.organization_id, self.known(), lines=self.lines)

    def database_as(self, role: Role | None) -> Any:
        """A connection of its own, for a with-block."""
        url = self.database.url if role is None else self.database.dsn(role)
        return psycopg.connect(url, autocommit=True, options="-c timezone=UTC")

    def fates(self) -> tuple[int, ...]:
        """Sums of the load ledger: loaded, duplicate, conflict, dead-lettered."""
        with self.database_as(Role.REFRESHER) as connection:
            row = connection.execute(
                "SELECT sum(loaded)::int, sum(duplicate)::int, sum(conflict)::int, sum(dead_lettered)::int "
                "FROM totalizer.load_ledger WHERE organization_id = %s",
                [self.organization_id],
            ).fetchone()
        assert row is not None
        return tuple(row)

    def close(self) -> None:
        """End the journal and the ledger."""
        self.journal.close()
        self.ledger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
