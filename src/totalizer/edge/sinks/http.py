"""Batches to a Totalizer server over HTTP. Brings urllib3 along, so it is imported by programs that use it only."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from totalizer import __version__
from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.edge.batch import Batch
from totalizer.edge.options import shown
from totalizer.edge.sinks.answer import NoReply, Reply
from totalizer.edge.sinks.posting import Habits, Posting
from totalizer.edge.sinks.sink import Delivery
from totalizer.edge.sinks.transport import Transport
from totalizer.errors import ConfigurationError, SinkRefused, SinkUnavailable
from totalizer.outgoing import outgoing

#: Where batches are sent to, below the server's address.
PATH = "/api/metrics/batch"
#: Range of both time limits, seconds.
TIMEOUT_S_MIN, TIMEOUT_S_MAX = 0.1, 600.0
#: Events in one request that the server takes, unless it was told otherwise; most that may be asked for.
EVENTS_MAX, EVENTS_MAX_MAX = 1000, 100_000

_KEY = re.compile(r"[\x21-\x7e]+").fullmatch


class HttpSink:
    """Sends batches to a Totalizer server. Contract: `sink.Sink`.

    An entry is delivered when the server has said that it is durable there. The batch's id is the request's
    `Idempotency-Key` and every event keeps its entry's id, so a request whose answer was lost is sent again and counts
    once. May be used by several threads, one at a time; a forked child makes a connection of its own.

    Args:
        url: address of the server, `http://host:port` or https, with a path if it lies below one.
        api_key: with the scope `ingest`. It is shown nowhere.
        timeout_s: for one request, from its first byte to the last of its answer, 0.1 to 600 seconds. A delivery takes
            at most that for every thousand entries, and one request longer.
        connect_timeout_s: for a connection, 0.1 to 600 seconds.
        gzip: compress bodies of a kilobyte and more. A server that does not take that is sent plain ones.
        ca_bundle: file or folder with the certificates to trust, instead of the system's.
        events_max: events of one request, 1 to 100 000; the server's MAX_BATCH_SIZE.
        clock: for time limits.

    Raises:
        ConfigurationError: naming the option, the value and what is allowed.
    """

    def __init__(
        self,
        url: str,
        api_key: str,
        *,
        timeout_s: float = 30.0,
        connect_timeout_s: float = 5.0,
        gzip: bool = True,
        ca_bundle: str | os.PathLike[str] | None = None,
        events_max: int = EVENTS_MAX,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._url, self._key = _checked_url(url), _checked_key(api_key)
        self._timeout_s = _checked_seconds("timeout_s", timeout_s)
        self._connect_timeout_s = _checked_seconds("connect_timeout_s", connect_timeout_s)
        self._ca_bundle, self._clock = _checked_bundle(ca_bundle), clock
        self._transport: Transport | None = None
        self._habits = Habits(gzip=_checked_flag(gzip), events_max=_checked_count(events_max))

    def __repr__(self) -> str:
        return f"HttpSink({self._url!r})"

    @property
    def name(self) -> str:
        """The server's address."""
        return self._url

    def deliver(self, batch: Batch) -> Delivery:
        """Send a batch, in as many requests as it takes.

        Raises:
            SinkUnavailable: there was no answer, or not one to rely on, or the server asks to wait.
            SinkRefused: the server refuses the whole batch.
        """
        transport = self._line()
        with transport.lock:
            allowed_s = self._timeout_s * max(1, -(-len(batch.entries) // EVENTS_MAX))
            end = self._clock.monotonic() + allowed_s

            def post(body: bytes, headers: dict[str, str]) -> Reply:
                if self._clock.monotonic() >= end:
                    raise NoReply(f"the batch took longer than {allowed_s:g} s; the rest is sent later")
                with outgoing("POST", self._url + PATH, PATH, batch=batch.batch_id) as request:
                    reply = transport.post(body, self._headers() | headers | request.headers, self._timeout_s)
                    request.answered(reply.status)
                    return reply

            try:
                return Posting(batch, post, self._habits).run()
            except SinkUnavailable as error:
                raise SinkUnavailable(
                    f"{self._url}: {error}", retry_after_s=error.retry_after_s, undelivered=error.undelivered,
                    refused=error.refused,
                ) from None  # fmt: skip
            except SinkRefused as error:
                raise SinkRefused(f"{self._url}: {error}") from None

    def close(self) -> None:
        """Close the connection, if this process has one."""
        transport, self._transport = self._transport, None
        if transport is not None and transport.pid == os.getpid():
            transport.close()

    def _line(self) -> Transport:
        """This process' connection: a child that inherited one would mix its bytes with the parent's."""
        transport = self._transport
        if transport is None or transport.pid != os.getpid():
            transport = self._transport = Transport(
                self._url + PATH, connect_timeout_s=self._connect_timeout_s, ca_bundle=self._ca_bundle,
                clock=self._clock,
            )  # fmt: skip
        return transport

    def _headers(self) -> dict[str, str]:
        return {
            "Authorization": f"Bearer {self._key}",
            "Content-Type": "application/json",
            "User-Agent": f"totalizer-edge/{__version__}",
        }


def _checked_url(url: str) -> str:
    wanted = "must be an address such as http://host:port or https://host"
    if not isinstance(url, str):
        raise ConfigurationError(f"url={url!r}: {wanted}")
    parts = urlsplit(url.strip())
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ConfigurationError("url: may not hold a user, a password, a query or a fragment; the key is api_key")
    try:
        _ = parts.port
    except ValueError as error:
        raise ConfigurationError(f"url={url!r}: {wanted}: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"[\s\x00-\x1f]", url.strip()):
        raise ConfigurationError(f"url={url!r}: {wanted}")
    return url.strip().rstrip("/")


def _checked_key(key: str) -> str:
    if not isinstance(key, str) or not _KEY(key.strip()):
        raise ConfigurationError("api_key: must be a text of visible ASCII characters (`totalizer keys create`)")
    return key.strip()


def _checked_seconds(option: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not TIMEOUT_S_MIN <= value <= TIMEOUT_S_MAX:
        raise ConfigurationError(f"{option}={shown(value)}: must be {TIMEOUT_S_MIN} to {TIMEOUT_S_MAX:g} seconds")
    return float(value)


def _checked_flag(value: bool) -> bool:
    if not isinstance(value, bool):
        raise ConfigurationError(f"gzip={shown(value)}: must be True or False")
    return value


def _checked_count(value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= EVENTS_MAX_MAX:
        raise ConfigurationError(f"events_max={shown(value)}: must be a whole number from 1 to {EVENTS_MAX_MAX}")
    return value


def _checked_bundle(path: str | os.PathLike[str] | None) -> str | None:
    if path is None:
        return None
    if not isinstance(path, str | os.PathLike) or not Path(path).exists():
        raise ConfigurationError(f"ca_bundle={str(path)!r}: there is no such file or folder")
    return os.fspath(path)
