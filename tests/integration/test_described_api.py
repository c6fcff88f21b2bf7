"""The API's own description is whole and true: who may ask, what each route takes and answers, an example of both."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import hypothesis
import jsonschema
import pytest
import schemathesis
import urllib3
from hypothesis import HealthCheck
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api_reference import COMMAND, PAGE, PATH, Json, Operation, families, operations, page, request_of
from support import Stack, new_organization
from totalizer.store.keys import create_key
from totalizer.web.permissions import ACTIONS, SCOPES

HTTP = urllib3.PoolManager(retries=False, timeout=30)
#: Made-up requests to each route with each method; and to those that do the same to further kinds of events.
EXAMPLES, EXAMPLES_MORE = 6, 2
#: Its answer does not end.
ENDLESS = "/api/metrics/live/events"
#: Answers to any of the requests made here. A test's organisation is never that busy, nor its database away.
EXPECTED = {200, 201, 202, 204, 304, 400, 401, 403, 404, 405, 409, 410, 413, 415, 422}
CHECKS: list[Any] = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance,
]  # fmt: skip


@pytest.fixture(scope="module")
def administrator(running_stack: Any) -> Stack:
    """An organisation with events of each type, and a key for everything."""
    stack = new_organization(running_stack)
    with running_stack.connect(None) as connection:
        stack = replace(stack, key=create_key(connection, stack.organization_id, "all", ("admin",)))
    [body] = [
        body for path, method, operation in operations(described(stack))
        if (path, method) == ("/api/metrics/batch", "POST")
        for _, _, body in [request_of(path, operation)]
    ]  # fmt: skip
    assert ask(stack, "POST", "/api/metrics/batch", "application/json", body).status == 202
    stack.drain()
    return stack


def described(stack: Stack) -> Json:
    """What the running server says of itself."""
    document: Json = HTTP.request("GET", stack.url + PATH).json()
    return document


def ask(stack: Stack, method: str, target: str, media_type: str | None, body: Any, key: str | None = None) -> Any:
    """The answer to a request, read only if it ends."""
    headers = {"authorization": f"Bearer {key or stack.key}", "accept-encoding": "identity"}
    if media_type is not None:
        headers["content-type"] = media_type
    data = body.encode() if isinstance(body, str) else None if body is None else json.dumps(body).encode()
    answer = HTTP.request(method, stack.url + target, body=data, headers=headers, preload_content=False)
    if answer.headers.get("content-type", "").startswith("text/event-stream"):
        answer.close()
    else:
        answer.read(cache_content=True)
    return answer


def closed(schema: Any) -> Any:
    """A schema that takes no member it does not name: what is answered must be described."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: closed(each) for name, each in schema.items() if name != "properties"}
    if "properties" not in schema:
        return found
    return {
        "additionalProperties": False,
        **found,
        "properties": {n: closed(s) for n, s in schema["properties"].items()},
    }


def check(document: Json, schema: Json, value: Any) -> None:
    """Hold a value against a schema of a description."""
    validator = jsonschema.Draft202012Validator({**closed(schema), "components": document["components"]})
    validator.validate(value)


def test_the_page_is_made_from_what_the_server_says(administrator: Stack) -> None:
    fresh = page(described(administrator)) == PAGE.read_text("utf-8")
    assert fresh, f"docs/reference/api.md is not what the server says of itself; run {COMMAND}"


def test_every_route_says_who_may_ask_and_what_becomes_of_it(administrator: Stack) -> None:
    document = described(administrator)
    for path, method, operation in operations(document):
        where = f"{method} {path}"
        assert operation["summary"], where
        assert operation["description"], where
        assert all(each.get("description") or each["in"] == "path" for each in operation.get("parameters", ())), where
        needed = [names for each in operation.get("security", ()) for names in each.values()]
        assert all(len(names) == 1 and names[0] in ACTIONS for names in needed), where
        target, media_type, body = request_of(path, operation)
        assert "{" not in target, f"{where}: a parameter of the path has no example"
        assert body is not None or "requestBody" not in operation, where
        if body is not None:
            check(document, operation["requestBody"]["content"][media_type]["schema"], body)
        answers = [each for status, each in operation["responses"].items() if status != "default"]
        for content in [content for each in answers for content in each.get("content", {}).values()]:
            if "example" in content:
                check(document, content["schema"], content["example"])
            else:
                assert content["schema"]["format"] == "binary", where


def test_every_example_is_answered_as_is_described(administrator: Stack) -> None:
    document = described(administrator)
    statuses = {f"{method} {path}": _answered(administrator, document, (path, method, operation))
                for path, method, operation in operations(document)}  # fmt: skip
    # What is not there cannot be asked for: a made-up receipt, key, session, event in quarantine, silence.
    missing = [where for where, status in statuses.items() if status == 404]
    assert sorted(missing) == [
        "DELETE /api/alerts/silences/{number}", "DELETE /api/keys/{key_id}",
        "DELETE /api/metrics/quarantine/{letter_id}", "GET /api/metrics/quarantine/{letter_id}",
        "GET /api/metrics/receipts/{receipt}", "POST /api/keys/{key_id}/rotate",
        "POST /api/metrics/quarantine/{letter_id}/replay",
    ]  # fmt: skip
    assert {where: status for where, status in statuses.items() if status >= 300 and where not in missing} == {}


def _answered(stack: Stack, document: Json, operation: Operation) -> int:
    """The status of the answer to an example, whose body is as described."""
    path, method, said = operation
    answer = ask(stack, method, *request_of(path, said))
    media_type = answer.headers.get("content-type", "").partition(";")[0]
    form = said["responses"].get(str(answer.status), said["responses"]["default"])
    if "content" not in form:
        assert answer.data == b"", (method, path)
        return int(answer.status)
    assert media_type in form["content"], (method, path, answer.status, answer.data)
    if media_type in ("application/json", "application/problem+json"):
        check(document, form["content"][media_type]["schema"], json.loads(answer.data))
    return int(answer.status)


def test_every_route_asks_for_what_it_says_it_needs(administrator: Stack) -> None:
    with administrator.running.connect(None) as connection:
        keys = {
            scope: create_key(connection, administrator.organization_id, scope, (scope,))
            for scope in ("ingest", "query")
        }  # fmt: skip
    for path, method, operation in operations(described(administrator)):
        for needed in operation.get("security", ())[:1]:
            [[action]] = needed.values()
            scope = next(scope for scope in keys if action not in SCOPES[scope])
            request = method, *request_of(path, operation)
            assert ask(administrator, *request, key=keys[scope]).status == 403, (method, path)
            assert ask(administrator, *request, key="tz_nobody").status == 401, (method, path)


def test_made_up_requests_are_answered_as_is_described(administrator: Stack) -> None:
    stack = administrator
    with stack.running.connect(None) as connection:
        key = create_key(connection, stack.organization_id, "reads all", ("ingest", "query", "export"))
    headers = {"authorization": f"Bearer {key}"}
    answered: dict[str, set[int]] = {}
    schema = schemathesis.openapi.from_url(stack.url + PATH)
    first = {(path, method.lower()) for [(path, method, _), *_] in families(operations(described(stack)))}
    for operation in [result.ok() for result in schema.get_all_operations()]:
        if operation.path == ENDLESS:
            continue
        is_first = (operation.path, operation.method.lower()) in first

        @hypothesis.settings(
            max_examples=EXAMPLES if is_first else EXAMPLES_MORE, deadline=None, database=None, derandomize=True,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @hypothesis.given(case=operation.as_strategy())
        def send(case: Any) -> None:
            response = case.call(headers=headers, timeout=30)
            case.validate_response(response, checks=CHECKS)
            assert response.status_code in EXPECTED, (case.as_curl_command(), response.text)
            answered.setdefault(f"{case.method} {case.path}", set()).add(response.status_code)

        send()
    assert len(answered) > 30
    assert any(status < 300 for statuses in answered.values() for status in statuses)
    stack.drain()
    dead = stack.sql("SELECT count(*) FROM totalizer.dead_letters WHERE organization_id = %s", stack.organization_id)
    assert dead == [(0,)]
