"""The last bytes of an export that breaks off, packed or not."""

from __future__ import annotations

import asyncio
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from totalizer.client.download import _last
from totalizer.client.errors import ServerUnreachable
from totalizer.query.exports.columns import Column, Kind
from totalizer.query.exports.formats import CsvFormat, Format, NdjsonFormat
from totalizer.query.exports.service import Begun, Page
from totalizer.query.exports.spool import Spool, SpoolRoom
from totalizer.web.export_routes import _Body, _sent

BEGUN = Begun("events", [Column("time", Kind.TIME), Column("id", Kind.TEXT), Column("number", Kind.INTEGER)], {})
FIRST = datetime(2025, 4, 1, tzinfo=UTC)
ROWS = [(FIRST + timedelta(seconds=number), f"id {number}", number * 7919) for number in range(2000)]


async def _pages() -> Any:
    yield Page(ROWS, "more")
    raise ConnectionError("the database is away")


def broken(writer: Format, *, packed: bool) -> bytes:
    """What a client has of an export that breaks off after a page."""
    pieces: list[bytes] = []

    async def read() -> None:
        spool = Spool(SpoolRoom(Path("unused"), 0), 60)
        async for piece in _sent(_pages(), BEGUN, _Body(writer, packed), spool):
            pieces.append(piece)

    with pytest.raises(ConnectionError):
        asyncio.run(read())
    if not packed:
        return b"".join(pieces)
    unpacker = zlib.decompressobj(wbits=31)
    data = unpacker.decompress(b"".join(pieces))
    assert not unpacker.eof, "who looks for the end of gzip finds none"
    return data


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("form", "writer"), [("csv", CsvFormat), ("ndjson", NdjsonFormat)])
def test_no_reader_takes_it_for_whole(form: str, writer: type[Format], packed: bool) -> None:
    data = broken(writer(), packed=packed)
    assert data.endswith(b"the export broke off here")
    with pytest.raises(ServerUnreachable, match="broke off"):
        _last(form, data)
