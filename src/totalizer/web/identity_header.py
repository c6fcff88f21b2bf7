"""What an `Authorization` header says: an API key, as Bearer or as Basic, or a token (RFC 6750, 7617, 7519)."""

from __future__ import annotations

import base64
import binascii
from typing import Final, NamedTuple

from totalizer.errors import Refusal, Refused
from totalizer.store.keys import KEY_LENGTH_MAX, KEY_PREFIX

#: Longest token that is looked at. Tokens with an organisation and a role have a third of it.
TOKEN_LENGTH_MAX: Final = 4096
#: Longest header: a token, or a key in base64, with its scheme.
_HEADER_LENGTH_MAX: Final = TOKEN_LENGTH_MAX + 16


class Credential(NamedTuple):
    """What somebody shows.

    Attributes:
        text: the key, or the token in its compact form.
        is_token: True for a token; whether it is one remains to be seen.
    """

    text: str
    is_token: bool


def read_header(authorization: str | None) -> Credential:
    """What an `Authorization` header holds.

    Raises:
        Refused: 401, nothing that could be a key or a token.
    """
    if authorization is None or not authorization.strip():
        raise _unauthenticated("no credentials")
    if len(authorization) > _HEADER_LENGTH_MAX:
        raise _unauthenticated(f"an Authorization header of {len(authorization)} characters is too long")
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return _bearer(rest)
    if scheme.lower() == "basic":
        return _key(_user_name(rest))
    raise _unauthenticated("the Authorization header has neither the scheme Bearer nor Basic")


def _bearer(text: str) -> Credential:
    if text.startswith(KEY_PREFIX):
        return _key(text)
    if text.count(".") != 2:
        raise _unauthenticated("what follows Bearer is neither an API key nor a token")
    if len(text) > TOKEN_LENGTH_MAX:
        raise _unauthenticated(f"a token of {len(text)} characters is too long")
    return Credential(text, is_token=True)


def _key(text: str) -> Credential:
    if not text.startswith(KEY_PREFIX) or len(text) > KEY_LENGTH_MAX:
        raise _unauthenticated("the user name of Basic is no API key")
    return Credential(text, is_token=False)


def _user_name(encoded: str) -> str:
    """The user name; the password is nobody's business: libraries that send keys so leave it empty."""
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        raise _unauthenticated("what follows Basic is not base64 of a user name and a password") from None
    return text.partition(":")[0]


def _unauthenticated(what: str) -> Refused:
    how = f"send an API key: `Authorization: Bearer {KEY_PREFIX}…` (`totalizer keys create`)"
    return Refused(Refusal.UNAUTHENTICATED, f"{what}; {how}")
