"""A collector of a catalog with every type of field, and a clock that stands still."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from totalizer.catalog import Catalog, load_catalog
from totalizer.catalog.read import parse_catalog
from totalizer.collect import Admission, Collector

ORGANIZATION = "00000000-0000-4000-8000-000000000001"
#: 2025-09-05T10:00:00.123456789Z.
NOW_NS = 1_757_066_400_123_456_789

#: Every type of field, optional and required, with keys and values that need care.
EVERYTHING = r"""
[event_type.everything]
time = "from"
time_wire = "when it's {now}"
subject = "class"
[event_type.everything.fields]
class = { type = "text", required = true, length_min = 1, length_max = 20, wire = "it's {a} key" }
line = { type = "text" }
import = { type = "text", values = ["on", "of\tf", "o\\ff", "off it"] }
whole = { type = "integer", required = true, minimum = -5 }
wide = { type = "integer" }
part = { type = "number", maximum = 100 }
price = { type = "decimal", scale = 2, minimum = 0, maximum = 1000 }
flag = { type = "boolean", required = true }
maybe = { type = "boolean" }
who = { type = "uuid" }
data = { type = "json" }
"""


class StandingClock:
    """A clock that stands at NOW_NS."""

    def now_ns(self) -> int:
        return NOW_NS

    def monotonic(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing here sleeps")


@pytest.fixture(scope="session")
def everything() -> Catalog:
    """The shipped catalog and an event type with every type of field."""
    shipped = load_catalog()
    [own] = parse_catalog([("everything.toml", EVERYTHING)]).event_types.values()
    return Catalog({**shipped.event_types, own.name: own}, shipped.rollups)


@pytest.fixture(scope="session")
def collector(everything: Catalog) -> Collector:
    """A collector that takes 100 events in a batch."""
    return Collector(everything, StandingClock(), batch_events_max=100)


@pytest.fixture(scope="session")
def admit_one(collector: Collector) -> Callable[..., Admission]:
    """Admit one event of a route, given as bytes or as what they shall encode."""

    def admit(event: Any, route: str = "commands") -> Admission:
        return collector.admit_one(ORGANIZATION, route, _encoded(event))

    return admit


@pytest.fixture(scope="session")
def admit_batch(collector: Collector) -> Callable[..., Admission]:
    """Admit a batch, given as bytes or as what they shall encode."""

    def admit(batch: Any) -> Admission:
        return collector.admit_batch(ORGANIZATION, _encoded(batch))

    return admit


def _encoded(value: Any) -> bytes:
    return value if isinstance(value, bytes) else msgspec.json.encode(value)
