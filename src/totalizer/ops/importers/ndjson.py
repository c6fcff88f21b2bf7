"""Files of JSON lines: one object a line, its members the fields of one event."""

from __future__ import annotations

import msgspec

from totalizer.collect.members import members, text
from totalizer.ops.importers.reading import Input, Lines, LineSplitter, source_name, split
from totalizer.ops.importers.source import Broken, Event, Line, Progress, derived_id

#: Members that may name the event's type, the first found first.
TYPE_MEMBERS = ("event_type", "type")


class NdjsonSource:
    """JSON lines. Contract: `source.Source`.

    Args:
        path: of the file, gzip or plain; `-` for standard input.
        event_type: type of every event; without it each line names its own in `event_type` or `type`.
        source: identity of the input for events that carry none; by default the file's name without rotation suffix.
    """

    kind = "ndjson"
    noun = "line"

    def __init__(self, path: str, event_type: str | None = None, source: str | None = None) -> None:
        self._input = Input(path)
        self._event_type = event_type
        self.name = source_name(path) if source is None else source
        self.scope: tuple[str, ...] = (self._input.location, event_type or "")
        self.resumable = self._input.seekable
        self.notes: list[str] = []

    def lines(self) -> Lines:
        return split(self._input.chunks(), LineSplitter())

    def progress(self) -> Progress:
        return self._input.progress()

    def read(self, line: Line) -> Event | Broken:
        try:
            fields = members(line.raw)
        except ValueError as error:
            return Broken(str(error))
        event_type = self._take_type(fields)
        if not event_type:
            return Broken("it names no event type: give it an event_type member, or use --event-type")
        return Event(event_type, self._identified(fields, line))

    def _take_type(self, fields: dict[str, msgspec.Raw]) -> str | None:
        """The event's type, taken out of the fields where a member named it."""
        if self._event_type is not None:
            if text(fields.get("event_type")) == self._event_type:
                del fields["event_type"]
            return self._event_type
        for member in TYPE_MEMBERS:
            if member in fields:
                return text(fields.pop(member))
        return None

    def _identified(self, fields: dict[str, msgspec.Raw], line: Line) -> dict[str, object]:
        """The fields with an `id` and, where there is one, a `source`."""
        event: dict[str, object] = dict(fields)
        source = text(fields.get("source"))
        if source is None and self.name:
            event["source"] = source = self.name
        given = text(fields.get("id"))
        if given is not None:
            event["id"] = given
        elif fields.get("id", msgspec.Raw(b"null")) == msgspec.Raw(b"null"):
            event["id"] = derived_id(source or "", line.number, line.raw)
        return event
