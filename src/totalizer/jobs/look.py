"""The look that every runner takes now and then: what was missed, failed, lost or asked for, and shall run now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import psycopg
from psycopg import Connection

from totalizer.errors import StoreUnavailable
from totalizer.jobs.due import due, find_lost
from totalizer.jobs.job import Job
from totalizer.store import runs
from totalizer.store.connect import connect
from totalizer.telemetry import logger


class Wanted(NamedTuple):
    """A run that shall begin.

    Attributes:
        job: of which job.
        request_id: the run that was asked for; None for one that is due.
    """

    job: Job
    request_id: int | None = None


class Look:
    """Looks into the database, over a connection of its own that is opened when needed. Not for several threads.

    Args:
        dsn: gives the connection string of the refresher role.
        table: the jobs by name; they are written down in the database for those who cannot ask the program.
    """

    def __init__(self, dsn: Callable[[], str], table: Mapping[str, Job]) -> None:
        self._dsn, self._table = dsn, table
        self._connection: Connection[Any] | None = None
        self._away = False

    def __call__(self) -> list[Wanted]:
        """What shall run now; nothing while the database is away, which is logged once."""
        try:
            found = self.now()
        except (psycopg.Error, StoreUnavailable) as error:
            self.close()
            if not self._away:
                logger().error("jobs cannot be looked after; it will be tried again", reason=str(error).strip())
            self._away = True
            return []
        if self._away:
            logger().info("jobs are looked after again")
        self._away = False
        return found

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def now(self) -> list[Wanted]:
        """What shall run now.

        Raises:
            StoreUnavailable: the database cannot be reached.
            psycopg.Error: it went away.
        """
        if self._connection is None:
            self._connection = connect(self._dsn(), autocommit=True)
        connection = self._connection
        now = runs.database_now(connection)
        runs.announce(connection, [job.known(now) for job in self._table.values()])
        for name in find_lost(connection):
            logger().warning("job lost: its process or connection ended", job=name)
        wanted = [Wanted(job) for job in self._table.values() if due(connection, job) is not None]
        asked_for = runs.requested(connection)
        return wanted + [Wanted(self._table[run.job], run.id) for run in asked_for if run.job in self._table]
