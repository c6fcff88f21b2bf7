"""Routes that tell what merchants used."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from litestar import Request, Response, get
from litestar.params import Parameter
from psycopg_pool import AsyncConnectionPool

from totalizer.clock import Clock, utc_datetime
from totalizer.errors import Refusal, Refused
from totalizer.query.run import snapshot
from totalizer.store.merchant_usage import WINDOWS
from totalizer.store.usage_keys import MERCHANT_LENGTH_MAX, METRIC_LENGTH_MAX, Counter
from totalizer.usage import reading
from totalizer.web.answer import json_answer
from totalizer.web.described import told
from totalizer.web.described.operation import described
from totalizer.web.gate import enter
from totalizer.web.identity import Authenticator
from totalizer.web.numbers import whole_number
from totalizer.web.usage_counting import UsageCounters

#: Days of one answer, rows of one page, metrics asked of the counters at once.
DAYS_MAX, PAGE_MAX, PAGE_DEFAULT, METRICS_MAX = 366, 10_000, 1000, 100

_WindowName = Annotated[str | None, Parameter(description="hour, day or week; day.")]
_Metrics = Annotated[list[str] | None, Parameter(description="Only these metrics; may be repeated.")]
_Start = Annotated[str | None, Parameter(description="ISO date, UTC; today.")]
_End = Annotated[str | None, Parameter(description="ISO date, included; the same day.")]
_MIDNIGHT: Final = time(tzinfo=UTC)


class UsageServices(msgspec.Struct, frozen=True):
    """What these routes work with."""

    authenticator: Authenticator
    pool: AsyncConnectionPool[Any]
    counters: UsageCounters
    clock: Clock


def usage_routes(services: UsageServices) -> list[Any]:
    """The handlers."""

    @get(
        "/api/usage/{merchant_id:str}", summary="What a merchant used",
        **described(told.USAGE_TAG, "query", told.USED, asked={"merchant_id": "merchant_1", **told.USED_ASKED}),
    )  # fmt: skip
    async def merchant(
        request: Request[Any, Any, Any], merchant_id: str, metric_type: _Metrics = None, start_date: _Start = None,
        end_date: _End = None, window: _WindowName = None,
    ) -> Response[bytes]:  # fmt: skip
        """Without dates, of today so far; named metrics are then read from the counters, if these can be relied on."""
        principal = await enter(services.authenticator, request)
        asked = _asked(_today(services), merchant_id, metric_type, start_date, end_date, window)
        return await _of_merchant(services, principal.organization_id, asked)

    @get(
        "/api/usage", summary="What the merchants used on a day",
        **described(told.USAGE_TAG, "query", told.USED_BY_ALL, asked=told.USED_ASKED),
    )  # fmt: skip
    async def day(
        request: Request[Any, Any, Any],
        merchant_id: Annotated[str | None, Parameter(description="As the route of one merchant, for any id.")] = None,
        metric_type: _Metrics = None, start_date: _Start = None, end_date: _End = None, window: _WindowName = None,
        limit: Annotated[str | None, Parameter(description=f"Rows, 1 to {PAGE_MAX}; {PAGE_DEFAULT}.")] = None,
        cursor: Annotated[str | None, Parameter(description="next_cursor of the page before.")] = None,
    ) -> Response[bytes]:  # fmt: skip
        """What is aggregated of one day: the figures that bills are made from, by merchant and metric."""
        principal = await enter(services.authenticator, request)
        organization_id = principal.organization_id
        if merchant_id is not None:
            asked = _asked(_today(services), merchant_id, metric_type, start_date, end_date, window)
            return await _of_merchant(services, organization_id, asked)
        if end_date is not None or window is not None or len(metric_type or ()) > 1:
            raise Refused(
                Refusal.INVALID_QUERY, "name a merchant_id for ranges, windows and several metrics; without it, "
                "start_date is the day and metric_type may be one",
            )  # fmt: skip
        only = metric_type[0] if metric_type else None
        size, after = whole_number("limit", limit, PAGE_DEFAULT, PAGE_MAX), _after(cursor)
        async with snapshot(services.pool, organization_id) as connection:
            rows = await reading.usage_of_day(
                connection, organization_id, _day("start_date", start_date, _today(services)), only, after, size + 1
            )
        page = rows[:size]
        names = ("merchant_id", "metric_type", "value", "updated_at")
        return json_answer(
            {
                "date": start_date or _today(services),
                "data": [dict(zip(names, row, strict=True)) for row in page],
                "next_cursor": _cursor(page[-1][0], page[-1][1]) if len(rows) > size else None,
            }
        )

    return [merchant, day]


class Asked(NamedTuple):
    """What is asked about one merchant; checked.

    Attributes:
        merchant_id: who.
        metrics: which; empty for all.
        first, last: days, both included.
        window: one of WINDOWS.
        today: the day that is today.
    """

    merchant_id: str
    metrics: tuple[str, ...]
    first: date
    last: date
    window: str
    today: date

    @property
    def days(self) -> int:
        """How many."""
        return (self.last - self.first).days + 1

    def span(self) -> tuple[datetime, datetime]:
        """The windows' first beginning and last end: whole weeks, if by week."""
        first, last = self.first, self.last
        if self.window == "week":
            first -= timedelta(days=first.weekday())
            last += timedelta(days=6 - last.weekday())
        return _midnight(first), _midnight(last + timedelta(days=1))


def _asked(
    today: date, merchant_id: str, metrics: list[str] | None, start_date: str | None, end_date: str | None,
    window: str | None,
) -> Asked:  # fmt: skip
    _check_names(merchant_id, metrics)
    first = _day("start_date", start_date, today)
    last = _day("end_date", end_date, first)
    asked = Asked(merchant_id, tuple(metrics or ()), first, last, window or "day", today)
    if asked.window not in WINDOWS:
        raise Refused(Refusal.INVALID_QUERY, f"window={asked.window[:40]}: must be one of {', '.join(WINDOWS)}")
    if not 0 < asked.days <= DAYS_MAX:
        raise Refused(Refusal.INVALID_QUERY, f"{first} to {last}: must be 1 to {DAYS_MAX} days, the first one first")
    return asked


async def _of_merchant(services: UsageServices, organization_id: str, asked: Asked) -> Response[bytes]:
    found = await _counted(services, organization_id, asked)
    source = "events" if found is None else "counters"
    async with snapshot(services.pool, organization_id) as connection:
        if found is None:
            exact = await reading.exact_usage(
                connection, organization_id, asked.merchant_id, *asked.span(), asked.window
            )
            found = {(used.starts, used.metric_type): used.value for used in exact}
        if asked.window == "day":
            days = [asked.first + timedelta(days=number) for number in range(asked.days)]
            stored = await reading.stored_usage(connection, organization_id, asked.merchant_id, days)
            # Either may be behind, and neither is ever ahead of what was tracked.
            for (day, name), value in stored.items():
                found[_midnight(day), name] = max(found.get((_midnight(day), name), 0), value)
    data = [
        {"start": starts, "date": starts.date(), "metric_type": name, "value": value}
        for (starts, name), value in sorted(found.items())
        if not asked.metrics or name in asked.metrics
    ]
    return json_answer({"merchant_id": asked.merchant_id, "window": asked.window, "source": source, "data": data})


async def _counted(
    services: UsageServices, organization_id: str, asked: Asked
) -> dict[tuple[datetime, str], int] | None:
    """What the counters say of today's named metrics; None if they cannot be relied on, or are not asked."""
    if not asked.metrics or asked.window != "day" or not asked.first == asked.last == asked.today:
        return None
    counters = [Counter(None, asked.merchant_id, asked.today.isoformat(), name) for name in asked.metrics]
    values = await services.counters.read(organization_id, counters)
    if values is None:
        return None
    return {(_midnight(asked.today), name): value for name, value in zip(asked.metrics, values, strict=True)}


def _midnight(day: date) -> datetime:
    return datetime.combine(day, _MIDNIGHT)


def _check_names(merchant_id: str, metrics: list[str] | None) -> None:
    for field, name, most in [
        ("merchant_id", merchant_id, MERCHANT_LENGTH_MAX),
        *(("metric_type", name, METRIC_LENGTH_MAX) for name in metrics or ()),
    ]:
        if not 0 < len(name) <= most or "\0" in name:
            raise Refused(
                Refusal.INVALID_QUERY, f"{field}={name[:40]!r}: must have 1 to {most} characters, without NUL"
            )
    if len(metrics or ()) > METRICS_MAX:
        raise Refused(
            Refusal.INVALID_QUERY, f"{len(metrics or ())} metrics; name at most {METRICS_MAX}, or none for all"
        )


def _today(services: UsageServices) -> date:
    return utc_datetime(services.clock.now_ns()).date()


def _day(name: str, text: str | None, default: date) -> date:
    if text is None:
        return default
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = None
    if day is None or not date(1970, 1, 1) <= day <= date(9998, 12, 31):
        raise Refused(Refusal.INVALID_QUERY, f"{name}={text[:40]}: must be a date such as 2025-11-01")
    return day


def _cursor(merchant_id: str, metric_type: str) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode([merchant_id, metric_type])).decode()


def _after(cursor: str | None) -> tuple[str, str]:
    if cursor is None:
        return "", ""
    try:
        found = msgspec.json.decode(base64.urlsafe_b64decode(cursor.encode()), type=tuple[str, str])
    except (binascii.Error, msgspec.DecodeError, UnicodeError, ValueError):
        found = ("\0", "")
    if "\0" in found[0] + found[1]:
        raise Refused(Refusal.INVALID_QUERY, "cursor: use next_cursor of the page before as it is")
    return found
