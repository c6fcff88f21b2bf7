"""Everything that the page shows, gathered at once; without the database, what this machine knows."""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import msgspec
import psycopg
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from totalizer.alerts.shown import HISTORY, SILENCES, STANDING, rows_of, standing_in
from totalizer.errors import Refused, StoreUnavailable
from totalizer.health.gather import Gatherer
from totalizer.health.report import Report
from totalizer.health.trend import Sample, read_trend
from totalizer.query import fates
from totalizer.store.audit import Wanted
from totalizer.web.audit_routes import own_entries
from totalizer.web.job_routes import JOBS, RUNS, job_rows
from totalizer.web.operator.door import Visit
from totalizer.web.operator.session import OperatorSession

#: Events in quarantine, runs of a job and entries of the history on the page.
LETTERS_MAX, RUNS_MAX, HISTORY_MAX = 50, 20, 20
#: Changes on the page; `/api/audit` has the others.
CHANGES_MAX = 20
#: Seconds that the database gets for all that is asked of it here.
ASKED_S = 3.0


class Stored(NamedTuple):
    """What the database holds that the page shows.

    Attributes:
        jobs: rows of JOBS.
        runs: those of the chosen job, newest first.
        letters: events in quarantine of the organisation, newest first.
        more_letters: True if there are more.
        alerts, silences, history: rows of the queries of those names.
        changes: entries of the audit trail, newest first; none for who may not read it.
    """

    jobs: list[dict[str, Any]]
    runs: list[dict[str, Any]]
    letters: list[dict[str, Any]]
    more_letters: bool
    alerts: list[dict[str, Any]]
    silences: list[dict[str, Any]]
    history: list[dict[str, Any]]
    changes: list[dict[str, Any]]


class Shown(NamedTuple):
    """What the page shows.

    Attributes:
        report: of the checks.
        stored: what the database holds; None while it is away.
        alerts: those that stand, from the database or from this machine's file.
        chosen: the job whose runs are shown; None for none.
    """

    report: Report
    stored: Stored | None
    alerts: list[dict[str, Any]]
    chosen: str | None


class Facts:
    """Gathers what the page shows.

    Args:
        gatherer: makes the checks.
        pool: connections as the app role.
    """

    def __init__(self, gatherer: Gatherer, pool: AsyncConnectionPool[Any]) -> None:
        self._gatherer, self._pool = gatherer, pool
        # A source that hangs must not take the threads of others.
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="page")

    async def gather(self, visit: Visit, job: str | None) -> Shown:
        """What there is to show.

        Args:
            visit: of whom.
            job: whose runs are asked for.
        """
        loop = asyncio.get_running_loop()
        asked = loop.run_in_executor(self._threads, self._gatherer)
        stored = None if visit.away else await self._stored(visit.session, job)
        if stored is not None:
            return Shown(await asked, stored, stored.alerts, job)
        standing = await asyncio.to_thread(standing_in, self._gatherer.folder, socket.gethostname())
        return Shown(await asked, None, standing, job)

    async def trend(self) -> bytes:
        """What waited in the last hour, as JSON."""
        samples: list[Sample] = await asyncio.to_thread(read_trend, self._gatherer.folder)
        return msgspec.json.encode({"samples": samples})

    async def _stored(self, session: OperatorSession, job: str | None) -> Stored | None:
        try:
            async with asyncio.timeout(ASKED_S):
                return await self._read(session, job)
        except (Refused, StoreUnavailable, TimeoutError, psycopg.OperationalError, PoolTimeout):
            return None

    async def _read(self, session: OperatorSession, job: str | None) -> Stored:
        jobs = await job_rows(self._pool, JOBS)
        runs = await job_rows(self._pool, RUNS, job, RUNS_MAX) if job is not None else []
        owner = session.organization_id
        letters = await fates.quarantined(self._pool, owner, event_type=None, before=None, limit=LETTERS_MAX + 1)
        async with self._pool.connection() as connection:
            alerts, silences = await rows_of(connection, STANDING), await rows_of(connection, SILENCES)
            history = await rows_of(connection, HISTORY, {"rule": None, "limit": HISTORY_MAX})
        changes = await own_entries(self._pool, Wanted(CHANGES_MAX, owner)) if "audit_read" in session.actions else []
        more = len(letters) > LETTERS_MAX
        return Stored(jobs, runs, letters[:LETTERS_MAX], more, alerts, silences, history, changes)
