"""Exports: what they are of, and their pages one after the other, in as much memory as a page needs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from tempfile import gettempdir
from typing import Any, NamedTuple

import msgspec

from totalizer.query.exports.columns import Column, event_columns, total_columns
from totalizer.query.exports.events import PAGE_ROWS, Asked, Row, parse_events, read_page
from totalizer.query.exports.horizon import check_horizon, read_horizon
from totalizer.query.exports.limits import ExportLimits, Running
from totalizer.query.exports.spool import Spool, SpoolRoom
from totalizer.query.exports.ticket import Ticket, read_ticket
from totalizer.query.exports.totals import plan_totals, total_pages
from totalizer.query.filters import wrong
from totalizer.query.opaque import fingerprint
from totalizer.query.result import about
from totalizer.query.run import QueryService
from totalizer.query.snapshot import Pool, snapshot
from totalizer.query.state import read_state

Parameters = Mapping[str, Sequence[str]]
#: Parameters of a query that an export of totals does not have: it has all rows.
_NOT_OF_TOTALS = ("limit", "cursor", "explain")


class Begun(NamedTuple):
    """What is known before the first row.

    Attributes:
        name: what the file may be called, without an ending.
        columns: of every row.
        about: what an object of the export says beside its rows.
        cursor: stands for this export; None if it cannot be gone on with.
        limit: rows at most; None for no limit.
    """

    name: str
    columns: list[Column]
    about: dict[str, Any]
    cursor: str | None = None
    limit: int | None = None


class Page(NamedTuple):
    """Some rows.

    Attributes:
        rows: values by column.
        next_cursor: where to go on after them; None if there is nothing more.
        objects: the same as objects, where these say it otherwise.
    """

    rows: list[Row]
    next_cursor: str | None = None
    objects: list[dict[str, Any]] | None = None


Pages = AsyncGenerator[Begun | Page, None]


class ExportService:
    """Answers requests for exports.

    Args:
        pool: connections as the app role.
        queries: for the catalog, and for totals.
        limits: of exports.
        folder: for what clients have not taken yet; that of the system if left out.
    """

    def __init__(
        self, pool: Pool, queries: QueryService, limits: ExportLimits | None = None, folder: Path | None = None
    ) -> None:
        self._pool, self._queries, self.limits = pool, queries, limits or ExportLimits()
        self.running = Running(self.limits)
        self._room = SpoolRoom(folder or Path(gettempdir()), self.limits.spool_bytes)

    def spool(self) -> Spool:
        """Where one export waits for its client. Close it."""
        return Spool(self._room, self.limits.client_timeout_ms / 1000)

    async def events(self, organization_id: str, parameters: Parameters) -> Pages:
        """Single events: a `Begun`, and then pages of them in the order of their times.

        Args:
            organization_id: whose.
            parameters: of the request.

        Raises:
            Refused: what is asked cannot be answered; before the first is given out.
        """
        with self.running.one_more(organization_id):
            async with self._snapshot(organization_id) as connection:
                state = await read_state(connection, organization_id)
                asked = parse_events(self._queries.catalog, parameters, state.own_zone)
                whole = await self._ticket(connection, organization_id, asked)
                left = min(asked.limit or self.limits.rows, self.limits.rows)
                event_type = self._queries.catalog.event_types[asked.wanted.event_type]
                limit = min(left, PAGE_ROWS)
                rows = await read_page(connection, event_type, organization_id, asked.wanted, whole, limit)
            cursor = msgspec.structs.replace(whole, key=None).text
            told = {"event_type": event_type.name, "as_of": state.now.isoformat(), "cursor": cursor}
            yield Begun(event_type.name, event_columns(event_type), told, cursor, left)
            ticket = whole
            while len(rows) == limit:
                left -= len(rows)
                ticket = msgspec.structs.replace(ticket, key=(rows[-1][0].isoformat(), str(rows[-1][1])))
                yield Page(rows, ticket.text)
                if not left:
                    return
                limit = min(left, PAGE_ROWS)
                async with self._snapshot(organization_id) as connection:
                    rows = await read_page(connection, event_type, organization_id, asked.wanted, ticket, limit)
            yield Page(rows)

    async def totals(self, organization_id: str, parameters: Parameters) -> Pages:
        """Every row of an answer as `GET /api/metrics/aggregated` has it: a `Begun`, and then pages.

        Args:
            organization_id: whose.
            parameters: of the request.

        Raises:
            Refused: what is asked cannot be answered; before the first is given out.
        """
        for name in _NOT_OF_TOTALS:
            if name in parameters:
                raise wrong(name, ",".join(parameters[name]), "an export of totals has every row; leave it out")
        timeout_ms = self._queries.limits.timeout_ms
        with self.running.one_more(organization_id):
            async with snapshot(self._pool, organization_id, timeout_ms=timeout_ms) as connection:
                state = await read_state(connection, organization_id)
                planner = self._queries.planner(connection, organization_id, state)
                work = await plan_totals(planner, state, self._queries.by_parameters(parameters))
                pages = total_pages(connection, work, organization_id)
                # Found before it is said to begin: what goes wrong can still be told.
                shaped = await anext(pages, None)
                columns = total_columns(work)
                yield Begun(f"{work.choice.parts[0].event_type.name}_totals", columns, _told(work, state.now))
                while shaped is not None:
                    yield Page([_flat(row, columns) for row in shaped], None, shaped)
                    shaped = await anext(pages, None)

    def _snapshot(self, organization_id: str) -> AbstractAsyncContextManager[Any]:
        return snapshot(
            self._pool, organization_id, timeout_ms=self.limits.timeout_ms, setting="TOTALIZER_EXPORT_TIMEOUT_MS"
        )

    async def _ticket(self, connection: Any, organization_id: str, asked: Asked) -> Ticket:
        """The ticket of the export that is asked for: a new one, or that of the one that is gone on with."""
        present = await read_horizon(connection)
        question = fingerprint(organization_id, asked.wanted)
        if asked.cursor is not None:
            ticket = read_ticket("cursor", asked.cursor, question)
            check_horizon("cursor", ticket.until, present)
            return ticket if asked.position is None else msgspec.structs.replace(ticket, key=asked.position)
        if asked.after is None:
            return Ticket(question, present)
        before = read_ticket("after", asked.after, question)
        if before.key is not None:
            raise wrong("after", f"{asked.after:.50}", "is of an export with more to come; go on with it by cursor")
        check_horizon("after", before.until, present)
        return Ticket(question, present, before.until)


def _told(work: Any, now: Any) -> dict[str, Any]:
    told = about(work, (), now)
    del told["estimates"], told["query"]["limit"]
    return told


def _flat(row: dict[str, Any], columns: Sequence[Column]) -> Row:
    """The values of a row by column; those beside another period are objects in it."""
    values = []
    for column in columns:
        part, _, name = column.name.partition(".")
        values.append(row[column.name] if column.name in row else row[part][name])
    return tuple(values)
