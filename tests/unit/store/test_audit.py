"""Who is at work, as the database is told, and entries of the audit trail in words."""

from __future__ import annotations

import json
import os
import pwd

import pytest

from totalizer.store.audit import ACTIONS, Actor, command_line, os_user, problem
from totalizer.store.audit_words import VALUE_LENGTH_MAX, what, who


def test_the_user_is_the_operating_system_s_and_not_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "somebody else")
    assert command_line() == Actor("command_line", pwd.getpwuid(os.geteuid()).pw_name)


def test_a_user_without_a_name_is_told_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 3_999_999_999)
    assert os_user() == "uid 3999999999"


def test_an_id_that_postgresql_cannot_hold_is_replaced() -> None:
    assert json.loads(Actor("token", "a\0b\ud800c", "admin").setting) == {
        "kind": "token", "id": "a?b?c", "role": "admin",
    }  # fmt: skip
    assert json.loads(Actor("token", None, "admin").setting) == {"kind": "token", "role": "admin"}


@pytest.mark.parametrize("action", ["key", "key.revoke", "dead_letter", "alert.silence"])
def test_actions_are_found_by_name_or_by_what_they_are_done_to(action: str) -> None:
    assert problem(action) is None


@pytest.mark.parametrize("action", ["", "revoke", "key.", "key.revoked", "%"])
def test_what_is_no_action_is_told_with_those_there_are(action: str) -> None:
    told = problem(action)
    assert told is not None
    assert all(name in told for name in (repr(action), *ACTIONS))


@pytest.mark.parametrize(
    ("actor", "words"),
    [
        ({"kind": "api_key", "id": "2d8f0c1e-55d6", "name": "nightly"}, "API key nightly (2d8f0c1e…)"),
        ({"kind": "api_key", "id": "2d8f0c1e-55d6"}, "API key 2d8f0c1e-55d6"),
        ({"kind": "token", "id": "jane", "role": "admin"}, "token jane (admin)"),
        ({"kind": "token", "role": "admin"}, "token (admin)"),
        ({"kind": "command_line", "id": "root"}, "command line root"),
        ({"kind": "database", "id": "postgres"}, "database role postgres"),
    ],
)
def test_who(actor: dict[str, str], words: str) -> None:
    assert who(actor) == words


def test_what_is_changed_is_told_and_nothing_else() -> None:
    row = {"id": 1, "name": "nightly", "scopes": ["query"], "revoked_at": None}
    assert what(row, {**row, "revoked_at": "2025-09-05"}) == "revoked_at: null → 2025-09-05"
    assert what(None, row) == 'name: nightly, scopes: ["query"]'
    assert what(row, None) == 'gone: name: nightly, scopes: ["query"]'
    assert what(None, None) == ""


def test_long_values_are_cut() -> None:
    told = what(None, {"definition": {"fields": ["x" * 500]}})
    assert (len(told), told[-1]) == (len("definition: ") + VALUE_LENGTH_MAX, "…")
