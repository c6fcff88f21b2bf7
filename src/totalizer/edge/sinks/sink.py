"""Where batches go: the contract that every sink keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from totalizer.edge.batch import Batch, RefusedEntry


@dataclass(frozen=True)
class Delivery:
    """What became of a batch that a target has dealt with.

    Attributes:
        accepted: entries that are durable there, those it knew already included.
        refused: entries it refuses for good, with its reasons.
    """

    accepted: int
    refused: tuple[RefusedEntry, ...] = ()


@runtime_checkable
class Sink(Protocol):
    """A target of batches. `deliver` is called by one thread at a time, `close` once, by any."""

    @property
    def name(self) -> str:
        """What people call the target: a folder or an address, without secrets."""
        ...

    def deliver(self, batch: Batch) -> Delivery:
        """Bring a batch to where it is durable; every attempt of the same batch counts its entries once.

        Blocks, for a bounded time. A single attempt: trying again is the caller's.

        Raises:
            SinkUnavailable: not now; it says which entries are not delivered, if some are.
            SinkRefused: never.
        """
        ...

    def close(self) -> None:
        """Give back connections and descriptors. Nothing happens the second time."""
        ...
