"""A client of the read side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from totalizer.client.answers import Answer, RealTime, Usage
from totalizer.client.download import RESUMABLE, Download
from totalizer.client.errors import ServerUnreachable
from totalizer.client.export import CHUNK_EVENTS, Chunks, EventStream, Export, path_of
from totalizer.client.http import Http, written
from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.errors import ConfigurationError

#: A time, RFC 3339, or a date; a `datetime` must have its zone.
Moment = str | datetime | date
FORMATS = ("json", "ndjson", "csv", "parquet")

_Kind = TypeVar("_Kind")


class Client:
    """Asks one server, as one organisation. For any number of threads; close it, or use it as a context manager.

    429 and 503 are waited out as `Retry-After` says, and what breaks off is asked again, `attempts` times in all.

    Args:
        url: base address, `http://host:port`.
        key: API key.
        timeout_s: longest wait for a connection, and between two bytes of an answer.
        attempts: how often a request is sent at most.
        clock: for the waits.
    """

    def __init__(
        self, url: str, key: str, *, timeout_s: float = 60.0, attempts: int = 5, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._http = Http(url, key, timeout_s=timeout_s, attempts=attempts, clock=clock)

    def query(
        self,
        event_type: str | None = None,
        *,
        start_date: Moment | None = None,
        end_date: Moment | None = None,
        aggregation_window: str | None = None,
        group_by: Sequence[str] | None = None,
        metrics: Sequence[str | Mapping[str, Any]] | None = None,
        filters: Mapping[str, Any] | None = None,
        time_zone: str | None = None,
        order: Sequence[str] | None = None,
        fill: str | None = None,
        compare: str | Mapping[str, Any] | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        **more: Any,
    ) -> Answer:
        """A page of totals, as `POST /api/metrics/query` has them (docs/reference/query.md).

        Args:
            event_type: what to count; `command_executions` by default.
            start_date, end_date: the range; the last day by default.
            aggregation_window: length of a window, such as `1d`; `1h` by default.
            group_by: dimensions to divide by.
            metrics: the numbers; all of the rollup by default.
            filters: dimension → a value, several, or conditions.
            time_zone: whose days; the organisation's by default.
            order: `window` or a metric, with `-` before it for the largest first.
            fill: what stands in windows without events: `none`, `zero`, `null`.
            compare: `previous`, or a range.
            limit: rows of a page.
            cursor: `next_cursor` of the page before.
            more: any other member of the body, such as `anchor`.

        Raises:
            ServerRefused: the query cannot be answered.
            ServerUnreachable: the server gives no answer.
        """
        asked = {
            "event_type": event_type, "start_date": start_date, "end_date": end_date, "order": order, "fill": fill,
            "aggregation_window": aggregation_window, "group_by": group_by, "metrics": metrics, "filters": filters,
            "time_zone": time_zone, "compare": compare, "limit": limit, "cursor": cursor, **more,
        }  # fmt: skip
        body = {
            name: written(value) if isinstance(value, date) else value
            for name, value in asked.items()
            if value is not None
        }
        return _read(self._http.post("/api/metrics/query", body), Answer)

    def pages(self, event_type: str | None = None, **question: Any) -> Iterator[Answer]:
        """Every page of totals; arguments and errors as of `query`."""
        answer = self.query(event_type, **question)
        yield answer
        while answer.next_cursor is not None:
            answer = self.query(event_type, **{**question, "cursor": answer.next_cursor})
            yield answer

    def rows(self, event_type: str | None = None, **question: Any) -> Iterator[dict[str, Any]]:
        """Every row of every page; arguments and errors as of `query`."""
        for page in self.pages(event_type, **question):
            yield from page.data

    def events(self, event_type: str | None = None, *, chunk: int = CHUNK_EVENTS, **parameters: Any) -> EventStream:
        """Single events in the order of their times, however many (docs/reference/export.md).

        Args:
            event_type: which; `command_executions` by default.
            chunk: events asked for at once.
            parameters: `start_date`, `end_date`, `limit`, `after`, and any dimension as a filter.

        Raises:
            ServerRefused, ServerUnreachable: while they are read.
        """
        return EventStream(self.chunks(event_type, chunk=chunk, **parameters))

    def chunks(self, event_type: str | None = None, *, chunk: int = CHUNK_EVENTS, **parameters: Any) -> Chunks:
        """The same as lists of lines of JSON, for who keeps them as they are; arguments and errors as of `events`."""
        return Chunks(self._http, {"event_type": event_type, **parameters}, events=chunk)

    def export(self, form: str = "ndjson", *, what: str = "events", **parameters: Any) -> Export:
        """An export as the server sends it, in one answer that is not gone on with when it breaks off.

        Args:
            form: `json`, `ndjson`, `csv` or `parquet`.
            what: `events`, or `aggregated` for the rows of a query.
            parameters: of the export.

        Raises:
            ServerRefused: it cannot be had.
            ServerUnreachable: the server gives no answer.
            ConfigurationError: there is no such format.
        """
        if form not in FORMATS:
            raise ConfigurationError(f"no format {form!r}; use {', '.join(FORMATS)}")
        return Export(self._http.open(path_of(form), {"what": what, **parameters}))

    def download(
        self,
        path: Path | str,
        form: str = "ndjson",
        *,
        chunk: int = CHUNK_EVENTS,
        told: Callable[[int], None] = lambda _: None,
        **parameters: Any,
    ) -> tuple[int, str | None]:
        """Single events into a file; what an earlier call has left off is gone on with.

        Args:
            path: of the file; it is there when it is whole, and `PATH.part` with `PATH.state` until then.
            form: `ndjson` or `csv`.
            chunk: events asked for at once.
            told: called with the number of events so far.
            parameters: of the export.

        Returns:
            How many events the file has, and the cursor for what is stored from then on.

        Raises:
            ServerRefused, ServerUnreachable: call it again to go on.
            OSError: the file cannot be written.
            ConfigurationError: a file of that format cannot be gone on with.
        """
        if form not in RESUMABLE:
            raise ConfigurationError(f"no format {form!r} for this; use {', '.join(RESUMABLE)}, or export()")
        return Download(self._http, form, Path(path), parameters, events=chunk, told=told).run()

    def real_time(self, window: str = "5m", **parameters: Any) -> RealTime:
        """A live window, with what is not in the database yet (docs/reference/live.md).

        Args:
            window: `1m`, `5m`, `15m`, `1h` or `1d`.
            parameters: `event_type`, `group_by`, `measures`, and any dimension as a filter.

        Raises:
            ServerRefused: it cannot be had.
            ServerUnreachable: the server gives no answer.
        """
        return _read(self._http.get(f"/api/metrics/real-time/{quote(window, safe='')}", parameters), RealTime)

    def usage(self, merchant_id: str, **parameters: Any) -> Usage:
        """What a merchant used (docs/reference/usage.md).

        Args:
            merchant_id: whose.
            parameters: `metric_type`, `start_date`, `end_date`, `window`; today so far by default.

        Raises:
            ServerRefused: it cannot be had.
            ServerUnreachable: the server gives no answer.
        """
        return _read(self._http.get("/api/usage", {"merchant_id": merchant_id, **parameters}), Usage)

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _read(body: bytes, kind: type[_Kind]) -> _Kind:
    try:
        return msgspec.convert(msgspec.json.Decoder(float_hook=Decimal).decode(body), kind)
    except msgspec.MsgspecError as error:
        raise ServerUnreachable(f"what answers there is no Totalizer, or one of another version: {error}") from error
