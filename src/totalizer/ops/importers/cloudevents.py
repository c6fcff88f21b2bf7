"""CloudEvents 1.0 in JSON: one event a line, or one array of events.

Format: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md
"""

from __future__ import annotations

import base64
import binascii
from itertools import chain

import msgspec

from totalizer.catalog import Catalog, EventType
from totalizer.ops.importers.json_array import ArraySplitter
from totalizer.ops.importers.json_object import members, text
from totalizer.ops.importers.reading import (
    LINE_BYTES_MAX,
    Input,
    Lines,
    LineSplitter,
    Splitter,
    source_name,
    split,
)
from totalizer.ops.importers.source import Broken, Event, Line, Progress

_NULL = msgspec.Raw(b"null")


class CloudEventsSource:
    """CloudEvents. Contract: `source.Source`.

    An event's identity is its own `id` and `source`. Its `type` is the event type by its full name, or by the part
    after the last dot. `data` holds the fields; the attributes `time` and `subject` fill the type's time and subject
    fields where `data` leaves them out.

    Args:
        path: of the file, gzip or plain; `-` for standard input.
        catalog: tells which field is the time and which the subject.
        event_type: type of every event, whatever its `type` says.
    """

    kind = "cloudevents"

    def __init__(self, path: str, catalog: Catalog, event_type: str | None = None) -> None:
        self._input = Input(path)
        self._catalog = catalog
        self._event_type = event_type
        self.name = source_name(path)
        self.scope: tuple[str, ...] = (self._input.location, event_type or "")
        self.noun = "line"
        self.resumable = self._input.seekable
        self.notes: list[str] = []

    def lines(self) -> Lines:
        chunks = self._input.chunks()
        head = b""
        for chunk in chunks:
            if chunk is None:
                yield None
                continue
            # The first byte that is not blank tells an array from lines.
            head += chunk
            if head.strip() or len(head) > LINE_BYTES_MAX:
                break
        splitter: Splitter = LineSplitter()
        if head.lstrip().startswith(b"["):
            splitter, self.noun = ArraySplitter(), "element"
        yield from split(chain((head,), chunks), splitter)

    def progress(self) -> Progress:
        return self._input.progress()

    def read(self, line: Line) -> Event | Broken:
        try:
            attributes = members(line.raw)
            return self._event(attributes)
        except ValueError as error:
            return Broken(str(error))

    def _event(self, attributes: dict[str, msgspec.Raw]) -> Event:
        version = text(attributes.get("specversion"))
        if version != "1.0":
            raise ValueError(f"its specversion is {version!r}, not '1.0'")
        event_type = self._type(_required(attributes, "type"))
        event: dict[str, object] = dict(_data(attributes))
        event["id"], event["source"] = _required(attributes, "id"), _required(attributes, "source")
        subject = event_type.field(event_type.subject_field)
        _fill(event, event_type.time_wire, attributes.get("time"))
        _fill(event, subject.key if subject else event_type.subject_field, attributes.get("subject"))
        return Event(event_type.name, event)

    def _type(self, name: str) -> EventType:
        wanted = [self._event_type] if self._event_type else [name, name.rpartition(".")[2]]
        for candidate in wanted:
            if candidate in self._catalog.event_types:
                return self._catalog.event_types[candidate]
        known = ", ".join(sorted(self._catalog.event_types))
        raise ValueError(
            f"no event type for {wanted[0]!r} in the catalog (known: {known}); see --catalog, --event-type"
        )


def _required(attributes: dict[str, msgspec.Raw], name: str) -> str:
    value = text(attributes.get(name))
    if not value:
        raise ValueError(f"its attribute {name!r} is missing or not a text")
    return value


def _data(attributes: dict[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
    """The members of `data`, or of the JSON in `data_base64`; none if there is no data."""
    data = attributes.get("data", _NULL)
    encoded = text(attributes.get("data_base64"))
    if data == _NULL and encoded is not None:
        try:
            data = msgspec.Raw(base64.b64decode(encoded, validate=True))
        except binascii.Error as error:
            raise ValueError(f"its data_base64 is not base64: {error}") from error
    if data == _NULL:
        return {}
    try:
        return members(bytes(data))
    except ValueError as error:
        raise ValueError(f"its data is not a JSON object: {error}") from error


def _fill(event: dict[str, object], key: str, value: msgspec.Raw | None) -> None:
    if value is not None and value != _NULL and event.get(key, _NULL) == _NULL:
        event[key] = value
