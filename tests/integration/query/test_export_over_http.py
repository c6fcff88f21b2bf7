"""Exports over HTTP: every format, gzip, files, limits, clients that go away, and nothing of another organisation."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import pyarrow.parquet
import pytest
import urllib3

from support import Stack, new_organization
from totalizer.store.keys import create_key

HTTP = urllib3.PoolManager(retries=False, timeout=60)
USER = "7f1f9d9a-55d6-4f4c-8f6a-0e6f0a3b9c11"
TEAM = "11111111-1111-4111-8111-111111111111"
FORMATS = ("json", "ndjson", "csv", "parquet")
SECRET = "their-secret-command"
#: What a spreadsheet would run, and what looks like it.
CELLS = [
    "=1+1", "+1", "-1", "@x", "\tx", "\rx", "\nx", "plain", 'it\'s, "quoted"\nand long', "ünïcode ☃", "1=1", " =1",
]  # fmt: skip


def export(stack: Any, form: str, headers: dict[str, str] | None = None, **parameters: Any) -> Any:
    url = f"{stack.url}/api/metrics/export/{form}?{urlencode(parameters, doseq=True)}"
    return HTTP.request("GET", url, headers={"authorization": f"Bearer {stack.key}", **(headers or {})})


def rows_of(form: str, data: bytes) -> list[dict[str, Any]]:
    """The rows of an export, whatever its format; in CSV every value is text."""
    if form == "json":
        return list(json.loads(data)["data"])
    if form == "ndjson":
        return [json.loads(line) for line in data.splitlines()]
    if form == "csv":
        return list(csv.DictReader(io.StringIO(data.decode(), newline="")))
    return pyarrow.parquet.read_table(io.BytesIO(data)).to_pylist()


def send(stack: Any, events: dict[str, list[dict[str, Any]]]) -> None:
    answer = HTTP.request(
        "POST", f"{stack.url}/api/metrics/batch", body=json.dumps(events).encode(),
        headers={"authorization": f"Bearer {stack.key}", "content-type": "application/json"},
    )  # fmt: skip
    assert answer.status == 202, answer.data


def may_export(stack: Stack, *scopes: str) -> Stack:
    """The organisation, with a key that may take data out."""
    with stack.running.connect(None) as connection:
        key = create_key(connection, stack.organization_id, "exports", scopes or ("ingest", "query", "export"))
        return replace(stack, key=key)


@pytest.fixture(scope="module")
def two(running_stack: Any) -> Iterator[tuple[Any, Any]]:
    """Two organisations with the same ids; theirs has the secret."""
    mine, theirs = may_export(new_organization(running_stack)), may_export(new_organization(running_stack))
    for stack, names in ((mine, CELLS), (theirs, [f"{SECRET}-{number}" for number in range(3)])):
        events = [
            {"user_id": USER, "team_id": TEAM, "command_name": name, "execution_time_ms": 15 + number,
             "id": str(number), "status": "success", "executed_at": f"2025-04-01T{number:02d}:00:00.123456Z"}
            for number, name in enumerate(names)
        ]  # fmt: skip
        send(stack, {"command_executions": events})
    mine.drain()
    return mine, theirs


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("packed", [False, True])
def test_every_format_has_every_event_and_nothing_of_others(two: Any, form: str, packed: bool) -> None:
    mine, _ = two
    answer = export(mine, form, {"accept-encoding": "gzip" if packed else "identity"}, raw="true")
    assert answer.status == 200, answer.data
    assert answer.headers.get("content-encoding") == ("gzip" if packed and form != "parquet" else None)
    assert answer.headers["content-disposition"] == f'attachment; filename="command_executions.{form}"'
    assert answer.headers["totalizer-cursor"]
    assert SECRET.encode() not in answer.data
    rows = rows_of(form, answer.data)
    assert [row["command_name"] for row in rows] == CELLS
    assert [int(row["execution_time_ms"]) for row in rows] == list(range(15, 15 + len(CELLS)))
    assert {str(row["team_id"]) for row in rows} == {TEAM}
    if form != "parquet":
        assert rows[3]["executed_at"] == "2025-04-01T03:00:00.123456Z"
    else:
        assert rows[3]["executed_at"].isoformat() == "2025-04-01T03:00:00.123456+00:00"


def test_a_spreadsheet_runs_nothing_of_it(two: Any) -> None:
    rows = rows_of("csv", export(two[0], "csv").data)
    assert [row["command_name"] for row in rows] == ["'" + cell if cell[0] in "=+-@\t\r\n" else cell for cell in CELLS]
    assert all(row["execution_time_ms"].isdigit() for row in rows)


def test_totals_are_those_of_the_query(two: Any) -> None:
    mine, _ = two
    asked = {
        "start_date": "2025-04-01", "end_date": "2025-04-01", "group_by": "command_name", "time_zone": "Asia/Kolkata",
        "aggregation_window": "1d", "compare": "previous", "fill": "zero",
    }  # fmt: skip
    url = f"{mine.url}/api/metrics/aggregated?{urlencode(asked)}"
    wanted = json.loads(HTTP.request("GET", url, headers={"authorization": f"Bearer {mine.key}"}).data)
    assert len(wanted["data"]) == len(CELLS)
    for form in ("json", "ndjson"):
        answer = export(mine, form, what="aggregated", **asked)
        assert rows_of(form, answer.data) == wanted["data"]
    whole = json.loads(export(mine, "json", what="aggregated", **asked).data)
    assert (whole["exact"], whole["source"], whole["rows"]) == (True, wanted["source"], len(CELLS))
    for form in ("csv", "parquet"):
        rows = rows_of(form, export(mine, form, what="aggregated", raw="true", **asked).data)
        for row, want in zip(rows, wanted["data"], strict=True):
            assert row["command_name"] == want["command_name"]
            assert int(row["executions"]) == want["executions"]
            assert int(row["change.executions"]) == want["change"]["executions"]
            assert float(row["execution_time_ms_avg" if "execution_time_ms_avg" in row else "executions"]) >= 0
            assert str(row["window_start"])[:10] in ("2025-04-01", "2025-03-31")
    assert export(mine, "csv", what="aggregated", limit=3).status == 422


@pytest.mark.parametrize("form", FORMATS)
def test_an_export_goes_on_where_it_ended_and_then_has_only_what_is_new(two: Any, form: str) -> None:
    mine, _ = two
    stack = may_export(new_organization(mine.running))
    send(stack, {"command_executions": [event(number) for number in range(7)]})
    stack.drain()
    names: list[str] = []
    answer = export(stack, form, limit=3)
    cursor = answer.headers["totalizer-cursor"]
    assert answer.headers["totalizer-limit"] == "3"
    # What comes later is not of this export, wherever it lies.
    send(stack, {"command_executions": [event(number, "late") for number in range(100, 103)]})
    stack.drain()
    while rows := rows_of(form, answer.data):
        names += [row["command_name"] for row in rows]
        time = rows[-1]["executed_at"]
        place = time if isinstance(time, str) else time.isoformat()
        answer = export(stack, form, limit=3, cursor=cursor, position=f"{place},{rows[-1]['id']}")
        assert answer.status == 200, answer.data
    assert names == [f"c{number}" for number in range(7)]
    later = export(stack, form, after=cursor)
    assert [row["command_name"] for row in rows_of(form, later.data)] == [f"late{number}" for number in range(100, 103)]
    again = export(stack, form, after=later.headers["totalizer-cursor"])
    assert rows_of(form, again.data) == []


def event(number: int, name: str = "c") -> dict[str, Any]:
    return {
        "user_id": USER, "command_name": f"{name}{number}", "execution_time_ms": number, "status": "success",
        "executed_at": f"2025-04-02T00:00:{number % 60:02d}Z",
    }  # fmt: skip


def test_what_stands_at_the_end_says_where_to_go_on(two: Any) -> None:
    mine, _ = two
    whole = json.loads(export(mine, "json", limit=5).data)
    assert (whole["rows"], len(whole["data"])) == (5, 5)
    last = json.loads(export(mine, "ndjson", limit=5, trailer="true").data.splitlines()[-1])
    footer = pyarrow.parquet.read_metadata(io.BytesIO(export(mine, "parquet", limit=5).data)).metadata
    assert footer[b"totalizer.rows"] == b"5"
    for cursor in (whole["next_cursor"], last["next_cursor"], footer[b"totalizer.next_cursor"].decode()):
        rest = json.loads(export(mine, "json", cursor=cursor).data)
        assert [row["command_name"] for row in rest["data"]] == CELLS[5:]
        assert rest["next_cursor"] is None
        refused = export(mine, "json", after=cursor)
        assert (refused.status, json.loads(refused.data)["code"]) == (422, "invalid_query")


def test_a_cursor_of_another_organisation_or_export_is_refused(two: Any) -> None:
    mine, theirs = two
    cursor = export(theirs, "csv").headers["totalizer-cursor"]
    for name in ("cursor", "after"):
        for stack, more in ((mine, {}), (theirs, {"status": "error"}), (theirs, {"end_date": "2026-01-01"})):
            refused = export(stack, "csv", **{name: cursor}, **more)
            assert (refused.status, json.loads(refused.data)["code"]) == (422, "invalid_query")
            assert SECRET.encode() not in refused.data
    place = rows_of("csv", export(theirs, "csv").data)[0]
    own = export(mine, "csv").headers["totalizer-cursor"]
    answer = export(mine, "json", cursor=own, position=f"{place['executed_at']},{place['id']}")
    assert SECRET.encode() not in answer.data


def test_filters_are_those_of_queries(two: Any) -> None:
    mine, _ = two
    one = rows_of("json", export(mine, "json", command_name="plain").data)
    assert [row["command_name"] for row in one] == ["plain"]
    some = export(mine, "json", start_date="2025-04-01T02:00:00Z", end_date="2025-04-01T04:00:00Z", team_id=TEAM)
    assert [row["command_name"] for row in rows_of("json", some.data)] == CELLS[2:4]
    assert rows_of("json", export(mine, "json", stored_since="2999-01-01").data) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"sheep": "1"}, {"limit": "0"}, {"limit": "x"}, {"cursor": "x"}, {"after": "x"}, {"position": "x"},
        {"event_type": "dreams"}, {"start_date": "2025-05-01", "end_date": "2025-04-01"}, {"time_zone": "Mars"},
        {"what": "aggregated", "cursor": "x"}, {"what": "all"}, {"raw": "perhaps"}, {"user_id": "x"},
        {"limit": ["1", "2"]}, {"stored_since": "soon"}, {"what": "aggregated", "aggregation_window": "2h"},
    ],
)  # fmt: skip
def test_what_cannot_be_exported_is_refused_before_anything_is_sent(two: Any, wrong: dict[str, Any]) -> None:
    answer = export(two[0], "csv", **wrong)
    assert 400 <= answer.status < 500, answer.data
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_key_without_the_scope_may_not_export(two: Any) -> None:
    stack = may_export(new_organization(two[0].running), "query")
    for form in FORMATS:
        answer = export(stack, form)
        assert (answer.status, json.loads(answer.data)["code"]) == (403, "forbidden")
