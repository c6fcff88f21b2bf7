"""When a failed batch is tried again."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from totalizer.edge.daemon.backoff import Backoff
from totalizer.edge.daemon.options import DaemonOptions
from unit.edge.daemon.parts import T0, failed

OPTIONS = DaemonOptions(backoff_ms=1000, backoff_ms_max=50_000)


def waits(chance: float) -> list[int]:
    backoff = Backoff(OPTIONS, lambda: chance)
    return [backoff.next_retry_at(count, T0) - T0 for count in range(1, 6)]


def test_each_wait_is_four_times_the_one_before_up_to_the_longest() -> None:
    assert waits(0.0) == [1000, 4000, 16_000, 50_000, 50_000]


def test_chance_takes_a_fifth_off_at_most() -> None:
    assert waits(1.0) == [800, 3200, 12_800, 40_000, 40_000]


def test_what_the_target_asks_for_counts_up_to_the_longest() -> None:
    backoff = Backoff(OPTIONS, lambda: 0.0)
    assert backoff.next_retry_at(1, T0, 30.0) == T0 + 30_000
    assert backoff.next_retry_at(1, T0, 0.5) == T0 + 1000
    assert backoff.next_retry_at(1, T0, 1e9) == T0 + 50_000
    assert backoff.next_retry_at(1, T0, float("nan")) == T0 + 1000
    assert backoff.next_retry_at(1000, T0) == T0 + 50_000


def test_due() -> None:
    #   failed        last try            next retry
    #   T0 ───────────── +10 ──────────────── +30 ─────▶
    #                      not due             due
    backoff, batch = Backoff(OPTIONS), failed(last_retry_at=T0 + 10, next_retry_at=T0 + 30)
    assert backoff.due(replace(batch, next_retry_at=None), T0)
    assert not backoff.due(batch, T0 + 29)
    assert backoff.due(batch, T0 + 30)
    assert backoff.due(batch, T0 + 9), "the last try lies in the future: the clock was set back"


def test_a_time_far_away_counts_as_the_longest_wait() -> None:
    """An aggregator notes whatever the target asked for; a clock may have been years ahead."""
    backoff, batch = Backoff(OPTIONS), failed(next_retry_at=T0 + 10**12)
    assert not backoff.due(batch, T0 + 49_999)
    assert backoff.due(batch, T0 + 50_000)


@given(
    last=st.none() | st.integers(0, 2 * T0),
    retry_at=st.none() | st.integers(-(2**63), 2**63),
    now=st.integers(0, 2 * T0),
)
def test_no_batch_waits_longer_than_the_longest_wait_from_now(last: int | None, retry_at: int | None, now: int) -> None:
    batch = failed(last_retry_at=last, next_retry_at=retry_at)
    assert Backoff(OPTIONS).due(batch, now + OPTIONS.backoff_ms_max) or max(last or 0, T0) > now
    # One whose last try lies in the future is due at once, until it has been tried.
    assert Backoff(OPTIONS).due(batch, now) or (T0 if last is None else last) <= now
