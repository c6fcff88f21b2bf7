"""Usage over HTTP, through a whole running stack."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import urllib3
from redis import Redis

from support import Stack, new_organization, wait_until
from totalizer.store.keys import create_key
from totalizer.store.roles import Role
from totalizer.store.usage_counters import connect
from totalizer.usage.job import UsageAggregationJob

HTTP = urllib3.PoolManager()
TRACK = "/api/usage/track"


def ask(stack: Stack, method: str, path: str, body: Any = None, **headers: str) -> Any:
    known = {"authorization": f"Bearer {stack.key}", "content-type": "application/json"}
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    return HTTP.request(method, stack.url + path, body=data, headers=known | headers, retries=False)


def today() -> date:
    return datetime.now(UTC).date()


@pytest.fixture
def redis(running_stack: Any) -> Any:
    client = Redis.from_url(json.loads((running_stack.home / "run" / "state.json").read_text())["redis_url"])
    yield client
    client.close()


@pytest.fixture
def job(running_stack: Any) -> Any:
    url = json.loads((running_stack.home / "run" / "state.json").read_text())["redis_url"]
    job = UsageAggregationJob(running_stack.dsn(Role.REFRESHER), connect(url))
    yield job
    job.close()


@pytest.fixture
def default(running_stack: Any) -> Stack:
    """The organisation whose counters have the plain names."""
    with running_stack.connect(None) as connection:
        [[organization_id]] = connection.execute("SELECT totalizer.default_organization()::text").fetchall()
        return Stack(running_stack, organization_id, create_key(connection, organization_id, "usage"))


def test_tracking_answers_with_the_counter(default: Stack, redis: Any) -> None:
    record = {"merchant_id": "http:1", "metric_type": "queries"}
    answers = [ask(default, "POST", TRACK, record | more) for more in ({}, {"amount": 41})]
    assert [answer.status for answer in answers] == [202, 202]
    told = answers[1].json()
    assert told.pop("receipt")
    assert told == {
        "accepted": 1, "rejected": 0, "items": [],
        "counters": [{"merchant_id": "http:1", "date": str(today()), "metric_type": "queries", "value": 42}],
    }  # fmt: skip
    assert redis.get(f"usage:http%3A1:{today()}:queries") == b"42"
    default.drain()
    assert default.sql("SELECT sum(amount) FROM events.usage_records WHERE merchant_id = 'http:1'") == [(42,)]
    outcome = ask(default, "GET", f"/api/metrics/receipts/{answers[1].json()['receipt']}").json()
    assert (outcome["status"], outcome["loaded"]) == ("done", 1)


def test_several_at_once_and_an_answer_for_what_is_wrong(stack: Stack, redis: Any) -> None:
    events = [
        {"merchant_id": "a", "metric_type": "q"}, {"merchant_id": "b", "metric_type": "q", "amount": 5},
        {"merchant_id": "a", "metric_type": "q", "amount": 0}, {"merchant_id": "a\tb\\", "metric_type": "q"},
        {"merchant_id": "a", "metric_type": "q", "amount": 2}, {"merchant_id": "a", "metric_type": "q", "unknown": 1},
        None,
    ]  # fmt: skip
    told = ask(stack, "POST", TRACK, {"events": events}).json()
    assert (told["accepted"], told["rejected"]) == (4, 3)
    assert [(item["index"], item["code"]) for item in told["items"]] == [(n, "invalid_event") for n in (2, 5, 6)]
    values = {each["merchant_id"]: each["value"] for each in told["counters"]}
    assert values == {"a": 3, "b": 5, "a\tb\\": 1}
    assert redis.get(f"usage@{stack.organization_id}:a:{today()}:q") == b"3"


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 422, "merchant_id"), ({"merchant_id": "m", "metric_type": "q", "amount": -1}, 422, "amount"),
        ({"events": []}, 422, "no event"), ({"events": {}}, 400, "events"), ({"events": [1]}, 422, "JSON object"),
        ({"events": [], "amount": 1}, 400, "amount"), (b"[", 400, "JSON"), ([], 400, "JSON"),
        ({"merchant_id": "m", "metric_type": "q", "at": "soon"}, 422, "at"),
        ({"events": [{"merchant_id": "m", "metric_type": "q"}] * 1001}, 422, "1001"),
    ],
)  # fmt: skip
def test_what_is_refused_says_why(stack: Stack, redis: Any, body: Any, status: int, words: str) -> None:
    answer = ask(stack, "POST", TRACK, body)
    assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json")
    assert words in answer.json()["detail"]
    assert redis.keys(f"usage@{stack.organization_id}:*") == []


def test_what_may_be_a_repeat_is_counted_by_the_database(stack: Stack, redis: Any, job: Any) -> None:
    record = {"merchant_id": "m", "metric_type": "q", "amount": 7}
    first = ask(stack, "POST", TRACK, record, **{"idempotency-key": "one"})
    again = ask(stack, "POST", TRACK, record, **{"idempotency-key": "one"})
    assert first.json() == again.json()
    assert first.json()["counters"][0]["value"] is None
    for _ in range(2):
        assert ask(stack, "POST", TRACK, record | {"id": "x"}).json()["counters"][0]["value"] is None
    assert ask(stack, "POST", TRACK, record).json()["counters"][0]["value"] == 7
    stack.drain()
    assert ask(stack, "GET", "/api/usage/m").json()["data"][0]["value"] == 21
    job.run(today())
    assert redis.get(f"usage@{stack.organization_id}:m:{today()}:q") == b"21"
    answer = ask(stack, "GET", "/api/usage/m?metric_type=q").json()
    assert (answer["source"], answer["data"][0]["value"]) == ("counters", 21)


def test_a_compressed_body(stack: Stack) -> None:
    body = gzip.compress(b'{"merchant_id": "m", "metric_type": "q"}')
    told = ask(stack, "POST", TRACK, body, **{"content-encoding": "gzip"})
    assert told.json()["counters"][0]["value"] == 1


def test_reading_by_window_day_and_range(stack: Stack, job: Any) -> None:
    for day, hour, amount in (("03", 1, 1), ("03", 1, 2), ("03", 22, 4), ("04", 0, 8), ("10", 5, 16)):
        record = {"merchant_id": "a/b", "metric_type": "q", "amount": amount, "at": f"2025-11-{day}T{hour:02}:59:59Z"}
        assert ask(stack, "POST", TRACK, record).status == 202
    ask(stack, "POST", TRACK, {"merchant_id": "other", "metric_type": "q", "at": "2025-11-03T00:00:00Z"})
    stack.drain()

    def read(query: str) -> list[Any]:
        answer = ask(stack, "GET", f"/api/usage?merchant_id=a/b&{query}")
        assert answer.status == 200, answer.data
        return [(each["start"], each["value"]) for each in answer.json()["data"]]

    first, last = "start_date=2025-11-03", "end_date=2025-11-10"
    assert read(first) == [("2025-11-03T00:00:00Z", 7)]
    assert read(f"{first}&{last}") == [
        ("2025-11-03T00:00:00Z", 7), ("2025-11-04T00:00:00Z", 8), ("2025-11-10T00:00:00Z", 16),
    ]  # fmt: skip
    assert read(f"{first}&window=hour") == [("2025-11-03T01:00:00Z", 3), ("2025-11-03T22:00:00Z", 4)]
    weeks = [("2025-11-03T00:00:00Z", 15), ("2025-11-10T00:00:00Z", 16)]
    assert read(f"{first}&{last}&window=week") == weeks
    assert read(f"start_date=2025-11-09&{last}&window=week") == weeks, "whole weeks"
    assert read(f"{first}&metric_type=none") == []
    assert job.run(date(2025, 11, 3)).success
    page = ask(stack, "GET", "/api/usage?start_date=2025-11-03&limit=1").json()
    assert [(row["merchant_id"], row["value"]) for row in page["data"]] == [("a/b", 7)]
    page = ask(stack, "GET", f"/api/usage?start_date=2025-11-03&limit=1&cursor={page['next_cursor']}").json()
    assert [(row["merchant_id"], row["value"]) for row in page["data"]] == [("other", 1)]
    assert page["next_cursor"] is None
    assert ask(stack, "GET", "/api/usage?start_date=2025-11-03&metric_type=x").json()["data"] == []


@pytest.mark.parametrize(
    "query",
    [
        "/m?start_date=yesterday", "/m?end_date=2025-13-01", "/m?window=month",
        "/m?start_date=2025-11-02&end_date=2025-11-01",
        "/m?start_date=2020-01-01&end_date=2025-11-01", "?limit=0", "?limit=x", "?cursor=x", "?window=hour",
        "?cursor=AAAA",
        "?metric_type=a&metric_type=b", "?merchant_id=" + "m" * 256, "/m?metric_type=", "?merchant_id=%00",
    ],
)  # fmt: skip
def test_a_wrong_question_is_refused(stack: Stack, query: str) -> None:
    answer = ask(stack, "GET", f"/api/usage{query}")
    assert (answer.status, answer.json()["code"]) == (422, "invalid_query")


def test_an_organisation_sees_its_own_only(stack: Stack, running_stack: Any, job: Any, redis: Any) -> None:
    other = new_organization(running_stack)
    ask(stack, "POST", TRACK, {"merchant_id": "m", "metric_type": "q", "amount": 5})
    ask(other, "POST", TRACK, {"merchant_id": "m", "metric_type": "q", "amount": 3})
    stack.drain()
    for aggregated in (False, True):
        if aggregated:
            assert job.run(today()).success
        for mine, value in ((stack, 5), (other, 3)):
            for path in ("/api/usage/m", "/api/usage/m?metric_type=q"):
                assert [row["value"] for row in ask(mine, "GET", path).json()["data"]] == [value]
    for mine, value in ((stack, 5), (other, 3)):
        assert [row["value"] for row in ask(mine, "GET", "/api/usage").json()["data"]] == [value]
    with running_stack.connect(Role.APP) as app:
        assert app.execute("SELECT count(*) FROM totalizer.merchant_usage").fetchone() == (0,)


def test_who_may_do_what(stack: Stack, running_stack: Any) -> None:
    with running_stack.connect(None) as connection:
        scopes = ("ingest", "query", "export")
        keys = {scope: create_key(connection, stack.organization_id, scope, (scope,)) for scope in scopes}
    record = {"merchant_id": "m", "metric_type": "q"}
    for scope, key in keys.items():
        asker = Stack(running_stack, stack.organization_id, key)
        assert ask(asker, "POST", TRACK, record).status == (202 if scope == "ingest" else 403)
        for path in ("/api/usage/m", "/api/usage"):
            assert ask(asker, "GET", path).status == (200 if scope == "query" else 403)
    nobody = Stack(running_stack, stack.organization_id, "tz_nobody")
    assert (ask(nobody, "POST", TRACK, record).status, ask(nobody, "GET", "/api/usage/m").status) == (401, 401)


def test_counters_that_lost_their_memory_are_not_relied_on(stack: Stack, job: Any, redis: Any) -> None:
    record = {"merchant_id": "m", "metric_type": "q", "amount": 5}
    ask(stack, "POST", TRACK, record)
    stack.drain()
    job.run(today())
    path = "/api/usage/m?metric_type=q"
    assert ask(stack, "GET", path).json()["source"] == "counters"
    redis.flushall()
    assert ask(stack, "POST", TRACK, record).json()["counters"][0]["value"] == 5
    stack.drain()
    answer = ask(stack, "GET", path).json()
    assert (answer["source"], answer["data"][0]["value"]) == ("events", 10)
    job.run(today() - timedelta(days=1))
    answer = ask(stack, "GET", path).json()
    assert (answer["source"], answer["data"][0]["value"]) == ("counters", 10)


def test_redis_standing_still_costs_no_event(stack: Stack, running_stack: Any, redis: Any) -> None:
    record = {"merchant_id": "m", "metric_type": "q"}
    assert ask(stack, "POST", TRACK, record).json()["counters"][0]["value"] == 1
    redis.execute_command("CLIENT", "PAUSE", 4000, "ALL")
    answer = ask(stack, "POST", TRACK, record)
    assert (answer.status, answer.json()["counters"][0]["value"]) == (202, None)
    assert ask(stack, "POST", TRACK, record).json()["counters"][0]["value"] is None
    wait_until(lambda: ask(stack, "POST", TRACK, record).json()["counters"][0]["value"] is not None, "its return")
    stack.drain()
    sent = stack.sql("SELECT count(*) FROM events.usage_records WHERE organization_id = %s", stack.organization_id)
    [row] = ask(stack, "GET", "/api/usage/m").json()["data"]
    assert row["value"] == sent[0][0]


def test_it_is_described(stack: Stack) -> None:
    paths = ask(stack, "GET", "/api/docs/openapi.json").json()["paths"]
    assert "post" in paths[TRACK]
    assert {"get"} == set(paths["/api/usage/{merchant_id}"]) == set(paths["/api/usage"])
