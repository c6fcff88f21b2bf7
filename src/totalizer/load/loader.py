"""The loop that drains journals into PostgreSQL, one transaction a piece."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any, TypeVar

import psycopg
from psycopg import Connection

from totalizer import failpoint
from totalizer.errors import JournalFailed, StoreUnavailable
from totalizer.event import DAY
from totalizer.failpoint import Failpoint
from totalizer.journal import JournalReader, journals_in, recover_idle
from totalizer.load.ahead import Lookahead, Prepared
from totalizer.load.floors import Floors
from totalizer.load.gather import gather, marks_of
from totalizer.load.measured import measured, stopped
from totalizer.load.missing import gaps, keep_unreadable
from totalizer.load.section import Partitions, SectionLoader
from totalizer.load.source import Fenced, Source
from totalizer.store import fates, loading
from totalizer.store.connect import connect
from totalizer.store.fates import Fate, Fates
from totalizer.store.loading import Target
from totalizer.telemetry import logger

#: Pause when there is nothing to load; a look costs a comparison of mapped memory.
IDLE_PAUSE_S = 0.02
#: After a small piece the next is left to grow this long: a transaction costs as much as some hundred rows.
ROWS_WORTH_A_TRANSACTION, GATHER_PAUSE_S = 5000, 0.05
#: How often new journal folders, and folders whose process has died, are looked for.
SPOOL_SCAN_S = 2.0
#: Pause between two tries for the spool's lock.
LOCK_PAUSE_S = 0.1
#: Journal bytes taken into one transaction.
PIECE_BYTES_MAX = 16 << 20
#: Pauses between attempts to reach the database.
RETRY_PAUSE_S, RETRY_PAUSE_MAX_S = 0.2, 5.0

_Result = TypeVar("_Result")


class Loader:
    """Drains every journal below a folder.

    Args:
        dsn: connection string of the writer role.
        spool: folder of journal folders.
        rows_max: rows stored in one transaction, give or take a batch.
    """

    def __init__(self, dsn: str, spool: Path, *, rows_max: int) -> None:
        self._dsn, self._spool, self._rows_max = dsn, spool, rows_max
        self._sources: dict[Path, Source] = {}
        self._refusals: dict[Path, str] = {}
        self._unlisted: dict[Path, str] = {}
        self._connection: Connection[Any] | None = None
        self._partitions: Partitions | None = None
        self._lookahead = Lookahead()
        self._floors = Floors()

    def run(self, stop: Event) -> None:
        """Load until `stop` is set; then what is durable by then is loaded, and the connection closed.

        Waits, with growing pauses, while the database is away.
        """
        with self._owning_the_spool(stop) as owner:
            if owner:
                self._run(stop)

    def _run(self, stop: Event) -> None:
        pause = RETRY_PAUSE_S
        while not stop.is_set():
            try:
                self._drain_until(stop)
                pause = RETRY_PAUSE_S
            except (psycopg.Error, StoreUnavailable) as error:
                stopped()
                logger().warning("loading waits for the database", reason=str(error).strip(), retry_in_s=pause)
                self.close()
                stop.wait(pause)
                pause = min(2 * pause, RETRY_PAUSE_MAX_S)
        self._drain_finally()

    @contextmanager
    def _owning_the_spool(self, stop: Event) -> Iterator[bool]:
        """Hold the lock that one loader at a time may have, waiting for an older one to end; False if stopped first."""
        self._spool.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self._spool / "loader.lock").open("a") as lock:
            waiting = False
            while not stop.is_set():
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if not waiting:
                        logger().warning("another loader drains this spool; waiting for it", spool=str(self._spool))
                    waiting = True
                    stop.wait(LOCK_PAUSE_S)
                else:
                    yield True
                    return
            yield False

    def drain(self) -> int:
        """Load everything that is durable now; returns the rows taken from journals.

        Raises:
            StoreUnavailable, psycopg.Error: the database is away; what was loaded stays so, the rest waits.
        """
        self._look_for_journals()
        total = 0
        while rows := sum(self._load_piece(source) for source in list(self._sources.values())):
            total += rows
        return total

    def close(self) -> None:
        """Close the connection; a later call opens a new one and takes the journals over again."""
        if self._connection is not None:
            self._connection.close()
        self._connection, self._partitions = None, None
        self._lookahead.close()
        for folder in list(self._sources):
            self._leave(folder)

    def _drain_until(self, stop: Event) -> None:
        while not stop.is_set():
            self._look_for_journals()
            looks = 0
            while looks * IDLE_PAUSE_S < SPOOL_SCAN_S and not stop.is_set():
                rows = sum(self._load_piece(source) for source in list(self._sources.values()))
                looks += not rows
                if rows < ROWS_WORTH_A_TRANSACTION:
                    stop.wait(GATHER_PAUSE_S if rows else IDLE_PAUSE_S)

    def _drain_finally(self) -> None:
        try:
            self.drain()
        except (psycopg.Error, StoreUnavailable) as error:
            logger().warning("stopped before all was loaded; the journal keeps it", reason=str(error).strip())
        finally:
            self.close()

    def _ready(self) -> tuple[Connection[Any], Partitions]:
        if self._connection is None or self._partitions is None:
            self._connection = connect(self._dsn, autocommit=True)
            self._partitions = Partitions(self._connection)
            self._floors.hold(self._connection)
        return self._connection, self._partitions

    def _look_for_journals(self) -> None:
        connection, _ = self._ready()
        for folder in self._folders():
            with self._others_go_on(folder):
                self._retried(partial(recover_idle, folder))
                if folder not in self._sources:
                    self._begin(connection, folder)

    def _begin(self, connection: Connection[Any], folder: Path) -> None:
        reader = JournalReader(folder)
        if failpoint.ARMED:
            failpoint.hit(Failpoint.JOURNAL_FOUND)
        source = Source(folder, reader, loading.take_over(connection, reader.id))
        self._sources[folder] = source
        if failpoint.ARMED:
            failpoint.hit(Failpoint.JOURNAL_TAKEN_OVER)
        self._retried(lambda: reader.discard(source.position))

    def _retried(self, work: Callable[[], _Result]) -> _Result:
        """Once more after a refusal: the first may be for want of the descriptors that other journals' readers hold."""
        try:
            return work()
        except JournalFailed:
            for source in self._sources.values():
                source.reader.close()
            return work()

    def _folders(self) -> list[Path]:
        """Folders with journals; one that cannot be listed is reported once, and looked at again the next time."""
        refused: dict[Path, str] = {}
        folders = journals_in(self._spool, lambda path, error: refused.update({path: str(error)}))
        for path, reason in refused.items():
            if self._unlisted.get(path) != reason:
                logger().error("this folder cannot be listed; trying again", folder=str(path), reason=reason)
        self._unlisted = refused
        return folders

    def _load_piece(self, source: Source) -> int:
        rows = 0
        with self._others_go_on(source.folder):
            if not source.ahead:
                source.ahead = self._retried(
                    lambda: source.reader.read(source.position, records_max=self._rows_max, bytes_max=PIECE_BYTES_MAX)
                )
                self._report_damage(source)
                if failpoint.ARMED:
                    failpoint.hit(Failpoint.PIECE_READ)
            rows = self._store(source) if source.ahead else 0
        return rows  # noqa: RET504 - 0 after what the with-block has dealt with

    @contextmanager
    def _others_go_on(self, folder: Path) -> Iterator[None]:
        """Leave a journal that cannot be loaded at present, until the next look for journals, and go on with others."""
        try:
            yield
        except Fenced:
            logger().warning("another loader has taken this journal over", journal=str(folder))
        except JournalFailed as error:
            if self._refusals.get(folder) != str(error):
                logger().error("this journal cannot be read; trying again", journal=str(folder), reason=str(error))
            self._refusals[folder] = str(error)
        else:
            self._refusals.pop(folder, None)
            return
        self._leave(folder)

    def _leave(self, folder: Path) -> None:
        """Give a journal back, with every descriptor held on it."""
        self._lookahead.forget(folder)
        source = self._sources.pop(folder, None)
        if source is not None:
            source.reader.close()

    def _store(self, source: Source) -> int:
        connection, partitions = self._ready()
        prepared = self._lookahead.take(source.folder, gather, source.ahead, self._rows_max)
        gathered = prepared.gathered
        records, ahead = source.ahead[: gathered.records], source.ahead[gathered.records :]
        if ahead:
            self._lookahead.begin(source.folder, gather, ahead, self._rows_max)
        names = {
            target: partitions.ensure(connection, target.event_type, {line[DAY] for line in lines}, self._floors)
            for target, lines in gathered.lines.items()
        }
        if failpoint.ARMED:
            failpoint.hit(Failpoint.PIECE_GATHERED)
        end, sequence = records[-1].position_after, records[-1].sequence
        with measured(prepared, source.reader.id, records[0].sequence) as prepared, connection.transaction():
            self._store_in_transaction(connection, source, prepared, names, [record.sequence for record in records])
            loading.advance(connection, source.reader.id, end.segment, end.offset, len(records), sequence)
            if failpoint.ARMED:
                failpoint.hit(Failpoint.BEFORE_COMMIT)
        if failpoint.ARMED:
            failpoint.hit(Failpoint.PIECE_COMMITTED)
        begun = end.segment > source.offset.segment
        source.offset = source.offset._replace(segment=end.segment, position=end.offset, sequence=sequence)
        source.ahead = ahead
        if begun:
            if failpoint.ARMED:
                failpoint.hit(Failpoint.BEFORE_DISCARD)
            source.reader.discard(end)
            if failpoint.ARMED:
                failpoint.hit(Failpoint.PIECE_DISCARDED)
        return gathered.rows

    def _store_in_transaction(
        self,
        connection: Connection[Any],
        source: Source,
        prepared: Prepared,
        names: dict[Target, dict[bytes, str] | None],
        sequences: list[int],
    ) -> None:
        journal_id, gathered = source.reader.id, prepared.gathered
        if loading.fence(connection, journal_id, source.offset.epoch) != source.offset:
            raise Fenced
        if failpoint.ARMED:
            failpoint.hit(Failpoint.PIECE_FENCED)
        self._floors.hold(connection)
        found: Fates = {}
        marks: set[tuple[str, str, str]] = set()
        for target, lines in gathered.lines.items():
            origins = gathered.origins[target]
            section = SectionLoader(connection, journal_id, target, names[target], origins, self._floors)
            section.load(lines, prepared.orders[target])
            for account, fate in section.fates().items():
                found[account] = found.get(account, Fate()) + fate
            fates.add_unstored(connection, journal_id, section.unstored(lines, sequences))
            marks |= marks_of(target, (line for line in lines if line not in section.unmarked))
        if missing := [*gaps(source.offset, sequences), *keep_unreadable(connection, journal_id, gathered, sequences)]:
            fates.add_gaps(connection, journal_id, missing)
        if marks:
            loading.add_marks(connection, sorted(marks), prepared.spans)
        if found:
            fates.add_ledger(connection, found)
        if failpoint.ARMED:
            failpoint.hit(Failpoint.PIECE_STORED)

    def _report_damage(self, source: Source) -> None:
        for damage in source.reader.damage[source.damage_reported :]:
            logger().error("journal damage", journal=str(source.folder), damage=str(damage))
        source.damage_reported = len(source.reader.damage)
