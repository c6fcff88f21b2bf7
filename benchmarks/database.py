"""The stack's database as a benchmark uses it: cheap questions while it runs, an empty start, the plain COPY."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from datetime import UTC, timedelta
from types import TracebackType
from typing import Any

import psycopg
from psycopg import Connection

from benchmarks.stack import Stack
from benchmarks.workload import EVENT_TYPE, CopyPiece
from totalizer.app import administrator_connection, dsn_of, spool_of
from totalizer.catalog import load_catalog
from totalizer.catalog.quoting import quoted, quoted_list
from totalizer.clock import SYSTEM_CLOCK, utc_datetime
from totalizer.errors import OperationError
from totalizer.journal import Position
from totalizer.ops.process import wait_until
from totalizer.query.completeness import LocalJournals
from totalizer.store.connect import connect
from totalizer.store.partitions import ensure_partition
from totalizer.store.roles import Role

EVENTS, KEYS = f"events.{quoted(EVENT_TYPE)}", f"events.{quoted(EVENT_TYPE + '_keys')}"
MARKS, LEDGER = "totalizer.dirty_marks", "totalizer.load_ledger"
#: Seconds that the rollups may take to come up to date after a round.
SETTLE_SECONDS_MAX = 120.0
#: Tries to empty the tables while the stack's own jobs use them.
RESET_TRIES_MAX = 5


class Database:
    """Two connections: the refresher, who only looks, and the superuser for what no role of the service may do."""

    def __init__(self, stack: Stack) -> None:
        settings = stack.settings()
        self._exits = ExitStack()
        self._admin = self._exits.enter_context(administrator_connection(settings))
        self._refresher: Connection[Any] = self._exits.enter_context(
            connect(dsn_of(settings, Role.REFRESHER), autocommit=True)
        )
        self._journals = LocalJournals(spool_of(settings))
        self.organization_id = self._value("SELECT id::text FROM totalizer.organizations")
        self._make_partitions()

    def __enter__(self) -> Database:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exits.close()

    def loaded(self) -> int:
        """Events that are stored, with their keys and marks: the ledger is written in the same transaction."""
        return int(self._value(f"SELECT coalesce(sum(loaded), 0) FROM {LEDGER}"))

    def check_rows(self, count: int) -> None:
        """Prove that `count` events and their keys are there.

        Raises:
            OperationError: it is not so.
        """
        events, keys = (int(self._value(f"SELECT count(*) FROM {table}", self._admin)) for table in (EVENTS, KEYS))
        if not events == keys == count:
            raise OperationError(f"{count} events were sent, {events} events and {keys} keys are stored")

    def check_loaded(self, count: int) -> None:
        """Prove that `count` events are there, that the ledger says so too, and that the journal holds no more.

        Raises:
            OperationError: it is not so.
        """
        self.check_rows(count)
        if (loaded := self.loaded()) != count:
            raise OperationError(f"{count} events are stored, and the ledger says {loaded}")
        ends = self._journals.durable_ends()
        offsets = self._refresher.execute("SELECT journal_id::text, segment, position FROM totalizer.journal_offsets")
        if not self._journals.all_loaded(ends, {row[0]: Position(row[1], row[2]) for row in offsets}):
            raise OperationError("all events are stored, and yet the journal's offset is behind")

    def reset(self) -> None:
        """Wait until the rollups are done with the last round, then start every round from the same nothing."""
        if not wait_until(lambda: not self._value(f"SELECT count(*) FROM {MARKS}"), SETTLE_SECONDS_MAX):
            raise OperationError(f"the rollups are not up to date after {SETTLE_SECONDS_MAX:.0f} s")
        for _ in range(RESET_TRIES_MAX):
            try:
                # Marks first, as the refresh takes its locks; a job may still come from the other side.
                self._admin.execute(f"TRUNCATE {', '.join((MARKS, EVENTS, KEYS, LEDGER, *_rollup_tables()))}")
                break
            except psycopg.errors.DeadlockDetected:
                continue
        else:
            raise OperationError(f"the tables could not be emptied in {RESET_TRIES_MAX} tries")
        self._admin.execute("CHECKPOINT")

    def copy(self, pieces: Iterable[CopyPiece]) -> float:
        """The plain way: each piece in a transaction, events through the parent table, then their keys; seconds."""
        started = SYSTEM_CLOCK.monotonic()
        for piece in pieces:
            with self._admin.transaction():
                self._copy(f"COPY {EVENTS} ({quoted_list(piece.columns)}) FROM STDIN", piece.lines)
                self._copy(f"COPY {KEYS} (organization_id, event_time, id) FROM STDIN", piece.keys)
        return SYSTEM_CLOCK.monotonic() - started

    def _copy(self, statement: str, lines: bytes) -> None:
        with self._admin.cursor() as cursor, cursor.copy(statement.encode()) as copy:
            copy.write(lines)

    def _make_partitions(self) -> None:
        """For the days that the events may fall on; those to come are there already."""
        now = utc_datetime(SYSTEM_CLOCK.now_ns()).astimezone(UTC)
        for day in (now, now - timedelta(days=1)):
            ensure_partition(self._admin, EVENT_TYPE, day.date().isoformat())

    def _value(self, statement: str, connection: Connection[Any] | None = None) -> Any:
        try:
            row = (connection or self._refresher).execute(statement.encode()).fetchone()
        except psycopg.OperationalError as error:
            raise OperationError(f"the stack's database went away: {str(error).strip()}") from error
        assert row is not None
        return row[0]


def _rollup_tables() -> list[str]:
    return [
        f"analytics.{quoted(rollup.table(level))}"
        for rollup in load_catalog([]).rollups.values()
        if rollup.event_type == EVENT_TYPE
        for level in rollup.kept
    ]
