"""Requests made from the API's own description: none ends in a fault of ours, and each answer is one it may give."""

from __future__ import annotations

from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck
from schemathesis.checks import not_a_server_error

from support import Stack, unavailable
from totalizer.store.keys import create_key

#: Requests to each route with each method.
EXAMPLES = 6
#: Answers to any of the requests made here. A test's organisation is never that busy, nor its database away.
EXPECTED = {200, 201, 202, 204, 400, 401, 403, 404, 405, 409, 410, 413, 415, 422}


def operations(stack: Stack) -> list[Any]:
    """Every route and method that the running server describes."""
    schema = schemathesis.openapi.from_url(f"{stack.url}/api/docs/openapi.json")
    found = [result.ok() for result in schema.get_all_operations()]
    if not found:
        unavailable("the server describes no route")
    return found


def test_made_up_requests_are_answered(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    with stack.running.connect(None) as connection:
        key = create_key(connection, stack.organization_id, "reads all", ("ingest", "query", "export"))
    headers = {"authorization": f"Bearer {key}"}
    answered: dict[str, set[int]] = {}
    for operation in operations(stack):

        @hypothesis.settings(
            max_examples=EXAMPLES, deadline=None, database=None, derandomize=True,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @hypothesis.given(case=operation.as_strategy())
        def send(case: Any) -> None:
            response = case.call(headers=headers, timeout=30)
            case.validate_response(response, checks=[not_a_server_error])
            assert response.status_code in EXPECTED, (case.as_curl_command(), response.text)
            answered.setdefault(f"{case.method} {case.path}", set()).add(response.status_code)

        send()
    assert len(answered) > 30
    assert any(status < 300 for statuses in answered.values() for status in statuses)
    stack.drain()
    dead = stack.sql("SELECT count(*) FROM totalizer.dead_letters WHERE organization_id = %s", stack.organization_id)
    assert dead == [(0,)]
