"""Problem documents."""

from __future__ import annotations

import json
from typing import Any

import pytest

from totalizer.errors import STATUS_OF, Refusal, Refused
from totalizer.web.problem import MEDIA_TYPE, response


def parts(refused: Refused) -> tuple[int, dict[str, str], dict[str, Any]]:
    status, headers, body = response(refused)
    return status, dict(headers), json.loads(body)


@pytest.mark.parametrize("refusal", Refusal)
def test_every_refusal_is_a_problem_document(refusal: Refusal) -> None:
    status, headers, document = parts(Refused(refusal, "what was wrong: 'x'"))
    assert status == document["status"] == STATUS_OF[refusal]
    assert headers["content-type"] == MEDIA_TYPE == "application/problem+json"
    assert document["type"] == "about:blank"
    assert document["code"] == refusal.value
    assert document["detail"] == "what was wrong: 'x'"
    assert document["title"]
    assert ("www-authenticate" in headers) == (status == 401)
    assert "retry-after" not in headers


def test_when_to_try_again_and_answers_per_item_are_passed_on() -> None:
    _, headers, document = parts(
        Refused(Refusal.JOURNAL_FULL, "full", retry_after_s=5, rejected=1, items=[{"index": 0}])
    )
    assert headers["retry-after"] == "5"
    assert (document["rejected"], document["items"]) == (1, [{"index": 0}])


def test_any_character_may_stand_in_a_detail() -> None:
    detail = 'ü \0 \n " \u2028 \\'
    assert parts(Refused(Refusal.BAD_JSON, detail))[2]["detail"] == detail
