"""The way into the operator's page: signing in with an API key or a token, the cookie, and the forms' tokens."""

from __future__ import annotations

from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

import psycopg
from litestar import Request
from litestar.datastructures import Cookie
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from totalizer.clock import SYSTEM_CLOCK
from totalizer.errors import Refusal, Refused
from totalizer.store.tenant import reading_as
from totalizer.web.identity import Authenticator
from totalizer.web.operator.session import OperatorSession, SessionSeal, new_nonce
from totalizer.web.permissions import ACTIONS, actions_of_scopes

PATH: Final = "/ops"
SESSION_COOKIE: Final = "totalizer_ops"
FORM_COOKIE: Final = "totalizer_ops_form"
#: What the page shows: managers and administrators may see it, viewers and developers may not.
NEEDED: Final = ("jobs_read", "alerts_read", "quarantine_read")
#: How who runs the installation gets a key that opens it.
MAKE_KEY: Final = "`totalizer keys create default --name operator --scope admin`, where Totalizer runs, makes a key"
#: Seconds that the question whether a key is still good may take; and for which nobody asks after that failed.
LOOK_UP_S, AWAY_S = 1.0, 2.0
#: Largest form.
FIELDS_MAX: Final = 20
_KEY = (
    "SELECT scopes, revoked_at IS NULL AND coalesce(expires_at > now(), true) FROM totalizer.api_keys "
    "WHERE id::text = %s"
)


class Visit(NamedTuple):
    """A request of somebody who is signed in.

    Attributes:
        session: theirs.
        away: True if the database did not answer just now.
    """

    session: OperatorSession
    away: bool


class Door:
    """Lets people in.

    Args:
        authenticator: knows keys and tokens.
        pool: connections as the app role.
        seal: of cookies.
    """

    def __init__(self, authenticator: Authenticator, pool: AsyncConnectionPool[Any], seal: SessionSeal) -> None:
        self._authenticator, self._pool, self.seal = authenticator, pool, seal
        self._away_until = float("-inf")

    async def sign_in(self, credential: str) -> OperatorSession:
        """A session for an API key or a token.

        Raises:
            Refused: 401, it is neither; 403, it may not see the page; 503, it cannot be checked now.
        """
        principal = await self._authenticator.authenticate(f"Bearer {credential.strip()}", NEEDED[0])
        _check(principal.actions, principal.title)
        return OperatorSession(
            new_nonce(), principal.organization_id, principal.actions, self.seal.end_ns(principal.expires_ns),
            principal.key_id, principal.user_id, principal.role,
        )  # fmt: skip

    async def visit(self, request: Request[Any, Any, Any]) -> Visit | None:
        """Who asks; None if nobody is signed in, or no more.

        Raises:
            Refused: 403, the key may not see the page any more.
        """
        session = self.seal.read(request.cookies.get(SESSION_COOKIE))
        if session is None:
            return None
        if session.key_id is None:
            return Visit(session, self._is_away)
        if self._is_away:
            return Visit(session, away=True)
        try:
            async with reading_as(self._pool, session.organization_id, timeout_s=LOOK_UP_S) as connection:
                row = await (await connection.execute(_KEY.encode(), [session.key_id])).fetchone()
        except (psycopg.OperationalError, PoolTimeout):
            self.note_away()
            return Visit(session, away=True)
        if row is None or not row[1]:
            return None
        actions = actions_of_scopes(row[0])
        _check(actions, "this API key")
        return Visit(OperatorSession(**{**_members(session), "actions": actions}), away=False)

    async def form(self, request: Request[Any, Any, Any], nonce: str) -> dict[str, str]:
        """The fields of a form that the page made for this nonce.

        Raises:
            Refused: 400, it is none; 403, it comes from elsewhere.
        """
        try:
            text = (await request.body()).decode()
            fields = dict(parse_qsl(text, keep_blank_values=True, max_num_fields=FIELDS_MAX))
        except ValueError:
            raise Refused(Refusal.BAD_REQUEST, "this is no form of this page") from None
        site = request.headers.get("sec-fetch-site", "same-origin")
        if site != "same-origin" or not self.seal.is_form_token(fields.get("token", ""), nonce):
            raise Refused(Refusal.FORBIDDEN, "this form is not of this session; load the page again and send it anew")
        return fields

    def session_cookie(self, request: Request[Any, Any, Any], session: OperatorSession) -> Cookie:
        """The cookie of a session, that no script can read."""
        return _cookie(request, SESSION_COOKIE, self.seal.write(session), self.seal.left_s(session))

    def form_cookie(self, request: Request[Any, Any, Any], nonce: str) -> Cookie:
        """The cookie that a sign-in form is bound to."""
        return _cookie(request, FORM_COOKIE, nonce, None)

    def no_cookie(self, request: Request[Any, Any, Any], name: str) -> Cookie:
        """One that takes a cookie away."""
        return _cookie(request, name, "", 0)

    def note_away(self) -> None:
        """The database did not answer: for a moment nobody asks it again."""
        self._away_until = SYSTEM_CLOCK.monotonic() + AWAY_S

    @property
    def _is_away(self) -> bool:
        return SYSTEM_CLOCK.monotonic() < self._away_until


def require(session: OperatorSession, action: str) -> None:
    """Make sure that somebody may do this.

    Raises:
        Refused: 403.
    """
    if action not in session.actions:
        raise Refused(Refusal.FORBIDDEN, f"you may not {ACTIONS[action]}; the role admin may, or a key with its scope")


def _check(actions: frozenset[str], title: str) -> None:
    if not actions.issuperset(NEEDED):
        who = "the roles manager and admin may, and API keys with the scope admin or quarantine"
        detail = f"{title} may not see this page; {who}. {MAKE_KEY}"
        raise Refused(Refusal.FORBIDDEN, detail)


def _members(session: OperatorSession) -> dict[str, Any]:
    return {name: getattr(session, name) for name in session.__struct_fields__}


def _cookie(request: Request[Any, Any, Any], name: str, value: str, max_age: int | None) -> Cookie:
    # Behind a proxy that ends TLS, the proxy says so. Somebody who lies about it only hurts themselves.
    forwarded = request.headers.get("x-forwarded-proto", "").partition(",")[0].strip()
    secure = "https" in (request.url.scheme, forwarded)
    return Cookie(key=name, value=value, path=PATH, max_age=max_age, secure=secure, httponly=True, samesite="strict")
