"""`totalizer keys` as it is typed: expiry, rotation, what the list shows, and a start with wrong keys of tokens."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import urllib3

from support import Stack

HTTP = urllib3.PoolManager(retries=False, timeout=30)


def keys(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "totalizer", "keys", *arguments, "--home", str(stack.home)],
        capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "250"},
    )  # fmt: skip


def works(stack: Stack, key: str) -> bool:
    headers = {"authorization": f"Bearer {key}"}
    return bool(HTTP.request("GET", stack.url + "/api/catalog", headers=headers).status == 200)


def listed(stack: Stack, organization: str) -> list[list[str]]:
    """The rows of an organisation's keys: id, organisation, name, scopes, created, last used, state."""
    lines = keys(stack, "list").stdout.splitlines()
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if f"│ {organization} " in line]


@pytest.fixture
def organization(request: Any) -> str:
    return f"of {request.node.name}"[:40]


def test_a_key_s_life_at_the_command_line(stack: Stack, organization: str) -> None:
    first = keys(
        stack, "create", organization, "--name", "nightly", "--scope", "query", "--expires", "90d"
    ).stdout.strip()
    assert re.fullmatch(r"tz_[\w-]{43}", first)
    [[identity, _, name, scopes, _, used, state]] = listed(stack, organization)
    assert (name, scopes, used, state.startswith("live until ")) == ("nightly", "query", "never", True)
    assert works(stack, first)
    rotated = keys(stack, "rotate", identity, "--overlap", "1h")
    second = rotated.stdout.strip()
    assert "the old key ends at" in rotated.stderr
    assert works(stack, first)
    assert works(stack, second)
    again = keys(stack, "rotate", identity)
    assert (again.returncode, "was rotated before" in again.stderr) == (1, True)
    new_id = listed(stack, organization)[1][0]
    assert new_id in " ".join(again.stderr.split())
    assert keys(stack, "revoke", new_id).returncode == 0
    assert listed(stack, organization)[1][6].startswith("revoked ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("create", "x", "--scope", "root"), "no scope 'root'"),
        (("create", "x", "--expires", "yesterday"), "--expires yesterday"),
        (("create", "x", "--expires", "2020-01-01"), "that is over"),
        (("create", "x", "--expires", "0d"), "that is over"),
        (("rotate", "none", "--overlap", "soon"), "--overlap soon"),
        (("rotate", "none", "--overlap", "91d"), "at most 90d"),
        (("rotate", "none"), "no live key 'none'"),
        (("revoke", "none"), "no live key 'none'"),
    ],
)
def test_what_cannot_be_done_is_said(stack: Stack, arguments: tuple[str, ...], words: str) -> None:
    done = keys(stack, *arguments)
    assert done.returncode in (1, 2)
    assert words in " ".join(re.sub("[│╭╮╰╯─]", " ", done.stderr).split())


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("TOTALIZER_JWT_KEYS", "none.pem", "TOTALIZER_JWT_KEYS=none.pem: cannot be read"),
        ("TOTALIZER_JWT_KEYS", "http://issuer.example/keys", "use https"),
        ("TOTALIZER_JWT_SECRET", "tooshort", "TOTALIZER_JWT_SECRET"),
        ("RATE_LIMIT_MAX_REQUESTS", "-1", "RATE_LIMIT_MAX_REQUESTS"),
        ("RATE_LIMIT_WINDOW_MS", "10", "RATE_LIMIT_WINDOW_MS"),
    ],
)
def test_a_wrong_setting_stops_the_start(tmp_path: Path, setting: str, value: str, words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "totalizer", "serve", "--home", str(tmp_path)], cwd=tmp_path,
        capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, "DATABASE_URL": "postgresql://127.0.0.1:1/none", setting: value},
    )  # fmt: skip
    assert done.returncode == 1
    shown = " ".join(done.stderr.split())
    assert words in shown
    assert "tooshort" not in shown
