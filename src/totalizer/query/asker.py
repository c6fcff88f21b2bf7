"""Several questions of one snapshot, and what stands beside all of their answers together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg import AsyncConnection

from totalizer.query.combine import Page, Work, compile_work
from totalizer.query.question import Query
from totalizer.query.result import about, is_exact, shape_rows
from totalizer.query.sources import Source
from totalizer.query.state import State
from totalizer.query.work import Planner


class Asker:
    """Asks one question after the other.

    Args:
        connection: in the snapshot.
        organization_id: whose.
        state: of the snapshot.
        planner: of its queries.
    """

    def __init__(
        self, connection: AsyncConnection[Any], organization_id: str, state: State, planner: Planner
    ) -> None:  # fmt: skip
        self._connection, self._organization_id, self._planner = connection, organization_id, planner
        self.state = state
        self._asked: list[tuple[Work, Sequence[Sequence[Any]]]] = []

    async def rows(self, query: Query) -> list[dict[str, Any]]:
        """The rows of an answer, as many as the query's limit.

        Raises:
            Refused: the query cannot be answered; the message says why.
        """
        work = await self._planner.plan(query)
        statement = compile_work(work, self._organization_id, Page())
        rows = await (await self._connection.execute(statement.sql.encode(), statement.parameters)).fetchall()
        self._asked.append((work, rows[: query.limit]))
        return list(shape_rows(work, rows[: query.limit]))

    def last(self) -> dict[str, Any]:
        """What stands beside the rows of the last answer, as `result.about` has it."""
        return about(*self._asked[-1], self.state.now)

    def told(self) -> dict[str, Any]:
        """How fresh, how exact and from where all answers are."""
        notes = [about(work, rows, self.state.now) for work, rows in self._asked]
        read = {source for note in notes for source in note["source"].split("+")}
        return {
            "as_of": self.state.now.isoformat(),
            "exact": all(is_exact(work) for work, _ in self._asked),
            "source": "+".join(source.value for source in Source if source.value in read) or "none",
        }
