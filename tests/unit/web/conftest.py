"""Fixtures that these tests share: a Redis-protocol server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support import unavailable
from totalizer.errors import OperationError
from totalizer.ops.embedded import EmbeddedValkey


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
