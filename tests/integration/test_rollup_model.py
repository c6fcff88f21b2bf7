"""Whatever is done in whatever order, every grain of a rollup equals what brute force makes of the stored events.

insert, late, duplicate ──▶ journal ──▶ loader ──▶ events ──▶ marks ──▶ refresh (several, killed) ──▶ 1m … 1mo
update, delete, truncate ───────────────────────────▲           ▲
zone change, new measure, new rollup ───────────────────────────┘
"""

from __future__ import annotations

import contextlib
import random
import tempfile
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from integration.conftest import Feed
from integration.rollup_model import FIRST_MEASURES, MEASURES, catalog_with, differences
from totalizer.clock import SYSTEM_CLOCK
from totalizer.collect import Collector
from totalizer.rollup import refresh as engine
from totalizer.rollup.refresh import refresh
from totalizer.rollup.verify import verify
from totalizer.rollup.zones import check_zones, set_zone
from totalizer.store.plan import apply_plan, plan_catalog
from totalizer.store.roles import Role

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "America/Sao_Paulo",
         "America/Havana", "Pacific/Apia", "Asia/Beirut")  # fmt: skip
#: Clocks go forward in Berlin on 30 March 2025, at midnight in Beirut; Apia has no 30 December 2011.
TURNS = (
    datetime(2025, 3, 30, 1, tzinfo=UTC),
    datetime(2025, 3, 29, 22, tzinfo=UTC),
    datetime(2011, 12, 30, 10, tzinfo=UTC),
)
OPERATIONS = (
    "insert", "insert", "insert", "late", "duplicate", "load", "load", "refresh", "refresh", "together", "killed",
    "update", "move", "delete", "truncate", "zone", "measure", "tzdata",
)  # fmt: skip


class Play:
    """One database, and what can be done to it."""

    def __init__(self, feed: Feed, rng: random.Random) -> None:
        self.feed, self.rng = feed, rng
        self.admin = feed.administrator
        self.measures: tuple[str, ...] = FIRST_MEASURES
        self.more_rollups = False
        self.now = datetime.now(UTC)
        self._apply()
        self.zones: dict[str, str] = {}
        for number in range(3):
            zone = rng.choice(ZONES)
            self.zones[feed.organization(f"o{number}", zone)] = zone
        self.sent: list[tuple[str, dict[str, Any]]] = []

    def _apply(self) -> None:
        self.catalog = catalog_with(self.measures, more_rollups=self.more_rollups)
        apply_plan(self.admin, plan_catalog(self.admin, self.catalog))
        self.feed.collector = Collector(self.catalog, SYSTEM_CLOCK, batch_events_max=100_000)

    def do(self, operation: str) -> None:
        getattr(self, operation)()

    def _send(self, turns: list[datetime], spread: timedelta) -> None:
        organization = self.rng.choice(list(self.zones))
        events = []
        for _ in range(self.rng.randrange(1, 15)):
            at = self.rng.choice(turns) + spread * self.rng.uniform(-1, 1)
            if self.rng.random() < 0.3:
                at = at.replace(minute=0, second=0, microsecond=0)
            event = {
                "id": f"e{self.rng.randrange(10**6)}", "at": at.isoformat(), "name": self.rng.choice(["a", "b", None]),
                "bucket": self.rng.choice(["x", "y", "z", None]), "starts": self.rng.choice([None, -3, 0, 5, 9]),
                "amount": self.rng.choice([None, "0.1", "0.10", "-2.5", "7.0001"]),
                "ratio": self.rng.choice([None, 0.0, 1e-9, -3.5, 1e15, self.rng.uniform(-100, 100)]),
            }  # fmt: skip
            events.append({key: value for key, value in event.items() if value is not None})
        self.sent.extend((organization, event) for event in events)
        assert self.feed.send(organization, things=events).accepted == len(events)

    def insert(self) -> None:
        self._send([self.now - timedelta(hours=7)], timedelta(hours=6))

    def late(self) -> None:
        self._send(list(TURNS), timedelta(hours=30))

    def duplicate(self) -> None:
        for organization, event in self.rng.sample(self.sent, min(3, len(self.sent))):
            self.feed.send(organization, things=[event])

    def load(self) -> None:
        self.feed.load()

    def refresh(self) -> None:
        refresh(self.feed.reader)
        self.check_books()

    def together(self) -> None:
        """Two refreshes and the loader at once."""
        failures: list[BaseException] = []

        def work(connection: Any) -> None:
            try:
                refresh(connection)
            except BaseException as error:  # noqa: BLE001 - whatever it is, the test fails with it
                failures.append(error)

        connections = [self.feed.database.connect(Role.REFRESHER) for _ in range(2)]
        threads = [threading.Thread(target=work, args=(connection,)) for connection in connections]
        for thread in threads:
            thread.start()
        self.feed.load()
        for thread in threads:
            thread.join()
        for connection in connections:
            connection.close()
        assert failures == []
        self.check_books()

    def killed(self) -> None:
        """A refresh whose backend ends somewhere on the way."""
        connection = self.feed.database.connect(Role.REFRESHER)
        pid = connection.info.backend_pid

        def work() -> None:
            with contextlib.suppress(psycopg.OperationalError):
                refresh(connection)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join(self.rng.uniform(0, 0.06))
        self.admin.execute("SELECT pg_terminate_backend(%s)", [pid])
        thread.join()
        connection.close()
        self.check_books()

    def update(self) -> None:
        self._change("UPDATE {table} SET amount = coalesce(amount, 0) + 1, name = 'c' WHERE id::text < %s")

    def move(self) -> None:
        """To other buckets and partitions."""
        self.admin.execute(
            "SELECT totalizer.ensure_partition('things', (at + interval '26 hours')::date) FROM events.things"
        )
        statement = "UPDATE events.things SET at = at + interval '26 hours' WHERE id::text < %s"
        self.admin.execute(statement, [self._some()])

    def delete(self) -> None:
        self._change("DELETE FROM {table} WHERE id::text < %s")

    def truncate(self) -> None:
        if partitions := self._partitions():
            self.admin.execute(f"TRUNCATE {self.rng.choice(partitions)}".encode())

    def _change(self, statement: str) -> None:
        """By the event table or, past it, in one partition."""
        table = self.rng.choice(["events.things", *self._partitions()])
        self.admin.execute(statement.format(table=table).encode(), [self._some()])

    def _some(self) -> str:
        return self.rng.choice(["1", "3", "8"])

    def _partitions(self) -> list[str]:
        rows = self.admin.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'events.things'::regclass ORDER BY 1"
        )
        return [row[0] for row in rows]

    def zone(self) -> None:
        name, zone = f"o{self.rng.randrange(3)}", self.rng.choice(ZONES)
        change = set_zone(self.admin, name, zone)
        self.zones[change.organization_id] = zone
        assert change.kept_until is None
        self.check_books()

    def tzdata(self) -> None:
        """As if the database's time zones had been others when the fingerprints were taken."""
        check_zones(self.feed.reader)
        self.admin.execute("UPDATE totalizer.zone_fingerprints SET fingerprint = 'other' WHERE month >= '2025-03-01'")
        assert check_zones(self.feed.reader)["zones"] == sorted(set(self.zones.values()))
        assert check_zones(self.feed.reader) == {}
        self.check_books()

    def measure(self) -> None:
        missing = [name for name in MEASURES if name not in self.measures]
        self.measures += tuple(missing[:1])
        self.more_rollups = self.more_rollups or not missing or self.rng.random() < 0.3
        self._apply()
        self.check_books()

    def check_books(self) -> None:
        assert [balance.mismatches for balance in verify(self.feed.reader) if balance.mismatches] == []

    def check_all(self) -> None:
        self.feed.load()
        while refresh(self.feed.reader).buckets:
            pass
        assert self.feed.one("SELECT count(*) FROM totalizer.dirty_marks") == 0
        since = datetime.now(UTC) - timedelta(days=31)
        assert differences(self.feed.reader, self.catalog, self.zones, since) == []
        self.check_books()


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Bounds so low that transactions end by them, and all ways of reading events are taken."""
    monkeypatch.setattr(engine, "MARKS_MAX", 9)
    monkeypatch.setattr(engine, "EVENTS_MAX", 7)
    monkeypatch.setattr(engine, "BACKFILL_MARKS_MAX", 40)
    monkeypatch.setattr(engine, "DENSE_BUCKETS_MIN", 4)
    monkeypatch.setattr(engine, "DENSE_ORGANIZATIONS_MAX", 1)
    monkeypatch.setattr(engine, "DENSE_SHARE", 0.01)
    return


def play(cluster: Any, folder: Path, operations: list[str], rng: random.Random) -> None:
    with cluster.database() as database:
        # Never that of an example before: seeds come again, and what it holds is of another database.
        feed = Feed(database, Path(tempfile.mkdtemp(dir=folder)), cluster.catalog)
        try:
            game = Play(feed, rng)
            for operation in operations:
                game.do(operation)
            game.check_all()
        finally:
            feed.close()


CHECKED = settings(
    max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    # Each example is a database of its own: a failing one is told as it is, with its seed.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)  # fmt: skip
SEQUENCES = st.lists(st.sampled_from(OPERATIONS), min_size=8, max_size=30)


@CHECKED
@given(operations=SEQUENCES, seed=st.integers(0, 10**9))
def test_every_grain_equals_brute_force(cluster: Any, tmp_path: Path, operations: list[str], seed: int) -> None:
    play(cluster, tmp_path, ["insert", "late", *operations], random.Random(seed))


@CHECKED
@given(operations=SEQUENCES, seed=st.integers(0, 10**9))
def test_every_grain_equals_brute_force_in_small_pieces(
    cluster: Any, tmp_path: Path, small_pieces: None, operations: list[str], seed: int
) -> None:
    play(cluster, tmp_path, ["insert", "late", *operations], random.Random(seed))
