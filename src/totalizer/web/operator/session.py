"""Who is signed in, in a cookie that only this installation can have made: nothing is stored for it.

The cookie holds no key and no token, but whose it was. Each request asks the database whether the key is still good:
a revoked key ends its sessions. While the database is away the cookie is believed: that is when the page is needed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from typing import Final

import msgspec

from totalizer.clock import Clock
from totalizer.prepared import prepared

#: How long somebody is signed in, seconds; less if the key or token ends before.
SESSION_S: Final = 3600
#: Longest cookie that is looked at.
COOKIE_LENGTH_MAX: Final = 4000
_NONCE_BYTES = 16


@prepared
class OperatorSession(msgspec.Struct, frozen=True):
    """Who is signed in.

    Attributes:
        nonce: of this session; its forms are bound to it.
        organization_id: whose events may be seen.
        actions: what may be done, of permissions.ACTIONS.
        ends_ns: nanoseconds since 1970 UTC.
        key_id: the API key; None if it was a token.
        user_id: the token's subject, if it names one.
        role: the token's role.
    """

    nonce: str
    organization_id: str
    actions: frozenset[str]
    ends_ns: int
    key_id: str | None = None
    user_id: str | None = None
    role: str | None = None

    @property
    def title(self) -> str:
        """Who that is, in words."""
        if self.key_id is not None:
            return f"API key {self.key_id[:8]}…"
        return f"{self.user_id or 'token'} ({self.role})"


def session_key(secret: str) -> bytes:
    """The key that cookies and forms of an installation are sealed with."""
    return hmac.new(secret.encode(), b"operator sessions", hashlib.sha256).digest()


def new_nonce() -> str:
    """Of a session, or of the form that begins one."""
    return secrets.token_urlsafe(_NONCE_BYTES)


class SessionSeal:
    """Makes and reads cookies, and the tokens of forms.

    Args:
        key: from `session_key`.
        clock: for their age.
    """

    def __init__(self, key: bytes, clock: Clock) -> None:
        self._key, self._clock = key, clock

    def end_ns(self, expires_ns: int | None) -> int:
        """When a session that begins now ends, if its key or token ends then; nanoseconds since 1970 UTC."""
        end = self._clock.now_ns() + SESSION_S * 1_000_000_000
        return end if expires_ns is None else min(end, expires_ns)

    def left_s(self, session: OperatorSession) -> int:
        """Seconds until it ends."""
        return max(0, (session.ends_ns - self._clock.now_ns()) // 1_000_000_000)

    def write(self, session: OperatorSession) -> str:
        """The cookie's value."""
        body = base64.urlsafe_b64encode(msgspec.json.encode(session)).rstrip(b"=").decode()
        return f"{body}.{self._sealed('session', body)}"

    def read(self, cookie: str | None) -> OperatorSession | None:
        """The session of a cookie; None if it is not one of ours, or over."""
        if cookie is None or len(cookie) > COOKIE_LENGTH_MAX or not cookie.isascii():
            return None
        body, _, seal = cookie.partition(".")
        if not hmac.compare_digest(seal, self._sealed("session", body)):
            return None
        try:
            found = msgspec.json.decode(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)), type=OperatorSession)
        except (binascii.Error, msgspec.DecodeError):
            return None
        return found if found.ends_ns > self._clock.now_ns() else None

    def form_token(self, nonce: str) -> str:
        """What each form carries, so that no other site can send one."""
        return self._sealed("form", nonce)

    def is_form_token(self, token: str, nonce: str) -> bool:
        """Whether a form comes from the page that was made for this nonce."""
        return token.isascii() and hmac.compare_digest(token, self.form_token(nonce))

    def _sealed(self, purpose: str, text: str) -> str:
        return hmac.new(self._key, f"{purpose} {text}".encode(), hashlib.sha256).hexdigest()
