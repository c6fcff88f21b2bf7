"""The routes that hand data out in bulk, as a stream."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator
from contextlib import aclosing
from importlib import import_module
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, get
from litestar.params import Parameter
from litestar.response import Stream

from totalizer.errors import TotalizerError
from totalizer.query.exports.formats import CsvFormat, Format, JsonFormat, NdjsonFormat
from totalizer.query.exports.service import Begun, ExportService, Page, Pages
from totalizer.query.exports.spool import Spool
from totalizer.query.filters import wrong
from totalizer.telemetry import logger
from totalizer.web.described import asked as answers
from totalizer.web.described.operation import described
from totalizer.web.gate import enter
from totalizer.web.identity import Authenticator

FORMATS = ("json", "ndjson", "csv", "parquet")
#: Header field that stands for the export: to go on with it, or to ask for what came after.
CURSOR_HEADER, LIMIT_HEADER = "totalizer-cursor", "totalizer-limit"
#: Parameters of the form, which is not asked of the data.
_OF_FORM = ("what", "raw", "trailer")
#: zlib's level: the next ones take twice as long for a few hundredths.
_GZIP_LEVEL, _GZIP_FORMAT = 4, 31

Asked = Request[Any, Any, Any]
Text = str | None


class ExportRoutes(msgspec.Struct, frozen=True):
    """What the routes work with."""

    authenticator: Authenticator
    exports: ExportService


def export_routes(services: ExportRoutes) -> list[Any]:
    """The handlers."""
    return [_export(services, format_name) for format_name in FORMATS]


def _export(services: ExportRoutes, format_name: str) -> Any:
    form = answers.EXPORTS[format_name]

    @get(f"/api/metrics/export/{format_name}", summary=f"Take data out as {format_name.upper()}",
         name=f"export {format_name}", media_type=form.media_type,
         **described(answers.EXPORT_TAG, "export", form, asked=answers.EXPORT_ASKED))  # fmt: skip
    async def export(
        request: Asked,
        what: Annotated[
            Literal["events", "aggregated"], Parameter(description="Single events, or totals by window and group.")
        ] = "events",
        event_type: Annotated[Text, Parameter(description="Of which type; command_executions by default.")] = None,
        start_date: Annotated[Text, Parameter(description="RFC 3339 time or date; from the first event.")] = None,
        end_date: Annotated[Text, Parameter(description="RFC 3339 time, excluded, or date, included.")] = None,
        time_zone: Annotated[Text, Parameter(description="IANA zone of dates; the organisation's own.")] = None,
        stored_since: Annotated[Text, Parameter(description="Only events stored from then on.")] = None,
        after: Annotated[Text, Parameter(description="Cursor of a whole export: what was stored after it.")] = None,
        cursor: Annotated[Text, Parameter(description="Cursor of an export to go on with.")] = None,
        position: Annotated[Text, Parameter(description="With cursor: time and id of the last event you have.")] = None,
        limit: Annotated[Text, Parameter(description="Events at most.")] = None,
        raw: Annotated[Text, Parameter(description="true: CSV with cells that may be formulas.")] = None,
        trailer: Annotated[Text, Parameter(description="true: NDJSON ends with a line of next_cursor.")] = None,
    ) -> Stream:
        """Every event, or with what=aggregated every row of the answer to the parameters of /api/metrics/aggregated.

        Any other parameter filters by the dimension of its name.
        """
        principal = await enter(services.authenticator, request)
        parameters = {key: request.query_params.getall(key) for key in request.query_params}
        writer = _writer(format_name, _flag(parameters, "raw"), _flag(parameters, "trailer"))
        asked = {name: values for name, values in parameters.items() if name not in _OF_FORM}
        of = services.exports.events if what == "events" else services.exports.totals
        pages = of(principal.organization_id, asked)
        # The first piece is found before the answer begins, so that a refusal is one.
        begun = await anext(pages)
        assert isinstance(begun, Begun)
        packed = format_name != "parquet" and _takes_gzip(request.headers.get("accept-encoding", ""))
        headers = _headers(begun, f"{begun.name}.{format_name}")
        if packed:
            headers["content-encoding"] = "gzip"
        sent = _sent(pages, begun, _Body(writer, packed), services.exports.spool())
        return Stream(sent, media_type=writer.media_type, headers=headers)

    return export


def _writer(format_name: str, raw: bool, trailer: bool) -> Format:
    match format_name:
        case "json":
            return JsonFormat()
        case "ndjson":
            return NdjsonFormat(trailer=trailer)
        case "csv":
            return CsvFormat(raw=raw)
        case _:
            # Its library is large, and few ask for it.
            writer: Format = import_module("totalizer.query.exports.parquet").ParquetFormat()
            return writer


def _flag(parameters: dict[str, list[str]], name: str) -> bool:
    values = parameters.get(name, ["false"])
    if values not in (["true"], ["false"]):
        raise wrong(name, ",".join(values), "must be true or false")
    return values == ["true"]


def _headers(begun: Begun, file_name: str) -> dict[str, str]:
    headers = {
        "content-disposition": f'attachment; filename="{file_name}"', "cache-control": "no-store",
        "vary": "accept-encoding", "x-content-type-options": "nosniff",
    }  # fmt: skip
    if begun.cursor is not None:
        headers[CURSOR_HEADER] = begun.cursor
    if begun.limit is not None:
        headers[LIMIT_HEADER] = str(begun.limit)
    return headers


def _takes_gzip(accept: str) -> bool:
    """True if an Accept-Encoding takes gzip (RFC 9110 §12.5.3)."""
    for each in accept.lower().split(","):
        name, _, quality = each.partition(";")
        if name.strip() in ("gzip", "x-gzip"):
            return quality.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


class _Body:
    """The bytes of an export, packed or not. Its methods may take long."""

    def __init__(self, writer: Format, packed: bool) -> None:
        self._writer = writer
        self._pack = zlib.compressobj(_GZIP_LEVEL, wbits=_GZIP_FORMAT) if packed else None

    def begin(self, begun: Begun) -> bytes:
        return self._piece(self._writer.begin(begun))

    def page(self, page: Page) -> bytes:
        return self._piece(self._writer.page(page))

    def end(self) -> bytes:
        last = self._piece(self._writer.end())
        return last if self._pack is None else last + self._pack.flush()

    def broken(self) -> bytes:
        last = self._piece(self._writer.broken())
        # Flushed, but with no end: many readers take gzip that is cut, and what they take must show that it is.
        return last if self._pack is None else last + self._pack.flush(zlib.Z_SYNC_FLUSH)

    def _piece(self, data: bytes) -> bytes:
        return data if self._pack is None else self._pack.compress(data)


async def _sent(pages: Pages, begun: Begun, body: _Body, spool: Spool) -> AsyncIterator[bytes]:
    """The body, as fast as its client takes it. It is made as fast as it can be, or as there is room."""
    making = asyncio.create_task(_make(pages, begun, body, spool))
    try:
        while (piece := await spool.get()) is not None:
            yield piece
        await making
    finally:
        making.cancel()
        spool.close()


async def _make(pages: Pages, begun: Begun, body: _Body, spool: Spool) -> None:
    """Make a body, piece by piece. What takes long is done beside the event loop."""
    try:
        async with aclosing(pages):
            await spool.put(body.begin(begun))
            async for page in pages:
                assert not isinstance(page, Begun)
                if data := await asyncio.to_thread(body.page, page):
                    await spool.put(data)
    except TotalizerError as error:
        _break_off(error, body, spool)
    except Exception as error:
        _break_off(error, body, spool)
        raise
    else:
        spool.end(await asyncio.to_thread(body.end))


def _break_off(error: Exception, body: _Body, spool: Spool) -> None:
    # The server ends what breaks off like what is whole.
    logger().error("an export broke off", reason=str(error))
    spool.end(body.broken())
