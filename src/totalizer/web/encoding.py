"""Request bodies that come compressed (RFC 9110 §8.4): unpacked to no more than a body may have."""

from __future__ import annotations

import zlib

from totalizer.errors import Refusal, Refused

#: Members of one gzip body (RFC 1952 §2.2). Senders make one; a row of empty ones would cost time and say nothing.
MEMBERS_MAX = 16
#: zlib's sign for gzip, with the largest window.
_GZIP = 31


def check_encoding(encoding: str | None) -> bool:
    """True if a body with this `Content-Encoding` is to be unpacked, False if it is plain.

    Raises:
        Refused: it is neither gzip nor plain.
    """
    if encoding is None:
        return False
    name = encoding.strip().lower()
    if name in ("gzip", "x-gzip"):
        return True
    if name in ("", "identity"):
        return False
    raise Refused(
        Refusal.UNSUPPORTED_MEDIA_TYPE,
        f"content encoding {encoding[:80]!r} is not taken; send gzip, or the body as it is",
    )


def gunzip(body: bytes, bytes_max: int) -> bytes:
    """The body unpacked. Takes the memory of `body` and of `bytes_max`, whatever is packed in it.

    Args:
        body: gzip.
        bytes_max: longest result.

    Raises:
        Refused: it is larger unpacked, or damaged.
    """
    parts: list[bytes] = []
    left = bytes_max + 1
    for _ in range(MEMBERS_MAX):
        member = zlib.decompressobj(wbits=_GZIP)
        try:
            part = member.decompress(body, left)
        except zlib.error as error:
            raise _damaged(str(error)) from None
        left -= len(part)
        if left <= 0:
            raise Refused(
                Refusal.BODY_TOO_LARGE, f"the body unpacks to more than {bytes_max} bytes; send smaller batches"
            )
        if not member.eof:
            raise _damaged("it ends too early")
        parts.append(part)
        body = member.unused_data
        if not body:
            return b"".join(parts)
    raise _damaged(f"it has more than {MEMBERS_MAX} members")


def _damaged(reason: str) -> Refused:
    return Refused(Refusal.BAD_JSON, f"the body is not valid gzip: {reason}")
