"""The record that crosses every stage: a batch of admitted events, rendered once for COPY.

The collector validates an event and renders it as one line of PostgreSQL's COPY text format; the journal keeps the
lines; the loader sorts and copies them. A line begins with three fixed-width columns, so sorting lines as bytes sorts
them by the primary key and the day, minute and identity of an event are slices:

    organization_id \\t time \\t id \\t …the other columns…\\n
    0            36    37 64   65 101

COPY text format: https://www.postgresql.org/docs/current/sql-copy.html#SQL-COPY-FILE-FORMATS
"""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from collections.abc import Iterator

import msgspec

#: Column slices of a line.
ORGANIZATION = slice(0, 36)
TIME = slice(37, 64)
DAY = slice(37, 47)
MINUTE_KEY = slice(0, 53)  # organisation and minute: `…\t2025-09-05T10:07`
ID = slice(65, 101)
KEY = slice(0, 101)  # organisation, time and id: the primary key

_CANONICAL_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").fullmatch


class Section(msgspec.Struct, frozen=True, omit_defaults=True):
    """The events of one type in a batch that share their columns.

    Attributes:
        event_type: catalog name of the type.
        columns: the columns of every line, in order; the first three are organisation, time and id.
        keyed: True if the sender chose the ids, so a resend must be found by id whatever its time.
        rows: number of lines.
        size: bytes of `lines`, newlines included.
        places: where each line's event stood in the request, in its type's list; None if they are 0, 1, 2 and so on.
    """

    event_type: str
    columns: tuple[str, ...]
    keyed: bool
    rows: int
    size: int
    places: tuple[int, ...] | None = None


class BatchHeader(msgspec.Struct, frozen=True, omit_defaults=True):
    """First line of a journalled batch: who sent it, when, and how the lines below it divide.

    Attributes:
        organization_id: owner of every event of the batch.
        received_at: when the collector took the request, UTC text.
        sections: in the order of their lines.
        trace: `traceparent` of the request's span, if that is traced (https://www.w3.org/TR/trace-context/).
    """

    organization_id: str
    received_at: str
    sections: tuple[Section, ...]
    trace: str | None = None


_HEADER_ENCODER = msgspec.json.Encoder()
_HEADER_DECODER = msgspec.json.Decoder(BatchHeader)


def encode_batch(header: BatchHeader, lines: bytes) -> bytes:
    """A batch as one journal payload: the header as a line of JSON, then the lines of all sections."""
    return _HEADER_ENCODER.encode(header) + b"\n" + lines


def with_trace(payload: bytes, trace: str) -> bytes:
    """A journal payload whose header says which trace it belongs to.

    Args:
        payload: as `encode_batch` made it, without a trace.
        trace: a `traceparent`.
    """
    end = payload.index(b"}\n")
    return b'%b,"trace":"%b"%b' % (payload[:end], trace.encode(), payload[end:])


class SingleEventEncoder:
    """Encodes batches of one event, as `encode_batch` does, with all but three values of the header put together once.

    Args:
        event_type, columns, keyed: of the event's section.
    """

    def __init__(self, event_type: str, columns: tuple[str, ...], *, keyed: bool) -> None:
        organization_id, received_at, size = "\x00", "\x01", 0
        header = BatchHeader(organization_id, received_at, (Section(event_type, columns, keyed, 1, size),))
        text = _HEADER_ENCODER.encode(header).decode()
        self._head, rest = text.split("\\u0000")
        self._middle, rest = rest.split("\\u0001")
        self._columns, self._tail = rest.rsplit("0", 1)
        self._tail += "\n"

    def encode(self, organization_id: str, received_at: str, line: str) -> bytes:
        """The journal payload of one rendered line."""
        size = len(line) if line.isascii() else len(line.encode())
        head = f"{self._head}{organization_id}{self._middle}{received_at}{self._columns}{size}{self._tail}"
        return f"{head}{line}".encode()


def decode_batch(payload: bytes) -> tuple[BatchHeader, list[bytes]]:
    """The header and each section's block of lines (every line still ends in its newline).

    Raises:
        ValueError: the payload is not a batch (msgspec.DecodeError is one), or its sizes do not add up.
    """
    end = payload.index(b"\n") + 1
    header = _HEADER_DECODER.decode(payload[:end])
    blocks = []
    for section in header.sections:
        block = payload[end : end + section.size]
        if len(block) != section.size or block.count(b"\n") != section.rows or not block.endswith(b"\n"):
            raise ValueError(
                f"section {section.event_type!r} does not hold {section.rows} lines in {section.size} bytes"
            )
        blocks.append(block)
        end += section.size
    if end != len(payload):
        raise ValueError(f"batch of {len(payload)} bytes, its sections end at {end}")
    return header, blocks


def is_canonical_uuid(text: str) -> bool:
    """True for 36 lower-case hexadecimal characters with hyphens in the usual places (RFC 9562)."""
    return _CANONICAL_UUID(text) is not None


def event_uuid(source: str, event_id: str) -> str:
    """The stored id of an event whose sender called it `event_id` within `source`.

    A UUID without a source is kept, in lower case; anything else becomes a UUID version 8 (RFC 9562 §5.8) made of the
    first 122 bits of BLAKE2b over source, NUL and id. The same pair always gives the same id, so a resend is found.
    """
    if not source and len(event_id) == 36:
        lowered = event_id.lower()
        if _CANONICAL_UUID(lowered):
            return lowered
    return _custom_uuid(hashlib.blake2b(f"{source}\0{event_id}".encode(), digest_size=16).digest())


def request_event_uuid(request: bytes, event_type: str, place: int) -> str:
    """The stored id of an event without one, in a request that can be told from others.

    Args:
        request: at most 64 bytes that stand for the request; the same for each attempt to send it.
        event_type: of the event.
        place: of the event in its type's list.
    """
    text = f"{event_type}\0{place}".encode()
    # The person field keeps these apart from the ids that senders choose.
    return _custom_uuid(hashlib.blake2b(text, digest_size=16, key=request, person=b"request event").digest())


def _custom_uuid(digest: bytes) -> str:
    """A UUID version 8 (RFC 9562 §5.8) of the first 122 bits that are free in it."""
    number = int.from_bytes(digest, "big")
    number = number & ~(0xF << 76) | 0x8 << 76
    number = number & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=number))


def new_event_ids(now_ns: int) -> Iterator[str]:
    """Fresh UUIDs version 7 (RFC 9562 §5.7) without end: time first, so that their index grows at one end.

    Args:
        now_ns: wall-clock time in nanoseconds. The 74 random bits are drawn once, at the first id, and counted up,
            so order is kept within a call.
    """
    milliseconds = now_ns // 1_000_000
    head = f"{milliseconds >> 16:08x}-{milliseconds & 0xFFFF:04x}-7"
    # Bit 73 is left clear so that counting up cannot overflow.
    tail = int.from_bytes(os.urandom(10), "big") >> 7
    while True:
        low = tail & 0x3FFF_FFFF_FFFF_FFFF | 0x8000_0000_0000_0000
        yield f"{head}{tail >> 62:03x}-{low >> 48:04x}-{low & 0xFFFF_FFFF_FFFF:012x}"
        tail += 1
