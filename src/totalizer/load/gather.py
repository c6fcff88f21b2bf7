"""Sorting what a piece of journal holds by where it goes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple

from totalizer.event import MINUTE_KEY, decode_batch, is_canonical_uuid
from totalizer.store.loading import Target
from totalizer.window import base_bucket_text

#: Stands for the organisation of a record that cannot be read.
NO_ORGANIZATION = "00000000-0000-0000-0000-000000000000"
#: Stands for the hour of a record that does not tell when it was received.
NO_HOUR = "1970-01-01T00:00:00Z"


class Unreadable(NamedTuple):
    """A journal record that passed its checksum but is no batch; `record` is its place in the piece."""

    payload: bytes
    reason: str
    record: int = 0


class Origin(NamedTuple):
    """Where consecutive lines of a target come from: one section of one record.

    Attributes:
        record: the record's place in the piece.
        organization_id: owner of the record.
        hour: in which it was received.
        places: of the lines' events in the request; None if they are 0, 1, 2 and so on.
    """

    record: int
    organization_id: str
    hour: str
    places: tuple[int, ...] | None = None


class Origins:
    """Where each line of a target comes from."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._origins: list[Origin] = []
        self._rows = 0

    def add(self, origin: Origin, rows: int) -> None:
        """So many more lines come from there."""
        self._starts.append(self._rows)
        self._origins.append(origin)
        self._rows += rows

    def of(self, line: int) -> tuple[Origin, int]:
        """The origin of a line, and its event's place in the request."""
        at = bisect_right(self._starts, line) - 1
        origin, offset = self._origins[at], line - self._starts[at]
        return origin, offset if origin.places is None else origin.places[offset]

    def rows(self) -> dict[tuple[str, str], int]:
        """How many lines each (organisation, hour) has."""
        counts: dict[tuple[str, str], int] = {}
        ends = [*self._starts, self._rows][1:]
        for start, end, (_, organization_id, hour, _) in zip(self._starts, ends, self._origins, strict=True):
            key = organization_id, hour
            counts[key] = counts.get(key, 0) + end - start
        return counts


class Gathered(NamedTuple):
    """The lines of some journal records.

    Attributes:
        lines: target → lines in order of arrival, each with its newline.
        unreadable: records that are no batch.
        rows: how many lines.
        records: how many journal records they come from.
        origins: target → where its lines come from.
    """

    lines: dict[Target, list[bytes]]
    unreadable: list[Unreadable]
    rows: int
    records: int
    origins: dict[Target, Origins]


def gather(payloads: Iterable[bytes], rows_max: int) -> Gathered:
    """Divide the lines of journalled batches by target.

    Args:
        payloads: of consecutive records.
        rows_max: records after the one that reaches this many lines are left.
    """
    gathered = Gathered({}, [], 0, 0, {})
    rows = records = 0
    for payload in payloads:
        if rows >= rows_max:
            break
        try:
            rows += _add(gathered, records, payload)
        except ValueError as error:
            gathered.unreadable.append(Unreadable(payload, str(error), records))
        records += 1
    return gathered._replace(rows=rows, records=records)


def _add(gathered: Gathered, record: int, payload: bytes) -> int:
    header, blocks = decode_batch(payload)
    organization_id, hour = _organization(header.organization_id), _hour(header.received_at[:13])
    rows = 0
    for section, block in zip(header.sections, blocks, strict=True):
        target = Target(section.event_type, section.columns, section.keyed)
        if target not in gathered.lines:
            gathered.lines[target], gathered.origins[target] = [], Origins()
        gathered.lines[target].extend(block.splitlines(keepends=True))
        gathered.origins[target].add(Origin(record, organization_id, hour, section.places), section.rows)
        rows += section.rows
    return rows


@lru_cache(maxsize=4096)
def _organization(text: str) -> str:
    return text if is_canonical_uuid(text) else NO_ORGANIZATION


@lru_cache(maxsize=256)
def _hour(text: str) -> str:
    try:
        datetime.strptime(text, "%Y-%m-%dT%H")
    except ValueError:
        return NO_HOUR
    return f"{text}:00:00Z"


def marks_of(target: Target, lines: Iterable[bytes]) -> set[tuple[str, str, str]]:
    """The (organisation, event type, base bucket) of every line."""
    minutes = {line[MINUTE_KEY] for line in lines}
    return {(minute[:36].decode(), target.event_type, base_bucket_text(minute[37:].decode())) for minute in minutes}
