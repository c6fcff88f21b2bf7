"""Tokens of an identity provider: JWT (RFC 7519) signed with HS256, RS256 or ES256, checked after RFC 8725."""

from __future__ import annotations

import math
import re
from typing import Any, Final, NamedTuple

import jwt

from totalizer.clock import Clock
from totalizer.errors import Refusal, Refused
from totalizer.web.identity_sources import KeySource
from totalizer.web.permissions import ROLES

#: Longest subject that is taken for a user's id.
SUBJECT_LENGTH_MAX: Final = 255
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
#: What a hostile token makes PyJWT and the JSON reader raise.
_MALFORMED = (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError)


class Claims(NamedTuple):
    """What a good token says.

    Attributes:
        organization_id: whose data its bearer may touch, if there is such an organisation.
        role: one of permissions.ROLES.
        user_id: the subject; None if it names none.
        expires_ns: when it ends, the leeway included; nanoseconds since 1970 UTC.
    """

    organization_id: str
    role: str
    user_id: str | None
    expires_ns: int


class TokenVerifier:
    """Checks tokens.

    Args:
        clock: for their times.
        secret: of HS256; None: such tokens are not taken.
        keys: of RS256 and ES256; None: such tokens are not taken.
        audience: that tokens must name; None: any.
        issuer: that they must name; None: any.
        leeway_s: by which clocks may differ.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        secret: str | None = None,
        keys: KeySource | None = None,
        audience: str | None = None,
        issuer: str | None = None,
        leeway_s: float = 0.0,
    ) -> None:
        self._clock, self._secret, self._keys = clock, secret, keys
        self._audience, self._issuer, self._leeway_s = audience, issuer, leeway_s
        # Times are checked here, by our clock and without exceptions for odd types.
        self._options: Any = {
            "verify_aud": audience is not None, "verify_iss": issuer is not None,
            "verify_exp": False, "verify_nbf": False, "verify_iat": False,
        }  # fmt: skip

    async def verify(self, token: str) -> Claims:
        """The claims of a token.

        Raises:
            Refused: 401, it is not good, and why; 503, its issuer's keys are not to be had.
        """
        algorithm, kid = self._header(token)
        # The algorithm is that of the key we hold: a public key is never taken for a secret.
        if algorithm == "HS256" and self._secret is not None:
            return self._claims(self._decode(token, [self._secret], algorithm))
        if algorithm in ("RS256", "ES256") and self._keys is not None:
            keys = await self._keys.find(algorithm, kid)
            if not keys:
                raise _invalid("it is signed with a key that is not known here")
            return self._claims(self._decode(token, [key.key for key in keys], algorithm))
        raise _invalid(f"its algorithm {algorithm[:20]!r} is not taken here")

    async def close(self) -> None:
        """Let go of the source of keys."""
        if self._keys is not None:
            await self._keys.close()

    def _header(self, token: str) -> tuple[str, str | None]:
        try:
            header = jwt.get_unverified_header(token)
        except _MALFORMED:
            raise _invalid("it cannot be read") from None
        algorithm, kid = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or not isinstance(kid, str | None):
            raise _invalid("its header is not one of a signed token")
        if "crit" in header or "b64" in header:
            raise _invalid("its header asks for what is not known here")
        return algorithm, kid

    def _decode(self, token: str, keys: list[Any], algorithm: str) -> dict[str, Any]:
        for key in keys:
            try:
                return jwt.decode(
                    token, key, algorithms=[algorithm], options=self._options, audience=self._audience,
                    issuer=self._issuer,
                )  # fmt: skip
            except jwt.InvalidSignatureError:
                continue
            except jwt.InvalidAudienceError:
                raise _invalid("it is for somebody else: its `aud` is not the one set here") from None
            except jwt.InvalidIssuerError:
                raise _invalid("its `iss` is not the one set here") from None
            except jwt.MissingRequiredClaimError as error:
                raise _invalid(f"it has no `{error.claim}`") from None
            except _MALFORMED:
                raise _invalid("it cannot be read") from None
        raise _invalid("its signature is wrong")

    def _claims(self, payload: dict[str, Any]) -> Claims:
        now_s = self._clock.now_ns() / 1e9
        expires_s = _time(payload, "exp")
        if expires_s is None:
            raise _invalid("it has no `exp`: tokens that never end are not taken")
        if now_s >= expires_s + self._leeway_s:
            raise _invalid("it has expired")
        for claim in ("nbf", "iat"):
            begins_s = _time(payload, claim)
            if begins_s is not None and begins_s > now_s + self._leeway_s:
                raise _invalid(f"its `{claim}` lies in the future")
        organization_id, role, subject = (payload.get(name) for name in ("organization_id", "role", "sub"))
        if not isinstance(organization_id, str) or not _UUID.fullmatch(organization_id.lower()):
            raise _invalid("its `organization_id` is no UUID")
        if not isinstance(role, str) or role not in ROLES:
            raise _invalid(f"its `role` is none of {', '.join(ROLES)}")
        if subject is not None and not (isinstance(subject, str) and 0 < len(subject) <= SUBJECT_LENGTH_MAX):
            raise _invalid(f"its `sub` is no text of 1 to {SUBJECT_LENGTH_MAX} characters")
        return Claims(organization_id.lower(), role, subject, int((expires_s + self._leeway_s) * 1e9))


def _time(payload: dict[str, Any], claim: str) -> float | None:
    """A time in seconds since 1970, of any size that can be calculated with."""
    value = payload.get(claim)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _invalid(f"its `{claim}` is no number")
    if isinstance(value, float) and not math.isfinite(value):
        raise _invalid(f"its `{claim}` is no number")
    return float(min(max(value, 0), 1 << 40))


def _invalid(why: str) -> Refused:
    return Refused(Refusal.UNAUTHENTICATED, f"this token is not valid: {why}")
