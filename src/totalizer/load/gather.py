"""Sorting what a piece of journal holds by where it goes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from totalizer.event import MINUTE_KEY, decode_batch
from totalizer.store.loading import Target
from totalizer.window import base_bucket_text

#: Stands for the organisation of a record that cannot be read.
NO_ORGANIZATION = "00000000-0000-0000-0000-000000000000"


class Unreadable(NamedTuple):
    """A journal record that passed its checksum but is no batch."""

    payload: bytes
    reason: str


class Gathered(NamedTuple):
    """The lines of some journal records.

    Attributes:
        lines: target → lines in order of arrival, each with its newline.
        unreadable: records that are no batch.
        rows: how many lines.
        records: how many journal records they come from.
    """

    lines: dict[Target, list[bytes]]
    unreadable: list[Unreadable]
    rows: int
    records: int


def gather(payloads: Iterable[bytes], rows_max: int) -> Gathered:
    """Divide the lines of journalled batches by target.

    Args:
        payloads: of consecutive records.
        rows_max: records after the one that reaches this many lines are left.
    """
    lines: dict[Target, list[bytes]] = {}
    unreadable: list[Unreadable] = []
    rows = records = 0
    for payload in payloads:
        if rows >= rows_max:
            break
        records += 1
        try:
            header, blocks = decode_batch(payload)
        except ValueError as error:
            unreadable.append(Unreadable(payload, str(error)))
            continue
        for section, block in zip(header.sections, blocks, strict=True):
            target = Target(section.event_type, section.columns, section.keyed)
            lines.setdefault(target, []).extend(block.splitlines(keepends=True))
            rows += section.rows
    return Gathered(lines, unreadable, rows, records)


def marks_of(target: Target, lines: Iterable[bytes]) -> set[tuple[str, str, str]]:
    """The (organisation, event type, base bucket) of every line."""
    minutes = {line[MINUTE_KEY] for line in lines}
    return {(minute[:36].decode(), target.event_type, base_bucket_text(minute[37:].decode())) for minute in minutes}
