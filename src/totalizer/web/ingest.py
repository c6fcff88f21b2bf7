"""The hot path: a request in, its events durable in the journal, the answer out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.collect import Collector
from totalizer.errors import JournalFailed, Refused
from totalizer.web import problem
from totalizer.web.body import BodyReader, ClientGone
from totalizer.web.durable import Appends, append, refusal_of
from totalizer.web.encoding import check_encoding, unpack
from totalizer.web.exchange import REQUEST_ID, Exchange
from totalizer.web.idempotency import Answer, Repeats, identity_of
from totalizer.web.identity import Authenticator
from totalizer.web.intake import JSON_HEADERS, Request, Route, Sink, choose
from totalizer.web.meter import Meter
from totalizer.web.principal import Principal
from totalizer.web.receipts import HEADER, Receipts
from totalizer.web.route_table import ByMediaType, route_table


class Ingest:
    """The ingest routes.

    Args:
        authenticator: who is it?
        collector: is it right?
        journal: is it durable?
        bodies: reads the requests' bodies.
        receipts: what will have become of it?
        repeats: was it sent before?
        more: further routes, path → media type → route.
        clock: for when bodies are read.

    Attributes:
        routes: path → media type → route.
        on_answered: told of each request that has ended, answered or not. Must not block or raise.
    """

    def __init__(
        self, authenticator: Authenticator, collector: Collector, journal: Appends, *, bodies: BodyReader,
        receipts: Receipts, repeats: Repeats, more: dict[str, ByMediaType] | None = None, clock: Clock = SYSTEM_CLOCK,
    ) -> None:  # fmt: skip
        self._authenticator, self._journal = authenticator, journal
        self._bodies, self._receipts, self._repeats = bodies, receipts, repeats
        self._body_bytes_max = bodies.bytes_max
        self.routes = route_table(collector, line_bytes_max=bodies.bytes_max) | (more or {})
        self._sink = Sink(partial(append, journal), receipts.make)
        self._monotonic = clock.monotonic
        self.on_answered: Callable[[Any, Exchange], None] = lambda _scope, _exchange: None

    async def __call__(self, scope: Any, exchange: Exchange, routes: ByMediaType) -> None:
        """Answer one POST: 2xx only when its events are on disk.

        Args:
            scope: the request.
            exchange: the server's side of it.
            routes: those of its path.
        """
        exchange.began = self._monotonic()
        meter, receipt = None, None
        try:
            # Each look at the scope copies what is looked at.
            headers = scope.headers
            given = headers.get(REQUEST_ID)
            if given is not None:
                exchange.take_id(given)
            authorization = headers.get("authorization")
            principal = self._authenticator.remembered(authorization, "ingest")
            if principal is None:
                principal = await self._authenticator.authenticate(authorization, "ingest")
            content_type = headers.get("content-type")
            route = routes.get(content_type)
            if route is None:
                route = choose(routes, content_type)
            meters = principal.meters
            meter = meters.batches if route.many else meters.requests
            meter.left -= 1
            if meter.left < 0:
                await meter.more(1)
            if route.streams:
                answer, status = await route.stream(
                    principal, scope, _metered(self._bodies.pieces(exchange.proto), meters.bytes), self._sink
                )
                exchange.response_bytes(status, route.headers + meter.headers, answer)
                return
            encoding = check_encoding(headers.get("content-encoding"))
            body = await self._bodies.read(exchange.proto, headers.get("content-length"))
            meters.bytes.left -= len(body)
            if meters.bytes.left < 0:
                await meters.bytes.more(len(body))
            if encoding is not None:
                body = unpack(encoding, body, self._body_bytes_max)
            read_at = self._monotonic()
            key = headers.get("idempotency-key")
            if route.counting is not None and key is None:
                status, answer, receipt = await self._admit(principal, route, scope, body, None)
            elif key is None:
                payload, answer, status, accepted = route.admit(principal, scope, body)
                sealed = self._receipts.make(principal.organization_id, await append(self._journal, payload), accepted)
                if route.receipts:
                    answer = with_receipt(answer, sealed)
                else:
                    receipt = sealed
            else:
                status, answer, receipt = await self._once(principal, route, scope.path, scope, body, key)
        except (Refused, JournalFailed) as error:
            exchange.response_bytes(*problem.response(refusal_of(error), () if meter is None else meter.headers))
        except ClientGone:
            pass
        else:
            told = meter.json_headers if route.headers is JSON_HEADERS else route.headers + meter.headers
            if receipt is not None:
                told = [*told, (HEADER, receipt.decode())]
            exchange.response_bytes(status, told, answer)
            exchange.read_at = read_at
        finally:
            self.on_answered(scope, exchange)

    async def enter(self, request: Request) -> Principal:
        """Who sends. With `give`, what a request goes through that another server has read.

        Raises:
            Refused: nobody who may.
        """
        return await self._authenticator.authenticate(request.headers.get("authorization"), "ingest")

    def unpacked(self, request: Request, body: bytes) -> bytes:
        """A request's body without its compression.

        Raises:
            Refused: it is compressed in a way that is not taken, damaged, or too large.
        """
        encoding = check_encoding(request.headers.get("content-encoding"))
        return body if encoding is None else unpack(encoding, body, self._body_bytes_max)

    async def give(self, principal: Principal, route: Route, path: str, request: Request, body: bytes) -> Answer:
        """The answer of a route to a request.

        Args:
            principal: who sends.
            route: of the request.
            path: of the request.
            request: without its body; it was counted.
            body: as it was sent, at most as long as that server lets bodies be.

        Raises:
            Refused: it is not accepted.
        """
        headers = request.headers
        await principal.meters.bytes.spend(len(body))
        if route.streams:
            answer, status = await route.stream(principal, request, _whole(body), self._sink)
            return Answer(status, answer)
        body = self.unpacked(request, body)
        key = headers.get("idempotency-key")
        try:
            if key is None:
                return await self._admit(principal, route, request, body, None)
            return await self._once(principal, route, path, request, body, key)
        except JournalFailed as error:
            raise refusal_of(error) from None

    async def _once(
        self, principal: Principal, route: Route, path: str, request: Request, body: bytes, key: str
    ) -> Answer:
        """The answer to a request that can be told from others."""
        identity = identity_of(principal.organization_id, f"{path}?{request.query_string}", key, body)
        return await self._repeats.once(
            identity, partial(self._admit, principal, route, request, body, identity.request)
        )

    async def _admit(
        self, principal: Principal, route: Route, request: Request, body: bytes, identity: bytes | None
    ) -> Answer:
        payload, answer, status, accepted = route.admit(principal, request, body, identity)
        counted = None if route.counting is None else await route.counting.prepare(principal.organization_id, payload)
        receipt = self._receipts.make(principal.organization_id, await append(self._journal, payload), accepted)
        if counted is not None:
            answer = await counted.add(answer)
        return Answer(status, with_receipt(answer, receipt)) if route.receipts else Answer(status, answer, receipt)


def with_receipt(answer: bytes, receipt: bytes) -> bytes:
    """An answer, a JSON object with some member, and its receipt as the last one."""
    return b'%b,"receipt":"%b"}' % (answer[:-1], receipt)


def headers_of(route: Route, answer: Answer) -> dict[str, str]:
    """The header fields of an answer, but those of limits."""
    headers = dict(route.headers)
    if answer.receipt is not None:
        headers[HEADER] = answer.receipt.decode()
    return headers


async def _metered(chunks: AsyncIterator[bytes], meter: Meter) -> AsyncIterator[bytes]:
    """The chunks of a body, each counted before it is given out."""
    async for chunk in chunks:
        await meter.spend(len(chunk))
        yield chunk


async def _whole(body: bytes) -> AsyncIterator[bytes]:
    """A body that was read already, as one chunk."""
    yield body
