"""One request at the front: its id, its answer's status, how long it took."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from itertools import count
from typing import Any

Headers = list[tuple[str, str]]
REQUEST_ID = "x-request-id"
CLOSE = ("connection", "close")
#: Ids that others gave and that are taken over. Anything else may be made to look like something in a log.
_GIVEN = re.compile(r"[A-Za-z0-9._:-]{1,128}")
#: Own ids: 12 random digits of this process, and a number.
_OWN, _NUMBERS = secrets.token_hex(6), count(1)


class Exchange:
    """The server's side of a request, which notes its answer and adds the request's id to it.

    Args:
        proto: the server's side.
        closing: True to close the connection with the answer.

    Attributes:
        proto: the server's side, for the body.
        request_id: as it was given in `X-Request-Id`, or made here.
        route: the path as it is declared, once it is known.
        status: of the answer; 0 while there is none.
        read_at: of events that were taken: when their body had been read, on the monotonic clock; else 0.
    """

    __slots__ = ("_closing", "proto", "read_at", "request_id", "route", "status")

    def __init__(self, proto: Any, *, closing: bool) -> None:
        self.proto, self._closing = proto, closing
        self.request_id = f"{_OWN}-{next(_NUMBERS):x}"
        self.route, self.status, self.read_at = "", 0, 0.0

    def read(self, headers: Mapping[str, str]) -> None:
        """Take the id over that the request has, if it has one that can be."""
        given = headers.get(REQUEST_ID)
        if given is not None and _GIVEN.fullmatch(given):
            self.request_id = given

    def response_bytes(self, status: int, headers: Headers, body: bytes) -> None:
        """Send the answer."""
        self.proto.response_bytes(status, self._headers(status, headers), body)

    def response_stream(self, status: int, headers: Headers) -> Any:
        """Send the answer's beginning."""
        return self.proto.response_stream(status, self._headers(status, headers))

    def response_file(self, status: int, headers: Headers, path: str) -> None:
        """Send the answer, whose body is the file at a path."""
        self.proto.response_file(status, self._headers(status, headers), path)

    def _headers(self, status: int, headers: Headers) -> Headers:
        self.status = status
        told = [*headers, (REQUEST_ID, self.request_id)]
        return [*told, CLOSE] if self._closing else told
