"""Numbers in a request's query string."""

from __future__ import annotations

import pytest

from totalizer.errors import Refused
from totalizer.web.numbers import whole_number


def test_what_is_not_given_is_as_usual_and_what_is_given_is_taken() -> None:
    assert [whole_number("limit", text, 50, 500) for text in (None, "1", "0500")] == [50, 1, 500]


@pytest.mark.parametrize("text", ["", "0", "501", "-1", "1.5", "²", "٣", "x", "9" * 5000])
def test_anything_else_is_refused_with_its_name_and_value(text: str) -> None:
    with pytest.raises(Refused) as refused:
        whole_number("limit", text, 50, 500)
    assert refused.value.detail == f"limit={text[:80]}: must be a whole number from 1 to 500"
