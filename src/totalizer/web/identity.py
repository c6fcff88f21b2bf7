"""Who a request comes from: API keys and tokens, looked up once and remembered for a moment.

What is remembered is found by the header's own text, in a dict: Python hashes it with a secret of the process, so that
the time a look-up takes tells nothing of what other headers there are.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import psycopg
from psycopg.rows import tuple_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from totalizer.clock import Clock, utc_datetime
from totalizer.errors import Refusal, Refused
from totalizer.store.keys import hash_key
from totalizer.telemetry import logger
from totalizer.web.identity_header import Credential, read_header
from totalizer.web.identity_token import Claims, TokenVerifier
from totalizer.web.limits import Limiter
from totalizer.web.permissions import ACTIONS, actions_of_role, actions_of_scopes
from totalizer.web.principal import Known, Principal

#: Credentials remembered; beyond it the oldest are forgotten. Wrong keys are apart: guessing pushes no right one out.
KEYS_REMEMBERED_MAX = 10_000
#: How long an unknown key is remembered as unknown, so that guessing does not reach the database.
UNKNOWN_REMEMBERED_S = 5.0
#: Longest wait for a connection to ask over, and how long after a failure nobody asks again.
LOOK_UP_TIMEOUT_S, AWAY_PAUSE_S = 1.0, 1.0
#: While the database is away, a key checked this recently is still believed.
BELIEVED_WITHOUT_DATABASE_S = 3600.0
#: A key's use is noted at most this often.
NOTED_EVERY_S: Final = 60.0


class Authenticator:
    """Finds the principal of a request.

    Args:
        pool: connections as the app role.
        clock: for the age of what is remembered.
        limiter: whose meters a principal gets.
        tokens: checks tokens; None: none are taken.
        cache_s: how long a credential is believed without asking again: the longest a revoked key lives on.
    """

    def __init__(
        self,
        pool: AsyncConnectionPool[Any],
        clock: Clock,
        limiter: Limiter,
        tokens: TokenVerifier | None = None,
        *,
        cache_s: float,
    ) -> None:
        self._pool, self._clock, self._limiter, self._tokens = pool, clock, limiter, tokens
        self._cache_s = cache_s
        self._known: dict[str, Known] = {}
        self._unknown: dict[str, Known] = {}
        self._asking: set[str] = set()
        self._noting: set[asyncio.Task[None]] = set()
        self._away_until = float("-inf")

    def remembered(self, authorization: str | None, action: str) -> Principal | None:
        """The principal, if it is remembered and may do this; None to ask `authenticate`. Never waits."""
        known = self._known.get(authorization or "")
        if known is None:
            return None
        principal, checked_at = known
        if principal is None or self._clock.monotonic() - checked_at > self._cache_s:
            return None
        if action not in principal.actions or (principal.expires_ns is not None and self._expired(principal)):
            return None
        return principal

    async def authenticate(self, authorization: str | None, action: str) -> Principal:
        """The principal of a request with this `Authorization` header.

        Args:
            authorization: `Bearer <API key>`, `Basic` with the key as user name, or `Bearer <token>`.
            action: what the request wants to do, of permissions.ACTIONS.

        Raises:
            Refused: 401 without valid credentials, 403 if they do not allow this, 503 if they cannot be checked now.
        """
        credential = read_header(authorization)
        assert authorization is not None
        known = self._known.get(authorization)
        if known is None or self._age(known) > self._cache_s:
            unknown = self._unknown.get(authorization)
            if unknown is not None and self._age(unknown) <= UNKNOWN_REMEMBERED_S:
                return self._allowed(None, action)
            known = await self._check(authorization, credential, known)
        return self._allowed(known.principal, action)

    async def close(self) -> None:
        """Let go of what is being noted and fetched."""
        for task in self._noting:
            task.cancel()
        if self._noting:
            await asyncio.wait(self._noting)
        if self._tokens is not None:
            await self._tokens.close()

    async def _check(self, authorization: str, credential: Credential, before: Known | None) -> Known:
        """Ask the database; while it is away, or another request is asking, believe what was known."""
        if before is not None and self._age(before) >= BELIEVED_WITHOUT_DATABASE_S:
            before = None
        if before is not None and authorization in self._asking:
            return before
        self._asking.add(authorization)
        try:
            # A token is checked whoever is away: its signature needs nobody.
            claims = await self._verify(credential) if credential.is_token else None
            if self._clock.monotonic() < self._away_until:
                return _believed(before)
            principal = await self._look_up(credential, claims)
        except (psycopg.OperationalError, PoolTimeout):
            self._away_until = self._clock.monotonic() + AWAY_PAUSE_S
            return _believed(before)
        finally:
            self._asking.discard(authorization)
        return self._remember(authorization, Known(principal, self._clock.monotonic()))

    async def _verify(self, credential: Credential) -> Claims:
        if self._tokens is None:
            raise Refused(Refusal.UNAUTHENTICATED, "tokens are not taken here; send an API key")
        return await self._tokens.verify(credential.text)

    def _age(self, known: Known) -> float:
        return self._clock.monotonic() - known.checked_at

    async def _look_up(self, credential: Credential, claims: Claims | None) -> Principal | None:
        if claims is not None:
            return await self._principal_of_token(claims)
        return await self._principal_of_key(credential.text)

    async def _principal_of_key(self, key: str) -> Principal | None:
        row = await self._one(
            "SELECT key_id::text, organization_id::text, scopes, expires_at, last_used_at, limits "
            "FROM totalizer.authenticate_key(%s)",
            hash_key(key),
        )
        if row is None:
            return None
        key_id, organization_id, scopes, expires_at, last_used_at, limits = row
        now = utc_datetime(self._clock.now_ns())
        if last_used_at is None or (now - last_used_at).total_seconds() > NOTED_EVERY_S:
            self._note_used(key_id)
        return Principal(
            organization_id, actions_of_scopes(scopes), self._limiter.meters(organization_id, limits), "this API key",
            key_id=key_id,
            expires_ns=None if expires_at is None else int(expires_at.timestamp() * 1e9),
        )  # fmt: skip

    async def _principal_of_token(self, claims: Claims) -> Principal:
        row = await self._one("SELECT limits FROM totalizer.find_organization(%s)", claims.organization_id)
        if row is None:
            raise Refused(Refusal.FORBIDDEN, f"the token's organisation {claims.organization_id} does not exist")
        return Principal(
            claims.organization_id, actions_of_role(claims.role),
            self._limiter.meters(claims.organization_id, row[0]), f"the role {claims.role}",
            user_id=claims.user_id, role=claims.role, expires_ns=claims.expires_ns,
        )  # fmt: skip

    async def _one(self, query: str, parameter: object) -> tuple[Any, ...] | None:
        async with (
            self._pool.connection(timeout=LOOK_UP_TIMEOUT_S) as connection,
            connection.cursor(row_factory=tuple_row) as cursor,
        ):
            await cursor.execute(query.encode(), [parameter])
            row: tuple[Any, ...] | None = await cursor.fetchone()
            return row

    def _note_used(self, key_id: str) -> None:
        """Beside the request, which does not wait for it."""
        task = asyncio.get_running_loop().create_task(self._write_used(key_id))
        self._noting.add(task)
        task.add_done_callback(self._noting.discard)

    async def _write_used(self, key_id: str) -> None:
        try:
            async with self._pool.connection(timeout=LOOK_UP_TIMEOUT_S) as connection, connection.transaction():
                # The pool's transactions only read, unless they say otherwise first.
                await connection.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED READ WRITE")
                await connection.execute("SELECT totalizer.note_key_used(%s)", [key_id])
        except (psycopg.Error, PoolTimeout) as error:
            logger().warning("the use of a key is not noted", key=key_id, reason=str(error).strip())

    def _remember(self, authorization: str, known: Known) -> Known:
        self._known.pop(authorization, None)
        self._unknown.pop(authorization, None)
        store = self._unknown if known.principal is None else self._known
        while len(store) >= KEYS_REMEMBERED_MAX:
            del store[next(iter(store))]
        store[authorization] = known
        return known

    def _expired(self, principal: Principal) -> bool:
        return principal.expires_ns is not None and principal.expires_ns <= self._clock.now_ns()

    def _allowed(self, principal: Principal | None, action: str) -> Principal:
        if principal is None or self._expired(principal):
            token = principal is not None and principal.role is not None
            ended = "this token has expired" if token else "this API key is unknown, revoked or expired"
            raise Refused(Refusal.UNAUTHENTICATED, ended)
        if action not in principal.actions:
            may = ", ".join(sorted(principal.actions)) or "nothing"
            detail = f"{principal.title} may not {action} ({ACTIONS[action]}); it may {may}"
            raise Refused(Refusal.FORBIDDEN, detail)
        return principal


def _believed(before: Known | None) -> Known:
    """What was known, for want of an answer.

    Raises:
        Refused: nothing was.
    """
    if before is not None:
        return before
    detail = "the credentials cannot be checked at present; try again"
    raise Refused(Refusal.DATABASE_UNAVAILABLE, detail, retry_after_s=5)
