"""The client of the read side against a running server."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any

import pytest

from integration.query.test_export_over_http import CELLS, SECRET, TEAM, export, two  # noqa: F401
from totalizer.client import Client, ServerRefused, ServerUnreachable
from totalizer.errors import ConfigurationError

RANGE: dict[str, Any] = {"start_date": "2025-04-01", "end_date": datetime(2025, 4, 2, tzinfo=UTC)}


@pytest.fixture
def client(two: Any) -> Any:  # noqa: F811
    with Client(two[0].url, two[0].key, attempts=2) as client:
        yield client


def test_totals_by_page(client: Client) -> None:
    answer = client.query(metrics=["executions"], aggregation_window="total", filters={"team_id": TEAM}, **RANGE)
    assert [row["executions"] for row in answer.data] == [len(CELLS)]
    assert (answer.exact, answer.complete, answer.next_cursor) == (True, True, None)
    assert answer.query["event_type"] == "command_executions"
    pages = list(client.pages(group_by=["command_name"], limit=5, **RANGE))
    assert [len(page.data) for page in pages] == [5, 5, 2]
    rows = list(client.rows(group_by=["command_name"], limit=5, **RANGE))
    assert sorted(row["command_name"] for row in rows) == sorted(CELLS)
    shares = client.query(metrics=["error_rate", {"measure": "executions", "name": "n"}], **RANGE).data
    assert {type(row["error_rate"]) for row in shares} <= {int, Decimal}


def test_events_go_on_by_themselves(client: Client, two: Any) -> None:  # noqa: F811
    events = client.events(chunk=5, **RANGE)
    names = [event["command_name"] for event in events]
    assert names == CELLS
    assert events.cursor is not None
    assert list(client.events(after=events.cursor, **RANGE)) == []
    assert [event["command_name"] for event in client.events(chunk=2, limit=3, **RANGE)] == CELLS[:3]
    with client.export("csv", limit=2) as pieces:
        assert b"".join(pieces) == export(two[0], "csv", limit=2).data
        assert pieces.cursor is not None
    with Client(two[1].url, two[1].key) as theirs, pytest.raises(ServerRefused) as refused:
        list(theirs.events(after=events.cursor, **RANGE))
    assert (refused.value.status, refused.value.code) == (422, "invalid_query")
    assert all(SECRET not in name for name in names)


def test_live_windows_and_usage(client: Client) -> None:
    window = client.real_time("5m", group_by="command_name")
    assert window.start < window.end
    assert window.query
    assert client.usage("merchant 1").data == []


def test_refusals_are_exceptions_with_the_problem(client: Client, two: Any) -> None:  # noqa: F811
    with pytest.raises(ServerRefused) as refused:
        client.query("dreams")
    assert (refused.value.status, refused.value.code) == (422, "invalid_query")
    assert "event_type=dreams" in str(refused.value)
    with Client(two[0].url, "tz_wrong") as stranger, pytest.raises(ServerRefused) as refused:
        stranger.query()
    assert refused.value.code == "unauthenticated"
    with pytest.raises(ConfigurationError, match="no format 'xml'"):
        client.export("xml")


class Patient:
    """A clock that notes how long it was to wait."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def now_ns(self) -> int:
        return 0

    def monotonic(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


def test_a_busy_server_is_asked_again_when_it_says() -> None:
    answers = [(429, "7", b"{}"), (503, "3", b'{"code": "database_unavailable"}'), (200, "", b'{"data": []}')]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, wait, body = answers.pop(0) if len(answers) > 1 else answers[0]
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            if wait:
                self.send_header("retry-after", wait)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    clock = Patient()
    try:
        with Client(f"http://127.0.0.1:{server.server_port}", "k", attempts=3, clock=clock) as client:
            assert client.usage("m").data == []
            assert clock.slept == [7.0, 3.0]
            with pytest.raises(ServerUnreachable, match="another version"):
                client.real_time()
    finally:
        server.shutdown()
        server.server_close()
    with (
        Client(f"http://127.0.0.1:{server.server_port}", "k", attempts=2, clock=clock) as client,
        pytest.raises(ServerUnreachable, match="no whole answer"),
    ):
        client.usage("m")


def test_a_chunk_of_a_download_whose_connection_breaks_is_asked_for_again(tmp_path: Path) -> None:
    line, lengths = b'{"executed_at":"2025-04-01T00:00:00Z","id":"1"}\n', [1000, None]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", str(lengths.pop(0) or len(line)))
            self.end_headers()
            self.wfile.write(line)

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        with Client(f"http://127.0.0.1:{server.server_port}", "k", clock=Patient()) as client:
            assert client.download(tmp_path / "events") == (1, None)
    finally:
        server.shutdown()
        server.server_close()
    assert (lengths, (tmp_path / "events").read_bytes()) == ([], line)


def test_rows_as_data_frames(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = client.query(metrics=["executions", "error_rate"], compare="previous", **RANGE)
    for name in ("pandas", "polars"):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ConfigurationError, match=f"pip install {name}"):
            getattr(answer, f"to_{name}")()
    # What such a library is given: no objects in rows, floats for decimals.
    seen: list[Any] = []
    library = ModuleType("pandas")
    library.DataFrame = lambda rows: seen.extend(rows) or {}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pandas", library)
    answer.to_pandas()
    assert {"window_start", "executions", "previous.executions", "change.executions"} <= seen[0].keys()
    assert not any(isinstance(value, dict | Decimal) for row in seen for value in row.values())
