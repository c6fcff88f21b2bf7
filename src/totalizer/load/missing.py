"""Journal records that hold no lines for the loader: lost to damage, or not readable by this version."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from psycopg import Connection

from totalizer.load.gather import NO_ORGANIZATION, Gathered
from totalizer.store import fates
from totalizer.store.loading import Offset, Target

#: First and last record, why, and the dead letter if they are kept as one.
Gap = tuple[int, int, str, int | None]


def gaps(offset: Offset, sequences: Sequence[int]) -> Iterator[Gap]:
    """Records between those that were loaded and those read now, and among these: damage took them.

    Args:
        offset: how far the journal was loaded.
        sequences: numbers of the records read now, rising.
    """
    # A journal that an earlier version has loaded a part of does not tell the number it has come to.
    before = offset.sequence if offset.sequence or not offset.segment else sequences[0] - 1
    if sequences[-1] - before == len(sequences):
        return
    for sequence in sequences:
        if sequence > before + 1:
            yield before + 1, sequence - 1, "damaged on the disk", None
        before = sequence


def keep_unreadable(
    connection: Connection[Any], journal_id: str, gathered: Gathered, sequences: Sequence[int]
) -> Iterator[Gap]:
    """Keep the records that are no batch as dead letters."""
    for unreadable in gathered.unreadable:
        letter_id = fates.add_dead_letter(
            connection, Target("unreadable", (), False), NO_ORGANIZATION, unreadable.payload, journal_id, "TZ002",
            unreadable.reason, None,
        )  # fmt: skip
        sequence = sequences[unreadable.record]
        yield sequence, sequence, "cannot be read, and is kept as a dead letter", letter_id
