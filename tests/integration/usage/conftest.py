"""A database, a Redis-protocol server, and what tracks and aggregates usage on both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from totalizer.ops.embedded import EmbeddedValkey
from usage_shop import Shop


@pytest.fixture
def shop(feed: Any, valkey: EmbeddedValkey, tmp_path: Path) -> Iterator[Shop]:
    """A shop with an empty database and empty counters."""
    shop = Shop(feed, valkey)
    yield shop
    shop.close()
