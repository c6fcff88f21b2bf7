"""The RSGI application: ingest routes answered at once, everything else handed to the API behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from totalizer.web.asgi_bridge import AsgiBridge
from totalizer.web.ingest import Ingest


class Front:
    """What the server calls for each request.

    Args:
        ingest: the hot path.
        bridge: the API behind it.
        lifespan: entered before the first request, left after the last.
        on_loop: called with the event loop before that.
    """

    def __init__(
        self,
        ingest: Ingest,
        bridge: AsgiBridge,
        lifespan: AbstractAsyncContextManager[Any],
        on_loop: Callable[[asyncio.AbstractEventLoop], None],
    ) -> None:
        self._ingest, self._bridge, self._lifespan, self._on_loop = ingest, bridge, lifespan, on_loop
        self._hot = frozenset(ingest.routes)

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._on_loop(loop)
        loop.run_until_complete(self._lifespan.__aenter__())

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.run_until_complete(self._lifespan.__aexit__(None, None, None))

    def __rsgi__(self, scope: Any, proto: Any) -> Awaitable[None]:
        if scope.proto == "http" and scope.path in self._hot and scope.method == "POST":
            return self._ingest(scope, proto)
        if scope.proto != "http":
            return _refuse_websocket(proto)
        return self._bridge(scope, proto)


async def _refuse_websocket(proto: Any) -> None:
    proto.close(403)
