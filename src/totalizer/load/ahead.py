"""Working out the next piece while the present one is stored: the database and this process then both have work."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from totalizer.journal import Record
from totalizer.load.gather import Gathered, Order, order_of
from totalizer.store.loading import Target

#: Divides the payloads of records by target, up to so many rows: `gather`.
Gather = Callable[[list[bytes], int], Gathered]


class Prepared(NamedTuple):
    """A piece, ready to be stored.

    Attributes:
        gathered: its lines by target.
        orders: target → the order in which its indexes take them best.
        spans: of its transaction, as `traceparent` has them.
    """

    gathered: Gathered
    orders: dict[Target, Order]
    spans: tuple[str, ...] = ()


def prepare(gather: Gather, records: list[Record], rows_max: int) -> Prepared:
    """The first piece of some records."""
    gathered = gather([record.payload for record in records], rows_max)
    return Prepared(gathered, {target: order_of(target, lines) for target, lines in gathered.lines.items()})


class Lookahead:
    """Prepares a piece ahead of each journal, in a thread. It touches neither journals nor database."""

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._begun: dict[Path, tuple[list[Record], Future[Prepared]]] = {}

    def begin(self, folder: Path, gather: Gather, records: list[Record], rows_max: int) -> None:
        """Prepare the first piece of a journal's next records, which is asked for next if all goes well."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="next piece")
        self._begun[folder] = records, self._thread.submit(prepare, gather, records, rows_max)

    def take(self, folder: Path, gather: Gather, records: list[Record], rows_max: int) -> Prepared:
        """The first piece of a journal's next records: the one that was begun, if it is of this very list."""
        begun = self._begun.pop(folder, None)
        if begun is not None and begun[0] is records:
            return begun[1].result()
        return prepare(gather, records, rows_max)

    def forget(self, folder: Path) -> None:
        """A journal is left: what was prepared of it is not asked for."""
        self._begun.pop(folder, None)

    def close(self) -> None:
        """End the thread; what it was at is forgotten."""
        thread, self._thread = self._thread, None
        self._begun.clear()
        if thread is not None:
            thread.shutdown()
