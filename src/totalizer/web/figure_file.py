"""Keeps the file of a process' figures up to date, so that others can add them up."""

from __future__ import annotations

import asyncio

from totalizer.health.figures import WRITE_S, Figures
from totalizer.query.run import QueryService
from totalizer.telemetry import logger


class FigureFile:
    """Writes the figures every two seconds, on the event loop's clock and a thread's disk.

    Args:
        figures: of this process.
        queries: their cache tells how many answers were kept.
    """

    def __init__(self, figures: Figures, queries: QueryService) -> None:
        self._figures, self._queries = figures, queries
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, on the running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """End, and take the file away."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._figures.remove()

    async def _run(self) -> None:
        refused = False
        while True:
            hits = self._queries.cache.hits
            self._figures.cache_hits = hits.process + hits.redis + hits.shared + hits.unchanged
            self._figures.cache_misses = hits.missed
            try:
                await asyncio.to_thread(self._figures.write)
                refused = False
            except OSError as error:
                if not refused:  # said once: a full disk says so elsewhere, too
                    logger().warning("figures cannot be written", reason=error.strerror or str(error))
                refused = True
            await asyncio.sleep(WRITE_S)
