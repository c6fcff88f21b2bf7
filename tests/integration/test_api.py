"""The API of a running stack: good requests, and every kind of bad one."""

from __future__ import annotations

import json
import socket
import threading
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
import urllib3

from support import new_organization, wait_until
from totalizer.store.keys import create_key, list_keys, revoke_key

HTTP = urllib3.PoolManager(retries=False, timeout=30)
USER = "7f1f9d9a-55d6-4f4c-8f6a-0e6f0a3b9c11"
COMMAND = {"user_id": USER, "command_name": "plan", "execution_time_ms": 1500, "status": "success"}


class Answer:
    """Status, headers and JSON of an answer."""

    def __init__(self, response: Any) -> None:
        self.status, self.headers, self.body = response.status, response.headers, json.loads(response.data or b"null")

    def refused(self, status: int, code: str, *words: str) -> None:
        """Check that it is that refusal, as a problem document whose detail has those words."""
        assert self.status == status, self.body
        assert self.headers["content-type"] == "application/problem+json"
        assert (self.body["status"], self.body["code"]) == (status, code)
        for word in words:
            assert word in self.body["detail"]


@pytest.fixture
def post(stack: Any) -> Any:
    """Posts JSON, or bytes as they are, with the key of the test's organisation."""

    def post(path: str, body: Any, *, key: str | None = None, headers: dict[str, str] | None = None) -> Answer:
        given = {"authorization": f"Bearer {key or stack.key}", "content-type": "application/json", **(headers or {})}
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return Answer(HTTP.request("POST", stack.url + path, body=data, headers=given))

    return post


@pytest.fixture
def get(stack: Any) -> Any:
    """Asks with the key of the test's organisation."""

    def get(path: str, key: str | None = None, **parameters: Any) -> Answer:
        query = f"?{urlencode(parameters, doseq=True)}" if parameters else ""
        return Answer(
            HTTP.request("GET", stack.url + path + query, headers={"authorization": f"Bearer {key or stack.key}"})
        )

    return get


def test_one_event_goes_all_the_way(stack: Any, post: Any, get: Any) -> None:
    answer = post("/api/metrics/commands", COMMAND)
    assert (answer.status, answer.body["accepted"], answer.body["rejected"]) == (202, 1, 0)
    stack.drain()
    row = stack.sql(
        "SELECT id::text, command_name FROM events.command_executions WHERE organization_id = %s", stack.organization_id
    )
    assert row == [(answer.body["id"], "plan")]
    got = get("/api/metrics/aggregated", group_by="command_name")
    assert got.status == 200
    assert [(row["command_name"], row["executions"]) for row in got.body["data"]] == [("plan", 1)]
    assert (got.body["exact"], got.body["complete"], got.body["dirty_buckets"]) == (True, True, 0)


@pytest.mark.parametrize(
    ("route", "event"),
    [
        ("commands", COMMAND),
        (
            "agents",
            {"user_id": USER, "agent_name": "a", "interaction_type": "t", "execution_time_ms": 1, "status": "error",
             "input_tokens": 500, "output_tokens": 1200},
        ),
        ("productivity", {"user_id": USER, "metric_type": "productivity_score", "metric_value": 0.75}),
        ("sessions", {"user_id": USER, "session_id": USER, "action": "start"}),
        ("entries", {"userId": "user_123", "action": "code_edit", "timestamp": 1704067180000, "metadata": {"a": 1}}),
        (
            "commits",
            {"repository": "r", "commit_hash": "abcd1234", "author": "A", "is_merge": False, "files_changed": 1,
             "lines_added": 2, "lines_removed": 3, "committed_at": "2020-01-01T00:00:00Z"},
        ),
        ("requests", {"remote_host": "::1", "method": "GET", "path": "/", "status": 200, "response_bytes": 5}),
    ],
)  # fmt: skip
def test_every_shipped_event_type_has_its_route(stack: Any, post: Any, route: str, event: dict[str, Any]) -> None:
    assert post(f"/api/metrics/{route}", event).status == 202
    stack.drain()
    ledger = stack.sql("SELECT loaded FROM totalizer.load_ledger WHERE organization_id = %s", stack.organization_id)
    assert ledger == [(1,)]


def test_a_batch_answers_for_each_event_and_takes_the_good_ones(stack: Any, post: Any) -> None:
    answer = post(
        "/api/metrics/batch",
        {
            "command_executions": [COMMAND, {**COMMAND, "status": "maybe"}, COMMAND, {**COMMAND, "user_id": 5}],
            "dreams": [{}],
            "timestamp": "2025-09-05T10:00:00Z",
        },
    )
    assert (answer.status, answer.body["accepted"], answer.body["rejected"]) == (202, 2, 3)
    items = [(item["event_type"], item["index"], item["code"]) for item in answer.body["items"]]
    assert items == [
        ("command_executions", 1, "invalid_event"), ("command_executions", 3, "invalid_event"),
        ("dreams", 0, "unknown_event_type"),
    ]  # fmt: skip
    assert "status" in answer.body["items"][0]["message"]
    assert "maybe" in answer.body["items"][0]["message"]
    stack.drain()
    times = stack.sql(
        "SELECT executed_at::text FROM events.command_executions WHERE organization_id = %s", stack.organization_id
    )
    assert times == [("2025-09-05 10:00:00+00",)] * 2, "events without a time happened at the batch's"


@pytest.mark.parametrize(
    ("body", "status", "code", "words"),
    [
        (b"{", 400, "bad_json", ["not valid JSON"]),
        (b"", 400, "bad_json", []),
        (b"\xff", 400, "bad_json", []),
        (b'{"a":' + b"[" * 5000, 400, "bad_json", ["deep"]),
        (b"[]", 400, "bad_request", ["object"]),
        (b"{}", 422, "batch_empty", []),
        (b'{"command_executions": 5}', 400, "bad_request", ["command_executions"]),
        (b'{"dreams": [{}]}', 422, "invalid_event", ["dreams"]),
        (b'{"command_executions": [{}]}', 422, "invalid_event", ["user_id"]),
        (b'{"timestamp": "yesterday", "command_executions": []}', 422, "invalid_time", ["yesterday"]),
        (json.dumps({"command_executions": [COMMAND] * 1001}).encode(), 422, "batch_too_large", ["1001", "1000"]),
        (json.dumps({"command_executions": [COMMAND] * 1000 + [{}]}).encode(), 422, "batch_too_large", ["1001"]),
        (b" " * (8 * 1024 * 1024 + 1), 413, "body_too_large", ["8388608"]),
    ],
)
def test_bad_batches_are_refused_by_name(post: Any, body: bytes, status: int, code: str, words: list[str]) -> None:
    post("/api/metrics/batch", body).refused(status, code, *words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"user_id": None}, ["user_id"]),
        ({"user_id": "x"}, ["user_id", "'x'"]),
        ({"execution_time_ms": -1}, ["execution_time_ms", "-1"]),
        ({"execution_time_ms": 3_600_001}, ["execution_time_ms", "3600001"]),
        ({"execution_time_ms": 1.5}, ["execution_time_ms", "1.5"]),
        ({"execution_time_ms": "7"}, ["execution_time_ms", "'7'"]),
        ({"status": "done"}, ["status", "'done'"]),
        ({"command_name": ""}, ["command_name"]),
        ({"command_name": "x" * 256}, ["command_name", "255"]),
        ({"command_name": "a\0b"}, ["command_name", "NUL"]),
        ({"context": "text"}, ["context"]),
        ({"sheep": 1}, ["sheep"]),
        ({"id": ""}, ["id"]),
    ],
)
def test_bad_events_are_refused_by_field_and_value(post: Any, change: dict[str, Any], words: list[str]) -> None:
    post("/api/metrics/commands", {**COMMAND, **change}).refused(422, "invalid_event", *words)


@pytest.mark.parametrize(
    ("time", "words"),
    [("2999-01-01T00:00:00Z", "future"), ("2025-01-01T00:00:00", "zone"), (1704067200, "seconds"), ("x", "RFC 3339")],
)
def test_bad_times_are_refused(post: Any, time: Any, words: str) -> None:
    post("/api/metrics/commands", {**COMMAND, "executed_at": time}).refused(422, "invalid_time", "executed_at", words)


def test_keys_and_types_and_paths(stack: Any, post: Any, get: Any) -> None:
    path = "/api/metrics/commands"
    answer = post(path, COMMAND, key="tz_wrong")
    answer.refused(401, "unauthenticated")
    assert answer.headers["www-authenticate"] == "Bearer"
    post(path, COMMAND, headers={"authorization": "Basic eDp5"}).refused(401, "unauthenticated", "API key")
    post(path, COMMAND, headers={"authorization": ""}).refused(401, "unauthenticated")
    post(path, COMMAND, headers={"content-type": "text/plain"}).refused(415, "unsupported_media_type", "text/plain")
    assert post(path, COMMAND, headers={"content-type": "Application/JSON; charset=UTF-8"}).status == 202
    post("/api/metrics/dreams", COMMAND).refused(404, "not_found")
    post("/api/metrics/aggregated", COMMAND).refused(405, "method_not_allowed")
    wrong_method = get("/api/metrics/batch")
    wrong_method.refused(405, "method_not_allowed")
    assert wrong_method.headers["allow"] == "POST, OPTIONS"
    get("/api/metrics/aggregated", key="tz_wrong").refused(401, "unauthenticated")
    get("/api/catalog", key="tz_wrong").refused(401, "unauthenticated")


def test_scopes_and_revoked_keys(stack: Any, post: Any, get: Any) -> None:
    with stack.running.connect(None) as connection:
        writing = create_key(connection, stack.organization_id, "writes", ("ingest",))
        reading = create_key(connection, stack.organization_id, "reads", ("query",))
        post("/api/metrics/commands", COMMAND, key=reading).refused(403, "forbidden", "ingest")
        get("/api/metrics/aggregated", key=writing).refused(403, "forbidden", "query")
        assert post("/api/metrics/commands", COMMAND, key=writing).status == 202
        mine = [key for key in list_keys(connection) if str(key.name) == "writes" and key.revoked_at is None]
        revoke_key(connection, str(mine[-1].id))
    wait_until(lambda: post("/api/metrics/commands", COMMAND, key=writing).status == 401, "the revoked key's end", 10)


def test_organisations_cannot_see_each_others_numbers(stack: Any, running_stack: Any, post: Any, get: Any) -> None:
    other = new_organization(running_stack)
    post("/api/metrics/batch", {"command_executions": [{**COMMAND, "id": "same"}] * 3})
    post("/api/metrics/batch", {"command_executions": [{**COMMAND, "id": "same"}]}, key=other.key)
    stack.drain()
    for key in (stack.key, other.key):
        rows = get("/api/metrics/aggregated", key=key, aggregation_window="total").body["data"]
        assert [row["executions"] for row in rows] == [1]


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"start_date": "soon"}, ["start_date", "soon"]),
        ({"start_date": "2025-01-02", "end_date": "2025-01-01"}, ["start_date", "before"]),
        ({"aggregation_window": "7h"}, ["aggregation_window", "7h", "15m"]),
        ({"time_zone": "Mars/Olympus"}, ["time_zone", "Mars/Olympus"]),
        ({"limit": "0"}, ["limit", "10000"]),
        ({"limit": "٣"}, ["limit"]),
        ({"user_id": "me"}, ["user_id", "me"]),
        ({"event_type": "dreams"}, ["event_type", "dreams"]),
        ({"sheep": "1"}, ["sheep"]),
    ],
)
def test_bad_queries_are_refused_by_parameter(get: Any, parameters: dict[str, str], words: list[str]) -> None:
    get("/api/metrics/aggregated", **parameters).refused(422, "invalid_query", *words)


def test_a_body_longer_than_it_says_and_one_without_length(stack: Any, post: Any) -> None:
    """Chunked bodies are counted while they come in."""

    def chunks(count: int) -> Any:
        yield b'{"command_executions": ['
        for _ in range(count):
            yield b" " * 65536
        yield json.dumps(COMMAND).encode() + b"]}"

    headers = {"authorization": f"Bearer {stack.key}", "content-type": "application/json"}
    url = stack.url + "/api/metrics/batch"
    small = HTTP.request("POST", url, body=chunks(3), headers=headers)
    assert small.status == 202
    try:
        large = HTTP.request("POST", url, body=chunks(200), headers=headers)
    except urllib3.exceptions.HTTPError:
        pass  # refused while it was still being sent
    else:
        assert large.status == 413


def test_many_clients_at_once_are_all_counted(stack: Any, post: Any, get: Any) -> None:
    failures: list[Any] = []

    def send(worker: int) -> None:
        for number in range(20):
            answer = post("/api/metrics/commands", {**COMMAND, "id": f"{worker}-{number % 15}"})
            if answer.status != 202:
                failures.append(answer.body)

    workers = [threading.Thread(target=send, args=(worker,)) for worker in range(16)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert failures == []
    stack.drain()
    assert get("/api/metrics/aggregated", aggregation_window="total").body["data"][0]["executions"] == 16 * 15
    ledger = stack.sql(
        "SELECT sum(loaded)::int, sum(duplicate)::int FROM totalizer.load_ledger WHERE organization_id = %s",
        stack.organization_id,
    )
    assert ledger == [(240, 80)]


def test_nonsense_on_the_wire_does_not_hurt(stack: Any, post: Any) -> None:
    address = urlsplit(stack.url)
    for bytes_sent in (
        b"\x16\x03\x01\x02\x00",
        b"GET / HTTP/9\r\n\r\n",
        b"POST /api/metrics/batch HTTP/1.1\r\n",
        b"\0" * 999,
    ):
        with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
            connection.sendall(bytes_sent)
    assert post("/api/metrics/commands", COMMAND).status == 202


def test_health_names_the_parts(stack: Any) -> None:
    ready = json.loads(HTTP.request("GET", stack.url + "/health/ready").data)
    assert (ready["status"], ready["database"], ready["redis"]) == ("ok", "ok", "ok")


def test_page_and_openapi_are_served(stack: Any) -> None:
    page = HTTP.request("GET", stack.url + "/")
    assert page.status == 200
    assert b"<title>Totalizer</title>" in page.data
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    for path, media_type in (("/page.js", "text/javascript"), ("/page.css", "text/css")):
        asset = HTTP.request("GET", stack.url + path)
        assert (asset.status, asset.headers["content-type"]) == (200, f"{media_type}; charset=utf-8")
    schema = json.loads(HTTP.request("GET", stack.url + "/api/docs/openapi.json").data)
    assert "/api/metrics/aggregated" in schema["paths"]
    assert "/api/metrics/batch" in schema["paths"]
    assert "/api/metrics/commands" in schema["paths"]
