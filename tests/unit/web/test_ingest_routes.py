"""The ingest routes behind another server than ours: the framework reads the request, the same work is done."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from litestar import Litestar
from litestar.testing import TestClient

from totalizer.catalog import Catalog
from totalizer.clock import SYSTEM_CLOCK
from totalizer.collect import Collector
from totalizer.errors import Refused
from totalizer.event import decode_batch
from totalizer.journal import BEGINNING, JournalReader, claim
from totalizer.web.api import _refused
from totalizer.web.body import BodyReader
from totalizer.web.durable import JournalWaiters
from totalizer.web.idempotency import Repeats
from totalizer.web.ingest import Ingest
from totalizer.web.ingest_routes import ingest_routes
from totalizer.web.limits import Limiter, Limits
from totalizer.web.principal import Principal
from totalizer.web.receipts import Receipts

ORGANIZATION = "00000000-0000-4000-8000-000000000001"
ENTRY = {"id": "e0", "userId": "u", "action": "a", "timestamp": 1_757_066_400_000}
BODY = json.dumps({"time_entries": [ENTRY]}).encode()


LIMITER = Limiter(Limits(), window_ms=60_000, leases=None, processes=1, clock=SYSTEM_CLOCK)
METERS = LIMITER.meters(ORGANIZATION, None)


class Everybody:
    """Takes whoever comes for one organisation; who may come is tested elsewhere."""

    async def authenticate(self, authorization: str | None, scope: str) -> Principal:
        return Principal(ORGANIZATION, frozenset((scope,)), METERS, "this API key")


class Served:
    """The routes over a real journal."""

    def __init__(self, folder: Path, catalog: Catalog) -> None:
        waiters = JournalWaiters()
        self.journal = claim(folder, "api", segment_bytes=1 << 20, quota_bytes=1 << 24, on_commit=waiters.on_commit)
        collector = Collector(catalog, SYSTEM_CLOCK, batch_events_max=100)
        everybody: Any = Everybody()
        ingest = Ingest(
            everybody, collector, self.journal, bodies=BodyReader(bytes_max=10_000, timeout_s=60),
            receipts=Receipts(b"key", self.journal.id, SYSTEM_CLOCK, days=30), repeats=Repeats(SYSTEM_CLOCK),
        )  # fmt: skip

        async def attach() -> None:
            waiters.attach(asyncio.get_running_loop(), self.journal)

        self.app = Litestar(
            ingest_routes(ingest), exception_handlers={Refused: _refused}, on_startup=[attach],
            openapi_config=None, logging_config=None,
        )  # fmt: skip


@pytest.fixture
def client(tmp_path: Path, catalog: Catalog) -> Iterator[TestClient[Any]]:
    served = Served(tmp_path / "journal", catalog)
    with TestClient(served.app) as client:
        yield client
    served.journal.close()


def post(client: TestClient[Any], body: bytes, **headers: str) -> tuple[int, dict[str, Any]]:
    fields = {"content-type": "application/json"} | {name.replace("_", "-"): text for name, text in headers.items()}
    answer = client.post("/api/metrics/batch", content=body, headers=fields)
    return answer.status_code, answer.json()


def journalled(folder: Path) -> int:
    """Events in the journal below a folder."""
    [place] = folder.iterdir()
    with JournalReader(place) as reader:
        records = reader.read(BEGINNING, records_max=10, bytes_max=1 << 20)
    return sum(section.rows for record in records for section in decode_batch(record.payload)[0].sections)


@pytest.mark.parametrize(
    ("body", "headers"), [(BODY, {}), (gzip.compress(BODY, mtime=0), {"content_encoding": "gzip"})]
)
def test_plain_and_compressed_batches_are_taken(
    client: TestClient[Any], tmp_path: Path, body: bytes, headers: dict[str, str]
) -> None:
    status, answer = post(client, body, **headers)
    assert (status, answer.pop("receipt").split("-")[1:3]) == (202, ["1", "1"]), "the first record, of one event"
    assert answer == {"accepted": 1, "rejected": 0, "items": []}
    assert journalled(tmp_path / "journal") == 1


@pytest.mark.parametrize(
    ("body", "encoding", "status", "code"),
    [
        (gzip.compress(BODY, mtime=0)[:-3], "gzip", 400, "bad_json"),
        (BODY, "gzip", 400, "bad_json"),
        (gzip.compress(b" " * 10_001, mtime=0), "gzip", 413, "body_too_large"),
        (BODY, "br", 415, "unsupported_media_type"),
    ],
)
def test_what_cannot_be_unpacked_is_refused(
    client: TestClient[Any], body: bytes, encoding: str, status: int, code: str
) -> None:
    got, answer = post(client, body, content_encoding=encoding)
    assert (got, answer["code"]) == (status, code)


def test_what_is_not_json_is_refused(client: TestClient[Any]) -> None:
    assert post(client, BODY, content_type="text/plain")[0] == 415
