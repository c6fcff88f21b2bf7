"""How many exports run at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from totalizer.errors import Refusal, Refused


class ExportLimits(msgspec.Struct, frozen=True):
    """The limits of exports.

    Attributes:
        rows: of one export; the next goes on where it ended.
        concurrency: exports of an organisation that run at once in one process.
        concurrency_all: of all organisations.
        timeout_ms: longest time of finding a page, milliseconds.
        client_timeout_ms: longest time for the client to take a page, where no more can wait for it; milliseconds.
        spool_bytes: on disk, of all exports of a process that wait for their clients.
    """

    rows: int = 200_000
    concurrency: int = 2
    concurrency_all: int = 8
    timeout_ms: int = 60_000
    client_timeout_ms: int = 60_000
    spool_bytes: int = 1 << 30


class Running:
    """The exports that run in this process.

    Args:
        limits: how many may.
    """

    def __init__(self, limits: ExportLimits) -> None:
        self._limits = limits
        self._counts: dict[str, int] = {}

    @property
    def count(self) -> int:
        """How many run."""
        return sum(self._counts.values())

    @contextmanager
    def one_more(self, organization_id: str) -> Iterator[None]:
        """One of them, for the length of a with-block.

        Raises:
            Refused: as many run as may.
        """
        own = self._counts.get(organization_id, 0)
        if own >= self._limits.concurrency:
            raise _too_many(f"{own} exports of this organisation", "TOTALIZER_EXPORT_CONCURRENCY")
        if self.count >= self._limits.concurrency_all:
            raise _too_many("as many exports as this process may", "TOTALIZER_EXPORT_CONCURRENCY_ALL")
        self._counts[organization_id] = own + 1
        try:
            yield
        finally:
            self._counts[organization_id] -= 1
            if not self._counts[organization_id]:
                del self._counts[organization_id]


def _too_many(what: str, setting: str) -> Refused:
    return Refused(
        Refusal.TOO_MANY_QUERIES, f"{what} are running ({setting}); send the next when one has ended", retry_after_s=5
    )
