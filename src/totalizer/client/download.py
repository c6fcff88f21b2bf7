"""An export into a file, gone on with where it stopped, whatever stopped it."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from totalizer.client.errors import ServerUnreachable
from totalizer.client.export import CHUNK_EVENTS, path_of
from totalizer.client.http import Http, written
from totalizer.prepared import prepared

#: Formats whose rows stand on their own, so that a file of them can be gone on with.
RESUMABLE = ("ndjson", "csv")


@prepared
class _State(msgspec.Struct):
    """How far a file is.

    Attributes:
        asked: format and parameters; another request begins anew.
        bytes: of the file that are of whole chunks.
        events: in them.
        cursor: of the export; None before its first chunk.
        position: time and id of the last event; None for none yet.
        whole: True if nothing more is to come.
    """

    asked: dict[str, str]
    bytes: int = 0
    events: int = 0
    cursor: str | None = None
    position: str | None = None
    whole: bool = False


class Download:
    """An export that goes into a file `PATH`; until it is whole, into `PATH.part`, with its state in `PATH.state`.

    Args:
        http: the way to the server.
        form: `ndjson` or `csv`.
        path: of the file.
        parameters: of the export.
        events: asked for at once.
        told: called with the number of events so far.
    """

    def __init__(
        self,
        http: Http,
        form: str,
        path: Path,
        parameters: dict[str, Any],
        *,
        events: int = CHUNK_EVENTS,
        told: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._http, self._form, self._path, self._events, self._told = http, form, path, events, told
        self._parameters = {name: value for name, value in parameters.items() if value is not None}
        self._limit = self._parameters.pop("limit", None)
        self._part = path.with_name(path.name + ".part")
        self._file = path.with_name(path.name + ".state")

    def run(self) -> tuple[int, str | None]:
        """Fetch what is missing; returns the events in the file and the cursor for what comes after.

        Raises:
            ServerRefused, ServerUnreachable: run it again to go on.
            OSError: the file cannot be written.
        """
        state = self._state()
        with self._part.open("r+b" if state.bytes else "w+b") as part:
            part.truncate(state.bytes)
            part.seek(state.bytes)
            while not state.whole:
                self._next(state, part)
                self._told(state.events)
        self._part.replace(self._path)
        self._file.unlink(missing_ok=True)
        return state.events, state.cursor

    def _next(self, state: _State, part: Any) -> None:
        limit = self._events if self._limit is None else min(self._events, self._limit - state.events)
        headers, data = self._fetch(state, limit)
        count, position = _last(self._form, data)
        if state.bytes and self._form == "csv":
            data = data[data.index(b"\n") + 1 :]
        part.write(data)
        part.flush()
        os.fsync(part.fileno())
        state.cursor = state.cursor or headers.get("totalizer-cursor")
        state.bytes, state.events = state.bytes + len(data), state.events + count
        state.position = position or state.position
        # The server may give fewer at once than was asked for.
        state.whole = count < min(limit, int(headers.get("totalizer-limit", limit))) or state.events == self._limit
        self._keep(state)

    def _fetch(self, state: _State, limit: int) -> tuple[Any, bytes]:
        asked = {**self._parameters, "limit": limit}
        if state.cursor is not None:
            asked.pop("after", None)
            asked |= {"cursor": state.cursor, "position": state.position}
        response = self._http.read(path_of(self._form), asked)
        return response.headers, response.data

    def _state(self) -> _State:
        asked = {name: str(written(value)) for name, value in {**self._parameters, "form": self._form}.items()}
        asked["limit"] = str(self._limit)
        try:
            state = msgspec.json.decode(self._file.read_bytes(), type=_State)
        except (FileNotFoundError, msgspec.MsgspecError):
            return _State(asked)
        there = self._part.stat().st_size if self._part.exists() else -1
        return state if state.asked == asked and there >= state.bytes else _State(asked)

    def _keep(self, state: _State) -> None:
        new = self._file.with_name(self._file.name + ".new")
        with new.open("wb") as file:
            file.write(msgspec.json.encode(state))
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._file)


def _last(form: str, data: bytes) -> tuple[int, str | None]:
    """How many events a chunk has, and the place of its last: its first two columns.

    Raises:
        ServerUnreachable: it broke off.
    """
    try:
        if form == "csv":
            rows = list(csv.reader(io.StringIO(data.decode(), newline=""), strict=True))[1:]
            return len(rows), f"{rows[-1][0]},{rows[-1][1]}" if rows else None
        lines = data.splitlines()
        if not lines:
            return 0, None
        time, event_id = list(msgspec.json.decode(lines[-1]).values())[:2]
        return len(lines), f"{time},{event_id}"
    except (csv.Error, UnicodeDecodeError, msgspec.MsgspecError) as error:
        raise ServerUnreachable(f"the export broke off: {error}; run it again to go on") from error
