"""Asking the database for a report, as the organisation it is about."""

from __future__ import annotations

import asyncio
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from totalizer.app import catalog_for, dsn_of, query_limits_of, spool_of
from totalizer.ops.report.period import Period, chosen, question
from totalizer.parts import pool_of
from totalizer.query.asker import Asker
from totalizer.query.completeness import LocalJournals
from totalizer.query.report import Report, make_report
from totalizer.query.run import Connection, Made, QueryService, minute_after
from totalizer.store.connect import connected
from totalizer.store.dead_letters import organization_id_of
from totalizer.store.roles import Role
from totalizer.window import day_start, zone

if TYPE_CHECKING:
    from totalizer.query.state import State
    from totalizer.settings import Settings

#: Every digit of a sum is kept.
_read = msgspec.json.Decoder(float_hook=Decimal).decode


class Figures(NamedTuple):
    """What a report is made of.

    Attributes:
        organization: its name.
        period: which is told about.
        over: False if it goes on still.
        answer: as `make_report` has it, with `complete`; numbers are int or Decimal.
    """

    organization: str
    period: Period
    over: bool
    answer: dict[str, Any]


def gather(settings: Settings, organization: str, kind: str, day: date | None, zone_name: str | None) -> Figures:
    """The figures of a report.

    Args:
        settings: which name the database.
        organization: its name.
        kind: one of `period.PERIODS`.
        day: a day in the period; None for the last one that is over.
        zone_name: whose days, an IANA name; None for the organisation's own.

    Raises:
        OperationError: there is no such organisation, or the period has not begun.
        StoreUnavailable: the database is away.
        Refused: the figures cannot be told, or would cost too much.
    """
    with connected(dsn_of(settings, Role.REFRESHER)) as connection:
        organization_id = organization_id_of(connection, organization)
    return asyncio.run(_Gathering(settings, organization, kind, day, zone_name).figures(organization_id))


class _Gathering:
    def __init__(
        self, settings: Settings, organization: str, kind: str, day: date | None, zone_name: str | None
    ) -> None:
        self._settings, self._organization = settings, organization
        self._kind, self._day, self._zone_name = kind, day, zone_name

    async def figures(self, organization_id: str) -> Figures:
        found: list[tuple[Period, bool]] = []

        def resolve(state: State) -> tuple[Report, str, bool]:
            here, end = zone(self._zone_name or state.own_zone), minute_after(state.now)
            period = chosen(self._kind, self._day, state.now, here)
            found.append((period, end >= day_start(period.end, here)))
            asked = question(period, end, here, tuple(name for name in catalog.event_types if name in state.stamps))
            return asked, state.version(asked.event_types), False

        async def answer(connection: Connection, state: State, report: Report) -> Made:
            planner = queries.planner(connection, organization_id, state)
            return await make_report(catalog, Asker(connection, organization_id, state, planner), report)

        catalog = catalog_for(self._settings)
        async with pool_of(self._settings) as pool:
            queries = QueryService(
                pool, catalog, LocalJournals(spool_of(self._settings)), query_limits_of(self._settings)
            )
            reply = await queries.kept(organization_id, resolve, answer, None)
        assert reply.body is not None
        return Figures(self._organization, *found[0], _read(reply.body))
