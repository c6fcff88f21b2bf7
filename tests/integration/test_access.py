"""Who may do what, over HTTP: every role and scope against every action; keys and tokens through their lives."""

from __future__ import annotations

import base64
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import jwt
import pytest
import urllib3

from serving import second_api
from support import RunningStack, Stack, new_organization, wait_until
from tokens import SECRET, KeyPair, issuer, jwks
from totalizer.store.keys import create_key, list_keys, rotate_key
from totalizer.web.permissions import ACTIONS, ROLES, SCOPES

HTTP = urllib3.PoolManager(retries=False, timeout=30)
COMMAND = {
    "user_id": "7f1f9d9a-55d6-4f4c-8f6a-0e6f0a3b9c11", "command_name": "plan", "execution_time_ms": 15,
    "status": "success",
}  # fmt: skip
PAIR, NEXT_PAIR = KeyPair("first"), KeyPair("second")
#: What may be done → the requests that do it, and the status where it is allowed.
REQUESTS: dict[str, list[tuple[str, str, Any, int]]] = {
    "ingest": [
        ("POST", "/api/metrics/commands", COMMAND, 202), ("POST", "/api/metrics/batch", {"commits": []}, 422),
        ("POST", "/api/usage/track", {"merchant_id": "m", "metric_type": "q"}, 202),
    ],
    "query": [
        ("GET", "/api/metrics/aggregated", None, 200), ("GET", "/api/catalog", None, 200),
        ("GET", "/api/usage/m", None, 200), ("GET", "/api/usage", None, 200),
    ],
    "receipts": [("GET", "/api/metrics/stats", None, 200), ("GET", "/api/metrics/receipts/none", None, 404)],
    "quarantine_read": [
        ("GET", "/api/metrics/quarantine", None, 200), ("GET", "/api/metrics/quarantine/999999", None, 404),
    ],
    "quarantine_replay": [
        ("POST", "/api/metrics/quarantine/999999/replay", None, 404),
        ("DELETE", "/api/metrics/quarantine/999999", None, 404),
    ],
    "jobs_read": [("GET", "/api/jobs", None, 200), ("GET", "/api/jobs/verify/runs", None, 200)],
    "jobs_run": [("POST", "/api/jobs/make_partitions/run", None, 202), ("POST", "/api/jobs/nonsense/run", None, 404)],
    "alerts_read": [("GET", "/api/alerts", None, 200), ("GET", "/api/alerts/history", None, 200)],
    "alerts_silence": [
        ("POST", "/api/alerts/silences", {"rule": "memory", "for_s": 0.001}, 201),
        ("DELETE", "/api/alerts/silences/999999", None, 404),
    ],
    "audit_read": [("GET", "/api/audit", None, 200)],
    "keys": [
        ("GET", "/api/keys", None, 200), ("POST", "/api/keys", {"name": "made over HTTP"}, 201),
        ("POST", f"/api/keys/{uuid4()}/rotate", None, 404), ("DELETE", f"/api/keys/{uuid4()}", None, 404),
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def provider() -> Iterator[Any]:
    with issuer(jwks(PAIR)) as state:
        yield state


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, provider: Any) -> Iterator[RunningStack]:
    """A stack that takes tokens."""
    running = RunningStack(
        tmp_path_factory.mktemp("guarded") / "home",
        TOTALIZER_JWT_SECRET=SECRET, TOTALIZER_JWT_KEYS=provider.url, TOTALIZER_JWT_AUDIENCE="totalizer",
        TOTALIZER_JWT_REFRESH_MS="100", TOTALIZER_KEY_CACHE_MS="200",
    )  # fmt: skip
    try:
        yield running
    finally:
        assert running.stop() == 0


@pytest.fixture
def mine(guarded: RunningStack) -> Stack:
    return new_organization(guarded)


def token(organization_id: str, role: str, pair: KeyPair | None = PAIR, **changes: Any) -> str:
    claims = {
        "organization_id": organization_id, "role": role, "sub": "jane", "aud": "totalizer",
        "exp": int(time.time()) + 600, **changes,
    }  # fmt: skip
    if pair is None:
        return jwt.encode(claims, SECRET, algorithm="HS256")
    return jwt.encode(claims, pair.private, algorithm=pair.kind, headers={"kid": pair.kid})


def ask(url: str, method: str, path: str, authorization: str, body: Any = None) -> Any:
    headers = {"authorization": authorization, "content-type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    return HTTP.request(method, url + path, body=data, headers=headers)


def key_of(stack: Stack, *scopes: str, **more: Any) -> str:
    with stack.running.connect(None) as connection:
        return create_key(connection, stack.organization_id, "test", scopes, **more)


def check_cells(url: str, authorization: str, allowed: frozenset[str]) -> None:
    for action, requests in REQUESTS.items():
        for method, path, body, status in requests:
            answer = ask(url, method, path, authorization, body)
            expected = status if action in allowed else 403
            assert answer.status == expected, (action, method, path, answer.data)
            if expected == 403:
                problem = answer.json()
                assert problem["code"] == "forbidden"
                assert f"may not {action} ({ACTIONS[action]})" in problem["detail"]


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("pair", [PAIR, None], ids=["public key", "secret"])
def test_every_role_may_do_what_the_table_says(mine: Stack, role: str, pair: KeyPair | None) -> None:
    check_cells(mine.url, f"Bearer {token(mine.organization_id, role, pair)}", ROLES[role])


@pytest.mark.parametrize("scope", SCOPES)
def test_every_scope_may_do_what_the_table_says(mine: Stack, scope: str) -> None:
    check_cells(mine.url, f"Bearer {key_of(mine, scope)}", SCOPES[scope])


def test_every_action_is_documented_and_each_role_may_more_than_the_one_before(root: Path) -> None:
    page = (root / "docs/reference/access.md").read_text()
    rows = {}
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `"):
            rows[cells[0].strip("`")] = cells
    columns = [*ROLES, *SCOPES]
    table = {**ROLES, **{f"scope {name}": value for name, value in SCOPES.items()}}
    for action in ACTIONS:
        told = {name for name, cell in zip(columns_of(columns), rows[action][2:], strict=True) if cell == "yes"}
        assert told == {name for name, allowed in table.items() if action in allowed}, action
    allowed = list(ROLES.values())
    assert all(less < more for less, more in itertools.pairwise(allowed))


def columns_of(names: list[str]) -> list[str]:
    """Roles, then scopes."""
    return [name if place < len(ROLES) else f"scope {name}" for place, name in enumerate(names)]


@pytest.fixture
def root() -> Path:
    return Path(__file__).parents[2]


def test_a_key_comes_as_basic_too(mine: Stack) -> None:
    def basic(user: str) -> str:
        return "Basic " + base64.b64encode(user.encode()).decode()

    assert ask(mine.url, "POST", "/api/metrics/commands", basic(f"{mine.key}:"), COMMAND).status == 202
    assert ask(mine.url, "GET", "/api/metrics/aggregated", basic(f"{mine.key}:ignored")).status == 200
    for wrong in ("tz_wrong:", "someone:password", f":{mine.key}", ""):
        answer = ask(mine.url, "POST", "/api/metrics/commands", basic(wrong), COMMAND)
        assert (answer.status, answer.json()["code"]) == (401, "unauthenticated")


def test_a_token_s_organisation_must_exist_and_is_the_only_one_it_reaches(mine: Stack, guarded: RunningStack) -> None:
    other = new_organization(guarded)
    ask(mine.url, "POST", "/api/metrics/commands", f"Bearer {token(mine.organization_id, 'developer')}", COMMAND)
    mine.drain()
    path = "/api/metrics/aggregated?aggregation_window=total"
    counts = [
        [row["executions"] for row in ask(mine.url, "GET", path, f"Bearer {token(each, 'viewer')}").json()["data"]]
        for each in (mine.organization_id, other.organization_id)
    ]  # fmt: skip
    assert counts == [[1], []]
    nobody = ask(mine.url, "GET", path, f"Bearer {token(str(uuid4()), 'admin')}")
    assert (nobody.status, nobody.json()["code"]) == (403, "forbidden")


def test_tokens_that_are_not_good_are_401_and_in_no_log(mine: Stack, guarded: RunningStack) -> None:
    marked = "1234567890secretmark"
    bad = [
        token(mine.organization_id, "admin", exp=1), token(mine.organization_id, "admin", aud="other"),
        token(mine.organization_id, "owner"), token("acme", "admin"), token(mine.organization_id, "admin", NEXT_PAIR),
        f"{marked}.b.c", "x" * 5000 + ".b.c", token(mine.organization_id, "admin") + marked,
        jwt.encode({"organization_id": mine.organization_id, "role": "admin"}, None, algorithm="none"),
    ]  # fmt: skip
    for text in bad:
        for method, path, body, _ in (REQUESTS["ingest"][0], REQUESTS["query"][0]):
            answer = ask(mine.url, method, path, f"Bearer {text}", body)
            assert (answer.status, answer.json()["code"]) == (401, "unauthenticated")
            assert answer.headers["www-authenticate"] == "Bearer"
    log = (guarded.home / "log" / "api.log").read_text()
    assert marked not in log
    assert SECRET not in log
    assert not any(text in log for text in bad)


def test_a_rotated_signing_key_is_fetched(mine: Stack, provider: Any) -> None:
    newer = f"Bearer {token(mine.organization_id, 'viewer', NEXT_PAIR)}"
    assert ask(mine.url, "GET", "/api/catalog", newer).status == 401
    provider.document = jwks(PAIR, NEXT_PAIR)
    wait_until(lambda: ask(mine.url, "GET", "/api/catalog", newer).status == 200, "the new key's arrival", 10)
    older = f"Bearer {token(mine.organization_id, 'viewer')}"
    provider.document = None
    assert [ask(mine.url, "GET", "/api/catalog", each).status for each in (newer, older)] == [200, 200]
    provider.document = jwks(PAIR)


def test_a_token_ends_though_it_is_remembered(mine: Stack) -> None:
    short = f"Bearer {token(mine.organization_id, 'viewer', exp=int(time.time()) - 28)}"  # 30 s of leeway
    assert ask(mine.url, "GET", "/api/catalog", short).status == 200
    wait_until(lambda: ask(mine.url, "GET", "/api/catalog", short).status == 401, "the token's end", 20)


def test_a_key_s_use_is_noted_once_a_minute(mine: Stack) -> None:
    def used() -> Any:
        with mine.running.connect(None) as connection:
            [key] = [key for key in list_keys(connection) if str(key.id) == key_id]
            return key.last_used_at

    with mine.running.connect(None) as connection:
        [key_id] = [str(key.id) for key in list_keys(connection) if key.organization.endswith(name_of(mine))]
    assert used() is None
    ask(mine.url, "POST", "/api/metrics/commands", f"Bearer {mine.key}", COMMAND)
    wait_until(lambda: used() is not None, "noting the use", 10)
    first = used()
    for _ in range(5):
        time.sleep(0.21)  # beyond the cache, so that the key is looked up again
        ask(mine.url, "POST", "/api/metrics/commands", f"Bearer {mine.key}", COMMAND)
    assert used() == first
    with mine.running.connect(None) as connection:
        connection.execute(
            "UPDATE totalizer.api_keys SET last_used_at = now() - interval '61 seconds' WHERE id = %s", [key_id]
        )
    ask(mine.url, "POST", "/api/metrics/commands", f"Bearer {mine.key}", COMMAND)

    def noted_again() -> bool:
        ask(mine.url, "POST", "/api/metrics/commands", f"Bearer {mine.key}", COMMAND)
        return bool(used() > first)

    wait_until(noted_again, "noting it again", 10)


def name_of(stack: Stack) -> str:
    with stack.running.connect(None) as connection:
        row = connection.execute(
            "SELECT name FROM totalizer.organizations WHERE id = %s", [stack.organization_id]
        ).fetchone()
    assert row is not None
    return str(row[0])


def test_who_changes_what_over_http_is_told_to_who_may_know(mine: Stack, guarded: RunningStack) -> None:
    by_token = f"Bearer {token(mine.organization_id, 'admin', sub='jane')}"
    made = ask(mine.url, "POST", "/api/keys", by_token, {"name": "k", "scopes": ["admin"]}).json()
    by_key = f"Bearer {made['key']}"
    rotated = ask(mine.url, "POST", f"/api/keys/{made['id']}/rotate", by_key).json()
    assert ask(mine.url, "DELETE", f"/api/keys/{rotated['id']}", by_token).status == 204
    assert ask(mine.url, "DELETE", f"/api/keys/{rotated['id']}", by_token).status == 404, "and changes nothing"
    silence = ask(mine.url, "POST", "/api/alerts/silences", by_key, {"rule": "memory", "for_s": 60}).json()
    assert ask(mine.url, "DELETE", f"/api/alerts/silences/{silence['id']}", by_key).status == 204
    run = ask(mine.url, "POST", "/api/jobs/check_zones/run", by_key).json()["id"]

    told = [
        (one["action"], one["target"], one["actor"].get("name") or one["actor"].get("id"))
        for one in ask(mine.url, "GET", "/api/audit?limit=7", by_token).json()["data"]
    ]
    assert told == [
        ("job.run", "check_zones", "k"), ("alert.unsilence", "memory", "k"), ("alert.silence", "memory", "k"),
        ("key.revoke", rotated["id"], "jane"), ("key.rotate", made["id"], "k"), ("key.create", rotated["id"], "k"),
        ("key.create", made["id"], "jane"),
    ]  # fmt: skip
    answer = ask(mine.url, "GET", f"/api/audit?action=job&actor={made['id']}", by_token)
    assert [one["after"] for one in answer.json()["data"]] == [{"run": run}]
    assert not any(secret in answer.data.decode() for secret in (made["key"], rotated["key"], "key_hash"))
    other = new_organization(guarded)
    theirs = ask(mine.url, "GET", "/api/audit", f"Bearer {token(other.organization_id, 'admin')}").json()["data"]
    assert {one["organization_id"] for one in theirs} == {other.organization_id}


def test_the_audit_trail_is_paged_and_what_is_no_question_is_refused(mine: Stack) -> None:
    admin = f"Bearer {key_of(mine, 'admin')}"
    key_of(mine, "query")

    def pages(path: str) -> Iterator[list[int]]:
        cursor: str | None = ""
        while cursor is not None:
            answer = ask(mine.url, "GET", f"{path}{cursor and f'&cursor={cursor}'}", admin).json()
            yield [one["id"] for one in answer["data"]]
            cursor = answer["next_cursor"]

    [whole] = pages("/api/audit?limit=500")
    assert whole == sorted(whole, reverse=True)
    assert len(whole) == 4, "the organisation and three keys"
    assert [len(page) for page in pages("/api/audit?limit=3")] == [3, 1]
    assert [number for page in pages("/api/audit?limit=1&since=2025-01-01") for number in page] == whole
    for wrong, words in {
        "action=keys": "there is no action 'keys'", "limit=0": "limit=0", "limit=501": "1 to 500", "since=x": "since=x",
        "until=2025-09-05T10:00": "until=", "cursor=x": "cursor=x", "actor=a%00b": "actor",
    }.items():  # fmt: skip
        answer = ask(mine.url, "GET", f"/api/audit?{wrong}", admin)
        assert (answer.status, answer.json()["code"]) == (422, "invalid_query"), wrong
        assert words in answer.json()["detail"]


def test_a_subject_that_postgresql_cannot_hold_is_no_failure(mine: Stack) -> None:
    odd = f"Bearer {token(mine.organization_id, 'admin', sub='a' + chr(0) + 'b')}"
    assert ask(mine.url, "POST", "/api/keys", odd, {"name": "k"}).status == 201
    [made] = ask(mine.url, "GET", "/api/audit?actor=a%3Fb", odd).json()["data"]
    assert made["action"] == "key.create"


def test_keys_over_http_from_birth_to_end(mine: Stack) -> None:
    admin = f"Bearer {key_of(mine, 'admin')}"
    made = ask(mine.url, "POST", "/api/keys", admin, {"name": "writer", "scopes": ["ingest"]})
    assert made.status == 201
    first = made.json()
    use = ("POST", "/api/metrics/commands")
    assert ask(mine.url, *use, f"Bearer {first['key']}", COMMAND).status == 202
    rotated = ask(mine.url, "POST", f"/api/keys/{first['id']}/rotate", admin, {"overlap_s": 2}).json()
    assert (rotated["name"], rotated["scopes"], rotated["old_id"]) == ("writer", ["ingest"], first["id"])
    assert ask(mine.url, *use, f"Bearer {rotated['key']}", COMMAND).status == 202
    assert ask(mine.url, *use, f"Bearer {first['key']}", COMMAND).status == 202, "the old one goes on meanwhile"
    again = ask(mine.url, "POST", f"/api/keys/{first['id']}/rotate", admin)
    assert (again.status, rotated["id"] in again.json()["detail"]) == (400, True)
    wait_until(lambda: ask(mine.url, *use, f"Bearer {first['key']}", COMMAND).status == 401, "the old key's end", 20)
    listed = {key["id"]: key for key in ask(mine.url, "GET", "/api/keys", admin).json()["keys"]}
    assert listed[first["id"]]["replaced_by"] == rotated["id"]
    assert listed[rotated["id"]]["last_used_at"] is not None
    assert "hash" not in json.dumps(list(listed.values()))
    assert ask(mine.url, "DELETE", f"/api/keys/{rotated['id']}", admin).status == 204
    wait_until(lambda: ask(mine.url, *use, f"Bearer {rotated['key']}", COMMAND).status == 401, "its end too", 20)
    assert ask(mine.url, "DELETE", f"/api/keys/{rotated['id']}", admin).status == 404


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "name"), ({"name": ""}, "name"), ({"name": "x" * 201}, "name"), ({"name": "a\0b"}, "name"),
        ({"name": "x", "scopes": []}, "scopes"), ({"name": "x", "scopes": ["root"]}, "root"),
        ({"name": "x", "expires_at": "2020-01-01T00:00:00Z"}, "is over"),
        ({"name": "x", "expires_at": "soon"}, "expires_at"),
        ({"name": "x", "expires_at": "2999-01-01T00:00:00"}, "expires_at"),
        ({"name": "x", "organization_id": "y"}, "organization_id"),
    ],
)  # fmt: skip
def test_keys_that_cannot_be_made(mine: Stack, body: Any, words: str) -> None:
    answer = ask(mine.url, "POST", "/api/keys", f"Bearer {key_of(mine, 'admin')}", body)
    assert (answer.status, answer.json()["code"]) == (400, "bad_request")
    assert words in answer.json()["detail"]


@pytest.mark.parametrize("body", [b"{", b'{"name":"\xff"}'])
def test_a_key_asked_for_in_what_is_no_json_is_refused(mine: Stack, body: bytes) -> None:
    headers = {"authorization": f"Bearer {key_of(mine, 'admin')}"}
    answer = HTTP.request("POST", f"{mine.url}/api/keys", body=body, headers=headers)
    assert (answer.status, answer.json()["code"]) == (400, "bad_json")


def test_nobody_touches_another_organisation_s_keys(mine: Stack, guarded: RunningStack) -> None:
    other = new_organization(guarded)
    admin = f"Bearer {token(mine.organization_id, 'admin')}"
    with guarded.connect(None) as connection:
        [theirs] = [str(key.id) for key in list_keys(connection) if key.organization == name_of(other)]
    assert theirs not in ask(mine.url, "GET", "/api/keys", admin).data.decode()
    for method, path in (("DELETE", f"/api/keys/{theirs}"), ("POST", f"/api/keys/{theirs}/rotate"),
                         ("DELETE", "/api/keys/%00"), ("DELETE", "/api/keys/x'--")):  # fmt: skip
        assert ask(mine.url, method, path, admin).status == 404
    assert ask(mine.url, "GET", "/api/catalog", f"Bearer {other.key}").status == 200


def test_an_expired_key_ends_on_time_though_it_is_remembered(mine: Stack) -> None:
    with mine.running.connect(None) as connection:
        row = connection.execute("SELECT now() + interval '2 seconds'").fetchone()
    assert row is not None
    key = key_of(mine, "query", expires_at=row[0])
    assert ask(mine.url, "GET", "/api/catalog", f"Bearer {key}").status == 200
    wait_until(lambda: ask(mine.url, "GET", "/api/catalog", f"Bearer {key}").status == 401, "the key's end", 20)


def test_a_rotated_key_lives_as_long_as_the_old_one_was_to(mine: Stack) -> None:
    with mine.running.connect(None) as connection:
        row = connection.execute("SELECT now() + interval '90 days'").fetchone()
        assert row is not None
        create_key(connection, mine.organization_id, "ninety", ("query",), row[0])
        [old] = [key for key in list_keys(connection) if key.name == "ninety"]
        made = rotate_key(connection, str(old.id))
    assert made.expires_at is not None
    assert made.old_expires_at is not None
    assert abs((made.expires_at - old.expires_at).total_seconds()) < 60
    assert 23 * 3600 < (made.old_expires_at - old.created_at).total_seconds() < 25 * 3600


@pytest.fixture
def second_process(guarded: RunningStack, tmp_path: Path) -> Iterator[str]:
    with second_api(guarded, tmp_path) as url:
        yield url


def test_a_key_revoked_over_one_process_ends_in_the_other(mine: Stack, second_process: str) -> None:
    admin = f"Bearer {key_of(mine, 'admin')}"
    made = ask(mine.url, "POST", "/api/keys", admin, {"name": "short"}).json()
    key = f"Bearer {made['key']}"
    assert [ask(url, "GET", "/api/catalog", key).status for url in (mine.url, second_process)] == [200, 200]
    assert ask(mine.url, "DELETE", f"/api/keys/{made['id']}", admin).status == 204
    for url in (mine.url, second_process):
        wait_until(lambda url=url: ask(url, "GET", "/api/catalog", key).status == 401, "the key's end", 20)  # type: ignore[misc]
