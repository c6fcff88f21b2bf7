"""Receipts: what they say, and that nobody else can make or use one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from totalizer.clock import SystemClock
from totalizer.errors import Refused
from totalizer.web.ingest import with_receipt
from totalizer.web.receipts import Receipt, Receipts, receipt_key

MINE, THEIRS = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"
JOURNAL = "97d5c550-29c3-4466-935a-077e64da1043"
NOW_S = 1_757_066_400


class Clock(SystemClock):
    """Stands still, until it is set."""

    now_s = NOW_S

    def now_ns(self) -> int:
        return self.now_s * 1_000_000_000 + 999


def receipts(clock: Clock | None = None, secret: str = "s") -> Receipts:
    return Receipts(receipt_key(secret), JOURNAL, clock or Clock(), days=30)


def token(accepted: int, sequence: int, organization_id: str = MINE) -> str:
    return receipts().make(organization_id, sequence, accepted).decode()


def test_it_is_the_last_member_of_an_answer() -> None:
    assert with_receipt(b'{"accepted":1}', b"r-1") == b'{"accepted":1,"receipt":"r-1"}'


@given(st.integers(1, 10**9 - 1), st.integers(1, 2**60 - 1))
def test_what_is_sealed_is_read(accepted: int, sequence: int) -> None:
    assert receipts().read(token(accepted, sequence), MINE) == Receipt(JOURNAL, sequence, accepted, NOW_S)


@given(st.data())
def test_one_character_changed_is_no_receipt(data: st.DataObject) -> None:
    good = token(7, 1000)
    place = data.draw(st.integers(0, len(good) - 1))
    character = data.draw(st.sampled_from("0123456789abcdef-gé\0").filter(lambda one: one != good[place]))
    with pytest.raises(Refused) as refused:
        receipts().read(good[:place] + character + good[place + 1 :], MINE)
    assert refused.value.status == 404


@given(st.text(max_size=200))
def test_any_text_is_refused_and_nothing_else_happens(text: str) -> None:
    with pytest.raises(Refused) as refused:
        receipts().read(text, MINE)
    assert refused.value.status == 404


def test_another_organisation_or_installation_cannot_use_it() -> None:
    with pytest.raises(Refused, match="no receipt"):
        receipts().read(token(1, 1), THEIRS)
    with pytest.raises(Refused, match="no receipt"):
        receipts(secret="another").read(token(1, 1), MINE)


def test_it_is_good_for_so_many_days() -> None:
    clock, good = Clock(), token(1, 1)
    clock.now_s = NOW_S + 30 * 86_400
    assert receipts(clock).read(good, MINE).received_s == NOW_S
    clock.now_s += 1
    with pytest.raises(Refused, match="older than 30 days") as refused:
        receipts(clock).read(good, MINE)
    assert refused.value.status == 410
