"""CloudEvents 1.0 in JSON: one event a line, or one array of events.

Format: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md
"""

from __future__ import annotations

from itertools import chain

from totalizer.catalog import Catalog
from totalizer.collect.cloudevents import mapped
from totalizer.collect.members import members
from totalizer.ops.importers.json_array import ArraySplitter
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


class CloudEventsSource:
    """CloudEvents. Contract: `source.Source`.

    They become events as over HTTP: see `collect.cloudevents.mapped`.

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
            event_type, fields = mapped(members(line.raw), self._catalog.event_types, self._event_type)
            return Event(event_type.name, fields)
        except ValueError as error:
            return Broken(str(error))
