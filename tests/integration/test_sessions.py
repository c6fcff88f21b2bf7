"""Sessions over HTTP: started, updated and ended; counted once; nobody else's."""

from __future__ import annotations

import gzip
import json
import uuid
from typing import Any

import pytest
import urllib3

from support import Stack, new_organization

HTTP = urllib3.PoolManager(retries=False, timeout=30)
USER, TEAM = "7f1f9d9a-55d6-4f4c-8f6a-0e6f0a3b9c11", "7f1f9d9a-55d6-4f4c-8f6a-0e6f0a3b9c12"
#: A session that nobody started.
UNKNOWN = "0b0f9d7e-61a4-4f0e-9f5b-3d2f6c1a7e44"


def send(stack: Stack, method: str, path: str, body: Any, **headers: str) -> tuple[int, dict[str, Any]]:
    fields = {"authorization": f"Bearer {stack.key}", "content-type": "application/json"}
    fields |= {name.replace("_", "-"): text for name, text in headers.items()}
    answer = HTTP.request(
        method, f"{stack.url}/api/metrics/sessions/{path}", body=json.dumps(body).encode(), headers=fields
    )
    return answer.status, answer.json()


def rows(stack: Stack) -> list[tuple[Any, ...]]:
    stack.drain()
    return stack.sql(
        "SELECT action, user_id::text, team_id::text, duration_ms, commands_executed FROM events.user_sessions"
        " WHERE organization_id = %s ORDER BY received_at, action", stack.organization_id,
    )  # fmt: skip


def test_a_session_from_start_to_end(stack: Stack) -> None:
    status, answer = send(stack, "POST", "start", {"user_id": USER, "team_id": TEAM, "session_type": "work"})
    assert (status, answer["accepted"]) == (201, 1)
    assert answer["receipt"]
    session = answer["session_id"]
    assert send(stack, "PUT", session, {"commands_executed": 3})[0] == 202
    assert send(stack, "PUT", session, {"commands_executed": 3})[0] == 202  # sent again
    end = {"ended_at": "2026-01-01T00:00:00Z", "duration_ms": 5000, "commands_executed": 4}
    assert send(stack, "PUT", session.upper(), end)[0] == 202
    assert rows(stack) == [
        ("start", USER, TEAM, None, None), ("update", USER, TEAM, None, 3), ("end", USER, TEAM, 5000, 4),
    ]  # fmt: skip


def test_a_session_of_the_senders_own_id_starts_once(stack: Stack) -> None:
    session = str(uuid.uuid4())
    for _ in range(2):
        status, answer = send(stack, "POST", "start", {"user_id": USER, "session_id": session})
        assert (status, answer["session_id"]) == (201, session)
    answers = [send(stack, "POST", "start", {"user_id": USER}, idempotency_key="once")[1] for _ in range(2)]
    assert answers[0]["session_id"] == answers[1]["session_id"]
    assert rows(stack) == [("start", USER, None, None, None)] * 2


def test_the_start_is_found_in_the_database(stack: Stack) -> None:
    """A start by the event route is in no process's memory; the update waits until it is loaded."""
    session = str(uuid.uuid4())
    start = {"session_id": session, "user_id": USER, "action": "start", "id": f"{session}:start", "source": "sessions"}
    answer = HTTP.request(
        "POST", f"{stack.url}/api/metrics/sessions", body=json.dumps(start).encode(),
        headers={"authorization": f"Bearer {stack.key}", "content-type": "application/json"},
    )  # fmt: skip
    assert answer.status == 202
    assert send(stack, "PUT", session, {"commands_executed": 1})[0] == 202
    assert rows(stack)[-1] == ("update", USER, None, None, 1)


def test_an_update_that_names_its_user_needs_no_start_even_if_it_is_compressed(stack: Stack) -> None:
    body = gzip.compress(json.dumps({"user_id": USER, "commands_executed": 2}).encode())
    answer = HTTP.request(
        "PUT", f"{stack.url}/api/metrics/sessions/{uuid.uuid4()}", body=body,
        headers={
            "authorization": f"Bearer {stack.key}", "content-type": "application/json", "content-encoding": "gzip",
        },
    )  # fmt: skip
    assert answer.status == 202
    assert rows(stack) == [("update", USER, None, None, 2)]


def test_a_session_of_another_organisation_is_not_there(stack: Stack) -> None:
    _, answer = send(stack, "POST", "start", {"user_id": USER})
    other = new_organization(stack.running)
    status, refusal = send(other, "PUT", answer["session_id"], {"commands_executed": 1})
    assert (status, refusal["code"]) == (404, "not_found")
    assert rows(other) == []
    # Naming a user itself it may: then it is a session of its own that happens to have that id.
    assert send(other, "PUT", answer["session_id"], {"user_id": USER})[0] == 202
    assert len(rows(stack)) == len(rows(other)) == 1


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "part"),
    [
        ("POST", "start", {}, 422, "user_id"),
        ("POST", "start", {"user_id": USER, "session_id": "x"}, 422, "session_id: must be a UUID"),
        ("POST", "start", [1], 400, "JSON"),
        ("PUT", "nothing", {}, 404, "is a UUID"),
        ("PUT", UNKNOWN, [1], 400, "JSON"),
        ("PUT", UNKNOWN, {"user_id": USER, "clicks": 1}, 422, "clicks: unknown field"),
        ("PUT", UNKNOWN, {"user_id": USER, "ended_at": "soon"}, 422, "occurred_at: 'soon' is not"),
    ],
)
def test_what_is_wrong_is_told(stack: Stack, method: str, path: str, body: Any, status: int, part: str) -> None:
    got, answer = send(stack, method, path, body)
    assert got == status
    assert part in answer["detail"]
