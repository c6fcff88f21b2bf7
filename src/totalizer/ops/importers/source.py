"""What an input is: numbered lines, and for each line an event or the reason why there is none."""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from typing import Any, NamedTuple, Protocol


class Line(NamedTuple):
    """One piece of the input that becomes at most one event.

    Attributes:
        number: position in the input as a person would count it, from 1.
        raw: its bytes, without the line's end; at most `reading.LINE_BYTES_MAX`.
        damage: why it cannot be read, where that is known before its content is looked at.
        whole: False if the input ended within it, so that it may yet grow; such a line is never checkpointed.
    """

    number: int
    raw: bytes
    damage: str | None = None
    whole: bool = True


class Event(NamedTuple):
    """An event as it will be sent.

    Attributes:
        event_type: name of its type in the catalog.
        fields: members of the JSON object, `id` and `source` included; values may be `msgspec.Raw`.
    """

    event_type: str
    fields: dict[str, Any]


class Broken(NamedTuple):
    """A line that is no event.

    Attributes:
        reason: what is wrong with it, for a person.
    """

    reason: str


class Progress(NamedTuple):
    """How far the input has been read.

    Attributes:
        done: in `unit`.
        total: in `unit`; None if it cannot be known, as for a pipe.
        unit: `bytes` or `commits`.
    """

    done: int
    total: int | None
    unit: str


class Source(Protocol):
    """An input that can be imported.

    Attributes:
        kind: which importer: `git`, `ndjson`, `cloudevents`, `access-log` or `batch-files`.
        name: the `source` half of its events' identity.
        scope: what else tells this import from others: absolute path and options that change the events.
        noun: what a line is called in messages: `line`, `element`, `commit` or `record`.
        resumable: True if `lines` gives the same lines again when called again, in this process or the next.
        notes: sentences for the end of the report; complete when `lines` is exhausted.
    """

    kind: str
    name: str
    scope: tuple[str, ...]
    noun: str
    resumable: bool
    notes: list[str]

    def lines(self) -> Generator[Line | None, None, None]:
        """The lines from the first on, in constant memory; None each time there is nothing to read for a while.

        Raises:
            OperationError: the input cannot be read further.
        """
        ...

    def read(self, line: Line) -> Event | Broken:
        """What the line says. Never raises for bad content."""
        ...

    def progress(self) -> Progress:
        """How far the latest call of `lines` has come. Cheap."""
        ...


def derived_id(source: str, number: int, raw: bytes) -> str:
    """The id of an event that has none: 32 hexadecimal digits of BLAKE2b over source, line number and bytes.

    The same line of the same source always gives the same id, so importing it again changes nothing, while two equal
    lines stay two events.
    """
    head = f"{source}\0{number}\0".encode()
    return hashlib.blake2b(head + raw, digest_size=16).hexdigest()


class PrefixDigest:
    """A digest of all lines up to one, so that a changed input is noticed wherever it changed."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)
        self.lines = 0

    def add(self, line: Line) -> None:
        """Take the next line into the digest."""
        self._hash.update(len(line.raw).to_bytes(8, "big"))
        self._hash.update(line.raw)
        self.lines += 1

    def hexdigest(self) -> str:
        """The digest of the lines so far, 32 hexadecimal digits."""
        return self._hash.hexdigest()
