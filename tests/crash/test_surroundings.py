"""What goes on around the processes: signals, stops, clocks that jump, a database that is away, rows it refuses."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from crash import loading, tally, writer
from crash.chances import Chances
from crash.forked import Forked
from crash.oracle import KEPT, Ledger, judge_journal
from crash.pipeline import ROWS_MAX, Pipeline
from crash.proxy import Proxy
from crash.test_database import stop_immediately
from support import Cluster, Database, wait_until
from totalizer.catalog import Catalog
from totalizer.clock import SystemClock
from totalizer.collect import Collector
from totalizer.errors import JournalFull
from totalizer.journal import Journal, recover_idle
from totalizer.ops.embedded import EmbeddedPostgres
from totalizer.store.roles import Role

YEAR_NS = 365 * 86_400 * 1_000_000_000
SIGNALS = [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT,), (signal.SIGINT, signal.SIGTERM, signal.SIGINT)]


@pytest.mark.parametrize("signals", SIGNALS)
@pytest.mark.parametrize("place", ["journal.group.written", "journal.group.published", "journal.segment.cut"])
def test_signals_to_a_writer_in_the_middle_of_a_group(
    signals: tuple[signal.Signals, ...], place: str, tmp_path: Path
) -> None:
    ledger = Ledger(tmp_path / "ledger")
    work = partial(writer.main, tmp_path / "journal", ledger, "w", 30)
    done = Forked(work, failpoints=f"{place}=stop:2", log=tmp_path / "log")
    assert done.wait_until_stopped()
    done.send(*signals, signal.SIGCONT)
    assert done.code != 0, "it should have ended of it"
    tally.count("signal", len(signals))
    assert recover_idle(tmp_path / "journal")
    assert judge_journal(tmp_path / "journal", ledger.known()) == KEPT
    assert writer.main(tmp_path / "journal", ledger, "fresh", 2) == 0
    assert judge_journal(tmp_path / "journal", ledger.known()) == KEPT


def load_for_ever(pipeline: Pipeline, failpoints: str) -> Forked:
    """The loader as a service."""
    arguments = [pipeline.database.dsn(Role.WRITER), str(pipeline.spool), str(ROWS_MAX), "forever"]
    return Forked(lambda: loading.main(arguments), failpoints=failpoints, log=pipeline.spool.parent / "log")


@pytest.mark.parametrize("signals", SIGNALS)
@pytest.mark.parametrize("place", ["load.section.before_copy", "load.piece.before_commit", "load.piece.committed"])
def test_signals_to_a_loader_in_the_middle_of_a_transaction(
    signals: tuple[signal.Signals, ...], place: str, pipelines: Callable[[], Pipeline]
) -> None:
    """It finishes what there is, and ends well."""
    pipeline = pipelines()
    pipeline.some()
    done = load_for_ever(pipeline, f"{place}=stop:2")
    assert done.wait_until_stopped()
    done.send(*signals, signal.SIGCONT)
    assert done.code == 0, done.log.read_text()
    tally.count("signal", len(signals))
    assert pipeline.fates() == (12, 0, 0, 0)
    assert pipeline.verdict() == KEPT


def test_a_writer_and_a_loader_stopped_for_long_go_on(pipeline: Pipeline, tmp_path: Path, chances: Chances) -> None:
    """Half a minute in the long run."""
    ledger = Ledger(tmp_path / "ledger")
    writing = Forked(
        partial(writer.main, tmp_path / "journal", ledger, "w", 30),
        failpoints="journal.group.written=stop:5", log=tmp_path / "log",
    )  # fmt: skip
    pipeline.some()
    loading = load_for_ever(pipeline, "load.piece.before_commit=stop:2")
    try:
        assert writing.wait_until_stopped()
        assert loading.wait_until_stopped()
        tally.count("stop", 2)
        time.sleep(30 if chances.stride == 1 else 1)
        writing.send(signal.SIGCONT)
        assert writing.code == 0, writing.log.read_text()
        loading.send(signal.SIGCONT, signal.SIGTERM)
        assert loading.code == 0, loading.log.read_text()
    finally:
        writing.end()
        loading.end()
    assert len(ledger.known().acknowledged) == 30
    assert judge_journal(tmp_path / "journal", ledger.known()) == KEPT
    assert pipeline.verdict() == KEPT


class JumpingClock(SystemClock):
    """A wall clock that somebody sets; what measures durations goes on."""

    def __init__(self) -> None:
        self.shift_ns = 0

    def now_ns(self) -> int:
        return super().now_ns() + self.shift_ns


def test_a_wall_clock_that_jumps_changes_no_order_and_loses_nothing(pipeline: Pipeline, catalog: Catalog) -> None:
    """A year back, forward and back again: ids, segments, recovery and loading go by no clock."""
    clock = JumpingClock()
    pipeline.collector = Collector(catalog, clock, batch_events_max=1000)
    folder = pipeline.journal.folder
    for number, shift in enumerate((0, -YEAR_NS, YEAR_NS // 365, -1, 0)):
        pipeline.journal.close()
        clock.shift_ns = shift
        tally.count("clock jump")
        pipeline.journal = Journal.open(folder, segment_bytes=64 << 10, quota_bytes=16 << 20, clock=clock)
        pipeline.acknowledge([f"{number}-{each}" for each in range(5)], keyed=bool(number % 2))
        pipeline.acknowledge(["again"])
        if number == 2:
            pipeline.load()
    pipeline.load()
    loaded, duplicate, conflict, dead = pipeline.fates()
    assert (loaded, duplicate, conflict, dead) == (26, 4, 0, 0)
    with pipeline.database_as(Role.REFRESHER) as connection:
        row = connection.execute("SELECT count(DISTINCT id), count(*) FROM events.command_executions").fetchone()
    assert row == (26, 26)
    assert pipeline.journal.recovery.damage == []


@pytest.fixture
def proxy(database: Database) -> Iterator[Proxy]:
    """A way to the database that can be broken."""
    with Proxy(database.dsn(Role.WRITER)) as proxy:
        yield proxy


@pytest.mark.parametrize("bad", ["one", "half", "all"])
@pytest.mark.parametrize("fault", ["none", "random"])
def test_rows_that_cannot_be_loaded_are_kept_once_with_bytes_and_reason(
    bad: str, fault: str, proxy: Proxy, pipeline: Pipeline, chances: Chances
) -> None:
    """The good ones of the same batch are loaded, also while the connection breaks in the middle of the halving."""
    pipeline.refuse_bad_rows()
    chosen = {"one": {7}, "half": set(range(0, 16, 2)), "all": set(range(16))}[bad]
    names = [f"{'bad' if number in chosen else 'good'}-{number}" for number in range(16)]
    pipeline.acknowledge(names, day=3)
    pipeline.acknowledge([f"{name}-later" for name in names], keyed=False, day=4)
    tally.count("bad row", 2 * len(chosen))
    if fault == "random":
        chance = chances.of("poison", bad)
        for _ in range(3):
            proxy.arm(chance.randrange(60), lose_reply=chance.random() < 0.5)
            pipeline.load(pipeline.loader(proxy.dsn))
            tally.count("connection broken", proxy.fired)
    proxy.disarm()
    pipeline.load()
    assert pipeline.fates() == (32 - 2 * len(chosen), 0, 0, 2 * len(chosen))
    assert pipeline.verdict() == KEPT
    kept = pipeline.dead_letters()
    assert sorted(line for line, _, _ in kept) == sorted(line for line in pipeline.journalled if b"bad-" in line)
    assert {sqlstate for _, sqlstate, _ in kept} == {"23514"}
    assert all(re.search("violates check constraint", reason) for _, _, reason in kept)
    pipeline.load()
    assert len(pipeline.dead_letters()) == 2 * len(chosen)


def test_a_database_that_is_away_for_long_fills_the_journal_and_gets_it_all_later(
    breakable: EmbeddedPostgres, breakable_cluster: Cluster, tmp_path: Path, catalog: Catalog
) -> None:
    """The writer acknowledges until its quota is reached, refuses from then on, and accepts when there is room."""
    with breakable_cluster.database() as database, Pipeline(database, tmp_path / "pipeline", catalog) as pipeline:
        pipeline.journal.close()
        folder = pipeline.journal.folder
        pipeline.journal = Journal.open(folder, segment_bytes=32 << 10, quota_bytes=192 << 10)
        stop, loader = threading.Event(), pipeline.loader()
        stop_immediately(breakable)
        tally.count("server stopped")
        thread = threading.Thread(target=loader.run, args=(stop,))
        thread.start()
        numbers = iter(range(10_000))
        refused: list[str] = []

        def accepted() -> bool:
            name = f"{next(numbers)}"
            try:
                pipeline.acknowledge([name])
            except JournalFull:
                refused.append(name)
                return False
            return True

        try:
            while accepted():
                pass
            assert len(pipeline.known().acknowledged) > 100
            assert not accepted()
            assert not accepted()
            breakable.stop()
            breakable.start()
            wait_until(accepted, "room")
            while accepted() and len(refused) < 50 and len(pipeline.known().acknowledged) < 400:
                pass
        finally:
            stop.set()
            thread.join()
            if not breakable.alive():
                breakable.start()
        pipeline.load()
        assert pipeline.verdict() == KEPT
        assert pipeline.fates()[:2] == (len(pipeline.known().acknowledged), 0)
