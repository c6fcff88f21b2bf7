"""Secrets are in no answer and no line of a log, whichever way they came in."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from uuid import uuid4

import pytest

from serving import COMMAND, SINGLE, served
from support import Stack, free_port

#: Each in the form that a careless program would send it in.
SECRETS = {
    "key": "tz_SeCrEtKeY0123456789abcdefghijklmnopqrstuvwxyzAB",
    "token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJTZUNyRXRUb2tlbiJ9.U2VDckV0U2lnbmF0dXJlMDEyMzQ1Njc4OQ",
    "password": "SeCrEtPassw0rd",
    "dsn": "postgresql://someone:SeCrEtDsnPw@db.example:5432/x",
}
PLANTED = ("SeCrEt", "U2VDckV0", "eyJzdWIiOiJTZUN")


def leaks(text: str) -> list[str]:
    """What of the planted stands in a text, with what is around it."""
    return [text[max(0, at.start() - 80) : at.end() + 40] for at in re.finditer("|".join(PLANTED), text)]


def ask(url: str, path: str, method: str, headers: dict[str, str], body: bytes | None) -> str:
    """An answer: status, headers and body in one text."""
    request = urllib.request.Request(url + path, body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return f"{answer.status} {answer.headers} {answer.read().decode(errors='replace')}"
    except urllib.error.HTTPError as error:
        return f"{error.code} {error.headers} {error.read().decode(errors='replace')}"


def requests(key: str) -> list[tuple[str, str, dict[str, str], bytes | None]]:
    """Requests with a secret in each place that is not meant to be told back."""
    made: list[tuple[str, str, dict[str, str], bytes | None]] = []
    for secret in SECRETS.values():
        basic = base64.b64encode(f"{secret}:{secret}".encode()).decode()
        for authorization in (f"Bearer {secret}", f"Basic {basic}", secret, f"Digest {secret}"):
            for method, path in (("POST", SINGLE), ("GET", "/api/keys"), ("GET", "/api/metrics/aggregated")):
                body = json.dumps(COMMAND).encode() if method == "POST" else None
                made.append((path, method, {"authorization": authorization, "content-type": "application/json"}, body))
        good = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        made.append((SINGLE, "POST", {**good, "x-api-key": secret, "cookie": f"session={secret}"}, b"{}"))
        made.append((SINGLE, "POST", good, json.dumps({**COMMAND, "password": secret, "api_key": secret}).encode()))
        made.append((SINGLE, "POST", {**good, "x-request-id": f"{secret} \t/"}, json.dumps(COMMAND).encode()))
        made.append((f"/api/metrics/aggregated?access_token={urllib.parse.quote(secret)}", "GET", good, None))
        made.append(("/metrics", "GET", {"authorization": f"Bearer {secret}"}, None))
    return made


def test_neither_answers_nor_logs_hold_what_was_sent_as_a_secret(stack: Stack, tmp_path: Path) -> None:
    told = ""
    settings = {"LOG_LEVEL": "debug", "LOG_FORMAT": "json", "TOTALIZER_METRICS_TOKEN": "SeCrEtMetricsToken"}
    with served(stack.running, tmp_path, TOTALIZER_JWT_SECRET="SeCrEtJwt" * 4, **settings) as api:
        url = f"http://{api.host}:{api.port}"
        for path, method, headers, body in requests(stack.key):
            answer = ask(url, path, method, headers, body)
            assert leaks(answer) == [], (path, headers)
            told += answer
        own = ask(url, "/api/keys", "POST", {"authorization": f"Bearer {stack.key}"}, b'{"name": "x"}')
        assert stack.key not in own
    log = api.log_path.read_text()
    assert leaks(log) == []
    assert stack.key not in log + told
    assert (stack.home / "secret").read_text().strip() not in log + told
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert sum(line["event"] == "request answered" for line in lines) >= len(requests(stack.key))


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DATABASE_URL", "postgresql://someone:SeCrEtPw@127.0.0.1:1/x"),
        ("DATABASE_URL", "postgresql://someone:SeCrEt%zz@127.0.0.1:99999999/x"),
        ("DATABASE_URL", "host=127.0.0.1 password='SeCrEt"),
        ("REDIS_URL", "redis://:SeCrEtPw@127.0.0.1:1/0"),
        ("TOTALIZER_JWT_SECRET", "SeCrEt"),
        ("DB_PASSWORD", "SeCrEtPw"),
    ],
)
@pytest.mark.parametrize("command", [("load",), ("--debug", "migrate")])
def test_no_command_tells_a_secret_of_its_settings(
    tmp_path: Path, variable: str, value: str, command: tuple[str, ...]
) -> None:
    environment = {
        **os.environ, "TOTALIZER_HOME": str(tmp_path), "TOTALIZER_SECRET": "SeCrEtInstallation",
        "DB_HOST": "127.0.0.1", "DB_PORT": str(free_port()), "PGCONNECT_TIMEOUT": "2", "LOG_LEVEL": "debug",
        variable: value,
    }  # fmt: skip
    if command == ("load",) and variable in ("REDIS_URL", "DB_PASSWORD"):
        pytest.skip("it waits for its database, as with any other")
    process = subprocess.Popen(
        [sys.executable, "-m", "totalizer", *command],
        env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=8)
    except subprocess.TimeoutExpired:
        process.terminate()  # a loader waits for its database
        output, _ = process.communicate(timeout=30)
    assert output
    assert leaks(output) == []


def test_a_request_id_is_taken_over_if_it_is_one_and_made_if_not(stack: Stack) -> None:
    good = {"authorization": f"Bearer {stack.key}", "content-type": "application/json"}

    def given(path: str, method: str, **headers: str) -> str:
        body = json.dumps({"id": str(uuid4()), **COMMAND}).encode() if method == "POST" else None
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = ask(stack.url, path, method, {**good, **named}, body)
        found = re.findall(r"(?im)^x-request-id: (.*)$", answer)
        assert len(found) == 1, answer
        return str(found[0]).strip()

    for path, method in ((SINGLE, "POST"), ("/health/live", "GET"), ("/nowhere", "GET"), ("/", "GET")):
        assert given(path, method, x_request_id="order:17_a.b-c") == "order:17_a.b-c"
        made = {given(path, method), given(path, method), given(path, method, x_request_id="a b")}
        made |= {given(path, method, x_request_id="x" * 129), given(path, method, x_request_id='{"a":1}')}
        assert len(made) == 5, "each is another"
        assert all(re.fullmatch(r"[0-9a-f]{12}-[0-9a-f]+", each) for each in made)
    refused = ask(stack.url, SINGLE, "POST", {"x-request-id": "who-am-i"}, b"{}")
    assert refused.startswith("401")
    assert "who-am-i" in refused
