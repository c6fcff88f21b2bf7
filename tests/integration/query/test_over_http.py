"""The routes that ask, over HTTP, and that none of them tells one organisation anything of another's."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import pytest
import urllib3

from support import new_organization
from totalizer.store.keys import create_key

HTTP = urllib3.PoolManager(retries=False, timeout=60)
USER = "7f1f9d9a-55d6-4f4c-8f6a-0e6f0a3b9c11"
TEAM = "11111111-1111-4111-8111-111111111111"
RANGE = {"start_date": "2025-04-01T00:00:00Z", "end_date": "2025-04-02T00:00:00Z"}
#: Every documented way to ask: path, parameters; a body for POST.
ROUTES: list[tuple[str, dict[str, Any], dict[str, Any] | None]] = [
    ("/api/metrics/aggregated", {**RANGE, "group_by": "command_name", "aggregation_window": "1h"}, None),
    ("/api/metrics/aggregated", {**RANGE, "aggregation_window": "5m", "fill": "zero", "measures": "executions"}, None),
    ("/api/metrics/aggregated", {**RANGE, "group_by": "command_name", "order": "-executions"}, None),
    ("/api/metrics/dashboard", {"time_range": "1d", "team_id": TEAM}, None),
    ("/api/metrics/dashboard", {"time_range": "1y"}, None),
    ("/api/metrics/commands", {**RANGE, "status": "success"}, None),
    ("/api/metrics/agents", RANGE, None),
    ("/api/metrics/query", {}, {**RANGE, "user_id": USER, "metric_types": ["productivity_score", "error_rate"]}),
    ("/api/metrics/query", {}, {**RANGE, "metrics": ["executions", "agent_interactions.interactions"],
                                "group_by": ["user_id"], "compare": "previous", "explain": True}),
]  # fmt: skip
SECRET = "their-secret-command"


class Answer:
    """Status, headers and body of an answer."""

    def __init__(self, response: Any) -> None:
        self.status, self.headers, self.text = response.status, response.headers, response.data.decode()
        self.body = json.loads(self.text) if self.text else None


def ask(stack: Any, path: str, parameters: dict[str, Any], body: Any = None, **headers: str) -> Answer:
    url = f"{stack.url}{path}?{urlencode(parameters, doseq=True)}"
    given = {"authorization": f"Bearer {stack.key}", "content-type": "application/json", **headers}
    if body is None:
        return Answer(HTTP.request("GET", url, headers=given))
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answer(HTTP.request("POST", url, body=data, headers=given))


@pytest.fixture(scope="module")
def two(running_stack: Any) -> tuple[Any, Any]:
    """Two organisations on one stack; theirs has the secret, and the same ids."""
    mine, theirs = new_organization(running_stack), new_organization(running_stack)
    for stack, name, count in ((mine, "plan", 3), (theirs, SECRET, 5)):
        events = [
            {"user_id": USER, "team_id": TEAM, "command_name": f"{name}-{number}", "execution_time_ms": 15,
             "status": "success", "id": str(number), "executed_at": f"2025-04-01T{number:02d}:00:00Z"}
            for number in range(count)
        ]  # fmt: skip
        answer = ask(stack, "/api/metrics/batch", {}, {"command_executions": events})
        assert answer.status == 202
    mine.drain()
    return mine, theirs


def test_every_route_answers_with_a_tag_and_tells_nothing_of_others(two: Any) -> None:
    mine, theirs = two
    for path, parameters, body in ROUTES:
        answer = ask(mine, path, parameters, body)
        assert answer.status == 200, answer.text
        assert answer.body["complete"] is True
        assert SECRET not in answer.text
        assert answer.headers["cache-control"] == ("no-store" if "explanation" in answer.body else "private, no-cache")
        if "explanation" in answer.body:
            continue
        tag = answer.headers["etag"]
        again = ask(mine, path, parameters, body, **{"if-none-match": tag})
        assert (again.status, again.text, again.headers["etag"]) == (304, "", tag), path
        other = ask(theirs, path, parameters, body, **{"if-none-match": tag})
        assert other.status == 200, "a tag says nothing to another organisation"
        assert other.headers["etag"] != tag


def test_answers_are_of_who_asks(two: Any) -> None:
    mine, theirs = two
    for stack, count in ((mine, 3), (theirs, 5), (mine, 3)):
        total = ask(stack, "/api/metrics/aggregated", {**RANGE, "aggregation_window": "total"}).body
        assert [row["executions"] for row in total["data"]] == [count]
        events = ask(stack, "/api/metrics/commands", RANGE).body["data"]
        assert len(events) == count
        board = ask(stack, "/api/metrics/dashboard", {"time_range": "1d", "event_type": "command_executions"}).body
        assert board["data"]["command_executions"]["totals"]["executions"] == 0


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        ("/api/metrics/aggregated", {**RANGE, "group_by": "command_name", "limit": 2}),
        ("/api/metrics/aggregated", {**RANGE, "group_by": "command_name", "limit": 2, "order": "-executions"}),
        ("/api/metrics/commands", {**RANGE, "limit": 2}),
    ],
)
def test_a_cursor_of_another_organisation_is_refused(two: Any, path: str, parameters: dict[str, Any]) -> None:
    mine, theirs = two
    cursor = ask(theirs, path, parameters).body["next_cursor"]
    assert ask(theirs, path, {**parameters, "cursor": cursor}).status == 200
    refused = ask(mine, path, {**parameters, "cursor": cursor})
    assert (refused.status, refused.body["code"]) == (422, "invalid_query")
    assert "belongs to another query" in refused.body["detail"]
    assert SECRET not in refused.text


def test_events_come_in_pages_the_latest_first(two: Any) -> None:
    mine, _ = two
    names, cursor = [], None
    while True:
        more = {"cursor": cursor} if cursor else {}
        page = ask(mine, "/api/metrics/commands", {**RANGE, "limit": 2, "time_zone": "Europe/Berlin", **more}).body
        names += [row["command_name"] for row in page["data"]]
        assert all(row["executed_at"].endswith("+02:00") for row in page["data"])
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert names == ["plan-2", "plan-1", "plan-0"]
    [one] = ask(mine, "/api/metrics/commands", {**RANGE, "command_name": "plan-1"}).body["data"]
    assert (one["external_id"], one["user_id"], one["team_id"], one["status"]) == ("1", USER, TEAM, "success")
    for wrong in ({"sheep": "1"}, {"limit": "0"}, {"cursor": "x"}, {"start_date": "2025-05-01"}, {"limit": ["1", "2"]}):
        assert ask(mine, "/api/metrics/commands", {**RANGE, **wrong}).body["code"] == "invalid_query", wrong


def test_a_dashboard_shows_what_there_is(two: Any) -> None:
    mine, _ = two
    now = {"user_id": USER, "team_id": TEAM, "command_name": "build", "execution_time_ms": 30}
    other = {**now, "team_id": USER, "status": "success"}
    sent = [{**now, "status": "error"}, {**now, "status": "success"}, other]
    assert ask(mine, "/api/metrics/batch", {}, {"command_executions": sent}).status == 202
    mine.drain()
    board = ask(mine, "/api/metrics/dashboard", {"time_range": "1h", "team_id": TEAM}).body
    section = board["data"]["command_executions"]
    assert list(board["data"]) == ["command_executions"]
    assert section["totals"]["executions"] == 2
    assert section["previous"]["executions"] == 0
    assert section["totals"]["users"] == 1
    assert section["top"]["dimension"] == "command_name"
    [most] = section["top"]["rows"]
    assert (most["command_name"], most["executions"], most["execution_time_ms_avg"]) == ("build", 2, 30)
    assert {row["status"]: row["executions"] for row in section["by_status"]} == {"error": 1, "success": 1}
    assert sum(row["executions"] for row in section["series"]) == 2
    assert len(section["series"]) in (4, 5)
    for wrong, words in (
        ({"time_range": "2h"}, "time_range=2h"), ({"team_id": "x"}, "team_id=x"), ({"sheep": "1"}, "sheep"),
        ({"event_type": "dreams"}, "event_type=dreams"), ({"time_zone": "Mars"}, "time_zone=Mars"),
    ):  # fmt: skip
        refused = ask(mine, "/api/metrics/dashboard", wrong)
        assert (refused.status, refused.body["code"]) == (422, "invalid_query"), wrong
        assert words in refused.body["detail"]


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'"x"', b"\xff", b"[" * 100_000, b'{"limit": "many"}'])
def test_what_is_no_query_is_refused(two: Any, body: bytes) -> None:
    answer = ask(two[0], "/api/metrics/query", {}, body)
    assert answer.status == 200 if body == b"" else 400 <= answer.status < 500, answer.text


YEARS = {"start_date": "2015-01-01", "end_date": "2024-12-31"}
FIFTY = ",".join(f"g{number}" for number in range(50))
MANY = [str(number) for number in range(101)]
AGGREGATED, QUERY, EXPORT = "/api/metrics/aggregated", "/api/metrics/query", "/api/metrics/export/csv"
LISTED, BOARD, NOW = "/api/metrics/commands", "/api/metrics/dashboard", "/api/metrics/real-time/5m"
TOTALS = {"what": "aggregated"}
#: Path, parameters, body; words of the refusal.
HOSTILE: list[tuple[str, dict[str, Any], bytes | None, str]] = [
    (AGGREGATED, {**YEARS, "aggregation_window": "1m"}, None, "TOTALIZER_QUERY_WINDOWS_MAX"),
    (AGGREGATED, {"group_by": FIFTY}, None, "at most 10"),
    (AGGREGATED, {"command_name": MANY}, None, "at most 100"),
    (AGGREGATED, {"time_zone": "Mars/Olympus"}, None, "unknown time zone"),
    (EXPORT, {**YEARS, **TOTALS, "aggregation_window": "1m"}, None, "TOTALIZER_QUERY_WINDOWS_MAX"),
    (EXPORT, {**TOTALS, "group_by": FIFTY}, None, "at most 10"),
    (EXPORT, {"command_name": MANY}, None, "at most 100"),
    (LISTED, {"command_name": MANY}, None, "at most 100"),
    (LISTED, {"start_date": "2025-01-02", "end_date": "2025-01-01"}, None, "must be before"),
    (LISTED, {"time_zone": "../../etc/passwd"}, None, "time_zone"),
    (BOARD, dict.fromkeys(FIFTY.split(","), "x"), None, "nothing is counted by that"),
    (BOARD, {"command_name": MANY}, None, "at most 100"),
    (NOW, {"group_by": FIFTY}, None, "no live window"),
    (NOW, {"command_name": MANY}, None, "at most 100"),
    ("/api/usage/m", {**YEARS, "window": "hour"}, None, "366 days"),
    ("/api/usage/m", {"metric_type": MANY}, None, "at most 100"),
    ("/api/usage", {"cursor": "no cursor"}, None, "next_cursor"),
    ("/api/metrics/quarantine", {"cursor": "x"}, None, "cursor=x"),
    ("/api/metrics/stats", {"hours": 10**9}, None, "8784"),
    (QUERY, {}, b'{"filters":{"command_name":' + b"[" * 500_000 + b"]" * 500_000 + b"}}", "deep"),
    (QUERY, {}, b'{"filters":{"command_name":' + b"[" * 200 + b"]" * 200 + b"}}", "command_name"),
    (QUERY, {}, json.dumps({f"member {number}": number for number in range(50_000)}).encode(), "unknown parameter"),
    (QUERY, {}, json.dumps({"filters": {"command_name": ["x" * 10] * 80_000}}).encode(), "at most 100"),
    (QUERY, {}, json.dumps({"group_by": FIFTY.split(",") * 5000}).encode(), "at most 10"),
    (QUERY, {}, json.dumps({"cursor": "x" * 1_000_000}).encode(), "is no cursor"),
]


def test_hostile_questions_are_refused_by_the_limits_name_on_every_route(two: Any) -> None:
    mine, _ = two
    with mine.running.connect(None) as connection:
        administrator = replace(mine, key=create_key(connection, mine.organization_id, "all", ("admin",)))
    for path, parameters, body, words in HOSTILE:
        refused = ask(administrator, path, parameters, body)
        about = f"{path} {str(parameters)[:200]} {(body or b'')[:60]!r}: {refused.status} {refused.text[:800]}"
        assert refused.status in (400, 422), about
        assert words in refused.body["detail"], about
        assert len(refused.body["detail"]) < 800, about
