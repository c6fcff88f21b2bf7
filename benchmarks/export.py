"""Exports: rows a second in every format beside COPY of the same rows, and the memory of the API process meanwhile."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from threading import Event, Thread
from typing import IO, Any, NamedTuple
from urllib.parse import urlencode

import psutil  # type: ignore[import-untyped]
import pyarrow.parquet

from benchmarks.progress import note
from benchmarks.query_data import EVENT_TYPE, organizations, store
from benchmarks.result import Result, less_is_better, more_is_better
from benchmarks.stack import Stack, fresh_stack
from totalizer.app import administrator_connection, catalog_for, dsn_of
from totalizer.catalog.quoting import quoted_list
from totalizer.clock import SYSTEM_CLOCK
from totalizer.errors import OperationError
from totalizer.query.exports.columns import event_columns
from totalizer.store.connect import connect
from totalizer.store.keys import create_key
from totalizer.store.roles import Role

BENCH = "export"
FORMATS = ("ndjson", "csv", "json", "parquet")
#: Rows of the smallest export, with whose memory that of the largest is compared.
SMALL = 10_000
#: Rows of the largest export in every format, of the largest at all, and rounds of the rates.
FULL, FULL_FLAT, QUICK, QUICK_FLAT = 1_000_000, 5_000_000, 100_000, 300_000
ROUNDS = 3
#: Bytes read from the connection at once, and seconds between two looks at the memory.
PIECE_BYTES, LOOK_S = 1 << 16, 0.02
MB = 1_000_000
#: Ends of exports that are looked at.
_TAIL_BYTES = 4096


class Exported(NamedTuple):
    """One export.

    Attributes:
        seconds: from the request to the last byte.
        memory: of the API process at most meanwhile, bytes resident.
    """

    seconds: float
    memory: int


def run(quick: bool) -> Iterator[Result]:
    """Measure.

    Args:
        quick: True for a small database.
    """
    rows, flat, rounds = (QUICK, QUICK_FLAT, 2) if quick else (FULL, FULL_FLAT, ROUNDS)
    settings = {"TOTALIZER_EXPORT_ROWS_MAX": str(10 * FULL_FLAT), "TOTALIZER_WORKERS": "1"}
    with fresh_stack(**settings) as stack, administrator_connection(stack.settings()) as admin:
        started = SYSTEM_CLOCK.monotonic()
        [organization] = organizations(admin, 1)
        store(admin, flat)
        key = create_key(admin, organization, "bench", ("export",))
        note(f"{flat} events stored in {SYSTEM_CLOCK.monotonic() - started:.0f} s")
        exports = Exports(stack, key)
        for form in FORMATS:
            # Libraries that are loaded by then are of no export.
            exports.once(form, SMALL)
        small = [exports.once(form, SMALL) for form in FORMATS]
        for form in FORMATS:
            yield _rate(stack, exports, organization, form, rows, rounds)
        for form, before in zip(FORMATS, small, strict=True):
            after = exports.once(form, flat)
            note(f"{form}: {before.memory / MB:.0f} MB with {SMALL} rows, {after.memory / MB:.0f} MB with {flat}")
            yield less_is_better(
                BENCH, f"memory of the API process, {form}, {flat} rows", "MB", [after.memory / MB],
                f"{SMALL} rows", [before.memory / MB],
            )  # fmt: skip


class Exports:
    """Exports of a running stack, as one organisation.

    Args:
        stack: running, with one API process.
        key: of the organisation.
    """

    def __init__(self, stack: Stack, key: str) -> None:
        self._port, self._headers = stack.port, {"authorization": f"Bearer {key}", "accept-encoding": "identity"}
        self._api = _api_process(stack)

    def once(self, form: str, rows: int) -> Exported:
        """Fetch so many rows as fast as they come.

        Raises:
            OperationError: fewer came, or none.
        """
        asked = urlencode({"event_type": EVENT_TYPE, "limit": rows, "trailer": "true"})
        with (
            closing(HTTPConnection("127.0.0.1", self._port, timeout=600)) as connection,
            tempfile.TemporaryFile() as file,
        ):
            started = SYSTEM_CLOCK.monotonic()
            with _watched(self._api) as seen:
                connection.request("GET", f"/api/metrics/export/{form}?{asked}", headers=self._headers)
                answer = connection.getresponse()
                if answer.status != 200:
                    raise OperationError(f"the export was answered {answer.status}: {answer.read(500)!r}")
                while piece := answer.read1(PIECE_BYTES):
                    file.write(piece)
            took = SYSTEM_CLOCK.monotonic() - started
            if (found := _rows_of(form, file)) != rows:
                raise OperationError(f"{form}: {found} rows came, and {rows} were asked for")
        return Exported(took, max(seen))


def _rate(stack: Stack, exports: Exports, organization: str, form: str, rows: int, rounds: int) -> Result:
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(rows / exports.once(form, rows).seconds)
        theirs.append(rows / _copy(stack, organization, rows))
        note(f"{form}: {ours[-1]:,.0f} rows/s beside {theirs[-1]:,.0f} of COPY")
    return more_is_better(BENCH, f"{form}, {rows} rows", "rows/s", ours, "COPY of the same rows TO STDOUT", theirs)


def _copy(stack: Stack, organization: str, rows: int) -> float:
    """Seconds that PostgreSQL's own COPY of the same rows takes, in the same order and under row security."""
    event_type = catalog_for(stack.settings()).event_types[EVENT_TYPE]
    columns = quoted_list([column.name for column in event_columns(event_type)])
    query = (
        f"COPY (SELECT {columns} FROM events.{EVENT_TYPE} WHERE organization_id = '{organization}' "
        f"ORDER BY {event_type.time_field}, id LIMIT {rows}) TO STDOUT (FORMAT csv, HEADER)"
    )
    with connect(dsn_of(stack.settings(), Role.APP)) as connection, tempfile.TemporaryFile() as file:
        connection.execute("SELECT set_config('app.current_org_id', %s, false)", [organization])
        started = SYSTEM_CLOCK.monotonic()
        with connection.cursor().copy(query.encode()) as copy:
            for piece in copy:
                file.write(piece)
        took = SYSTEM_CLOCK.monotonic() - started
        if (found := _rows_of("csv", file)) != rows:
            raise OperationError(f"COPY gave {found} rows, and {rows} were asked for")
    return took


def _rows_of(form: str, file: IO[bytes]) -> int:
    """How many rows a whole export says it has, or is seen to have."""
    if form == "csv":
        file.seek(0)
        return sum(piece.count(b"\n") for piece in iter(lambda: file.read(1 << 20), b"")) - 1
    if form == "parquet":
        return int(pyarrow.parquet.read_metadata(file).num_rows)
    file.seek(-min(file.tell(), _TAIL_BYTES), 2)
    tail = file.read()
    end: dict[str, Any] = json.loads(tail.splitlines()[-1] if form == "ndjson" else b"{" + tail.rpartition(b"],")[2])
    return int(end["rows"])


def _api_process(stack: Stack) -> psutil.Process:
    """The one that answers: a child of the one that listens."""
    serving = {process.pid: process for process in stack.processes() if process.cmdline()[-1:] == ["serve"]}
    [api] = [process for process in serving.values() if process.ppid() in serving]
    return api


@contextmanager
def _watched(process: psutil.Process) -> Iterator[list[int]]:
    """What is resident of a process during a with-block, looked at again and again."""
    seen, over = [process.memory_info().rss], Event()

    def watch() -> None:
        while not over.wait(LOOK_S):
            seen.append(process.memory_info().rss)

    thread = Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()
