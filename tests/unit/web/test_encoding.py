"""Compressed bodies: unpacked to what a body may have and no further, and never a crash."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from totalizer.errors import Refusal, Refused
from totalizer.web.encoding import MEMBERS_MAX, check_encoding, gunzip


@pytest.mark.parametrize("encoding", ["gzip", "GZip", " x-gzip "])
def test_gzip_is_unpacked(encoding: str) -> None:
    assert check_encoding(encoding) is True


@pytest.mark.parametrize("encoding", [None, "", "identity", "Identity"])
def test_plain_bodies_are_not(encoding: str | None) -> None:
    assert check_encoding(encoding) is False


@pytest.mark.parametrize("encoding", ["br", "deflate", "zstd", "gzip, gzip", "gzip;q=1", "x" * 5000])
def test_other_encodings_are_refused_by_name(encoding: str) -> None:
    with pytest.raises(Refused, match="send gzip") as caught:
        check_encoding(encoding)
    assert caught.value.refusal is Refusal.UNSUPPORTED_MEDIA_TYPE
    assert caught.value.status == 415
    assert encoding[:80] in caught.value.detail
    assert len(caught.value.detail) < 300


@given(st.binary(max_size=500), st.integers(0, 9))
def test_what_was_packed_comes_out(data: bytes, level: int) -> None:
    assert gunzip(gzip.compress(data, level), 500) == data


def test_several_members_are_one_body() -> None:
    assert gunzip(gzip.compress(b"abc") + gzip.compress(b"") + gzip.compress(b"def"), 6) == b"abcdef"


@pytest.mark.parametrize("size", [101, 5000, 1_000_000])
def test_a_body_that_unpacks_to_too_much_is_too_large(size: int) -> None:
    with pytest.raises(Refused, match="unpacks to more than 100 bytes") as caught:
        gunzip(gzip.compress(b"x" * size), 100)
    assert caught.value.refusal is Refusal.BODY_TOO_LARGE


def test_the_members_are_counted_together() -> None:
    with pytest.raises(Refused, match="unpacks to more than 100 bytes"):
        gunzip(gzip.compress(b"x" * 60) + gzip.compress(b"x" * 41), 100)
    assert len(gunzip(gzip.compress(b"x" * 60) + gzip.compress(b"x" * 40), 100)) == 100


def test_a_bomb_takes_no_more_memory_than_a_body() -> None:
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(b"\0" * (1 << 20)) for _ in range(500)) + packer.flush()
    assert len(bomb) < 1 << 20
    tracemalloc.start()
    try:
        with pytest.raises(Refused, match="unpacks to more"):
            gunzip(bomb, 1 << 20)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


def test_a_row_of_empty_members_is_no_way_to_keep_us_busy() -> None:
    with pytest.raises(Refused, match=f"more than {MEMBERS_MAX} members"):
        gunzip(gzip.compress(b"") * 100_000, 100)


def damaged() -> list[bytes]:
    whole = gzip.compress(b'{"time_entries": []}')
    flipped = bytearray(whole)
    flipped[-6] ^= 1
    return [b"", b"{}", whole[:1], whole[:-1], whole[:12], bytes(flipped), whole + b"rest", whole + whole[:-1]]


@pytest.mark.parametrize("body", damaged())
def test_damage_is_told(body: bytes) -> None:
    with pytest.raises(Refused, match="not valid gzip") as caught:
        gunzip(body, 1000)
    assert caught.value.refusal is Refusal.BAD_JSON


@given(st.binary(max_size=200))
def test_nonsense_is_refused_and_nothing_else(body: bytes) -> None:
    with pytest.raises(Refused):
        gunzip(b"\x1f\x8b\x08" + body + b"!", 1000)
