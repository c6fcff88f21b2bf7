"""Texts and JSON on their way into a COPY line."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from totalizer.collect.sanitise import (
    DANGEROUS_KEYS,
    JSON_DEPTH_MAX,
    decimal_column,
    escape,
    json_column,
    without_dangerous_keys,
)

CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
AWKWARD = st.sampled_from(["\\", "\n", "\r", "\t", "\\N", "\\.", "\\x41", "\\101", "\x08", "\x0b", "\x85", "\u2028"])
TEXTS = st.lists(AWKWARD | st.text(CHARACTERS, max_size=5)).map("".join)


def unescaped(column: str) -> str:
    """What PostgreSQL reads from a column of COPY's text format."""
    letters = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}

    def meaning(found: re.Match[str]) -> str:
        code = found[1]
        if re.fullmatch(r"[0-7]{1,3}", code):
            return chr(int(code, 8))
        if code[0] == "x" and len(code) > 1:
            return chr(int(code[1:], 16))
        return letters.get(code, code)

    assert column != "\\N", "this is null"
    return re.sub(r"\\([0-7]{1,3}|x[0-9a-fA-F]{1,2}|.)", meaning, column, flags=re.DOTALL)


@given(TEXTS)
def test_what_is_escaped_is_read_back(text: str) -> None:
    column = escape(text)
    assert not set("\t\n\r") & set(column)
    assert unescaped(column) == text


@pytest.mark.parametrize("text", ["\0", "a\0", "\0b", "a\\0\0"])
def test_nul_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="NUL"):
        escape(text)
    for value in ({"a": text}, {text: 1}, {"a": [{"b": [text]}]}):
        with pytest.raises(ValueError, match="NUL"):
            json_column(value)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
KEYS = st.sampled_from(sorted(DANGEROUS_KEYS)) | TEXTS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=20
)


def cleaned(value: Any) -> Any:
    """The same by other means."""
    text = json.dumps(value)
    return json.loads(text, object_pairs_hook=lambda pairs: {k: v for k, v in pairs if k not in DANGEROUS_KEYS})


@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_json_is_stored_as_it_was_but_for_dangerous_keys_at_any_depth(value: dict[str, Any]) -> None:
    column = json_column(value)
    assert not set("\t\n\r") & set(column)
    assert json.loads(unescaped(column)) == cleaned(value)
    if not any(key in json.dumps(value) for key in DANGEROUS_KEYS):
        assert json.loads(unescaped(column)) == value


def test_keys_that_only_resemble_dangerous_ones_stay() -> None:
    value = {"__proto": 1, "Constructor": 2, "x": "__proto__", "prototype ": 3}
    assert without_dangerous_keys(value) == value


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for level in range(depth - 1):
        value = {"a": value} if level % 2 else {"a": [value]}
    return value


def depth_of(value: Any) -> int:
    items = value.values() if isinstance(value, dict) else value
    return 1 + max((depth_of(item) for item in items if isinstance(item, dict | list)), default=0)


def test_the_depth_of_json_is_bounded() -> None:
    for depth in range(1, 60):
        value = nested(depth)
        if depth_of(value) <= JSON_DEPTH_MAX:
            json_column(value)
        else:
            with pytest.raises(ValueError, match=f"nested more than {JSON_DEPTH_MAX} deep"):
                json_column(value)


@pytest.mark.parametrize(
    ("value", "stored"),
    [("0", "0"), ("1.50", "1.50"), ("-1.5", "-1.5"), ("1E+3", "1000"), ("1e-2", "0.01"), ("9" * 30, "9" * 30),
     ("0.00", "0.00"), ("100", "100")],
)  # fmt: skip
def test_decimals_are_stored_in_plain_digits(value: str, stored: str) -> None:
    assert decimal_column(Decimal(value), 2, None, None) == stored


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("NaN", "NaN is not a number"), ("sNaN", "sNaN is not a number"), ("Infinity", "Infinity is not a number"),
        ("-Infinity", "-Infinity is not"), (f"NaN{'1' * 999}", "is not a number"),
        ("1e30", r"1E\+30 has more than 30 digits before"), ("1e999999999", r"1E\+999999999 has more than"),
        ("1" * 5000, "11 has more than 30 digits"), ("0.001", "0.001 has more than .* or 2 after the point"),
        ("1e-999999999", "1E-999999999 has more"), ("-0.01", "-0.01 is below 0"), ("10.01", "10.01 is above 10.0"),
    ],
)  # fmt: skip
def test_decimals_that_cannot_be_stored_exactly_are_refused(value: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        decimal_column(Decimal(value), 2, 0, 10.0)
    assert len(str(caught.value)) < 200


@given(st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**20), max_value=10**20))
def test_a_decimal_keeps_its_value(value: Decimal) -> None:
    column = decimal_column(value, 6, None, None)
    assert Decimal(column) == value
    assert re.fullmatch(r"-?\d+(\.\d{1,6})?", column)


def test_bounds_of_decimals_are_included() -> None:
    assert decimal_column(Decimal("0.1"), 2, 0.1, 0.1) == "0.1"
