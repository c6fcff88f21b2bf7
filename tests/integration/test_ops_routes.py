"""The operator's page without a browser: its headers, its cookie, its forms, on a running stack."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlencode

import pytest
import urllib3

from support import RunningStack, Stack, wait_until
from totalizer.store.keys import create_key

HTTP = urllib3.PoolManager(retries=False, timeout=30)


class Visitor:
    """Somebody who keeps cookies and follows nothing."""

    def __init__(self, stack: Stack, scope: str = "admin") -> None:
        self.url = stack.url
        self.cookies: dict[str, str] = {}
        with stack.running.connect(None) as connection:
            self.key = create_key(connection, stack.organization_id, scope, scopes=(scope,))

    def get(self, path: str = "/ops", **headers: str) -> Any:
        return self._ask("GET", path, headers, None)

    def post(self, path: str, _headers: dict[str, str] | None = None, **fields: str) -> Any:
        form = {"content-type": "application/x-www-form-urlencoded"}
        return self._ask("POST", path, {**form, **(_headers or {})}, urlencode(fields))

    def token(self) -> str:
        found = re.search(r'name="token" value="([0-9a-f]{64})"', self.get().data.decode())
        assert found is not None
        return found[1]

    def sign_in(self) -> Any:
        return self.post("/ops/sign-in", token=self.token(), credential=self.key)

    def _ask(self, method: str, path: str, headers: dict[str, str], body: str | None) -> Any:
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        answer = HTTP.request(
            method, self.url + path, body=body, headers={**headers, "cookie": cookie}, redirect=False
        )  # fmt: skip
        for set_cookie in answer.headers.getlist("set-cookie"):
            name, _, value = set_cookie.partition(";")[0].partition("=")
            self.cookies[name] = value.strip('"')
        return answer


@pytest.fixture
def visitor(stack: Stack) -> Visitor:
    return Visitor(stack)


def test_every_answer_has_its_headers(visitor: Visitor) -> None:
    visitor.sign_in()
    answers = [
        visitor.get(), visitor.get("/ops/ops.js"), visitor.get("/ops/ops.css"), visitor.get("/ops/lag.json"),
        visitor.post("/ops/jobs/verify/run"), visitor.post("/ops/sign-out", token=visitor.token()), visitor.get(),
    ]  # fmt: skip
    assert [answer.status for answer in answers] == [200, 200, 200, 200, 403, 303, 200]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
    assert answers[0].headers["cache-control"] == "no-store"
    page = answers[0].data.decode()
    assert not re.search(r"<script(?! src=)|<style| style=| on[a-z]+=", page)


def test_the_cookie_is_the_browsers_alone(visitor: Visitor) -> None:
    answer = visitor.sign_in()
    assert (answer.status, answer.headers["location"]) == (303, "/ops")
    [cookie] = [one for one in answer.headers.getlist("set-cookie") if one.startswith("totalizer_ops=")]
    words = {word.strip().lower() for word in cookie.split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/ops"} <= words
    [age] = [int(word.partition("=")[2]) for word in words if word.startswith("max-age=")]
    assert 3500 < age <= 3600
    assert "secure" not in words
    assert visitor.key not in cookie
    answer = visitor.post("/ops/sign-in", {"x-forwarded-proto": "https"}, token="", credential=visitor.key)
    assert "secure" in answer.headers["set-cookie"].lower()


def test_forms_of_others_do_nothing(visitor: Visitor, stack: Stack) -> None:
    visitor.sign_in()
    token = visitor.token()
    other = Visitor(stack)
    other.sign_in()
    run = "/ops/jobs/check_zones/run"
    assert visitor.post(run).status == 403
    assert visitor.post(run, token=other.token()).status == 403
    assert visitor.post(run, {"sec-fetch-site": "cross-site"}, token=token).status == 403
    assert visitor.post(run, {"sec-fetch-site": "same-origin"}, token=token).status == 303
    assert Visitor(stack).post("/ops/sign-in", credential=visitor.key).status == 403
    visitor.cookies.clear()
    answer = visitor.post(run, token=token)
    assert (answer.status, answer.headers["location"]) == (303, "/ops")


def test_who_may_only_read_changes_nothing(stack: Stack) -> None:
    reader = Visitor(stack, "quarantine")
    reader.sign_in()
    page = reader.get().data.decode()
    assert "Run now" not in page
    assert 'id="changes"' not in page, "who changed what is for administrators"
    for path in (
        "jobs/verify/run",
        "alerts/silence",
        "alerts/silences/1/end",
        "quarantine/1/retry",
        "quarantine/1/drop",
    ):
        answer = reader.post(f"/ops/{path}", token=reader.token(), rule="memory", for_s="3600")
        assert answer.status == 403, path
        assert b"you may not" in answer.data.lower()


@pytest.mark.parametrize("scope", ["ingest", "query", "export"])
def test_others_are_told_who_may(stack: Stack, scope: str) -> None:
    visitor = Visitor(stack, scope)
    answer = visitor.sign_in()
    assert answer.status == 403
    assert b"may not jobs_read" in answer.data
    assert b"totalizer keys create default --name operator --scope admin" in answer.data
    assert "totalizer_ops" not in visitor.cookies
    assert visitor.get("/ops/lag.json").status == 401


def test_alerts_are_silenced_and_told_again(visitor: Visitor, running_stack: RunningStack) -> None:
    visitor.sign_in()
    fields = {"token": visitor.token(), "rule": "memory", "for_s": "3600", "reason": "a <b>test</b>"}
    assert visitor.post("/ops/alerts/silence", **{**fields, "for_s": "for ever"}).status == 400
    assert visitor.post("/ops/alerts/silence", **fields).status == 303
    page = visitor.get().data.decode()
    assert "a &lt;b&gt;test&lt;/b&gt;" in page
    [changed] = re.findall(r'<div id="changed".*?</div>', page, re.DOTALL)
    assert "alert.silence" in changed
    assert "API key admin (" in changed
    [number] = re.findall(r"a &lt;b&gt;test&lt;/b&gt;.*?/ops/alerts/silences/(\d+)/end", page, re.DOTALL)
    assert visitor.post(f"/ops/alerts/silences/{number}/end", token=visitor.token()).status == 303
    assert f"silences/{number}/" not in visitor.get().data.decode()
    assert visitor.post(f"/ops/alerts/silences/{number}/end", token=visitor.token()).status == 404


def test_what_is_not_there_is_said_to_be_so(visitor: Visitor) -> None:
    visitor.sign_in()
    token = visitor.token()
    for path in ("quarantine/999999999/retry", "quarantine/999999999/drop", "jobs/nonsense/run", "jobs/a%00b/run"):
        answer = visitor.post(f"/ops/{path}", token=token)
        assert (answer.status, answer.headers["content-type"]) == (404, "text/html; charset=utf-8"), path
    for path in ("?job=a%00b", "?job=nonsense", "?said=x&of=y"):
        assert visitor.get(f"/ops{path}").status == 200, path


def test_the_chart_library_is_kept_and_asked_for_by_its_tag(visitor: Visitor, stack: Stack) -> None:
    first = visitor.get("/ops/vega.js")
    assert first.status == 200
    assert b"vegaEmbed" in first.data
    again = visitor.get("/ops/vega.js", **{"if-none-match": first.headers["etag"]})
    assert (again.status, again.data) == (304, b"")
    assert list((stack.home / "monitor").glob("charts-*.js.gz"))


def test_what_waited_is_kept_for_the_chart(visitor: Visitor) -> None:
    visitor.sign_in()
    wait_until(lambda: len(visitor.get("/ops/lag.json").json()["samples"]) >= 1, "a sample")
    [first, *_] = visitor.get("/ops/lag.json").json()["samples"]
    assert set(first) == {"at", "journal_bytes", "load_s", "rollup_s"}
