"""Scheduled jobs over HTTP: what there is, what became of runs, asking for one.

Jobs are the installation's, not an organisation's. What a run said may name any organisation, so it is not told here;
`totalizer job history` tells it.
"""

from __future__ import annotations

from typing import Annotated, Any

import psycopg
from litestar import Request, Response, get, post
from litestar.params import Parameter
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from totalizer.errors import Refusal, Refused, StoreUnavailable
from totalizer.store.tenant import writing_as
from totalizer.web.answer import json_answer
from totalizer.web.audit import Who, actor_of
from totalizer.web.described import run as answers
from totalizer.web.described.operation import described
from totalizer.web.gate import enter
from totalizer.web.identity import Authenticator
from totalizer.web.numbers import whole_number

#: Runs in one answer, and by default.
RUNS_MAX, RUNS_DEFAULT = 500, 50
_RUN = (
    "id, job, state, scheduled_for, requested_at, started_at, finished_at, "
    "extract(epoch FROM finished_at - started_at)::float AS duration_s, rows, runner, attempt, runs"
)
JOBS = f"""
    SELECT name, description, schedule, queue, extract(epoch FROM soft_limit)::float AS soft_limit_s,
           extract(epoch FROM hard_limit)::float AS hard_limit_s, enabled, next_run_at, to_jsonb(latest) AS last_run
    FROM totalizer.jobs LEFT JOIN LATERAL (
        SELECT {_RUN} FROM totalizer.job_runs WHERE job = name ORDER BY id DESC LIMIT 1
    ) AS latest ON true ORDER BY name"""
RUNS = f"SELECT {_RUN} FROM totalizer.job_runs WHERE job = %s ORDER BY id DESC LIMIT %s"


def job_routes(authenticator: Authenticator, pool: AsyncConnectionPool[Any]) -> list[Any]:
    """The routes."""

    @get("/api/jobs", summary="The scheduled jobs", **described(answers.JOBS_TAG, "jobs_read", answers.JOBS))
    async def list_jobs(request: Request[Any, Any, Any]) -> Response[bytes]:
        """Each with its schedule, its next run and its last one. Empty until a scheduler or a worker has started."""
        await enter(authenticator, request)
        return json_answer({"jobs": await job_rows(pool, JOBS)})

    @get(
        "/api/jobs/{name:str}/runs", summary="The runs of a job",
        **described(answers.JOBS_TAG, "jobs_read", answers.RUNS, asked=answers.JOB_ASKED),
    )  # fmt: skip
    async def list_runs(
        request: Request[Any, Any, Any],
        name: str,
        limit: Annotated[str | None, Parameter(description=f"1 to {RUNS_MAX}; {RUNS_DEFAULT}.")] = None,
    ) -> Response[bytes]:
        """Newest first, without what they said: that may name other organisations."""
        await enter(authenticator, request)
        found = await job_rows(pool, RUNS, checked(name), whole_number("limit", limit, RUNS_DEFAULT, RUNS_MAX))
        if not found and not await job_rows(pool, "SELECT FROM totalizer.jobs WHERE name = %s", name):
            raise no_job(name)
        return json_answer({"runs": found})

    @post(
        "/api/jobs/{name:str}/run", summary="Ask for a run of a job", status_code=202,
        **described(answers.JOBS_TAG, "jobs_run", answers.RUN_ASKED, asked=answers.JOB_ASKED),
    )  # fmt: skip
    async def run(request: Request[Any, Any, Any], name: str) -> Response[bytes]:
        """It is run by the next scheduler or worker that looks. Asked for again before that, it is the same run."""
        principal = await enter(authenticator, request)
        number = await ask_for_run(pool, principal, checked(name))
        if number is None:
            raise no_job(name)
        answer = json_answer({"id": number, "job": name, "state": "requested"})
        answer.status_code = 202
        return answer

    return [list_jobs, list_runs, run]


async def job_rows(pool: AsyncConnectionPool[Any], query: str, *parameters: object) -> list[dict[str, Any]]:
    """Rows of one of the queries above, by column.

    Raises:
        Refused: the database is away.
    """
    try:
        async with pool.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            found: list[dict[str, Any]] = await (await cursor.execute(query.encode(), parameters)).fetchall()
            return found
    except (psycopg.OperationalError, PoolTimeout) as error:
        raise _away() from error


async def ask_for_run(pool: AsyncConnectionPool[Any], who: Who, name: str) -> int | None:
    """Ask for a run; its number, or None if there is no such job.

    Raises:
        Refused: the database is away.
    """
    try:
        async with writing_as(pool, who.organization_id, actor_of(who)) as connection:
            row = await (await connection.execute("SELECT totalizer.request_job(%s)", [name])).fetchone()
    except StoreUnavailable as error:
        raise _away() from error
    return None if row is None or row[0] is None else int(row[0])


def checked(name: str) -> str:
    """A name that may be one of a job."""
    if not name.isidentifier():
        raise no_job(name)
    return name


def _away() -> Refused:
    return Refused(Refusal.DATABASE_UNAVAILABLE, "the jobs cannot be reached at present; try again", retry_after_s=5)


def no_job(name: str) -> Refused:
    """There is no such job."""
    return Refused(
        Refusal.NOT_FOUND, f"{name[:80]!r} is no job that can be asked for; GET /api/jobs lists those that run"
    )
