"""Errors as problem documents (RFC 9457)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from totalizer.errors import Refusal, Refused

MEDIA_TYPE = "application/problem+json"
_TITLES = {refusal: refusal.value.replace("_", " ").capitalize() for refusal in Refusal}


def document(refused: Refused) -> dict[str, Any]:
    """The members of the problem document of a refusal."""
    return {
        "type": "about:blank",
        "title": _TITLES[refused.refusal],
        "status": refused.status,
        "code": refused.refusal.value,
        "detail": refused.detail,
        **refused.extra,
    }


def response(
    refused: Refused, headers_more: Iterable[tuple[str, str]] = ()
) -> tuple[int, list[tuple[str, str]], bytes]:
    """Status, headers and body of the answer to a refused request.

    Args:
        refused: why.
        headers_more: further header fields, unless the refusal has some itself.
    """
    headers = [("content-type", MEDIA_TYPE)]
    if refused.retry_after_s is not None:
        headers.append(("retry-after", str(refused.retry_after_s)))
    if refused.refusal is Refusal.UNAUTHENTICATED:
        headers.append(("www-authenticate", "Bearer"))
    headers.extend(refused.headers or headers_more)
    return refused.status, headers, msgspec.json.encode(document(refused))
