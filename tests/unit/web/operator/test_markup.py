"""HTML in which no text can be anything else."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from totalizer.web.operator.markup import document, h
from totalizer.web.operator.words import badge, duration, moment, number, prose, size


def test_texts_and_attributes_are_escaped() -> None:
    nasty = "<script>\"'&"
    safe = "&lt;script&gt;&quot;&#x27;&amp;"
    assert h("p", nasty, title=nasty) == f'<p title="{safe}">{safe}</p>'


def test_children_are_taken_as_they_come() -> None:
    assert h("p", "a", None, 1, ["b", (h("br"), 2.5)]) == "<p>a1b<br>2.5</p>"


def test_attributes_have_their_names() -> None:
    made = h("input", class_="x", data_live=True, for_="y", hidden=False, value=None, name="z")
    assert made == '<input class="x" data-live for="y" name="z">'


def test_a_page_is_a_document() -> None:
    head = '<head><meta charset="utf-8"><title>a</title></head>'
    whole = f'<!doctype html>\n<html lang="en">{head}<body><p>é</p></body></html>\n'
    assert document([h("title", "a")], [h("p", "é")]).decode() == whole


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (number(None), "—"), (number(0, "ms"), "0 ms"), (number(5.57, "ms"), "5.6 ms"), (number(1234567), "1,234,567"),
        (number(0.25, "part"), "25%"), (duration(None), "—"), (duration(0), "0 s"), (duration(0.024), "24 ms"),
        (duration(119), "119 s"), (duration(121), "2 min"), (duration(7300), "2.0 h"), (duration(200_000), "2.3 d"),
        (size(None), "—"), (size(999), "999 B"), (size(8200), "8.2 kB"), (size(5 * 10**12), "5.0 TB"),
        (moment(None), "—"), (badge("timed_out"), '<span class="badge bad">timed out</span>'),
    ],
)  # fmt: skip
def test_numbers_are_as_people_read_them(shown: str, text: str) -> None:
    assert shown == text


def test_moments_are_to_the_second() -> None:
    at = datetime(2026, 11, 22, 10, 5, 7, 123, tzinfo=UTC)
    assert moment(at) == '<time datetime="2026-11-22T10:05:07.000123+00:00">2026-11-22 10:05:07</time>'


def test_what_is_typed_is_code() -> None:
    assert h("p", prose("run `a < b` now")) == "<p>run <code>a &lt; b</code> now</p>"
