"""Cookies that only this installation can have made, and forms that only its page can have made."""

from __future__ import annotations

import pytest

from totalizer.web.operator.session import SESSION_S, OperatorSession, SessionSeal, session_key

NOW_NS = 1_760_000_000_000_000_000
HOUR_NS = SESSION_S * 1_000_000_000


class HandClock:
    """A clock that stands until it is set."""

    def __init__(self, now_ns: int) -> None:
        self.at_ns = now_ns

    def now_ns(self) -> int:
        return self.at_ns

    def monotonic(self) -> float:
        return self.at_ns / 1e9

    def sleep(self, seconds: float) -> None:
        self.at_ns += int(seconds * 1e9)


@pytest.fixture
def clock() -> HandClock:
    return HandClock(NOW_NS)


@pytest.fixture
def seal(clock: HandClock) -> SessionSeal:
    return SessionSeal(session_key("a secret"), clock)


def session(**more: object) -> OperatorSession:
    return OperatorSession("nonce", "an organisation", frozenset({"jobs_read"}), NOW_NS + HOUR_NS, **more)  # type: ignore[arg-type]


def test_what_is_written_is_read(seal: SessionSeal) -> None:
    for one in (session(key_id="0123456789ab"), session(user_id="ada", role="manager")):
        assert seal.read(seal.write(one)) == one
    assert session(key_id="0123456789ab").title == "API key 01234567…"
    assert session(user_id="ada", role="manager").title == "ada (manager)"


def test_it_ends_after_an_hour_and_with_its_key(seal: SessionSeal, clock: HandClock) -> None:
    cookie = seal.write(session())
    assert seal.end_ns(None) == NOW_NS + HOUR_NS
    assert seal.end_ns(NOW_NS + 5) == NOW_NS + 5
    clock.sleep(SESSION_S - 1)
    assert (seal.left_s(session()), seal.read(cookie) is not None) == (1, True)
    clock.sleep(1)
    assert (seal.left_s(session()), seal.read(cookie)) == (0, None)


def test_no_character_can_be_changed(seal: SessionSeal) -> None:
    cookie = seal.write(session(role="viewer"))
    for place in range(len(cookie)):
        other = "A" if cookie[place] != "A" else "B"
        assert seal.read(cookie[:place] + other + cookie[place + 1 :]) is None, place


@pytest.mark.parametrize("cookie", [None, "", ".", "a", "a.b", "é.é", "=" * 5000, "..", "e30.e30"])
def test_what_is_none_is_none(seal: SessionSeal, cookie: str | None) -> None:
    assert seal.read(cookie) is None


def test_another_installation_made_it(seal: SessionSeal, clock: HandClock) -> None:
    assert SessionSeal(session_key("another secret"), clock).read(seal.write(session())) is None


def test_forms_are_of_one_session(seal: SessionSeal) -> None:
    token = seal.form_token("one")
    assert seal.is_form_token(token, "one")
    for wrong, nonce in ((token, "two"), ("", "one"), (token[:-1], "one"), ("é", "one")):
        assert not seal.is_form_token(wrong, nonce)
    assert seal.write(session()).partition(".")[2] != seal.form_token(seal.write(session()).partition(".")[0])
