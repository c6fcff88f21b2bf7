"""HttpSink and the running server: what arrives, once, whatever happens on the way; compressed bodies."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3

from lossy_proxy import lossy_proxy
from support import RunningStack, Stack, new_organization, wait_until
from totalizer.edge.batch import Batch, new_batch_id
from totalizer.edge.sinks.http import HttpSink
from totalizer.errors import SinkUnavailable
from totalizer.store.keys import create_key, list_keys, revoke_key

HTTP = urllib3.PoolManager(retries=False, timeout=30)
NOW_MS = 1_757_066_400_000


def batch(count: int, first: int = 0, **more: Any) -> Batch:
    entries = [
        {"id": f"e{n}", "userId": f"u{n % 3}", "action": "a", "timestamp": NOW_MS + n, **more}
        for n in range(first, first + count)
    ]
    return Batch(new_batch_id(NOW_MS * 1_000_000 + first), NOW_MS, tuple(entries))


@pytest.fixture
def sink(stack: Stack) -> Iterator[HttpSink]:
    sink = HttpSink(stack.url, stack.key)
    yield sink
    sink.close()


def stored(stack: Stack, columns: str = "count(*), count(DISTINCT id)") -> list[tuple[Any, ...]]:
    """Rows of a query over the organisation's entries, once all is loaded."""
    stack.drain()
    return stack.sql(f"SELECT {columns} FROM events.time_entries WHERE organization_id = %s", stack.organization_id)


def total(stack: Stack) -> Any:
    """What the API answers."""
    query = "event_type=time_entries&aggregation_window=total&start_date=2025-09-01&end_date=2025-09-30"
    answer = HTTP.request(
        "GET", f"{stack.url}/api/metrics/aggregated?{query}", headers={"authorization": f"Bearer {stack.key}"}
    )
    assert answer.status == 200, answer.data
    return json.loads(answer.data)["data"]


# ---------------------------------------------------------------------------------------------- the sink


def test_a_batch_arrives_with_its_fields(stack: Stack, sink: HttpSink) -> None:
    metadata = {
        "sessionId": "s1",
        "taskId": "t1",
        "duration": 1_800_000,
        "file": 'a "quoted"\t\\name',
        "é": [1, {"x": None}],
    }
    assert sink.deliver(batch(1, metadata=metadata)).accepted == 1
    columns = "user_id, action, session_id, task_id, duration_ms, metadata, external_id, occurred_at::text"
    assert stored(stack, columns) == [
        ("u0", "a", "s1", "t1", 1_800_000, metadata, "e0", "2025-09-05 10:00:00+00")
    ]  # fmt: skip


def test_batches_sent_again_count_once(stack: Stack, sink: HttpSink) -> None:
    whole = batch(2500, metadata={"duration": 10})
    for _ in range(3):
        assert sink.deliver(whole).accepted == 2500
    assert stored(stack) == [(2500, 2500)]
    assert sum(row["duration_ms_sum"] for row in total(stack)) == 25_000


def test_an_entry_the_server_refuses_leaves_the_others(stack: Stack, sink: HttpSink) -> None:
    entries = list(batch(5).entries)
    entries[1] = entries[1] | {"timestamp": 1_757_066_400}
    entries[3] = entries[3] | {"sheep": 1}
    delivery = sink.deliver(Batch("1757066400000_aaaaaa", NOW_MS, tuple(entries)))

    assert delivery.accepted == 3
    assert [(refused.index, refused.code) for refused in delivery.refused] == [
        (1, "invalid_time"), (3, "invalid_event"),
    ]  # fmt: skip
    assert "seconds" in delivery.refused[0].message
    assert stored(stack) == [(3, 3)]


def test_answers_and_requests_that_get_lost_lose_and_double_nothing(stack: Stack) -> None:
    chance = random.Random(20250905)

    def fate() -> str:
        return chance.choice(["pass", "pass", "pass", "cut", "lose"])

    failures = 0
    with lossy_proxy(stack.url, fate, fate) as proxy:
        sink = HttpSink(proxy.url, stack.key, timeout_s=20)
        for number in range(40):
            waiting: Batch | None = batch(50, number * 50)
            while waiting is not None:
                try:
                    sink.deliver(waiting)
                    waiting = None
                except SinkUnavailable as error:
                    failures += 1
                    waiting = waiting.only(error.undelivered or range(len(waiting.entries)))
        sink.close()
    assert failures > 20, "nothing got lost, so the test proves nothing"
    assert stored(stack) == [(2000, 2000)]
    assert sum(row["entries"] for row in total(stack)) == 2000


def test_a_key_that_ends_keeps_the_batch_and_a_new_one_delivers_it(stack: Stack) -> None:
    with stack.running.connect(None) as connection:
        key = create_key(connection, stack.organization_id, "edge", ("ingest",))
        reading = create_key(connection, stack.organization_id, "reads", ("query",))
        sink = HttpSink(stack.url, key)
        assert sink.deliver(batch(10)).accepted == 10
        [mine] = [found for found in list_keys(connection) if str(found.name) == "edge" and found.revoked_at is None]
        revoke_key(connection, str(mine.id))

    said: list[str] = []

    def refused() -> bool:
        try:
            sink.deliver(batch(10))
        except SinkUnavailable as error:
            said.append(str(error))
        return bool(said)

    wait_until(refused, "the revoked key's end", 10)
    assert "401" in said[0]
    assert "api_key" in said[0]
    sink.close()
    with pytest.raises(SinkUnavailable, match=r"403.*may not ingest"):
        HttpSink(stack.url, reading).deliver(batch(10, 10))
    assert HttpSink(stack.url, stack.key).deliver(batch(10, 10)).accepted == 10
    assert stored(stack) == [(20, 20)]


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[Stack]:
    """A stack of the test's own, that takes small requests only and may be stopped."""
    running = RunningStack(tmp_path / "home", MAX_BATCH_SIZE="100", TOTALIZER_BODY_BYTES_MAX="20000")
    try:
        yield new_organization(running)
    finally:
        running.stop()


def test_a_server_with_narrow_limits_is_found_out_and_one_that_stops_is_waited_for(narrow: Stack) -> None:
    sink = HttpSink(narrow.url, narrow.key)
    assert sink.deliver(batch(1000)).accepted == 1000
    large = batch(20, 1000, metadata={"text": "x" * 1500})
    assert sink.deliver(large).accepted == 20, "twenty entries of 1.5 kB pass a limit of 20 kB in parts"
    giant = batch(3, 1020)
    entries = (giant.entries[0], giant.entries[1] | {"metadata": {"text": random.Random(1).randbytes(20_000).hex()}},
               giant.entries[2])  # fmt: skip
    delivery = sink.deliver(Batch(giant.batch_id, NOW_MS, entries))
    assert (delivery.accepted, [(refused.index, refused.code) for refused in delivery.refused]) == (
        2, [(1, "body_too_large")],
    )  # fmt: skip
    assert stored(narrow) == [(1022, 1022)]

    assert narrow.running.stop() == 0
    with pytest.raises(SinkUnavailable, match="no connection"):
        sink.deliver(batch(5))


# ---------------------------------------------------------------------------------------------- compressed bodies


def post(stack: Stack, path: str, body: bytes, encoding: str) -> tuple[int, dict[str, Any]]:
    fields = {"authorization": f"Bearer {stack.key}", "content-type": "application/json", "content-encoding": encoding}
    answer = HTTP.request("POST", stack.url + path, body=body, headers=fields)
    return answer.status, json.loads(answer.data)


def body_of(count: int) -> bytes:
    return json.dumps({"time_entries": batch(count).entries}).encode()


def test_compressed_batches_are_taken(stack: Stack) -> None:
    status, answer = post(stack, "/api/metrics/batch", gzip.compress(body_of(500)), "gzip")
    assert (status, answer["accepted"]) == (202, 500)
    assert stored(stack) == [(500, 500)]


def test_a_compressed_single_event_is_taken(stack: Stack) -> None:
    body = gzip.compress(json.dumps(batch(1).entries[0]).encode())
    assert post(stack, "/api/metrics/entries", body, "gzip")[0] == 202


@pytest.mark.parametrize(
    ("body", "encoding", "status", "code", "words"),
    [
        (gzip.compress(b"{}")[:-3], "gzip", 400, "bad_json", "not valid gzip: it ends too early"),
        (b"{}", "gzip", 400, "bad_json", "not valid gzip"),
        (gzip.compress(b"{"), "gzip", 400, "bad_json", "not valid JSON"),
        (gzip.compress(b" " * (9 << 20)), "gzip", 413, "body_too_large", "unpacks to more than 8388608"),
        (b"{}", "br", 415, "unsupported_media_type", "'br'"),
        (b"{}", "identity", 422, "batch_empty", ""),
    ],
    ids=["cut", "plain", "bad json", "bomb", "other", "identity"],
)
def test_what_cannot_be_unpacked_is_refused(
    stack: Stack, body: bytes, encoding: str, status: int, code: str, words: str
) -> None:
    got, answer = post(stack, "/api/metrics/batch", body, encoding)
    assert (got, answer["code"]) == (status, code)
    assert words in answer["detail"]
