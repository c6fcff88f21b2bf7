"""Lines of COPY text, read back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from totalizer.collect.sanitise import escape
from totalizer.load.copy_text import values_of

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@given(st.lists(TEXTS, min_size=1))
def test_what_the_collector_escapes_comes_back(texts: list[str]) -> None:
    columns = [str(number) for number in range(len(texts))]
    line = "\t".join(map(escape, texts)).encode() + b"\n"
    assert values_of(columns, line) == dict(zip(columns, texts, strict=True))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"\\N", None), (b"\\\\N", "\\N"), (b"", ""), (b"\\b\\f\\n\\r\\t\\v", "\b\f\n\r\t\v"),
        (b"\\101\\x4a\\x4", "AJ\x04"),
        (b"\\7", "\x07"), (b"\\8\\q", "8q"), (b"\\xzz", "xzz"), (b"\xff", "\\xff"), (b"tail\\", "tail\\"),
    ],
)  # fmt: skip
def test_every_escape_of_the_format(field: bytes, value: str | None) -> None:
    assert values_of(["a"], field + b"\n") == {"a": value}


def test_a_line_with_another_number_of_values_has_none() -> None:
    assert values_of(["a"], b"1\t2\n") is None
    assert values_of(["a", "b"], b"nonsense\n") is None
