"""Routes that tell what merchants used."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any, Final

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
from totalizer.web.gate import enter
from totalizer.web.identity import Authenticator
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

    @get("/api/usage/{merchant_id:str}", summary="What a merchant used")
    async def merchant(
        request: Request[Any, Any, Any], merchant_id: str, metric_type: _Metrics = None, start_date: _Start = None,
        end_date: _End = None, window: _WindowName = None,
    ) -> Response[bytes]:  # fmt: skip
        """Without dates, of today so far; named metrics are then read from the counters, if these can be relied on."""
        principal = await enter(services.authenticator, request, "query")
        return await _of_merchant(
            services, principal.organization_id, merchant_id, metric_type, start_date, end_date, window
        )

    @get("/api/usage", summary="What the merchants used on a day")
    async def day(
        request: Request[Any, Any, Any],
        merchant_id: Annotated[str | None, Parameter(description="As the route of one merchant, for any id.")] = None,
        metric_type: _Metrics = None, start_date: _Start = None, end_date: _End = None, window: _WindowName = None,
        limit: Annotated[str | None, Parameter(description=f"Rows, 1 to {PAGE_MAX}; {PAGE_DEFAULT}.")] = None,
        cursor: Annotated[str | None, Parameter(description="next_cursor of the page before.")] = None,
    ) -> Response[bytes]:  # fmt: skip
        """What is aggregated of one day: the figures that bills are made from, by merchant and metric."""
        principal = await enter(services.authenticator, request, "query")
        organization_id = principal.organization_id
        if merchant_id is not None:
            return await _of_merchant(services, organization_id, merchant_id, metric_type, start_date, end_date, window)
        if end_date is not None or window is not None or len(metric_type or ()) > 1:
            raise Refused(
                Refusal.INVALID_QUERY, "name a merchant_id for ranges, windows and several metrics; without it, "
                "start_date is the day and metric_type may be one",
            )  # fmt: skip
        only = metric_type[0] if metric_type else None
        size, after = _size(limit), _after(cursor)
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


async def _of_merchant(
    services: UsageServices, organization_id: str, merchant_id: str, metrics: list[str] | None,
    start_date: str | None, end_date: str | None, window: str | None,
) -> Response[bytes]:  # fmt: skip
    _check_names(merchant_id, metrics)
    today = _today(services)
    first = _day("start_date", start_date, today)
    last = _day("end_date", end_date, first)
    unit = window or "day"
    days = (last - first).days + 1
    if unit not in WINDOWS:
        raise Refused(Refusal.INVALID_QUERY, f"window={unit[:40]}: must be one of {', '.join(WINDOWS)}")
    if not 0 < days <= DAYS_MAX:
        raise Refused(Refusal.INVALID_QUERY, f"{first} to {last}: must be 1 to {DAYS_MAX} days, the first one first")
    counted = None
    if metrics and unit == "day" and first == last == today:
        counters = [Counter(None, merchant_id, today.isoformat(), name) for name in metrics]
        counted = await services.counters.read(organization_id, counters)
    async with snapshot(services.pool, organization_id) as connection:
        stored = (
            await reading.stored_usage(connection, organization_id, merchant_id, _days(first, days))
            if unit == "day" else {}
        )  # fmt: skip
        if counted is None:
            if unit == "week":
                first, days = first - timedelta(days=first.weekday()), days + first.weekday()
                days += -days % 7
            start = datetime.combine(first, _MIDNIGHT)
            found = {
                (used.starts, used.metric_type): used.value
                for used in await reading.exact_usage(
                    connection, organization_id, merchant_id, start, start + timedelta(days=days), unit
                )
            }
        else:
            start = datetime.combine(today, _MIDNIGHT)
            found = {(start, name): value for name, value in zip(metrics or (), counted, strict=True)}
    # Either may be behind, and neither is ever ahead of what was tracked.
    for (stored_day, name), value in stored.items():
        key = (datetime.combine(stored_day, _MIDNIGHT), name)
        found[key] = max(found.get(key, 0), value)
    data = [
        {"start": starts, "date": starts.date(), "metric_type": name, "value": value}
        for (starts, name), value in sorted(found.items())
        if not metrics or name in metrics
    ]
    source = "events" if counted is None else "counters"
    return json_answer({"merchant_id": merchant_id, "window": unit, "source": source, "data": data})


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


def _days(first: date, count: int) -> list[date]:
    return [first + timedelta(days=number) for number in range(count)]


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


def _size(text: str | None) -> int:
    if text is None:
        return PAGE_DEFAULT
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    if not 1 <= number <= PAGE_MAX:
        raise Refused(Refusal.INVALID_QUERY, f"limit={text[:40]}: must be a whole number from 1 to {PAGE_MAX}")
    return number


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
