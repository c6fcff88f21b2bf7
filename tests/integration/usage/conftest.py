"""A database, a Redis-protocol server, and what tracks and aggregates usage on both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import unavailable
from totalizer.errors import OperationError
from totalizer.ops.embedded import EmbeddedValkey
from usage_shop import Shop


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    """A module's own server."""
    server = EmbeddedValkey(tmp_path_factory.mktemp("valkey"))
    try:
        server.start()
    except OperationError as error:
        unavailable(str(error))
    yield server
    server.stop()


@pytest.fixture
def shop(feed: Any, valkey: EmbeddedValkey, tmp_path: Path) -> Iterator[Shop]:
    """A shop with an empty database and empty counters."""
    shop = Shop(feed, valkey)
    yield shop
    shop.close()
