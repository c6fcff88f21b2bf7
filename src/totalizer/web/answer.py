"""Answers to questions: JSON, with decimals as numbers."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import MediaType, Response

_encode = msgspec.json.Encoder(decimal_format="number").encode


def json_answer(content: Any) -> Response[bytes]:
    """The answer with this content."""
    return Response(_encode(content), media_type=MediaType.JSON)
