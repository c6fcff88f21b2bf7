"""What is known of keys while nobody answers: a clock that is moved by hand, and a database that is away."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import jwt
import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool

from totalizer.errors import Refusal, Refused
from totalizer.web import identity
from totalizer.web.identity import BELIEVED_WITHOUT_DATABASE_S, Authenticator
from totalizer.web.identity_token import TokenVerifier
from totalizer.web.limits import Limiter, Limits
from totalizer.web.principal import Known, Principal
from unit.web.parts import NOW_NS, HandClock

HEADER = "Bearer tz_key"
CACHE_S = 2.0


class AwayPool(AsyncConnectionPool[Any]):
    """A pool that was never opened, so that it can give no connection; counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__("host=127.0.0.1 port=1", open=False)
        self.asked = 0

    def connection(self, timeout: float | None = None) -> Any:
        self.asked += 1
        return super().connection(timeout)


LIMITER = Limiter(Limits(), window_ms=60_000, leases=None, processes=1, clock=HandClock())
METERS = LIMITER.meters("organisation", None)


def principal(actions: tuple[str, ...] = ("ingest", "query"), expires_at: datetime | None = None) -> Principal:
    ns = None if expires_at is None else int(expires_at.timestamp() * 1e9)
    return Principal("organisation", frozenset(actions), METERS, "this API key", key_id="key", expires_ns=ns)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def pool() -> AwayPool:
    return AwayPool()


@pytest.fixture
def authenticator(pool: AwayPool, clock: HandClock) -> Authenticator:
    return Authenticator(pool, clock, LIMITER, cache_s=CACHE_S)


def learn(authenticator: Authenticator, found: Principal | None, clock: HandClock, header: str = HEADER) -> None:
    """As if the database had just been asked."""
    authenticator._remember(header, Known(found, clock.monotonic()))


def refusal_of(authenticator: Authenticator, header: str | None, scope: str = "ingest") -> Refused:
    with pytest.raises(Refused) as caught:
        asyncio.run(authenticator.authenticate(header, scope))
    return caught.value


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "tz_key",
        "Basic tz_key",
        "Bearer other",
        "Bearer  tz_key",
        "bearertz_key",
        "Bearer a.b.c" + "c" * 4096,
        "Bearer tz_" + "k" * 126,
        "Basic Og==",
        "Basic ///",
        "Basic eDp0el9rZXk=",
        "Digest tz_key",
    ],
)
def test_without_a_key_nobody_is_asked(authenticator: Authenticator, pool: AwayPool, header: str | None) -> None:
    refused = refusal_of(authenticator, header)
    assert refused.refusal is Refusal.UNAUTHENTICATED
    assert "Authorization: Bearer tz_…" in refused.detail
    assert pool.asked == 0
    assert authenticator.remembered(header, "ingest") is None


def test_a_remembered_key_is_believed_for_the_cache_time(
    authenticator: Authenticator, clock: HandClock, pool: AwayPool
) -> None:
    learn(authenticator, principal(), clock)
    clock.sleep(CACHE_S)
    assert authenticator.remembered(HEADER, "ingest") == principal()
    assert asyncio.run(authenticator.authenticate(HEADER, "query")) == principal()
    assert pool.asked == 0
    clock.sleep(0.001)
    assert authenticator.remembered(HEADER, "ingest") is None, "a revoked key would live on"


def test_a_scope_that_a_key_lacks_is_forbidden(authenticator: Authenticator, clock: HandClock) -> None:
    learn(authenticator, principal(("query",)), clock)
    assert authenticator.remembered(HEADER, "ingest") is None
    refused = refusal_of(authenticator, HEADER, "ingest")
    assert refused.refusal is Refusal.FORBIDDEN
    assert (
        refused.detail == "this API key may not ingest (send events, track usage, start and end sessions); it may query"
    )


def test_a_key_ends_on_time_though_it_is_remembered(authenticator: Authenticator, clock: HandClock) -> None:
    learn(authenticator, principal(expires_at=datetime(2025, 9, 5, 10, 0, 1, tzinfo=UTC)), clock)
    clock.sleep(0.999)
    assert authenticator.remembered(HEADER, "ingest") is not None
    clock.sleep(0.001)
    assert authenticator.remembered(HEADER, "ingest") is None
    assert refusal_of(authenticator, HEADER).refusal is Refusal.UNAUTHENTICATED


def test_an_unknown_key_is_remembered_as_unknown(
    authenticator: Authenticator, clock: HandClock, pool: AwayPool
) -> None:
    learn(authenticator, None, clock)
    clock.sleep(identity.UNKNOWN_REMEMBERED_S)
    assert refusal_of(authenticator, HEADER).refusal is Refusal.UNAUTHENTICATED
    assert pool.asked == 0
    clock.sleep(0.001)
    assert refusal_of(authenticator, HEADER).refusal is Refusal.DATABASE_UNAVAILABLE
    assert pool.asked == 1


def test_an_unknown_key_cannot_be_checked_while_the_database_is_away(
    authenticator: Authenticator, clock: HandClock, pool: AwayPool
) -> None:
    refused = refusal_of(authenticator, HEADER)
    assert (refused.refusal, refused.status) == (Refusal.DATABASE_UNAVAILABLE, 503)
    assert refused.retry_after_s is not None
    refusal_of(authenticator, HEADER)
    assert pool.asked == 1, "nobody asks again at once"
    clock.sleep(identity.AWAY_PAUSE_S)
    refusal_of(authenticator, HEADER)
    assert pool.asked == 2


def test_a_known_key_is_believed_for_an_hour_while_the_database_is_away(
    authenticator: Authenticator, clock: HandClock
) -> None:
    learn(authenticator, principal(), clock)
    clock.sleep(BELIEVED_WITHOUT_DATABASE_S - 1)
    assert asyncio.run(authenticator.authenticate(HEADER, "ingest")) == principal()
    clock.sleep(1)
    assert refusal_of(authenticator, HEADER).refusal is Refusal.DATABASE_UNAVAILABLE


def test_what_is_remembered_is_bounded_and_the_oldest_goes(
    authenticator: Authenticator, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "KEYS_REMEMBERED_MAX", 3)
    for number in range(5):
        learn(authenticator, principal(), clock, f"Bearer tz_{number}")
    known = [authenticator.remembered(f"Bearer tz_{number}", "ingest") is not None for number in range(5)]
    assert known == [False, False, True, True, True]
    learn(authenticator, principal(), clock, "Bearer tz_2")  # anew: now it is the youngest
    learn(authenticator, principal(), clock, "Bearer tz_5")
    assert authenticator.remembered("Bearer tz_2", "ingest") is not None
    assert authenticator.remembered("Bearer tz_3", "ingest") is None


def test_a_pool_that_is_away_raises_what_the_authenticator_expects() -> None:
    async def ask() -> None:
        async with AwayPool().connection():
            raise AssertionError("there is no connection")

    with pytest.raises(psycopg.OperationalError):
        asyncio.run(ask())


SECRET = "a shared secret of more than 32 bytes"
ORGANIZATION = "7f1f9d9a-55d6-4f4c-8f6a-0e6f0a3b9c11"


def token_header(**changes: Any) -> str:
    claims = {"organization_id": ORGANIZATION, "role": "developer", "exp": NOW_NS // 10**9 + 60, **changes}
    return "Bearer " + jwt.encode(claims, SECRET, algorithm="HS256")


def test_a_token_is_checked_though_the_database_is_away(pool: AwayPool, clock: HandClock) -> None:
    authenticator = Authenticator(pool, clock, LIMITER, TokenVerifier(clock, secret=SECRET), cache_s=CACHE_S)
    header = token_header()
    assert refusal_of(authenticator, header).refusal is Refusal.DATABASE_UNAVAILABLE
    known = Principal(ORGANIZATION, frozenset({"ingest"}), METERS, "the role developer", role="developer")
    learn(authenticator, known, clock, header)
    clock.sleep(CACHE_S + 1)
    assert asyncio.run(authenticator.authenticate(header, "ingest")) == known
    assert refusal_of(authenticator, token_header(role="root")).refusal is Refusal.UNAUTHENTICATED
    clock.sleep(60)
    refused = refusal_of(authenticator, header)
    assert (refused.refusal, "has expired" in refused.detail) == (Refusal.UNAUTHENTICATED, True)


def test_without_settings_tokens_are_not_taken(authenticator: Authenticator, pool: AwayPool) -> None:
    assert "not taken here" in refusal_of(authenticator, token_header()).detail
    assert pool.asked == 0


def test_guessing_pushes_no_right_key_out(
    authenticator: Authenticator, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "KEYS_REMEMBERED_MAX", 3)
    learn(authenticator, principal(), clock)
    for number in range(10):
        learn(authenticator, None, clock, f"Bearer tz_guess{number}")
    assert authenticator.remembered(HEADER, "ingest") is not None
    assert len(authenticator._unknown) == 3
