"""The size of a body is bounded, whether it is announced or not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from totalizer.errors import Refusal, Refused
from totalizer.web.body import BodyReader


class Sent:
    """A request's body as the server gives it: whole, or in pieces; counts the bytes that were taken."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces, self.taken = pieces, 0

    async def __call__(self) -> bytes:
        body = b"".join(self._pieces)
        self.taken += len(body)
        return body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            self.taken += len(piece)
            yield piece


def read(sent: Sent, length: str | None) -> bytes:
    return asyncio.run(BodyReader(bytes_max=10, timeout_s=60).read(sent, length))


@pytest.mark.parametrize("length", ["10", None])
def test_a_body_up_to_the_limit_is_read(length: str | None) -> None:
    assert read(Sent(b"01234", b"56789"), length) == b"0123456789"


def test_an_announced_body_that_is_too_large_is_refused_unread() -> None:
    sent = Sent(b"x" * 11)
    with pytest.raises(Refused, match="larger than 10 bytes") as caught:
        read(sent, "11")
    assert caught.value.refusal is Refusal.BODY_TOO_LARGE
    assert sent.taken == 0


def test_an_endless_body_is_refused_at_the_limit() -> None:
    sent = Sent(*[b"01234"] * 1000)
    with pytest.raises(Refused, match="larger than 10 bytes"):
        read(sent, None)
    assert sent.taken == 15
