"""Requests to the server, and again when it asks for that."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any
from urllib.parse import urlencode

import msgspec
import urllib3

from totalizer.client.errors import ServerRefused, ServerUnreachable
from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.outgoing import outgoing

#: Statuses that pass by themselves.
_PASSING = (429, 502, 503, 504)
#: First wait where the server names none, doubled each time, and the longest of all.
_WAIT_S, WAIT_S_MAX = 0.5, 60.0
#: Bytes of a refusal that are read.
_PROBLEM_BYTES_MAX = 1 << 20

Parameters = Mapping[str, Any]


class Http:
    """The way to one server. For any number of threads.

    Args:
        url: base address, `http://host:port`.
        key: API key.
        timeout_s: longest wait for a connection, and between two bytes of an answer.
        attempts: how often a request is sent at most, while the server is away or asks to wait.
        clock: for the waits.
    """

    def __init__(
        self, url: str, key: str, *, timeout_s: float = 60.0, attempts: int = 5, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._url, self._attempts, self._clock = url.rstrip("/"), attempts, clock
        self._headers = {"authorization": f"Bearer {key}", "accept-encoding": "gzip"}
        self._pool = urllib3.PoolManager(timeout=urllib3.Timeout(connect=min(timeout_s, 10.0), read=timeout_s))

    def get(self, path: str, parameters: Parameters) -> bytes:
        """The whole body of an answer.

        Raises:
            ServerRefused: the server refuses.
            ServerUnreachable: there is no whole answer.
        """
        return self.read(path, parameters).data

    def post(self, path: str, content: Any) -> bytes:
        """The whole body of the answer to a question, which changes nothing and so may be asked again.

        Raises:
            ServerRefused, ServerUnreachable: as `get`.
        """
        return self._answered("POST", path, {}, msgspec.json.encode(content), preload=True).data

    def read(self, path: str, parameters: Parameters) -> urllib3.BaseHTTPResponse:
        """An answer whose body is there already, as `data`.

        Raises:
            ServerRefused, ServerUnreachable: as `get`.
        """
        return self._answered("GET", path, parameters, None, preload=True)

    def open(self, path: str, parameters: Parameters) -> urllib3.BaseHTTPResponse:
        """An answer whose body is yet to be read; close it.

        Raises:
            ServerRefused, ServerUnreachable: as `get`.
        """
        return self._answered("GET", path, parameters, None, preload=False)

    def close(self) -> None:
        """Close its connections."""
        self._pool.clear()

    def _answered(
        self, method: str, path: str, parameters: Parameters, body: bytes | None, *, preload: bool
    ) -> urllib3.BaseHTTPResponse:
        for attempt in range(1, self._attempts + 1):
            last = attempt == self._attempts
            try:
                response = self._send(method, path, parameters, body, preload)
            except urllib3.exceptions.HTTPError as error:
                if last:
                    raise ServerUnreachable(f"{self._url} gives no whole answer: {error}") from error
                self._wait(attempt, None)
                continue
            if response.status < 400:
                return response
            refused = ServerRefused(response.status, _problem(response))
            wait = response.headers.get("retry-after")
            response.close()
            if last or response.status not in _PASSING:
                raise refused
            self._wait(attempt, wait)
        raise AssertionError("the last attempt returns or raises")

    def _send(
        self, method: str, path: str, parameters: Parameters, body: bytes | None, preload: bool
    ) -> urllib3.BaseHTTPResponse:
        query = urlencode(_pairs(parameters))
        headers = {**self._headers, "content-type": "application/json"} if body is not None else self._headers
        with outgoing(method, f"{self._url}{path}") as request:
            response = self._pool.request(
                method, f"{self._url}{path}{'?' if query else ''}{query}", body=body,
                headers={**headers, **request.headers}, retries=False, redirect=False, preload_content=preload,
            )  # fmt: skip
            request.answered(response.status)
            return response

    def _wait(self, attempt: int, retry_after: str | None) -> None:
        if retry_after is not None and retry_after.isascii() and retry_after.isdigit():
            self._clock.sleep(min(float(retry_after), WAIT_S_MAX))
        else:
            # Not all at the same moment.
            self._clock.sleep(min(_WAIT_S * 2 ** (attempt - 1), WAIT_S_MAX) * random.uniform(0.5, 1.0))


def written(value: Any) -> Any:
    """A value as requests write it: times and dates as RFC 3339 has them."""
    if isinstance(value, datetime | date):
        return value.isoformat()
    return str(value).lower() if isinstance(value, bool) else value


def _pairs(parameters: Parameters) -> list[tuple[str, Any]]:
    pairs = []
    for name, value in parameters.items():
        several = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        pairs += [(name, written(each)) for each in several if each is not None]
    return pairs


def _problem(response: urllib3.BaseHTTPResponse) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(response.data or response.read(_PROBLEM_BYTES_MAX))
    except (msgspec.MsgspecError, UnicodeDecodeError, urllib3.exceptions.HTTPError):
        return {}
    return found if isinstance(found, dict) else {}
