"""The hot path: a request in, its events durable in the journal, the answer out."""

from __future__ import annotations

from typing import Any

from totalizer.collect import Collector
from totalizer.errors import JournalFailed, Refused
from totalizer.journal import Journal
from totalizer.web import problem
from totalizer.web.asgi_bridge import read_body
from totalizer.web.durable import append, refusal_of
from totalizer.web.encoding import check_encoding, unpack
from totalizer.web.identity import Authenticator
from totalizer.web.intake import Request, Route, choose
from totalizer.web.route_table import route_table


class Ingest:
    """The ingest routes.

    Args:
        authenticator: who is it?
        collector: is it right?
        journal: is it durable?
        body_bytes_max: longest body that is read as a whole.
    """

    def __init__(
        self, authenticator: Authenticator, collector: Collector, journal: Journal, *, body_bytes_max: int
    ) -> None:
        self._authenticator, self._journal = authenticator, journal
        self._body_bytes_max = body_bytes_max
        #: Path → media type → route.
        self.routes = route_table(collector)

    async def __call__(self, scope: Any, proto: Any) -> None:
        """Answer one POST to one of `routes`: 2xx only when its events are on disk."""
        try:
            headers = scope.headers
            authorization = headers.get("authorization")
            principal = self._authenticator.remembered(authorization, "ingest")
            if principal is None:
                principal = await self._authenticator.authenticate(authorization, "ingest")
            content_type = headers.get("content-type")
            routes = self.routes[scope.path]
            route = routes.get(content_type)
            if route is None:
                route = choose(routes, content_type)
            encoding = check_encoding(headers.get("content-encoding"))
            body = await read_body(scope, proto, self._body_bytes_max)
            if encoding is not None:
                body = unpack(encoding, body, self._body_bytes_max)
            payload, answer, status = route.admit(principal, scope, body)
            await append(self._journal, payload)
        except (Refused, JournalFailed) as error:
            proto.response_bytes(*problem.response(refusal_of(error)))
        else:
            proto.response_bytes(status, route.headers, answer)

    async def take(self, path: str, request: Request, body: bytes) -> tuple[int, Route, bytes]:
        """The same for a request that another server has read: status, route and body of the answer.

        Args:
            path: one of `routes`.
            request: without its body.
            body: as it was sent, at most as long as that server lets bodies be.

        Raises:
            Refused: it is not accepted.
        """
        headers = request.headers
        principal = await self._authenticator.authenticate(headers.get("authorization"), "ingest")
        route = choose(self.routes[path], headers.get("content-type"))
        encoding = check_encoding(headers.get("content-encoding"))
        if encoding is not None:
            body = unpack(encoding, body, self._body_bytes_max)
        payload, answer, status = route.admit(principal, request, body)
        try:
            await append(self._journal, payload)
        except JournalFailed as error:
            raise refusal_of(error) from None
        return status, route, answer
