"""A catalog whose rollups differ, and queries over it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from totalizer.catalog import Catalog
from totalizer.catalog.read import parse_catalog
from totalizer.query.question import Query
from totalizer.query.windows import Windows

CATALOG = """
[event_type.sales]
time = "sold_at"
subject = "shop"
[event_type.sales.fields]
shop = { type = "text", required = true, length_max = 50 }
customer = { type = "uuid" }
pieces = { type = "integer" }
gift = { type = "boolean" }
amount = { type = "decimal" }
note = { type = "json" }
[rollup.by_all]
event_type = "sales"
dimensions = ["shop", "customer", "pieces", "gift"]
[rollup.by_all.measures]
sales = { kind = "count" }
revenue = { kind = "sum", field = "amount" }
mean = { kind = "avg", field = "amount" }
[rollup.by_shop]
event_type = "sales"
dimensions = ["shop"]
[rollup.by_shop.measures]
sales = { kind = "count" }
revenue = { kind = "sum", field = "amount" }
[event_type.visits]
time = "came_at"
subject = "shop"
[event_type.visits.fields]
shop = { type = "text" }
"""
NOW = datetime(2025, 9, 5, 10, 7, 30, tzinfo=UTC)


@pytest.fixture(scope="session")
def sales() -> Catalog:
    """Sales, with a rollup by everything and one by shop; and visits, with none."""
    return parse_catalog([("sales.toml", CATALOG)])


@pytest.fixture(scope="session")
def query_of() -> Callable[..., Query]:
    """A query for sales; members may be replaced by name."""

    def make(**members: Any) -> Query:
        standard = {
            "event_type": "sales", "start": datetime(2025, 9, 1, tzinfo=UTC), "end": NOW, "windows": Windows(None),
        }  # fmt: skip
        return Query(**{**standard, **members})

    return make
