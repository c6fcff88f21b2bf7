"""Lines out of files: bounded, unpacked, numbered as a person counts them, however the bytes arrive."""

from __future__ import annotations

import gzip
import json
import os
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from totalizer.ops.importers import reading
from totalizer.ops.importers.json_array import ArraySplitter
from totalizer.ops.importers.reading import Input, LineSplitter, Splitter, chunks_of, source_name, split
from totalizer.ops.importers.source import Line


def lines_in(path: Path) -> list[Line]:
    return lines_of(Input(str(path)).chunks(), LineSplitter())


def lines_of(chunks: Iterator[bytes | None], splitter: Splitter) -> list[Line]:
    return [line for line in split(chunks, splitter) if line is not None]


def cut(content: bytes, places: list[int]) -> Iterator[bytes]:
    """The content in chunks cut at these places."""
    edges = sorted({min(place, len(content)) for place in places} | {0, len(content)})
    yield from (content[start:end] for start, end in pairwise(edges))


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("access.log", "access.log"),
        ("access.log.1", "access.log"),
        ("access.log.12.gz", "access.log"),
        ("access.log-20250101", "access.log"),
        ("access.log-20250101-1735689600.gz", "access.log"),
        ("access.log.2025-01-01.gz", "access.log"),
        ("events-2025.ndjson", "events-2025.ndjson"),
        (".1", ".1"),
        ("-", "stdin"),
    ],
)
def test_rotation_does_not_change_the_source(file: str, name: Any) -> None:
    assert source_name(file) == name


def test_blank_lines_and_carriage_returns_do_not_change_numbers(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"\xef\xbb\xbfone\r\n\n  \nfour\nfive")

    assert [(line.number, line.raw, line.whole) for line in lines_in(file)] == [
        (1, b"one", True), (4, b"four", True), (5, b"five", False),
    ]  # fmt: skip


def test_a_line_that_is_too_long_is_cut_and_the_next_is_read(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"a\n" + b"x" * (3 * reading.LINE_BYTES_MAX) + b"\nb\n")

    first, long, last = lines_in(file)

    assert (first.raw, last.raw, last.number) == (b"a", b"b", 3)
    assert "longer than" in long.damage
    assert len(long.raw) == reading.KEPT_BYTES


def test_gzip_of_several_members_is_one_text(tmp_path: Path) -> None:
    file = tmp_path / "f.anything"
    file.write_bytes(gzip.compress(b"one\ntw") + gzip.compress(b"o\n") + b"\0" * 20)

    assert [line.raw for line in lines_in(file)] == [b"one", b"two"]


def test_gzip_cut_short_gives_what_is_there_and_says_so(tmp_path: Path) -> None:
    file = tmp_path / "f.gz"
    file.write_bytes(gzip.compress(b"".join(b"line %d\n" % n for n in range(5000)))[:-20])

    *good, last = lines_in(file)

    assert good[0].raw == b"line 0"
    assert all(line.damage is None for line in good)
    assert "ends too early" in last.damage
    assert not last.whole


def test_gzip_damaged_in_the_middle_says_so(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(os.urandom(100_000).hex("\n").encode()))
    content[50_000:50_010] = b"\xff" * 10
    file = tmp_path / "f.gz"
    file.write_bytes(content)

    assert "damaged" in lines_in(file)[-1].damage


def test_a_gzip_bomb_takes_no_memory(tmp_path: Path) -> None:
    file = tmp_path / "bomb.gz"
    with gzip.open(file, "wb") as stream:
        for _ in range(100):
            stream.write(b"\0" * 1_000_000)
    tracemalloc.start()
    try:
        [line] = lines_in(file)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert "longer than" in line.damage
    assert peak < 20_000_000


def test_a_pipe_without_input_says_so_and_goes_on() -> None:
    source, target = os.pipe()
    chunks = chunks_of(source)
    try:
        assert next(chunks) is None
        os.write(target, b"late\n")
        os.close(target)
        assert next(chunk for chunk in chunks if chunk is not None) == b"late\n"
        assert [chunk for chunk in chunks if chunk is not None] == []
    finally:
        os.close(source)


@given(
    st.lists(st.binary(max_size=20).map(lambda raw: raw.replace(b"\n", b"")), max_size=20),
    st.lists(st.integers(0, 400)),
)
def test_lines_do_not_depend_on_how_bytes_arrive(texts: Any, places: list[int]) -> None:
    content = b"".join(text + b"\n" for text in texts)

    found = [(line.number, line.raw) for line in lines_of(cut(content, places), LineSplitter())]

    expected = [(n, text.rstrip(b"\r")) for n, text in enumerate(texts, start=1) if text.rstrip(b"\r").strip()]
    assert found == expected


#: Texts full of what an array is made of, so that a cut often falls into an escape.
TEXT = st.text(st.sampled_from('"\\[]{},aé') | st.characters(), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(JSON, max_size=8), st.sampled_from([None, 1]), st.booleans(), st.lists(st.integers(0, 600)))
def test_array_elements_do_not_depend_on_how_bytes_arrive(
    values: Any, indent: Any, ascii_only: Any, places: list[int]
) -> None:
    content = b" \n" + json.dumps(values, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "replace") + b"\n "

    found = lines_of(cut(content, places), ArraySplitter())

    assert all(line.damage is None and line.whole for line in found)
    assert [json.loads(line.raw) for line in found] == json.loads(content)
    assert [line.number for line in found] == list(range(1, len(values) + 1))


def test_an_escape_may_be_cut_anywhere() -> None:
    values = ['a"]', "\\", '\\"],["', {'"': ["]"]}]
    content = json.dumps(values).encode()

    for place in range(len(content)):
        assert [json.loads(line.raw) for line in lines_of(cut(content, [place]), ArraySplitter())] == values
    assert len(lines_of(cut(content, list(range(len(content)))), ArraySplitter())) == len(values)


@pytest.mark.parametrize(
    ("text", "elements", "damage"),
    [
        (b"[1,2", [b"1"], "without ]"),
        (b"[", [], "without ]"),
        (b"[1] 2", [b"1"], "after the end"),
        (b'[{"a":"]', [], "without ]"),
    ],
)
def test_a_damaged_array_gives_what_is_there_and_says_so(text: bytes, elements: Any, damage: Any) -> None:
    *good, last = lines_of(iter([text]), ArraySplitter())

    assert [line.raw for line in good] == elements
    assert damage in last.damage
    assert not last.whole


def test_brackets_that_do_not_match_spoil_one_element() -> None:
    assert [line.raw for line in lines_of(iter([b"[1,{]},3]"]), ArraySplitter())] == [b"1", b"{]}", b"3"]


def test_empty_elements_are_lines_of_their_own() -> None:
    assert [line.raw for line in lines_of(iter([b"[1,,2,]"]), ArraySplitter())] == [b"1", b"", b"2", b""]


def test_an_element_that_is_too_long_is_cut_and_the_next_is_read() -> None:
    long = b'"' + b"x" * (2 * reading.LINE_BYTES_MAX) + b'"'
    content = b"[1," + long + b",3]"

    first, second, third = lines_of(cut(content, list(range(0, len(content), 100_000))), ArraySplitter())

    assert (first.raw, third.raw) == (b"1", b"3")
    assert "longer than" in second.damage
    assert len(second.raw) == reading.KEPT_BYTES
