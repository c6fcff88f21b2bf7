"""An ASGI application behind an RSGI server: HTTP requests that are not on the hot path.

RSGI: https://github.com/emmett-framework/granian/blob/master/docs/spec/RSGI.md
ASGI: https://asgi.readthedocs.io/en/latest/specs/www.html
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from urllib.parse import quote

from totalizer.errors import Refused
from totalizer.web import body_pipe, problem
from totalizer.web.body import BodyReader, ClientGone
from totalizer.web.exchange import Exchange as WebExchange

#: Characters a path may hold as they are (RFC 3986 §3.3).
_PATH_SAFE = "/:@!$&'()*+,;=~"

#: What is sent seldom, and for as long as somebody listens. Of a pipe into which nothing is written, one does not learn
#: that its reader has gone.
LASTING = "text/event-stream"

ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]


class AsgiBridge:
    """Serves one RSGI request with an ASGI application.

    Args:
        app: the application.
        bodies: reads the requests' bodies.
    """

    def __init__(self, app: ASGIApp, bodies: BodyReader) -> None:
        self._app, self._bodies = app, bodies

    async def __call__(self, scope: Any, web: WebExchange) -> None:
        try:
            body = await self._bodies.read(web.proto, scope.headers.get("content-length"))
        except Refused as refused:
            web.response_bytes(*problem.response(refused))
            return
        except ClientGone:
            return
        exchange = _Exchange(web, body)
        asgi_scope = _asgi_scope(scope, web.request_id)
        try:
            await self._app(asgi_scope, exchange.receive, exchange.send)
        finally:
            exchange.close()
            # Of a path that no route has, the framework tells none: what people type is no label.
            web.route = asgi_scope.get("path_template", "")


class _Exchange:
    """The two callables of one ASGI request."""

    def __init__(self, web: WebExchange, body: bytes) -> None:
        self._web, self._body = web, body
        self._body_given = False
        self._status = 500
        self._headers: list[tuple[str, str]] = []
        self._rest: body_pipe.BodyPipe | _ServerStream | None = None
        #: Set when nothing more is to be sent: all of it is, or nobody reads any more.
        self._over = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        if not self._body_given:
            self._body_given = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        # Also when the answer has been sent: who listens for the client's going away must not listen for ever.
        gone = asyncio.ensure_future(self._web.proto.client_disconnect())
        over = asyncio.ensure_future(self._over.wait())
        try:
            await asyncio.wait((gone, over), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            over.cancel()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers = [(key.decode("latin-1"), value.decode("latin-1")) for key, value in message["headers"]]
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        if self._rest is None and not more:
            self._web.response_bytes(self._status, self._headers, bytes(body))
            self._over.set()
            return
        if self._rest is None:
            self._rest = await self._begin()
        try:
            await self._rest.send(bytes(body))
        except BrokenPipeError:
            self._over.set()
            # Whoever streams listens for the client's going away, and is cancelled then.
            await asyncio.get_running_loop().create_future()
        if not more:
            self.close()
            self._over.set()

    def close(self) -> None:
        """End the body, if it has begun."""
        if self._rest is not None:
            self._rest.close()

    async def _begin(self) -> body_pipe.BodyPipe | _ServerStream:
        """The beginning of an answer that is sent while it is made."""
        if any(name == "content-type" and value.startswith(LASTING) for name, value in self._headers):
            return _ServerStream(self._web.response_stream(self._status, self._headers))
        return await body_pipe.begin(partial(self._web.response_file, self._status, self._headers))


class _ServerStream:
    """The server's own stream, which never waits."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def send(self, data: bytes) -> None:
        if data:
            await self._stream.send_bytes(data)

    def close(self) -> None:
        # The answer ends when nobody holds its stream any more; this object may live until garbage is collected.
        self._stream = None


def _asgi_scope(scope: Any, request_id: str) -> dict[str, Any]:
    # The server has undone the percent-encoding of the path, and left that of the query.
    path = scope.path
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": scope.http_version,
        "method": scope.method,
        "scheme": scope.scheme,
        "path": path,
        "raw_path": quote(path, safe=_PATH_SAFE).encode(),
        "query_string": scope.query_string.encode(),
        "root_path": "",
        "headers": [(key.encode("latin-1"), value.encode("latin-1")) for key, value in scope.headers.items()],
        "client": _address(scope.client),
        "server": _address(scope.server),
        "state": {"request_id": request_id},
    }


def _address(text: str) -> tuple[str, int] | None:
    host, separator, port = text.rpartition(":")
    return (host.strip("[]"), int(port)) if separator and port.isdigit() else None
