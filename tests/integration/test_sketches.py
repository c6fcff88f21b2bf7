"""Sketches in SQL against brute force: states are canonical, merge in any order, and keep their promised errors."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from totalizer.catalog.measures import UNIQUE_EXACT_MAX
from totalizer.store.roles import Role

FINITE = st.floats(allow_nan=False, allow_infinity=False)
NUMBERS = st.one_of(FINITE, st.integers(-1000, 1000).map(float), st.just(0.0))
#: What 1 % may become by the rounding of doubles.
ERROR_MAX = 0.01 + 1e-9


class Sketches:
    """The functions of schema totalizer, over lists."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def one(self, expression: str, *parameters: Any) -> Any:
        row = self.connection.execute(f"SELECT {expression}".encode(), parameters).fetchone()
        return row[0]

    def quantile_state(self, values: list[float]) -> Any:
        return self.one(
            "totalizer.count_quantiles(array_agg(totalizer.quantile_index(x))) FROM unnest(%s::float8[]) AS x", values
        )

    def unique_state(self, values: list[str]) -> Any:
        return self.one("totalizer.merge_unique(string_agg(DISTINCT md5(x), ' ')) FROM unnest(%s::text[]) AS x", values)

    def merged(self, kind: str, states: list[Any]) -> Any:
        return self.one(f"totalizer.merge_{kind}(string_agg(x, ' ')) FROM unnest(%s::text[]) AS x", states)

    def quantiles(self, state: Any, wanted: list[float]) -> list[float]:
        values = self.one("totalizer.quantile_values(%s, %s::float8[])", state, wanted)
        names = [self.one("'p' || (%s::float8::numeric * 100)::float8", quantile) for quantile in wanted]
        return [values[name] for name in names]


@pytest.fixture(scope="module")
def sketches(cluster: Any) -> Iterator[Sketches]:
    with cluster.database() as database:
        yield Sketches(database.connect(Role.APP))


def in_parts(values: list[Any], rng: random.Random) -> list[list[Any]]:
    parts: list[list[Any]] = [[] for _ in range(rng.randrange(1, 5))]
    for value in values:
        rng.choice(parts).append(value)
    return parts


@settings(max_examples=60)
@given(values=st.lists(NUMBERS, min_size=1, max_size=200), quantile=st.floats(0, 1))
def test_a_quantile_is_at_most_one_percent_off(sketches: Sketches, values: list[float], quantile: float) -> None:
    wanted = [0.0, 0.5, quantile, 0.99, 1.0]
    got = sketches.quantiles(sketches.quantile_state(values), wanted)
    ordered = sorted(values)
    for which, value in zip(wanted, got, strict=True):
        # By the database's own product: q (n - 1) in decimal, so that a place is not missed by a rounding.
        place = int(sketches.one("floor(%s::float8::numeric * %s)", which, len(values) - 1))
        # The smallest doubles have too few digits to be 1 % off.
        assert math.isclose(value, ordered[place], rel_tol=ERROR_MAX, abs_tol=1e-300), (which, value, ordered[place])


@settings(max_examples=40)
@given(values=st.lists(NUMBERS, min_size=1, max_size=120), rng=st.randoms(use_true_random=False))
def test_quantiles_merge_in_any_order(sketches: Sketches, values: list[float], rng: random.Random) -> None:
    states = [sketches.quantile_state(part) for part in in_parts(values, rng)]
    rng.shuffle(states)
    half = rng.randrange(len(states) + 1)
    stepwise = sketches.merged(
        "quantiles", [sketches.merged("quantiles", states[:half]), sketches.merged("quantiles", states[half:])]
    )
    assert stepwise == sketches.merged("quantiles", states) == sketches.quantile_state(values)


def test_every_value_of_a_double_has_an_index(sketches: Sketches) -> None:
    values = [5e-324, -5e-324, 1.7976931348623157e308, -1.7976931348623157e308, 0.0, -0.0, 1.0, -1.0]
    state = sketches.quantile_state(values)
    got = sketches.quantiles(state, [0.0, 0.5, 1.0])
    assert got[0] == pytest.approx(-1.7976931348623157e308, rel=ERROR_MAX)
    assert got[1] == 0
    assert got[2] == pytest.approx(1.7976931348623157e308, rel=ERROR_MAX)
    # No event that was sent has these, but a correction by hand must not stop a rollup.
    assert sketches.one("totalizer.quantile_index('Infinity') = totalizer.quantile_index('NaN')")
    assert sketches.one("totalizer.quantile_index('-Infinity')") == -75488


def test_nothing_has_no_state(sketches: Sketches) -> None:
    for expression in (
        "totalizer.count_quantiles(array_agg(totalizer.quantile_index(NULL)))",
        "totalizer.count_quantiles(array_agg(totalizer.quantile_index(NULL))) FROM generate_series(1, 3)",
        "totalizer.merge_quantiles(string_agg(NULL, ' ')) FROM generate_series(1, 3)",
        "totalizer.merge_unique(string_agg(DISTINCT md5(NULL), ' ')) FROM generate_series(1, 3)",
        "totalizer.quantile_values(NULL, ARRAY[0.5])",
    ):
        assert sketches.one(expression) is None, expression
    assert sketches.one("totalizer.unique_count(NULL)") == 0
    assert sketches.one("totalizer.unique_is_estimate(NULL)") is False


@settings(max_examples=60)
@given(
    values=st.lists(st.integers(0, 300).map(str), max_size=500),
    rng=st.randoms(use_true_random=False),
)
def test_unique_values_merge_in_any_order_and_are_exact_while_few(
    sketches: Sketches, values: list[str], rng: random.Random
) -> None:
    states = [state for part in in_parts(values, rng) if (state := sketches.unique_state(part))]
    rng.shuffle(states)
    half = rng.randrange(len(states) + 1)
    parts = [part for half_ in (states[:half], states[half:]) if (part := sketches.merged("unique", half_))]
    state = sketches.unique_state(values)
    assert sketches.merged("unique", parts) == sketches.merged("unique", states) == state
    different = len(set(values))
    estimated = sketches.one("totalizer.unique_is_estimate(%s)", state)
    assert estimated is (different > UNIQUE_EXACT_MAX)
    if not estimated:
        assert sketches.one("totalizer.unique_count(%s)", state) == different


@pytest.mark.parametrize("different", [129, 500, 2000, 6000, 12_000, 50_000, 400_000])
def test_an_estimate_of_many_values_keeps_its_error(sketches: Sketches, different: int) -> None:
    errors = []
    for seed in range(3):
        got = sketches.one(
            "totalizer.unique_count(totalizer.merge_unique(string_agg(md5(%s || n::text), ' '))) "
            "FROM generate_series(1, %s) AS n",
            f"{seed}/", different,
        )  # fmt: skip
        errors.append(got / different - 1)
    # Three times the standard error for one, and so for the mean of three.
    assert all(abs(error) < 3 * 1.04 / math.sqrt(4096) for error in errors), errors
    assert abs(sum(errors) / 3) < 3 * 1.04 / math.sqrt(4096) / math.sqrt(3), errors


def test_a_distributed_or_parallel_plan_may_call_them(sketches: Sketches) -> None:
    rows = sketches.connection.execute(
        "SELECT proname, provolatile, proparallel FROM pg_proc WHERE pronamespace = 'totalizer'::regnamespace "
        "AND proname ~ 'quantile|unique'"
    ).fetchall()
    assert len(rows) == 7
    assert {row[1:] for row in rows} == {("i", "s")}
