"""Totals as an export: every row of an answer, in one snapshot."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection

from totalizer.query.combine import Page, Work, compile_work
from totalizer.query.question import Query
from totalizer.query.result import shape_rows
from totalizer.query.run import minute_after
from totalizer.query.state import State
from totalizer.query.work import Planner

#: Rows read at once.
PAGE_ROWS = 2000

Parse = Callable[[datetime, str], Query]
Totals = list[dict[str, Any]]


async def plan_totals(planner: Planner, state: State, parse: Parse) -> Work:
    """The work that answers a query.

    Args:
        planner: of the snapshot.
        state: of it.
        parse: reads the query, given the snapshot's time and the organisation's zone.

    Raises:
        Refused: the query cannot be answered.
    """
    return await planner.plan(parse(minute_after(state.now), state.own_zone))


async def total_pages(connection: AsyncConnection[Any], work: Work, organization_id: str) -> AsyncIterator[Totals]:
    """Pages of an answer, whatever its limit, as they are sent.

    Args:
        connection: in the snapshot of the work.
        work: what to answer.
        organization_id: whose.
    """
    statement = compile_work(work, organization_id, Page())
    async with connection.cursor(name="export") as cursor:
        await cursor.execute(statement.sql.encode(), {**statement.parameters, "limit": None})
        while rows := await cursor.fetchmany(PAGE_ROWS):
            yield list(shape_rows(work, rows))
