"""The record of alerts in the database: what stands, what was, what is silenced, and who speaks for the installation.

The database may be what is away. Then alerts go out all the same: what stands is in a file, silences are remembered,
and the history waits in a file until it can be written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import psycopg
from psycopg import Connection

from totalizer.alerts.ruled import WAITING_MAX, Entry, rule_of
from totalizer.clock import Clock, utc_datetime
from totalizer.edge.daemon.alerts import Remembered
from totalizer.edge.folder import write_file
from totalizer.health.database import ASK_S, CONNECT_S, bounded
from totalizer.prepared import prepared
from totalizer.telemetry import logger

#: In the folder of health files: history that waits for the database, and silences.
KEPT_FILE = "alerts-kept.json"
#: The lock of the monitor that speaks for the installation.
_LEAD = "SELECT pg_try_advisory_lock(hashtext('totalizer monitor'))"
#: A silence of every rule.
ALL = "*"


@prepared
class Kept(msgspec.Struct):
    """What outlives a restart while the database is away.

    Attributes:
        waiting: history that is not written yet.
        silences: until when rules are silenced, milliseconds since 1970 UTC.
    """

    waiting: list[Entry] = []
    silences: dict[str, int] = {}


class Book:
    """One monitor's side of the record. One thread at a time.

    Args:
        dsn: gives the connection string of the refresher role.
        host: of this machine.
        folder: of health files.
        clock: for silences.
    """

    def __init__(self, dsn: Callable[[], str], host: str, folder: Path, clock: Clock) -> None:
        self._dsn, self.host, self._path, self._clock = dsn, host, folder / KEPT_FILE, clock
        self._connection: Connection[Any] | None = None
        self._written: object = None
        self._kept, self._stored = self._load(), b""
        #: True if this monitor speaks for the installation; None if that is not known.
        self.leads: bool | None = None

    def silenced(self, rule: str) -> bool:
        """True if a rule is silenced now."""
        now_ms = self._clock.now_ns() // 1_000_000
        return any(self._kept.silences.get(name, 0) > now_ms for name in (rule, ALL))

    def read(self) -> None:
        """Learn who leads and what is silenced. What cannot be asked stays as it was, but for who leads."""
        self.leads = None
        self._guarded(self._read)

    def write(self, standing: Mapping[str, Remembered], waiting: list[Entry], remedy: Callable[[str], str]) -> None:
        """Record what stands and what became of alerts; what cannot be recorded now is recorded later.

        Args:
            standing: by key.
            waiting: entries of the history; emptied.
            remedy: of a rule.
        """
        self._kept.waiting = [*self._kept.waiting, *waiting][-WAITING_MAX:]
        waiting.clear()
        self._store()  # before the database is asked: it may be what is dying
        if self.leads is not None:
            self._guarded(lambda connection: self._write(connection, standing, remedy))
            self._store()

    def close(self) -> None:
        """Close the connection; another monitor may lead."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._written = None

    def _read(self, connection: Connection[Any]) -> None:
        row = connection.execute(_LEAD).fetchone() if not self._has_lock else (True,)
        rows = connection.execute(
            "SELECT rule, (extract(epoch FROM max(until)) * 1000)::bigint FROM totalizer.alert_silences "
            "WHERE until > now() GROUP BY rule"
        ).fetchall()
        self._kept.silences = dict(rows)
        self._has_lock = row == (True,)
        self.leads = self._has_lock

    def _write(
        self, connection: Connection[Any], standing: Mapping[str, Remembered], remedy: Callable[[str], str]
    ) -> None:
        rows = [
            (self.host, key, rule_of(key), one.severity, one.message, remedy(rule_of(key)),
             utc_datetime(one.first_at * 1_000_000))
            for key, one in standing.items()
        ]  # fmt: skip
        with connection.transaction():
            if rows != self._written:
                connection.execute("DELETE FROM totalizer.alerts WHERE host = %s", [self.host])
                _many(connection, "INSERT INTO totalizer.alerts (host, key, rule, severity, message, remedy, since) "
                      "VALUES (%s, %s, %s, %s, %s, %s, %s)", rows)  # fmt: skip
            _many(
                connection,
                "INSERT INTO totalizer.alert_history (id, at, host, key, rule, kind, severity, message, silenced) "
                "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (id) DO NOTHING",
                [(each.id, utc_datetime(each.at_ms * 1_000_000), self.host, *_columns(each))
                 for each in self._kept.waiting],
            )  # fmt: skip
        self._written, self._kept.waiting = rows, []

    def _guarded(self, work: Callable[[Connection[Any]], None]) -> None:
        try:
            connection = self._open()
            with bounded(connection, ASK_S + 0.5):
                work(connection)
        except psycopg.Error as error:
            logger().debug("the record of alerts cannot be reached", reason=type(error).__name__)
            self.close()
            self.leads = None

    def _open(self) -> Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._has_lock = False
            self._connection = psycopg.connect(
                self._dsn(), autocommit=True, connect_timeout=CONNECT_S, application_name="totalizer monitor",
                options=f"-c timezone=UTC -c statement_timeout={int(ASK_S * 1000)}",
            )  # fmt: skip
        return self._connection

    _has_lock = False

    def _load(self) -> Kept:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Kept)
        except FileNotFoundError:
            return Kept()
        except (OSError, msgspec.DecodeError) as error:
            logger().warning("silences and waiting history are forgotten", reason=str(error))
            return Kept()

    def _store(self) -> None:
        data = msgspec.json.encode(self._kept)
        if data == self._stored:
            return
        try:
            write_file(self._path, data)
            self._stored = data
        except OSError as error:
            logger().warning("silences and waiting history cannot be kept", reason=str(error))


def _columns(entry: Entry) -> tuple[object, ...]:
    return entry.key, entry.rule, entry.kind, entry.severity, entry.message, entry.silenced


def _many(connection: Connection[Any], statement: str, rows: list[tuple[Any, ...]]) -> None:
    if rows:
        with connection.cursor() as cursor:
            cursor.executemany(statement.encode(), rows)
