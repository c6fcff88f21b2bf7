"""A second journal of the same contract, on SQLite: what the real one is compared with.

WAL with `synchronous = FULL` syncs at every commit, and one commit takes all appends that wait. It shares no code with
the real one but the records and errors, so that both are unlikely to be wrong in the same way.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from totalizer.errors import JournalBusy, JournalFailed, JournalFull
from totalizer.journal import BEGINNING, Position, Record

FILE_NAME = "journal.sqlite"
#: Bytes a record counts beside its payload.
OVERHEAD_BYTES = 24
_SCHEMA = """
CREATE TABLE IF NOT EXISTS identity (id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS records (sequence INTEGER PRIMARY KEY AUTOINCREMENT, payload BLOB NOT NULL);
"""

OnCommit = Callable[[list[object], JournalFailed | None], None]


def _connect(folder: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(folder / FILE_NAME, isolation_level=None, check_same_thread=False, timeout=30)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


class SqliteJournal:
    """The writer: one thread commits what waits. Arguments and errors as `totalizer.journal.Journal`."""

    def __init__(self, folder: Path, quota_bytes: int, on_commit: OnCommit | None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._quota_bytes, self._on_commit = folder, quota_bytes, on_commit
        self._lock_file = sqlite3.connect(folder / "lock", isolation_level=None, timeout=0, check_same_thread=False)
        try:
            self._lock_file.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError:
            self._lock_file.close()
            raise JournalBusy(f"{folder} is in use") from None
        self._connection = _connect(folder)
        self._connection.executescript(_SCHEMA)
        row = self._connection.execute("SELECT id FROM identity").fetchone()
        self.id = row[0] if row else str(uuid.uuid4())
        if row is None:
            self._connection.execute("INSERT INTO identity VALUES (?)", [self.id])
        self._changed = threading.Condition()
        self._waiting: list[tuple[bytes, object, threading.Event | None]] = []
        self._waiting_bytes = 0
        self._closed = self._killed = False
        self._thread = threading.Thread(target=self._run, name="sqlite journal", daemon=True)
        self._thread.start()

    @classmethod
    def open(
        cls, folder: Path, *, segment_bytes: int, quota_bytes: int, on_commit: OnCommit | None = None
    ) -> SqliteJournal:
        """Make or adopt; `segment_bytes` has no meaning here."""
        if segment_bytes < 1 or quota_bytes < 1:
            raise ValueError(f"segment_bytes={segment_bytes}, quota_bytes={quota_bytes}")
        return cls(folder, quota_bytes, on_commit)

    def append(self, payload: bytes, token: object) -> None:
        """Accept one record; its token is given to `on_commit` once."""
        self._put(payload, token, None)

    def append_and_wait(self, payload: bytes, timeout_s: float | None = None) -> None:
        """Append one record and return when it is durable."""
        done = threading.Event()
        self._put(payload, None, done)
        if not done.wait(timeout_s):
            raise TimeoutError

    def close(self) -> None:
        """Answer what is pending and give the file back; again, do nothing."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        self._connection.close()
        self._lock_file.close()

    def kill(self) -> None:
        """End as a killed process does: what is not committed is gone, and nobody is answered."""
        with self._changed:
            self._killed = True
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _put(self, payload: bytes, token: object, done: threading.Event | None) -> None:
        size = len(payload) + OVERHEAD_BYTES
        if size > self._quota_bytes:
            raise ValueError(f"a payload of {len(payload)} bytes")
        with self._changed:
            if self._closed:
                raise JournalFailed("the journal is closed")
            if self._stored_bytes() + self._waiting_bytes + size > self._quota_bytes:
                raise JournalFull
            self._waiting.append((payload, token, done))
            self._waiting_bytes += size
            self._changed.notify_all()

    def _stored_bytes(self) -> int:
        with contextlib.closing(_connect(self.folder)) as connection:
            statement = f"SELECT coalesce(sum(length(payload) + {OVERHEAD_BYTES}), 0) FROM records"
            return int(connection.execute(statement).fetchone()[0])

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                group = list(self._waiting)
                if self._killed or not group:
                    return
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("INSERT INTO records (payload) VALUES (?)", [(each[0],) for each in group])
            self._connection.execute("COMMIT")
            with self._changed:
                self._waiting = self._waiting[len(group) :]
                self._waiting_bytes -= sum(len(each[0]) + OVERHEAD_BYTES for each in group)
            if self._on_commit is not None and (tokens := [token for _, token, done in group if done is None]):
                self._on_commit(tokens, None)
            for _, _, done in group:
                if done is not None:
                    done.set()


class SqliteReader:
    """The reader, for any process. A position is (1, sequence of the record before it)."""

    def __init__(self, folder: Path) -> None:
        if not (folder / FILE_NAME).exists():
            raise JournalFailed(f"{folder} holds no journal")
        self._connection = _connect(folder)
        self.id = self._connection.execute("SELECT id FROM identity").fetchone()[0]
        self.damage: list[object] = []

    def read(self, after: Position, *, records_max: int, bytes_max: int) -> list[Record]:
        """Durable records after a position, in order."""
        found: list[Record] = []
        rows = self._connection.execute(
            "SELECT sequence, payload FROM records WHERE sequence > ? ORDER BY sequence LIMIT ?",
            [after.offset, records_max],
        )
        for sequence, payload in rows.fetchall():
            bytes_max -= len(payload)
            if found and bytes_max < 0:
                break
            found.append(Record(Position(1, sequence), sequence, payload))
        return found

    def durable_end(self) -> Position:
        """Where the records end."""
        row = self._connection.execute("SELECT max(seq) FROM sqlite_sequence WHERE name = 'records'").fetchone()
        return Position(1, row[0]) if row[0] else BEGINNING

    def discard(self, before: Position) -> int:
        """Delete what lies before a position; bytes freed."""
        statement = "DELETE FROM records WHERE sequence <= ? RETURNING length(payload)"
        return sum(row[0] for row in self._connection.execute(statement, [before.offset]).fetchall())

    def close(self) -> None:
        """Give the file back."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
