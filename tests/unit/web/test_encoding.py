"""Compressed bodies: unpacked to what a body may have and no further, whole or piece by piece, and never a crash."""

from __future__ import annotations

import contextlib
import gzip
import tracemalloc
import zlib
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from totalizer.errors import Refusal, Refused
from totalizer.web.encoding import MEMBERS_MAX, PIECE_BYTES, StreamDecoder, check_encoding, unpack, zstd

# Without the time, which would give a test another name in each run.
PACKERS: dict[str, Callable[[bytes], bytes]] = {"gzip": partial(gzip.compress, mtime=0), "zstd": zstd.compress}
both = pytest.mark.parametrize("encoding", PACKERS)


def streamed(encoding: str | None, body: bytes, size: int) -> bytes:
    """What comes of a body that arrives in chunks of `size` bytes."""
    decoder = StreamDecoder(encoding)
    parts = []
    for start in range(0, len(body), size):
        for piece in decoder.pieces(body[start : start + size]):
            assert len(piece) <= max(PIECE_BYTES, size)
            parts.append(piece)
    decoder.end()
    return b"".join(parts)


@pytest.mark.parametrize(
    ("encoding", "name"), [("gzip", "gzip"), ("GZip", "gzip"), (" x-gzip ", "gzip"), ("zstd", "zstd"), ("ZSTD", "zstd")]
)
def test_what_is_unpacked(encoding: str, name: str) -> None:
    assert check_encoding(encoding) == name


@pytest.mark.parametrize("encoding", [None, "", "identity", "Identity"])
def test_plain_bodies_are_not(encoding: str | None) -> None:
    assert check_encoding(encoding) is None
    assert streamed(None, b"abc", 2) == b"abc"


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip", "gzip;q=1", "x" * 5000])
def test_other_encodings_are_refused_by_name(encoding: str) -> None:
    with pytest.raises(Refused, match="send gzip or zstd") as caught:
        check_encoding(encoding)
    assert caught.value.refusal is Refusal.UNSUPPORTED_MEDIA_TYPE
    assert caught.value.status == 415
    assert encoding[:80] in caught.value.detail
    assert len(caught.value.detail) < 300


@both
@given(data=st.binary(max_size=500), level=st.integers(1, 9), size=st.integers(1, 60), twice=st.booleans())
def test_what_was_packed_comes_out(encoding: str, data: bytes, level: int, size: int, twice: bool) -> None:
    pack: Any = PACKERS[encoding]
    packed = pack(data, level) + (pack(data) if twice else b"")
    expected = data * 2 if twice else data
    assert unpack(encoding, packed, 1000) == expected
    assert streamed(encoding, packed, size) == expected


@both
def test_several_members_are_one_body(encoding: str) -> None:
    pack = PACKERS[encoding]
    assert unpack(encoding, pack(b"abc") + pack(b"") + pack(b"def"), 6) == b"abcdef"


@both
@pytest.mark.parametrize("size", [101, 5000, 1_000_000])
def test_a_body_that_unpacks_to_too_much_is_too_large(encoding: str, size: int) -> None:
    with pytest.raises(Refused, match="unpacks to more than 100 bytes") as caught:
        unpack(encoding, PACKERS[encoding](b"x" * size), 100)
    assert caught.value.refusal is Refusal.BODY_TOO_LARGE


@both
def test_the_members_are_counted_together(encoding: str) -> None:
    pack = PACKERS[encoding]
    with pytest.raises(Refused, match="unpacks to more than 100 bytes"):
        unpack(encoding, pack(b"x" * 60) + pack(b"x" * 41), 100)
    assert len(unpack(encoding, pack(b"x" * 60) + pack(b"x" * 40), 100)) == 100


def bomb(encoding: str) -> bytes:
    """500 MiB in less than one."""
    packer: Any = zlib.compressobj(9, wbits=31) if encoding == "gzip" else zstd.ZstdCompressor()
    packed = b"".join(packer.compress(b"\0" * (1 << 20)) for _ in range(500)) + packer.flush()
    assert len(packed) < 1 << 20
    return packed


@both
def test_a_bomb_takes_no_more_memory_than_a_body(encoding: str) -> None:
    packed = bomb(encoding)
    tracemalloc.start()
    try:
        with pytest.raises(Refused, match="unpacks to more than 1048576 bytes"):
            unpack(encoding, packed, 1 << 20)
        with pytest.raises(Refused, match="more than 300 times its size"):
            deque(StreamDecoder(encoding).pieces(packed), maxlen=0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


def test_a_window_beyond_what_http_allows_is_refused() -> None:
    options = {zstd.CompressionParameter.window_log: 27}
    packer = zstd.ZstdCompressor(options=options)
    packed = packer.compress(b"x" * 10) + packer.flush(zstd.ZstdCompressor.FLUSH_BLOCK) + packer.flush()
    with pytest.raises(Refused, match="not valid zstd"):
        unpack("zstd", packed, 1000)


@both
def test_a_row_of_empty_members_is_no_way_to_keep_us_busy(encoding: str) -> None:
    with pytest.raises(Refused, match=f"more than {MEMBERS_MAX}"):
        unpack(encoding, PACKERS[encoding](b"") * 100_000, 100)


def damaged() -> list[tuple[str, bytes]]:
    cases = []
    for encoding, pack in PACKERS.items():
        whole = pack(b'{"time_entries": []}')
        cases += [(encoding, body) for body in (b"", b"{}", whole[:1], whole[:-1], whole[:12], whole + b"rest",
                                                whole + whole[:-1])]  # fmt: skip
    flipped = bytearray(gzip.compress(b'{"time_entries": []}', mtime=0))
    flipped[-6] ^= 1
    return [*cases, ("gzip", bytes(flipped))]


@pytest.mark.parametrize(("encoding", "body"), damaged())
def test_damage_is_told(encoding: str, body: bytes) -> None:
    for unpacked in (lambda: unpack(encoding, body, 1000), lambda: streamed(encoding, body, 3)):
        with pytest.raises(Refused, match=f"not valid {encoding}") as caught:
            unpacked()
        assert caught.value.refusal is Refusal.BAD_JSON


@given(st.binary(max_size=200))
def test_nonsense_is_refused_and_nothing_else(body: bytes) -> None:
    for encoding, start in (("gzip", b"\x1f\x8b\x08"), ("zstd", b"\x28\xb5\x2f\xfd")):
        for unpacked in (lambda: unpack(encoding, start + body + b"!", 1000),  # noqa: B023
                         lambda: streamed(encoding, start + body + b"!", 7)):  # noqa: B023  # fmt: skip
            with contextlib.suppress(Refused):
                unpacked()
