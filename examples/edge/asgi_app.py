"""An ASGI application whose requests are metered.

Start: granian --interface asgi --workers 2 --respawn-failed-workers --workers-kill-timeout 10 asgi_app:app
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from litestar import Litestar, put
from litestar.datastructures import State

from totalizer.edge import HttpSink, SmartBatchAggregator


@asynccontextmanager
async def lifespan(app: Litestar) -> AsyncIterator[None]:
    """Run by every worker: the aggregator is there before the first request and is closed after the last."""
    sink = HttpSink(os.environ["TOTALIZER_URL"], os.environ["TOTALIZER_API_KEY"])
    app.state.aggregator = await asyncio.to_thread(SmartBatchAggregator, sink=sink, max_age_ms=2000)
    try:
        yield
    finally:
        await asyncio.to_thread(app.state.aggregator.shutdown)


@put("/users/{user:str}/orders/{order:str}", status_code=204)
async def put_order(state: State, user: str, order: str) -> None:
    """Take an order; when the caller hears 204, its entry is on this machine's disk."""
    entry = {"id": f"order-{order}", "userId": user, "action": "order", "timestamp": time.time_ns() // 1_000_000}
    # `add` waits for the disk, so it is not for the event loop.
    await asyncio.to_thread(state.aggregator.add, entry)


app = Litestar([put_order], lifespan=[lifespan])
