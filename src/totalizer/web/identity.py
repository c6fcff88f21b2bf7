"""Who a request comes from: API keys, looked up once and remembered for a moment."""

from __future__ import annotations

from typing import Any, NamedTuple

import psycopg
from psycopg.rows import tuple_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from totalizer.clock import Clock, utc_datetime
from totalizer.errors import Refusal, Refused
from totalizer.store.keys import KEY_PREFIX, Principal, hash_key

#: Keys remembered; beyond it the oldest are forgotten.
KEYS_REMEMBERED_MAX = 10_000
#: How long an unknown key is remembered as unknown, so that guessing does not reach the database.
UNKNOWN_REMEMBERED_S = 5.0
#: Longest wait for a connection to ask over, and how long after a failure nobody asks again.
LOOK_UP_TIMEOUT_S, AWAY_PAUSE_S = 1.0, 1.0
#: While the database is away, a key checked this recently is still believed.
BELIEVED_WITHOUT_DATABASE_S = 3600.0


class Known(NamedTuple):
    """What was found about a key, and when (monotonic seconds). No principal: the key is not valid."""

    principal: Principal | None
    checked_at: float


class Authenticator:
    """Finds the principal of a request.

    Args:
        pool: connections as the app role.
        clock: for the age of what is remembered.
        cache_s: how long a key is believed without asking again: the longest a revoked key lives on.
    """

    def __init__(self, pool: AsyncConnectionPool[Any], clock: Clock, *, cache_s: float) -> None:
        self._pool, self._clock, self._cache_s = pool, clock, cache_s
        self._known: dict[str, Known] = {}
        self._asking: set[str] = set()
        self._away_until = float("-inf")

    def remembered(self, authorization: str | None, scope: str) -> Principal | None:
        """The principal, if it is remembered and may do this; None to ask `authenticate`. Never waits."""
        known = self._known.get(authorization or "")
        if known is None or known.principal is None:
            return None
        if self._age(known) > self._cache_s:
            return None
        return known.principal if scope in known.principal.scopes and not self._expired(known.principal) else None

    async def authenticate(self, authorization: str | None, scope: str) -> Principal:
        """The principal of a request with this `Authorization` header.

        Args:
            authorization: `Bearer <API key>`.
            scope: what the request wants to do.

        Raises:
            Refused: 401 without a valid key, 403 if the key may not do this, 503 if it cannot be checked at present.
        """
        key = _bearer(authorization)
        assert authorization is not None
        known = self._known.get(authorization)
        if known is None or self._age(known) > (self._cache_s if known.principal else UNKNOWN_REMEMBERED_S):
            known = await self._check(authorization, key, known)
        return self._allowed(known.principal, scope)

    async def _check(self, authorization: str, key: str, before: Known | None) -> Known:
        """Ask the database; while it is away, or another request is asking, believe what was known."""
        believable = before is not None and before.principal and self._age(before) < BELIEVED_WITHOUT_DATABASE_S
        away = self._clock.monotonic() < self._away_until
        if believable and (away or authorization in self._asking):
            assert before is not None
            return before
        if away:
            raise _unavailable()
        self._asking.add(authorization)
        try:
            return await self._look_up(authorization, key)
        except (psycopg.OperationalError, PoolTimeout):
            self._away_until = self._clock.monotonic() + AWAY_PAUSE_S
            if believable:
                assert before is not None
                return before
            raise _unavailable() from None
        finally:
            self._asking.discard(authorization)

    def _age(self, known: Known) -> float:
        return self._clock.monotonic() - known.checked_at

    async def _look_up(self, authorization: str, key: str) -> Known:
        async with (
            self._pool.connection(timeout=LOOK_UP_TIMEOUT_S) as connection,
            connection.cursor(row_factory=tuple_row) as cursor,
        ):
            await cursor.execute(
                "SELECT key_id::text, organization_id::text, scopes, expires_at FROM totalizer.authenticate_key(%s)",
                [hash_key(key)],
            )
            row = await cursor.fetchone()
        principal = None if row is None else Principal(row[0], row[1], frozenset(row[2]), row[3])
        return self._remember(authorization, Known(principal, self._clock.monotonic()))

    def _remember(self, authorization: str, known: Known) -> Known:
        self._known.pop(authorization, None)
        while len(self._known) >= KEYS_REMEMBERED_MAX:
            del self._known[next(iter(self._known))]
        self._known[authorization] = known
        return known

    def _expired(self, principal: Principal) -> bool:
        return principal.expires_at is not None and principal.expires_at <= utc_datetime(self._clock.now_ns())

    def _allowed(self, principal: Principal | None, scope: str) -> Principal:
        if principal is None or self._expired(principal):
            raise Refused(Refusal.UNAUTHENTICATED, "this API key is unknown, revoked or expired")
        if scope not in principal.scopes:
            may = ", ".join(sorted(principal.scopes))
            raise Refused(Refusal.FORBIDDEN, f"this API key may not {scope}; it may {may}")
        return principal


def _unavailable() -> Refused:
    detail = "the API key cannot be checked at present; try again"
    return Refused(Refusal.DATABASE_UNAVAILABLE, detail, retry_after_s=5)


def _bearer(authorization: str | None) -> str:
    scheme, _, key = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not key.startswith(KEY_PREFIX):
        raise Refused(
            Refusal.UNAUTHENTICATED,
            f"send an API key: `Authorization: Bearer {KEY_PREFIX}…` (`totalizer keys create`)",
        )
    return key
