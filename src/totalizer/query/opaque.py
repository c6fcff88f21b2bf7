"""What clients send back as it was: a place in an answer, as text, and what it holds for."""

from __future__ import annotations

import base64
import hashlib
from typing import TypeVar

import msgspec

_Kind = TypeVar("_Kind", bound=msgspec.Struct)


def encoded(content: msgspec.Struct) -> str:
    """A place as text."""
    return base64.urlsafe_b64encode(msgspec.json.encode(content)).decode().rstrip("=")


def decoded(text: str, kind: type[_Kind]) -> _Kind:
    """A place as it was sent.

    Raises:
        ValueError, msgspec.MsgspecError, RecursionError: it is none of that kind.
    """
    return msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=kind)


def fingerprint(organization_id: str, question: msgspec.Struct) -> str:
    """What a place holds for, and for nobody else."""
    content = organization_id.encode() + msgspec.json.encode(question, order="deterministic")
    return hashlib.blake2b(content, digest_size=8).hexdigest()
