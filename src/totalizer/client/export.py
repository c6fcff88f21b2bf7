"""Exports: as bytes while they come, and as events one after the other, whatever breaks off."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from types import TracebackType
from typing import Any

import msgspec
import urllib3

from totalizer.client.errors import ServerUnreachable
from totalizer.client.http import Http, Parameters

#: Events asked for at once: all that is held of an export, and all that is sent again when one breaks off.
CHUNK_EVENTS = 10_000
#: Bytes read at once.
_READ_BYTES = 1 << 16

_decoder = msgspec.json.Decoder(float_hook=Decimal)


def path_of(form: str) -> str:
    """The route of a format."""
    return f"/api/metrics/export/{form}"


class Export:
    """An export as it comes, in pieces of bytes. Close it, or use it as a context manager.

    Args:
        response: whose body is yet to be read.

    Attributes:
        cursor: stands for the export; `after=cursor` has what was stored after it. None for totals.
        limit: events at most; there may be more. None for totals.
    """

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        self._response = response
        self.cursor: str | None = response.headers.get("totalizer-cursor")
        limit = response.headers.get("totalizer-limit")
        self.limit: int | None = int(limit) if limit is not None else None

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._response.stream(_READ_BYTES, decode_content=True)
        except urllib3.exceptions.HTTPError as error:
            raise ServerUnreachable(f"the export broke off: {error}") from error

    def __enter__(self) -> Export:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the rest go."""
        self._response.close()


class Chunks:
    """Every event of an export as lines of JSON, some at a time, each lot whole.

    Args:
        http: the way to the server.
        parameters: of the export; `cursor` to go on with one.
        events: of a chunk.

    Attributes:
        cursor: stands for the whole export; None before the first chunk.
        place: where the next chunk begins; None when there is none.
    """

    def __init__(self, http: Http, parameters: Parameters, *, events: int = CHUNK_EVENTS) -> None:
        self._http, self._parameters, self._events = http, dict(parameters), events
        self._left: int | None = self._parameters.pop("limit", None)
        self.cursor: str | None = None
        self.place: str | None = self._parameters.pop("cursor", None)

    def __iter__(self) -> Iterator[list[bytes]]:
        more = True
        while more:
            lines = self._chunk()
            told = _decoder.decode(lines.pop()) if lines else {}
            if "next_cursor" not in told:
                raise ServerUnreachable("the export broke off before its last line")
            self.cursor, self.place = told["cursor"], told["next_cursor"]
            if self._left is not None:
                self._left -= len(lines)
            more = self.place is not None and self._left != 0
            if self.place is not None:
                # From now on the cursor says it all; `after` goes with the first request only.
                self._parameters.pop("after", None)
            yield lines

    def _chunk(self) -> list[bytes]:
        limit = self._events if self._left is None else min(self._events, self._left)
        asked = {**self._parameters, "cursor": self.place, "limit": limit, "trailer": True}
        return self._http.get(path_of("ndjson"), asked).splitlines()


class EventStream:
    """Events one after the other. What breaks off is asked for again, and none comes twice or is left out.

    Args:
        chunks: of the export.
    """

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks

    @property
    def cursor(self) -> str | None:
        """What `after` takes once all are read, to have what is stored from then on; None before the first."""
        return self._chunks.cursor

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for lines in self._chunks:
            yield from map(_decoder.decode, lines)
