"""The open protocols over HTTP: content types, statuses and answers, over a real journal."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from litestar.testing import TestClient

from totalizer.catalog import Catalog
from totalizer.clock import SYSTEM_CLOCK
from totalizer.collect import Collector
from totalizer.event import decode_batch
from totalizer.web.encoding import zstd
from totalizer.web.ingest_routes import Head
from totalizer.web.open_protocols import AnalyticsRoute
from totalizer.web.principal import Principal
from unit.web.test_ingest_routes import METERS, ORGANIZATION, Served, journalled

EVENT = {"specversion": "1.0", "type": "a.b", "source": "/s", "id": "1", "data": {"a": 1}}
MESSAGE = {"type": "track", "event": "E", "userId": "u", "messageId": "m"}
STRUCTURED, BATCHED = "application/cloudevents+json", "application/cloudevents-batch+json"
BINARY = {"ce-specversion": "1.0", "ce-type": "a.b", "ce-source": "/s", "ce-id": "1"}


@pytest.fixture
def client(tmp_path: Path, catalog: Catalog) -> Iterator[TestClient[Any]]:
    served = Served(tmp_path / "journal", catalog)
    with TestClient(served.app) as client:
        yield client
    served.journal.close()


def post(client: TestClient[Any], path: str, body: Any, content_type: str | None, **headers: str) -> Any:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = headers if content_type is None else {"content-type": content_type, **headers}
    return client.post(path, content=content, headers=fields)


@pytest.mark.parametrize(
    ("body", "content_type", "headers", "events"),
    [
        (EVENT, STRUCTURED, {}, 1), (EVENT, f"{STRUCTURED}; charset=UTF-8", {}, 1), (EVENT, "application/json", {}, 1),
        ([EVENT] * 3, BATCHED, {}, 3), ([EVENT] * 2, "application/json", {}, 2), (b"{}", "application/json", BINARY, 1),
        (b"", None, BINARY, 1), (b"text", "text/plain", BINARY, 1),
        (gzip.compress(json.dumps(EVENT).encode()), STRUCTURED, {"content-encoding": "gzip"}, 1),
        (zstd.compress(json.dumps(EVENT).encode()), STRUCTURED, {"content-encoding": "zstd"}, 1),
        (b"\xef\xbb\xbf" + json.dumps([EVENT]).encode(), "application/json", {}, 1),
    ],
)  # fmt: skip
def test_cloudevents_are_taken(
    client: TestClient[Any], tmp_path: Path, body: Any, content_type: str | None, headers: dict[str, str], events: int
) -> None:
    answer = post(client, "/api/v1/events", body, content_type, **headers)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["totalizer-receipt"].split("-")[1:3] == ["1", str(events)]
    assert journalled(tmp_path / "journal") == events


@pytest.mark.parametrize(
    ("body", "content_type", "headers", "status", "code"),
    [
        ({**EVENT, "specversion": "0.3"}, STRUCTURED, {}, 422, "invalid_event"),
        ({**EVENT, "time": "soon"}, STRUCTURED, {}, 422, "invalid_time"),
        ({**EVENT, "id": "x" * 256}, STRUCTURED, {}, 422, "invalid_event"),
        (b"{", STRUCTURED, {}, 400, "bad_json"),
        (b"5", STRUCTURED, {}, 422, "invalid_event"),
        (b"[{", BATCHED, {}, 400, "bad_json"), (EVENT, BATCHED, {}, 400, "bad_request"),
        ([], BATCHED, {}, 422, "batch_empty"), ([EVENT] * 101, BATCHED, {}, 422, "batch_too_large"),
        ([{}, 5], BATCHED, {}, 422, "invalid_event"),
        (b"<event/>", "application/cloudevents+xml", {}, 415, "unsupported_media_type"),
        (b"<event/>", "application/cloudevents+xml", BINARY, 415, "unsupported_media_type"),
        (b"x", "text/plain", {}, 415, "unsupported_media_type"), (b"", None, {}, 415, "unsupported_media_type"),
        (b"{", "application/json", BINARY, 422, "invalid_event"),
        (b"", None, {**BINARY, "ce-specversion": "0.3"}, 422, "invalid_event"),
    ],
)  # fmt: skip
def test_what_is_no_cloudevent_is_refused(
    client: TestClient[Any], tmp_path: Path, body: Any, content_type: str | None, headers: dict[str, str], status: int,
    code: str,
) -> None:  # fmt: skip
    answer = post(client, "/api/v1/events", body, content_type, **headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert journalled(tmp_path / "journal") == 0


def test_the_good_ones_of_a_batch_are_taken_and_the_others_named(client: TestClient[Any], tmp_path: Path) -> None:
    answer = post(client, "/api/v1/events", [EVENT, {}, {**EVENT, "id": "2"}], BATCHED)
    assert answer.status_code == 202
    assert (answer.json()["accepted"], [item["index"] for item in answer.json()["items"]]) == (2, [1])
    assert answer.headers["totalizer-receipt"].split("-")[1:3] == ["1", "2"]
    assert journalled(tmp_path / "journal") == 2


@pytest.mark.parametrize(
    ("path", "content_type", "good", "mixed", "refused", "taken"),
    [
        ("/api/v1/events", BATCHED, [EVENT, {**EVENT, "id": "2"}], [EVENT, {}], (422, "invalid_event"), 204),
        ("/v1/batch", "application/json", {"batch": [MESSAGE, MESSAGE]}, {"batch": [MESSAGE, {}]}, (400, "bad_request"),
         200),
    ],
)  # fmt: skip
def test_all_or_nothing(
    client: TestClient[Any], tmp_path: Path, path: str, content_type: str, good: Any, mixed: Any,
    refused: tuple[int, str], taken: int,
) -> None:  # fmt: skip
    answer = post(client, f"{path}?atomic=true", mixed, content_type)
    told = answer.json()
    assert (answer.status_code, told["code"]) == refused
    assert (told["accepted"], told["rejected"], [item["index"] for item in told["items"]]) == (0, 2, [1])
    assert "totalizer-receipt" not in answer.headers
    assert journalled(tmp_path / "journal") == 0
    assert post(client, f"{path}?atomic=true", good, content_type).status_code == taken
    assert journalled(tmp_path / "journal") == 2
    assert post(client, f"{path}?atomic=perhaps", good, content_type).json()["code"] == "bad_request"
    assert post(client, f"{path}?atomic=false", mixed, content_type).status_code in (200, 202)


def test_a_request_with_a_key_gets_the_receipt_it_had(client: TestClient[Any]) -> None:
    keyed = {"idempotency-key": "k"}
    first, again = (post(client, "/api/v1/events", EVENT, STRUCTURED, **keyed) for _ in range(2))
    assert first.headers["totalizer-receipt"] == again.headers["totalizer-receipt"]


@pytest.mark.parametrize(
    ("path", "body", "content_type"),
    [
        ("batch", {"batch": [MESSAGE]}, "application/json"), ("batch", {"batch": [MESSAGE]}, "text/plain"),
        ("track", MESSAGE, "application/json; charset=utf-8"),
        ("alias", {"previousId": "a", "userId": "b"}, "application/json"),
    ],
)  # fmt: skip
def test_messages_are_taken(client: TestClient[Any], tmp_path: Path, path: str, body: Any, content_type: str) -> None:
    answer = post(client, f"/v1/{path}", body, content_type)
    assert (answer.status_code, answer.json()) == (200, {"success": True})
    assert answer.headers["totalizer-receipt"].split("-")[1:3] == ["1", "1"]
    assert journalled(tmp_path / "journal") == 1


def test_messages_without_id_are_the_same_events_at_each_attempt(catalog: Catalog) -> None:
    """Whatever process a repeat reaches, and whatever that remembers."""
    collector = Collector(catalog, SYSTEM_CLOCK, batch_events_max=100)
    route, request = AnalyticsRoute(collector, None), Head({}, "")
    principal = Principal(ORGANIZATION, frozenset(), METERS, "this API key")
    body = json.dumps({"batch": [{"type": "track", "event": name, "userId": "u"} for name in "ab"]}).encode()
    first, again, other, unknown = (
        ids(route.admit(principal, request, body, identity)[0]) for identity in (b"one", b"one", b"two", None)
    )
    assert first == again
    assert len({*first, *other, *unknown}) == 6


def ids(payload: bytes) -> list[str]:
    """The ids of the events of a payload."""
    header, [block] = decode_batch(payload)
    place = header.sections[0].columns.index("id")
    return [line.split("\t")[place] for line in block.decode().splitlines()]


def test_messages_that_are_not_taken_are_named(client: TestClient[Any]) -> None:
    answer = post(client, "/v1/batch", {"batch": [MESSAGE, {}]}, "application/json")
    assert answer.status_code == 200
    assert (answer.json()["success"], answer.json()["rejected"], answer.json()["items"][0]["index"]) == (True, 1, 1)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("batch", b"{", 400), ("batch", {}, 400), ("batch", {"batch": []}, 400), ("batch", {"batch": [{}]}, 400),
        ("batch", {"batch": [{}, 5]}, 400), ("batch", {"batch": [MESSAGE] * 101}, 413), ("track", [MESSAGE], 400),
        ("track", {**MESSAGE, "event": "\0"}, 400),
    ],
)  # fmt: skip
def test_what_is_no_message_is_refused(client: TestClient[Any], path: str, body: Any, status: int) -> None:
    assert post(client, f"/v1/{path}", body, "application/json").status_code == status


def test_a_stream_behind_another_server(client: TestClient[Any], tmp_path: Path) -> None:
    lines = b'{"userId":"u","action":"a"}\n{"userId":5}\n'
    answer = post(client, "/api/metrics/stream/time_entries", gzip.compress(lines), "application/x-ndjson",
                  **{"content-encoding": "gzip"})  # fmt: skip
    assert answer.status_code == 202
    assert (answer.json()["accepted"], answer.json()["items"][0]["line"]) == (1, 2)
    assert [(block["first_line"], block["last_line"]) for block in answer.json()["receipts"]] == [(1, 2)]
    assert "totalizer-receipt" not in answer.headers
    assert journalled(tmp_path / "journal") == 1
    assert post(client, "/api/metrics/batch", lines, "application/x-ndjson").json()["rejected"] == 2
