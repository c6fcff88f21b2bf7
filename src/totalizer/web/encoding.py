"""Request bodies that come compressed (RFC 9110 §8.4): unpacked whole or piece by piece, in bounded memory.

gzip: RFC 1952. zstd: RFC 8878, with the window that RFC 9659 allows for HTTP.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator
from typing import Protocol

from totalizer.errors import Refusal, Refused

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

#: Members of one packed body read as a whole. Senders make one; a row of empty ones would cost time and say nothing.
MEMBERS_MAX = 16
#: Bytes unpacked at a time.
PIECE_BYTES = 256 << 10
#: How many times its packed size a stream may unpack to, beyond the first bytes: events compress 10 to 50 times, a bomb
#: a thousand times and more.
STREAM_RATIO_MAX, STREAM_BYTES_FREE = 300, 16 << 20
#: zlib's sign for gzip, with the largest window.
_GZIP = 31
#: Binary logarithm of the largest window, 8 MiB.
_ZSTD_WINDOW_LOG = 23
_SPELLINGS = {"gzip": "gzip", "x-gzip": "gzip", "zstd": "zstd", "": None, "identity": None}


class Decoder(Protocol):
    """Unpacks one body: any number of members, one after another."""

    @property
    def complete(self) -> bool:
        """True at the end of a member, and before the first byte."""

    def pieces(self, data: bytes, members_max: int | None = None) -> Iterator[bytes]:
        """What comes of these bytes, at most PIECE_BYTES at a time.

        Raises:
            ValueError: they are damaged, or begin more than `members_max` members.
        """


class GzipDecoder:
    """`Decoder` of gzip."""

    def __init__(self) -> None:
        self._member, self._members = zlib.decompressobj(wbits=_GZIP), 0
        self.complete = True

    def pieces(self, data: bytes, members_max: int | None = None) -> Iterator[bytes]:
        while data or not self.complete:
            self._members += self.complete
            if members_max is not None and self._members > members_max:
                raise ValueError(f"it has more than {members_max} members")
            try:
                piece = self._member.decompress(data, PIECE_BYTES)
            except zlib.error as error:
                raise ValueError(str(error)) from None
            self.complete, data = self._member.eof, self._member.unconsumed_tail
            if piece:
                yield piece
            if self.complete:
                data = self._member.unused_data
                self._member = zlib.decompressobj(wbits=_GZIP)
            elif not piece and not data:
                return


class ZstdDecoder:
    """`Decoder` of zstd."""

    def __init__(self) -> None:
        self._frame, self._frames = _zstd_frame(), 0
        self.complete = True

    def pieces(self, data: bytes, members_max: int | None = None) -> Iterator[bytes]:
        while data or not self.complete:
            self._frames += self.complete
            if members_max is not None and self._frames > members_max:
                raise ValueError(f"it has more than {members_max} frames")
            try:
                piece = self._frame.decompress(data, PIECE_BYTES)
            except zstd.ZstdError as error:
                raise ValueError(str(error)) from None
            self.complete, data = self._frame.eof, b""
            if piece:
                yield piece
            if self.complete:
                data, self._frame = self._frame.unused_data, _zstd_frame()
            elif self._frame.needs_input:
                return


def _zstd_frame() -> zstd.ZstdDecompressor:
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG})


def check_encoding(encoding: str | None) -> str | None:
    """`gzip` or `zstd` for a body with this `Content-Encoding`; None if it is plain.

    Raises:
        Refused: it is none of these.
    """
    if encoding is None:
        return None
    try:
        return _SPELLINGS[encoding.strip().lower()]
    except KeyError:
        raise Refused(
            Refusal.UNSUPPORTED_MEDIA_TYPE,
            f"content encoding {encoding[:80]!r} is not taken; send gzip or zstd, or the body as it is",
        ) from None


def unpack(encoding: str, body: bytes, bytes_max: int) -> bytes:
    """The body unpacked. Takes the memory of `body` and of `bytes_max`, whatever is packed in it.

    Args:
        encoding: from `check_encoding`.
        body: as it was sent.
        bytes_max: longest result.

    Raises:
        Refused: it is larger unpacked, or damaged.
    """
    decoder = _decoder(encoding)
    parts: list[bytes] = []
    size = 0
    try:
        for piece in decoder.pieces(body, MEMBERS_MAX):
            size += len(piece)
            if size > bytes_max:
                raise Refused(
                    Refusal.BODY_TOO_LARGE, f"the body unpacks to more than {bytes_max} bytes; send smaller batches"
                )
            parts.append(piece)
    except ValueError as error:
        raise _damaged(encoding, str(error)) from None
    if not decoder.complete or not body:
        raise _damaged(encoding, "it ends too early")
    return b"".join(parts)


class StreamDecoder:
    """Unpacks a body of any length while it comes in.

    Args:
        encoding: from `check_encoding`; None passes the body on.
    """

    def __init__(self, encoding: str | None) -> None:
        self._encoding = encoding
        self._decoder = None if encoding is None else _decoder(encoding)
        self._packed = self._unpacked = 0

    def pieces(self, chunk: bytes) -> Iterator[bytes]:
        """What comes of a chunk, at most PIECE_BYTES at a time where it is packed.

        Raises:
            Refused: it is damaged, or unpacks to far more than was sent.
        """
        if self._decoder is None:
            yield chunk
            return
        self._packed += len(chunk)
        try:
            for piece in self._decoder.pieces(chunk):
                self._unpacked += len(piece)
                if self._unpacked > STREAM_BYTES_FREE + STREAM_RATIO_MAX * self._packed:
                    reason = f"the body unpacks to more than {STREAM_RATIO_MAX} times its size"
                    raise Refused(Refusal.BODY_TOO_LARGE, f"{reason}; send it less tightly packed, or plain")
                yield piece
        except ValueError as error:
            raise _damaged(str(self._encoding), str(error)) from None

    def end(self) -> None:
        """The body has ended.

        Raises:
            Refused: too early.
        """
        if self._decoder is not None and not (self._decoder.complete and self._packed):
            raise _damaged(str(self._encoding), "it ends too early")


def _decoder(encoding: str) -> Decoder:
    return ZstdDecoder() if encoding == "zstd" else GzipDecoder()


def _damaged(encoding: str, reason: str) -> Refused:
    return Refused(Refusal.BAD_JSON, f"the body is not valid {encoding}: {reason}")
