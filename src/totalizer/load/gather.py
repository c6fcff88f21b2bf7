"""Sorting what a piece of journal holds by where it goes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple

from totalizer import tracing
from totalizer.event import KEY, MINUTE_KEY, BatchHeader, decode_batch, is_canonical_uuid
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
    """Where a line comes from.

    Attributes:
        record: the record's place in the piece.
        organization_id: owner of the record.
        hour: in which it was received.
    """

    record: int
    organization_id: str
    hour: str


class Origins:
    """Where each line of a target comes from. What is not asked for is not worked out: most lines are just stored.

    Args:
        headers: of the piece's records; filled while lines are added.
    """

    def __init__(self, headers: list[BatchHeader | None]) -> None:
        self._headers = headers
        self._starts: list[int] = []
        self._records: list[int] = []
        self._places: list[tuple[int, ...] | None] = []
        self._rows = 0

    def add(self, record: int, rows: int, places: tuple[int, ...] | None = None) -> None:
        """So many more lines come from a record; where their events stood in it, None if at 0, 1, 2 and so on."""
        self._starts.append(self._rows)
        self._records.append(record)
        self._places.append(places)
        self._rows += rows

    def of(self, line: int) -> tuple[Origin, int]:
        """The origin of a line, and its event's place in the request."""
        at = bisect_right(self._starts, line) - 1
        record, places, offset = self._records[at], self._places[at], line - self._starts[at]
        header = self._headers[record]
        assert header is not None
        origin = Origin(record, _organization(header.organization_id), _hour(header.received_at[:13]))
        return origin, offset if places is None else places[offset]

    def rows(self) -> dict[tuple[str, str], int]:
        """How many lines each (organisation, hour) has."""
        raw: dict[tuple[str, str], int] = {}
        ends = [*self._starts, self._rows][1:]
        for start, end, record in zip(self._starts, ends, self._records, strict=True):
            header = self._headers[record]
            assert header is not None
            key = header.organization_id, header.received_at[:13]
            raw[key] = raw.get(key, 0) + end - start
        counts: dict[tuple[str, str], int] = {}
        for (organization_id, hour), rows in raw.items():
            key = _organization(organization_id), _hour(hour)
            counts[key] = counts.get(key, 0) + rows
        return counts


class Gathered(NamedTuple):
    """The lines of some journal records.

    Attributes:
        lines: target → lines in order of arrival, each with its newline.
        unreadable: records that are no batch.
        rows: how many lines.
        records: how many journal records they come from.
        origins: target → where its lines come from.
        received: when each of those records was received that tells it.
        traces: of those that are traced, where traces are made.
    """

    lines: dict[Target, list[bytes]]
    unreadable: list[Unreadable]
    rows: int
    records: int
    origins: dict[Target, Origins]
    received: tuple[str, ...] = ()
    traces: tuple[str, ...] = ()


class Order(NamedTuple):
    """The lines of one target in the order in which its indexes take them best.

    Attributes:
        lines: by organisation, time and id.
        keys: of the key table, by organisation and id; none for a target without one.
    """

    lines: list[bytes]
    keys: list[bytes]


def order_of(target: Target, lines: Iterable[bytes]) -> Order:
    """The order of some lines of a target."""
    ordered = sorted(lines)
    keys = [line[KEY] + b"\n" for line in ordered] if target.keyed else []
    keys.sort(key=lambda key: key[:37] + key[65:])
    return Order(ordered, keys)


def gather(payloads: Iterable[bytes], rows_max: int) -> Gathered:
    """Divide the lines of journalled batches by target.

    Args:
        payloads: of consecutive records.
        rows_max: records after the one that reaches this many lines are left.
    """
    lines: dict[Target, list[bytes]] = {}
    origins: dict[Target, Origins] = {}
    unreadable: list[Unreadable] = []
    headers: list[BatchHeader | None] = []
    rows = 0
    for record, payload in enumerate(payloads):
        if rows >= rows_max:
            break
        try:
            header, blocks = decode_batch(payload)
        except ValueError as error:
            unreadable.append(Unreadable(payload, str(error), record))
            headers.append(None)
            continue
        headers.append(header)
        for section, block in zip(header.sections, blocks, strict=True):
            target = Target(section.event_type, section.columns, section.keyed)
            if target not in lines:
                lines[target], origins[target] = [], Origins(headers)
            lines[target].extend(block.splitlines(keepends=True))
            origins[target].add(record, section.rows, section.places)
            rows += section.rows
    received = tuple(header.received_at for header in headers if header is not None)
    traces = () if tracing.ON is None else tuple(header.trace for header in headers if header and header.trace)
    return Gathered(lines, unreadable, rows, len(headers), origins, received, traces)


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
