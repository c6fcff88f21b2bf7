"""The same group commit into SQLite: WAL, synchronous=FULL, one transaction for all that wait."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from benchmarks.bare_log import GroupCommit, OnCommit


class SqliteLog(GroupCommit):
    """Payloads as rows of one table.

    Args:
        folder: where the database is made.
        on_commit: told of each group.
    """

    def __init__(self, folder: Path, on_commit: OnCommit) -> None:
        # The writer thread alone uses it once this returns.
        self._connection = sqlite3.connect(folder / "log.sqlite", isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("CREATE TABLE log (id INTEGER PRIMARY KEY, payload BLOB NOT NULL)")
        super().__init__(on_commit)

    def commit(self, payloads: list[bytes]) -> None:
        """Insert a group in one transaction."""
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany("INSERT INTO log (payload) VALUES (?)", [(payload,) for payload in payloads])
        self._connection.execute("COMMIT")

    def close(self) -> None:
        """End the thread and close the database."""
        super().close()
        self._connection.close()
