"""Tokens: good ones, and every way of forging or spoiling one. A clock moved by hand, real keys, a real issuer."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import os
from pathlib import Path
from typing import Any

import jwt
import pytest

from tokens import SECRET, KeyPair, b64, issuer, jwks
from totalizer.errors import ConfigurationError, Refusal, Refused
from totalizer.web.identity_header import TOKEN_LENGTH_MAX, read_header
from totalizer.web.identity_keyset import read_keys
from totalizer.web.identity_sources import ADDRESS_AGE_S, AddressKeys, FileKeys, key_source
from totalizer.web.identity_token import Claims, TokenVerifier
from unit.web.parts import NOW_S, HandClock

ORGANIZATION = "7f1f9d9a-55d6-4f4c-8f6a-0e6f0a3b9c11"
CLAIMS = {"organization_id": ORGANIZATION, "role": "developer", "sub": "jane", "exp": NOW_S + 60}
RSA, RSA_OTHER, EC = KeyPair("rsa-1"), KeyPair("rsa-2"), KeyPair("ec-1", "ES256")


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def folder_keys(tmp_path: Path, clock: HandClock) -> FileKeys:
    path = tmp_path / "keys.json"
    path.write_bytes(jwks(RSA, EC))
    return FileKeys(path, clock)


@pytest.fixture
def verifier(clock: HandClock, folder_keys: FileKeys) -> TokenVerifier:
    return TokenVerifier(
        clock, secret=SECRET, keys=folder_keys, audience="totalizer", issuer="https://issuer.example", leeway_s=5
    )


def claims(**changes: Any) -> dict[str, Any]:
    """Good claims, with changes; None takes one away."""
    whole = {**CLAIMS, "aud": "totalizer", "iss": "https://issuer.example", **changes}
    return {name: value for name, value in whole.items() if value is not None}


def signed(pair: KeyPair = RSA, headers: dict[str, Any] | None = None, **changes: Any) -> str:
    given = {"kid": pair.kid, **(headers or {})}
    return jwt.encode(
        claims(**changes), pair.private, algorithm=pair.kind,
        headers={name: value for name, value in given.items() if value is not None},
    )  # fmt: skip


def assembled(header: Any, payload: Any, key: bytes = SECRET.encode(), signature: bytes | None = None) -> str:
    """A token put together by hand; signed with HMAC unless a signature is given."""
    parts = [b64(part if isinstance(part, bytes) else json.dumps(part).encode()) for part in (header, payload)]
    text = ".".join(parts)
    if signature is None:
        signature = hmac.new(key, text.encode(), hashlib.sha256).digest()
    return f"{text}.{b64(signature)}"


def verify(verifier: TokenVerifier, token: str) -> Claims:
    return asyncio.run(verifier.verify(token))


def reason(verifier: TokenVerifier, token: str) -> str:
    with pytest.raises(Refused) as caught:
        verify(verifier, token)
    assert (caught.value.refusal, caught.value.status) == (Refusal.UNAUTHENTICATED, 401)
    return caught.value.detail


@pytest.mark.parametrize("pair", [RSA, EC])
def test_a_token_signed_with_a_published_key_is_good(verifier: TokenVerifier, pair: KeyPair) -> None:
    found = verify(verifier, signed(pair))
    assert found == Claims(ORGANIZATION, "developer", "jane", (NOW_S + 65) * 10**9)
    assert verify(verifier, signed(pair, {"kid": None})) == found, "a token need not name its key"


def test_a_token_signed_with_the_shared_secret_is_good(verifier: TokenVerifier) -> None:
    token = jwt.encode(claims(sub=None), SECRET, algorithm="HS256")
    assert verify(verifier, token) == Claims(ORGANIZATION, "developer", None, (NOW_S + 65) * 10**9)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"exp": None}, "no `exp`"),
        ({"exp": NOW_S - 5}, "expired"),
        ({"exp": str(NOW_S + 60)}, "`exp` is no number"),
        ({"exp": True}, "`exp` is no number"),
        ({"exp": [NOW_S]}, "`exp` is no number"),
        ({"nbf": NOW_S + 6}, "`nbf` lies in the future"),
        ({"iat": NOW_S + 6}, "`iat` lies in the future"),
        ({"iat": {}}, "`iat` is no number"),
        ({"aud": None}, "no `aud`"),
        ({"aud": "other"}, "`aud`"),
        ({"aud": ["other", "another"]}, "`aud`"),
        ({"iss": None}, "no `iss`"),
        ({"iss": "https://evil.example"}, "`iss`"),
        ({"organization_id": None}, "organization_id"),
        ({"organization_id": 5}, "organization_id"),
        ({"organization_id": "acme"}, "organization_id"),
        ({"organization_id": ORGANIZATION + "\n"}, "organization_id"),
        ({"role": None}, "role"),
        ({"role": "root"}, "none of viewer, developer, manager, admin"),
        ({"role": ["admin"]}, "role"),
        ({"sub": ""}, "sub"),
        ({"sub": "x" * 256}, "sub"),
    ],
)
def test_claims_that_are_not_good(verifier: TokenVerifier, changes: dict[str, Any], words: str) -> None:
    assert words in reason(verifier, signed(**changes))


@pytest.mark.parametrize("changes", [{"nbf": NOW_S + 5}, {"iat": NOW_S + 5}, {"exp": NOW_S - 4}, {"aud": ["totalizer"]},
                                     {"exp": NOW_S + 0.5}, {"organization_id": ORGANIZATION.upper()}])  # fmt: skip
def test_clocks_may_differ_by_the_leeway(verifier: TokenVerifier, changes: dict[str, Any]) -> None:
    assert verify(verifier, signed(**changes)).organization_id == ORGANIZATION


def test_a_time_beyond_all_reckoning_is_no_error_of_ours(verifier: TokenVerifier) -> None:
    body = json.dumps(claims()).replace(str(CLAIMS["exp"]), "1" + "0" * 300)
    assert verify(verifier, assembled({"alg": "HS256"}, body.encode())).expires_ns > 0
    for value in ("1e999", "-1e999", "NaN", "9" * 5000):
        text = json.dumps(claims()).replace(str(CLAIMS["exp"]), value)
        reason(verifier, assembled({"alg": "HS256"}, text.encode()))


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "", "HS384", "RS512", "PS256", "EdDSA", "rs256"])
def test_other_algorithms_are_not_taken(verifier: TokenVerifier, algorithm: str) -> None:
    assert "not taken" in reason(verifier, assembled({"alg": algorithm}, claims(), signature=b""))
    assert "not taken" in reason(verifier, assembled({"alg": algorithm}, claims()))


def test_a_public_key_is_no_secret(clock: HandClock, verifier: TokenVerifier, folder_keys: FileKeys) -> None:
    """The oldest forgery: a token signed by HMAC with the published key as its secret."""
    forged = [assembled({"alg": "HS256", "kid": RSA.kid}, claims(), key) for key in (RSA.pem, RSA.pem.strip())]
    for token in forged:
        assert "signature" in reason(verifier, token)
        keys_only = TokenVerifier(clock, keys=folder_keys)
        assert "not taken" in reason(keys_only, token)
        assert "signature" in reason(verifier, token.replace(b64(b'{"alg": "HS256"'), b64(b'{"alg": "RS256"')))


def test_a_key_is_used_with_its_own_algorithm_only(verifier: TokenVerifier) -> None:
    assert "not known" in reason(verifier, signed(EC, {"kid": RSA.kid}))
    assert "not known" in reason(verifier, signed(RSA, {"kid": EC.kid}))


def test_a_stranger_s_signature_is_wrong(verifier: TokenVerifier) -> None:
    assert "signature is wrong" in reason(verifier, signed(RSA_OTHER, {"kid": RSA.kid}))
    assert "signature is wrong" in reason(verifier, signed(RSA_OTHER, {"kid": None}))
    assert "not known" in reason(verifier, signed(RSA_OTHER))
    token = signed()
    head, _, tail = token.rpartition(".")
    other = "A" if tail[0] != "A" else "B"
    assert "signature is wrong" in reason(verifier, f"{head}.{other}{tail[1:]}")
    header, _, signature = token.split(".")
    stolen = f"{header}.{b64(json.dumps(claims(role='admin')).encode())}.{signature}"
    assert "signature is wrong" in reason(verifier, stolen)
    assert "signature" in reason(verifier, jwt.encode(claims(), SECRET + "x", algorithm="HS256"))


@pytest.mark.parametrize(
    "token",
    [
        "..", "a.b.c", "é.é.é", "e30.e30.", assembled([], {}), assembled(b"null", {}), assembled(b"[" * 2000, {}),
        assembled({"alg": "HS256"}, b"[" * 2000), assembled({"alg": "HS256"}, []), assembled({"alg": "HS256"}, b"\xff"),
        assembled({"alg": ["HS256"]}, {}), assembled({"alg": None}, {}), assembled({}, {}),
        assembled({"alg": "HS256", "kid": 5}, {}), assembled({"alg": "HS256", "kid": ["a"]}, {}),
        assembled({"alg": "HS256", "crit": ["exp"]}, claims()), assembled({"alg": "HS256", "b64": False}, claims()),
        assembled(b'{"alg": "HS256", "x": ' + b"9" * 5000 + b"}", {}),
    ],
)  # fmt: skip
def test_what_is_no_token_is_refused(verifier: TokenVerifier, token: str) -> None:
    reason(verifier, token)


def test_keys_inside_a_token_are_not_looked_at(verifier: TokenVerifier) -> None:
    for header in ({"jwk": RSA_OTHER.jwk}, {"jku": "http://127.0.0.1:1/keys"}, {"x5u": "file:///etc/passwd"}):
        assert "signature is wrong" in reason(verifier, signed(RSA_OTHER, {"kid": RSA.kid, **header}))


def test_a_refusal_holds_nothing_of_the_token(verifier: TokenVerifier) -> None:
    token = signed(role="boss-of-all")
    assert not any(part in reason(verifier, token) for part in (*token.split("."), "boss", "jane"))


def test_without_audience_and_issuer_any_will_do(clock: HandClock) -> None:
    verifier = TokenVerifier(clock, secret=SECRET)
    for changes in ({}, {"aud": "other"}, {"iss": None, "aud": None}):
        token = jwt.encode(claims(**changes), SECRET, algorithm="HS256")
        assert verify(verifier, token).role == "developer"


def test_the_header_is_read_once_for_what_it_is() -> None:
    key = "tz_" + "k" * 43
    basic = base64.b64encode(f"{key}:".encode()).decode()
    assert read_header(f"Bearer {key}") == read_header(f"Basic {basic}") == (key, False)
    assert read_header("basic " + base64.b64encode(f"{key}:pass:word".encode()).decode()) == (key, False)
    assert read_header("bearer a.b.c") == ("a.b.c", True)
    longest = "a." + "b" * (TOKEN_LENGTH_MAX - 4) + ".c"
    assert read_header(f"Bearer {longest}") == (longest, True)
    with pytest.raises(Refused, match="too long"):
        read_header(f"Bearer {longest}c")


def test_documents_of_keys(tmp_path: Path) -> None:
    both = RSA.pem + b"some words\n" + EC.pem
    assert [(key.kid, key.algorithm) for key in read_keys(both, "x")] == [(None, "RS256"), (None, "ES256")]
    mixed = json.loads(jwks(RSA, EC))
    mixed["keys"] += [
        {"kty": "oct", "k": b64(b"x" * 32), "kid": "s", "alg": "HS256"}, {"kty": "RSA", "n": "AQAB"}, 5, {},
        {**RSA_OTHER.jwk, "use": "enc"}, {**RSA_OTHER.jwk, "alg": "RS512"}, KeyPair("short", bits=1024).jwk,
        {"kty": "EC", "crv": "P-384", "x": "AA", "y": "AA"},
    ]  # fmt: skip
    assert [key.kid for key in read_keys(json.dumps(mixed).encode(), "x")] == ["rsa-1", "ec-1"]


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (b"", "neither PEM nor"), (b"{}", "neither PEM nor"), (b"[" * 100_000, "neither PEM nor"),
        (b'{"keys": {}}', "no list"), (b'{"keys": []}', "no key"), (b'{"keys": [{"kty": "oct", "k": "AA"}]}', "no key"),
        (RSA.private_pem, "private key"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "cannot be read"),
        (b"-----BEGIN PUBLIC KEY-----", "0 PEM"), (KeyPair("s", bits=1024).pem, "2048 bits"),
        (b" " * ((1 << 20) + 1), "bytes"), (json.dumps({"keys": [RSA.jwk] * 101}).encode(), "at most 100"),
    ],
)  # fmt: skip
def test_documents_that_are_none(document: bytes, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        read_keys(document, "x")


def test_a_file_is_read_again_when_it_changes(tmp_path: Path, clock: HandClock) -> None:
    path = tmp_path / "keys.pem"
    path.write_bytes(RSA.pem)
    verifier = TokenVerifier(clock, keys=key_source(str(path), clock, refresh_s=10))
    verify(verifier, signed())
    replacement = tmp_path / "new"
    replacement.write_bytes(RSA_OTHER.pem)
    replacement.rename(path)
    clock.sleep(1)
    assert "signature is wrong" in reason(verifier, signed())
    verify(verifier, signed(RSA_OTHER))
    path.write_bytes(b"rubbish")
    clock.sleep(1)
    verify(verifier, signed(RSA_OTHER))
    path.unlink()
    clock.sleep(1)
    verify(verifier, signed(RSA_OTHER))


def test_a_file_that_is_not_there_stops_the_start(tmp_path: Path, clock: HandClock) -> None:
    with pytest.raises(ConfigurationError, match=r"TOTALIZER_JWT_KEYS=.*cannot be read"):
        key_source(str(tmp_path / "none"), clock, refresh_s=10)
    for address in ("http://issuer.example/keys", "ftp://127.0.0.1/keys", "file:///etc/keys"):
        with pytest.raises(ConfigurationError, match="use https"):
            key_source(address, clock, refresh_s=10)


def test_an_address_is_asked_seldom_and_its_last_keys_stay(clock: HandClock) -> None:
    """
    0 s fetched ─ unknown name: not asked again before 10 s ─ 10 s asked: rotated key known ─ issuer away: keys stay
    """
    with issuer(jwks(RSA)) as state:
        verifier = TokenVerifier(clock, keys=AddressKeys(state.url, clock, refresh_s=10))

        async def all_of_it() -> None:
            await asyncio.gather(*(verifier.verify(signed()) for _ in range(20)))
            assert state.asked == 1, "all wait for one"
            state.document = jwks(RSA, RSA_OTHER)
            for _ in range(3):
                with pytest.raises(Refused, match="not known"):
                    await verifier.verify(signed(RSA_OTHER))
            assert state.asked == 1
            clock.sleep(10)
            await verifier.verify(signed(RSA_OTHER, exp=NOW_S + 10**6))
            assert state.asked == 2
            for document in (None, b"rubbish", b'{"keys": []}'):
                state.document = document
                clock.sleep(10)
                with pytest.raises(Refused, match="not known"):
                    await verifier.verify(signed(EC, exp=NOW_S + 10**6))
                await verifier.verify(signed(exp=NOW_S + 10**6))
            state.document = jwks(EC)
            clock.sleep(ADDRESS_AGE_S + 1)
            await verifier.verify(signed(exp=NOW_S + 10**6))  # the old ones are good enough for it, and are renewed
            while state.asked < 6:
                await asyncio.sleep(0.01)
            clock.sleep(10)
            with pytest.raises(Refused, match="not known"):
                await verifier.verify(signed(exp=NOW_S + 10**6))

        asyncio.run(all_of_it())


def test_a_renewal_under_way_ends_with_its_verifier(clock: HandClock) -> None:
    with issuer(jwks(RSA)) as state:
        verifier = TokenVerifier(clock, keys=AddressKeys(state.url, clock, refresh_s=10))

        async def all_of_it() -> None:
            await verifier.verify(signed(exp=NOW_S + 10**6))
            clock.sleep(ADDRESS_AGE_S + 1)
            await verifier.verify(signed(exp=NOW_S + 10**6))  # begins a renewal that nobody waits for
            assert len(asyncio.all_tasks()) == 2
            await verifier.close()
            assert len(asyncio.all_tasks()) == 1

        asyncio.run(all_of_it())


def test_an_issuer_that_was_never_there(clock: HandClock) -> None:
    verifier = TokenVerifier(clock, keys=AddressKeys("http://127.0.0.1:1/keys", clock, refresh_s=10))
    with pytest.raises(Refused) as caught:
        verify(verifier, signed())
    assert (caught.value.refusal, caught.value.retry_after_s) == (Refusal.IDENTITY_UNAVAILABLE, 5)


def test_random_bytes_are_never_a_token(verifier: TokenVerifier) -> None:
    for _ in range(200):
        reason(verifier, ".".join(b64(os.urandom(20)) for _ in range(3)))
