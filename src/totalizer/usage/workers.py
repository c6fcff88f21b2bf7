"""Moving pages of counters into the table: several at once, each key's failure its own."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from datetime import date
from typing import Any, NamedTuple

import psycopg
from psycopg import Connection

from totalizer.errors import StoreUnavailable, TotalizerError
from totalizer.store import merchant_usage, usage_runs
from totalizer.store.connect import is_rows_fault
from totalizer.store.merchant_usage import VALUE_MAX, Usage
from totalizer.store.usage_counters import Counters
from totalizer.store.usage_keys import Counter, read_key
from totalizer.usage.backoff import Retries

_WHOLE_NUMBER = re.compile(rb"(0|[1-9][0-9]{0,18})\Z").match


class Superseded(TotalizerError):
    """A later run for the same day has begun; this one has stopped."""


class Page(NamedTuple):
    """What became of one page of counters.

    Attributes:
        records: counters whose values are in the table now.
        failures: reasons by name.
    """

    records: int
    failures: dict[str, str]


class Owners(NamedTuple):
    """Which organisations there are.

    Attributes:
        known: ids of all.
        default: that of the one whose counters have the plain names; None if there is none.
    """

    known: set[str]
    default: str | None

    def of(self, counter: Counter) -> str:
        """The id of a counter's organisation.

        Raises:
            ValueError: there is none.
        """
        found = self.default if counter.organization_id is None else counter.organization_id
        if found is None:
            raise ValueError("there is no organisation `default`, whose counter it would be")
        if found not in self.known:
            raise ValueError(f"there is no organisation {found}")
        return found


class Connections:
    """A database connection for each thread, opened when needed and again when it was lost.

    Args:
        opened: makes one, as the refresher, autocommit.
    """

    def __init__(self, opened: Callable[[], Connection[Any]]) -> None:
        self._opened, self._local, self._all = opened, threading.local(), list[Connection[Any]]()

    def get(self) -> Connection[Any]:
        """This thread's.

        Raises:
            StoreUnavailable: the database cannot be reached.
        """
        connection: Connection[Any] | None = getattr(self._local, "connection", None)
        if connection is None or connection.closed or connection.broken:
            connection = self._opened()
            self._local.connection = connection
            self._all.append(connection)
        return connection

    def adopt(self, connection: Connection[Any]) -> None:
        """Let this thread use a connection that somebody else closes."""
        self._local.connection = connection

    def close(self) -> None:
        """Close all; no thread uses one any more."""
        for connection in self._all:
            connection.close()


class PageWriter:
    """Aggregates pages of counters of one day. For several threads.

    Args:
        day: UTC.
        epoch: of the run; None for one that is not fenced.
        counters: where they are read.
        connections: where they are written.
        owners: whose they may be.
        retries: for what fails for want of a server.
    """

    def __init__(
        self, day: date, epoch: int | None, counters: Counters, connections: Connections, owners: Owners,
        retries: Retries,
    ) -> None:  # fmt: skip
        self._day, self._day_text, self._epoch, self._counters = day, day.isoformat(), epoch, counters
        self._connections, self._owners, self._retries = connections, owners, retries

    def write(self, keys: Sequence[bytes]) -> Page:
        """Bring one page into the table.

        Raises:
            Superseded: a later run for the day has begun.
            JobStopped: the run was told to stop.
        """
        self._retries.check()
        unique = list(dict.fromkeys(keys))
        try:
            values = self._retries(lambda: self._counters.read(unique))
        except StoreUnavailable as error:
            return Page(0, dict.fromkeys(map(_shown, unique), str(error)))
        usages, failures = self._sorted_out(unique, values)
        return Page(self._put(list(usages.values()), failures), failures)

    def _sorted_out(
        self, keys: Sequence[bytes], values: Sequence[bytes | str | None]
    ) -> tuple[dict[tuple[str, str, str], Usage], dict[str, str]]:
        usages: dict[tuple[str, str, str], Usage] = {}
        failures: dict[str, str] = {}
        for key, value in zip(keys, values, strict=True):
            if value is None:  # it ended between being found and being read
                continue
            try:
                usage = self._usage(key, value)
            except ValueError as error:
                failures[_shown(key)] = str(error)
                continue
            # Two spellings of one name: the greater is nearer to what was tracked.
            kept = usages.get(usage[:3])
            usages[usage[:3]] = usage if kept is None or kept.value < usage.value else kept
        return usages, failures

    def _usage(self, key: bytes, value: bytes | str) -> Usage:
        counter = read_key(key)
        if counter.day != self._day_text:
            raise ValueError(f"its name has the day {counter.day}, not {self._day}")
        if isinstance(value, str):
            raise ValueError(f"it cannot be read: {value}")  # noqa: TRY004 - what is wrong is the counter
        if not _WHOLE_NUMBER(value) or int(value) > VALUE_MAX:
            raise ValueError(f"it holds {value[:40].decode('utf-8', 'backslashreplace')!r}, not a count")
        return Usage(self._owners.of(counter), counter.merchant_id, counter.metric_type, int(value))

    def _put(self, usages: list[Usage], failures: dict[str, str]) -> int:
        """Write them in one transaction; if the database refuses any, by halves, down to the one that is to blame."""
        if not usages:
            return 0
        try:
            self._retries(lambda: self._write(usages))
        except (psycopg.Error, StoreUnavailable) as error:
            if len(usages) > 1 and isinstance(error, psycopg.Error) and is_rows_fault(error):
                half = len(usages) // 2
                return self._put(usages[:half], failures) + self._put(usages[half:], failures)
            for usage in usages:
                failures[self._name_of(usage)] = str(error).strip()
            return 0
        return len(usages)

    def _write(self, usages: list[Usage]) -> None:
        connection = self._connections.get()
        with connection.transaction():
            if self._epoch is not None and not usage_runs.still_ours(connection, self._day, self._epoch):
                raise Superseded
            merchant_usage.raise_values(connection, self._day, usages)

    def _name_of(self, usage: Usage) -> str:
        owner = None if usage.organization_id == self._owners.default else usage.organization_id
        return Counter(owner, usage.merchant_id, self._day.isoformat(), usage.metric_type).key


def _shown(key: bytes) -> str:
    return key.decode("utf-8", "backslashreplace")
