"""Waiting for the disk: a request's payload into the journal, its answer when the journal has synced."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from totalizer.errors import JournalError, JournalFailed, JournalFull, Refusal, Refused
from totalizer.journal import Journal

#: Told to senders while the journal cannot take more.
RETRY_AFTER_S = 5


class JournalWaiters:
    """Wakes the requests of a journal group, on the event loop they wait on, and tells each its record's number."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._journal: Journal | None = None

    def attach(self, loop: asyncio.AbstractEventLoop, journal: Journal) -> None:
        """Wake on this loop from now on.

        Args:
            loop: of the requests.
            journal: whose groups are told of; all its records must come by `append`.
        """
        self._loop, self._journal = loop, journal

    def on_commit(self, tokens: list[object], error: JournalError | None) -> None:
        """Called by the journal's thread once a group, with the futures of its requests."""
        assert self._loop is not None, "a request waits before the event loop is known"
        assert self._journal is not None
        self._loop.call_soon_threadsafe(_resolve, tokens, error, self._journal.next_sequence - len(tokens))


def _resolve(futures: list[Any], error: JournalError | None, first: int) -> None:
    for sequence, future in enumerate(futures, first):
        if future.done():  # the client has gone away
            continue
        if error is None:
            future.set_result(sequence)
        else:
            future.set_exception(error)


class Appends(Protocol):
    """What takes payloads: a journal."""

    def append(self, payload: bytes, token: object) -> None:
        """As `Journal.append`."""


def append(journal: Appends, payload: bytes) -> asyncio.Future[int]:
    """Hand a payload to the journal; the future has its record's number once on disk, or fails with JournalFailed.

    Raises:
        Refused: the journal has no room.
        JournalFailed: the disk refuses at present.
    """
    durable: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    try:
        journal.append(payload, durable)
    except JournalFull as error:
        raise Refused(Refusal.JOURNAL_FULL, str(error), retry_after_s=RETRY_AFTER_S) from None
    return durable


def refusal_of(error: Refused | JournalFailed) -> Refused:
    """What a sender is told when its events did not get to disk."""
    if isinstance(error, Refused):
        return error
    detail = f"nothing was accepted, since it could not be made durable: {error}"
    return Refused(Refusal.JOURNAL_FAILED, detail, retry_after_s=RETRY_AFTER_S)
