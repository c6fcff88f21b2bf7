"""A real PostgreSQL that fails the real loader at every message they exchange."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from crash import tally
from crash.chances import Chances
from crash.oracle import KEPT, event_of
from crash.pipeline import PAUSE_S, Pipeline
from crash.proxy import Proxy
from crash.traced import child, environment
from support import PATIENCE_S, Cluster, Database, wait_until
from totalizer.catalog import Catalog
from totalizer.errors import StoreUnavailable
from totalizer.load import loader as loader_module
from totalizer.ops.embedded import EmbeddedPostgres
from totalizer.store.roles import Role

Pipelines = Callable[[], Pipeline]


@pytest.fixture
def proxy(database: Database) -> Iterator[Proxy]:
    """A way to the database that can be broken."""
    with Proxy(database.dsn(Role.WRITER)) as proxy:
        yield proxy


def goes_on(pipeline: Pipeline) -> None:
    """After the fault: what was acknowledged is stored once, and so is an event that comes now."""
    assert pipeline.verdict() == KEPT
    pipeline.acknowledge(["fresh"])
    assert pipeline.load() == 0
    assert pipeline.verdict() == KEPT


def terminate(database: Database, proxy: Proxy) -> Callable[[], None]:
    """Ends the backend that is being talked to, from another session, and waits until it is gone."""

    def act() -> None:
        with psycopg.connect(database.url, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s, 10000)", [proxy.backend])

    return act


@pytest.mark.parametrize("how", ["message lost", "reply lost", "backend terminated"])
def test_the_connection_breaks_at_each_message(
    how: str, database: Database, proxy: Proxy, pipelines: Pipelines, chances: Chances
) -> None:
    """From the first statement to the last: before, within and after COPY and COMMIT."""
    action = terminate(database, proxy) if how == "backend terminated" else None
    faults = 0
    for moment in chances.moments(0, how):
        pipeline = pipelines()
        pipeline.some()
        proxy.arm(moment, lose_reply=how == "reply lost", action=action)
        failures = pipeline.load(pipeline.loader(proxy.dsn))
        fired = proxy.fired
        assert failures == 0 or fired, "it failed without a fault"
        proxy.disarm()
        goes_on(pipeline)
        pipeline.close()
        if not fired:
            break
        faults += 1
        tally.count("connection broken")
    assert faults * chances.stride > 50, "a run of the loader has more messages than that"


@pytest.mark.parametrize(
    "text", [b"BEGIN", b"FOR UPDATE", b"COPY", b"dirty_marks", b"load_ledger", b"SET segment", b"COMMIT"]
)
def test_the_reply_to_each_kind_of_statement_is_lost(text: bytes, proxy: Proxy, pipeline: Pipeline) -> None:
    """Above all to COMMIT: it is done, and the loader cannot know."""
    pipeline.some()
    proxy.arm(text=text, lose_reply=True)
    assert pipeline.load(pipeline.loader(proxy.dsn)) == 1
    assert proxy.fired
    tally.count("connection broken")
    if text == b"COMMIT":
        assert pipeline.fates()[:2] == (12, 0), "found by the offset, not by the ids"
    goes_on(pipeline)


def test_the_connection_breaks_at_random_messages(proxy: Proxy, pipelines: Pipelines, chances: Chances) -> None:
    """Up to three times in a row, in the tries that follow on each other, with resends among what is loaded."""
    chance = chances.of("connection")
    for number in range(-(-chances.share("connection") // 2)):
        pipeline = pipelines()
        pipeline.some(size=chance.randrange(1, 5))
        pipeline.acknowledge(["0-0", f"new-{number}"])
        for _ in range(chance.randrange(1, 4)):
            proxy.arm(chance.randrange(120), lose_reply=chance.random() < 0.5)
            with contextlib.suppress(psycopg.Error, StoreUnavailable):
                loader = pipeline.loader(proxy.dsn)
                try:
                    loader.drain()
                finally:
                    loader.close()
            tally.count("connection broken", proxy.fired)
        proxy.disarm()
        pipeline.load()
        assert pipeline.verdict() == KEPT, f"seed {chances.seed}, fault {number}"
        pipeline.close()


def test_an_immediate_stop_of_the_server_at_random_messages(
    breakable: EmbeddedPostgres, breakable_cluster: Cluster, tmp_path: Path, catalog: Catalog, chances: Chances
) -> None:
    chance = chances.of("immediate")
    with breakable_cluster.database() as database, Proxy(database.dsn(Role.WRITER)) as proxy:
        for number in range(max(chances.share("server"), 3)):
            with Pipeline(database, tmp_path / f"{number}", catalog) as pipeline:
                pipeline.some()
                moment = chance.randrange(10, 110)
                proxy.arm(moment, action=lambda: stop_immediately(breakable))
                loader = pipeline.loader(proxy.dsn)
                with restarting(breakable):
                    failures = pipeline.load(loader)
                tally.count("server stopped", proxy.fired)
                assert failures or not proxy.fired, f"seed {chances.seed}, message {moment}"
                proxy.disarm()
                goes_on(pipeline)


def stop_immediately(server: EmbeddedPostgres) -> None:
    """As `pg_ctl stop -m immediate` does: SIGQUIT to the postmaster, no checkpoint, recovery at the next start."""
    assert server.pid is not None
    os.kill(server.pid, signal.SIGQUIT)
    wait_until(lambda: not server.alive(), "the immediate stop")


class restarting:  # noqa: N801 - used like a function
    """Starts the server again whenever it has ended, within a with-block."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        self._server, self._done = server, threading.Event()
        self._thread = threading.Thread(target=self._look_after, name="restarting")

    def _look_after(self) -> None:
        while not self._done.wait(PAUSE_S):
            if not self._server.alive():
                self._server.stop()
                self._server.start()

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        if not self._server.alive():
            self._server.start()


def test_commits_are_durable_before_their_journal_is_discarded_even_where_the_database_does_not_wait(
    breakable: EmbeddedPostgres, breakable_cluster: Cluster, tmp_path: Path, catalog: Catalog
) -> None:
    """`synchronous_commit = off` on somebody's database: a COMMIT is answered before it is on the disk."""
    with breakable_cluster.database() as database, Pipeline(database, tmp_path / "pipeline", catalog) as pipeline:
        with pipeline.database_as(None) as administrator:
            administrator.execute(f'ALTER DATABASE "{administrator.info.dbname}" SET synchronous_commit = off')
            administrator.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
            administrator.execute("SELECT pg_reload_conf()")
            # The writer of the log sleeps until it is told to look at the new pause.
            administrator.execute("CHECKPOINT")
        try:
            for batch in range(20):
                pipeline.acknowledge([f"{batch}-{number}" for number in range(10)])
            pipeline.load()
            stop_immediately(breakable)
            tally.count("server stopped")
            breakable.stop()
            breakable.start()
            pipeline.load()
            goes_on(pipeline)
        finally:
            with psycopg.connect(breakable_cluster.url("postgres"), autocommit=True) as administrator:
                administrator.execute("ALTER SYSTEM RESET wal_writer_delay")
                administrator.execute("SELECT pg_reload_conf()")


def test_a_lock_held_by_another_session_delays_and_does_no_more(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader_module, "RETRY_PAUSE_S", 0.01)
    pipeline.some()
    loader, stop = pipeline.loader(), threading.Event()
    with pipeline.database_as(None) as other:
        other.execute("BEGIN")
        other.execute("LOCK TABLE events.command_executions_keys IN ACCESS EXCLUSIVE MODE")
        thread = threading.Thread(target=loader.run, args=(stop,))
        thread.start()
        try:
            with pipeline.database_as(None) as third:
                wait_until(lambda: waits_for_a_lock(third), "the loader waiting for the lock")
                # Ended while it waits: it starts over, and waits again.
                third.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE wait_event_type = 'Lock' AND datname = current_database()"
                )
                wait_until(lambda: waits_for_a_lock(third), "the loader waiting again")
                tally.count("connection broken")
            other.execute("COMMIT")
            with pipeline.database_as(Role.REFRESHER) as reader:
                wait_until(lambda: count_of(reader, pipeline) == 12, "loading after the lock")
        finally:
            stop.set()
            other.execute("ROLLBACK")
            thread.join()
    goes_on(pipeline)


def waits_for_a_lock(connection: Any) -> bool:
    """True if some session of this database waits for a lock."""
    row = connection.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    ).fetchone()
    return bool(row[0])


def count_of(connection: Any, pipeline: Pipeline) -> int:
    """Rows of a pipeline's organisation."""
    row = connection.execute(
        "SELECT count(*) FROM events.command_executions WHERE organization_id = %s", [pipeline.organization_id]
    ).fetchone()
    return int(row[0])


@pytest.mark.parametrize("sqlstate", ["40001", "40P01", "53100", "57014"])
@pytest.mark.parametrize("table", ["events.command_executions_keys", "totalizer.dirty_marks"])
def test_transactions_that_fail_at_commit_are_repeated_whole(pipeline: Pipeline, sqlstate: str, table: str) -> None:
    """Serialization failure, deadlock, full disk and cancellation, raised by a deferred trigger some times."""
    pipeline.some()
    with pipeline.database_as(None) as administrator:
        fail_some_times(administrator, table, sqlstate)
        failures = pipeline.load()
        assert failures == 3
        tally.count("transaction failed", failures)
        administrator.execute(f"DROP TRIGGER fails ON {table}")
    assert pipeline.fates() == (12, 0, 0, 0), "none of it was mistaken for a bad row or a duplicate"
    goes_on(pipeline)


def fail_some_times(administrator: Any, table: str, sqlstate: str) -> None:
    """Let the next three commits that touch a table fail. A sequence counts: it is not rolled back."""
    administrator.execute("CREATE SEQUENCE failures")
    administrator.execute("GRANT USAGE ON SEQUENCE failures TO PUBLIC")
    administrator.execute(
        "CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"IF nextval('public.failures') <= 3 THEN RAISE EXCEPTION 'injected' USING ERRCODE = '{sqlstate}'; END IF; "
        "RETURN NULL; END $$"
    )
    administrator.execute(
        f"CREATE CONSTRAINT TRIGGER fails AFTER INSERT ON {table} DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION fails()"
    )


def test_rows_that_a_narrow_column_refuses_are_kept_aside_and_the_others_stored_under_faults(
    database: Database, proxy: Proxy, pipelines: Pipelines, chances: Chances
) -> None:
    with psycopg.connect(database.url, autocommit=True) as administrator:
        administrator.execute("ALTER TABLE events.command_executions ALTER COLUMN error_message TYPE varchar(700)")
    fits = {name for name in (f"{b}-{n}" for b in range(4) for n in range(3)) if len(message_of(name)) <= 700}
    assert 0 < len(fits) < 12
    for moment in chances.moments(0, "narrow"):
        pipeline = pipelines()
        pipeline.some()
        proxy.arm(moment, lose_reply=bool(moment % 2))
        pipeline.load(pipeline.loader(proxy.dsn))
        assert pipeline.verdict() == KEPT, f"message {moment}"
        assert pipeline.fates() == (len(fits), 0, 0, 12 - len(fits)), f"message {moment}"
        tally.count("bad row", 12 - len(fits))
        tally.count("connection broken", proxy.fired)
        pipeline.close()
        if not proxy.fired:
            return


def message_of(name: str) -> str:
    """The text that may not fit."""
    return str(event_of(name)["error_message"])


def test_two_loaders_on_one_spool_take_turns(pipeline: Pipeline, tmp_path: Path) -> None:
    """Two services by mistake: the lock lets one load, the other takes over when that one is killed."""
    arguments = [pipeline.database.dsn(Role.WRITER), pipeline.spool, 2, "forever"]
    loaders = [subprocess.Popen(child("loading", *arguments), env=environment()) for _ in range(2)]
    try:
        with pipeline.database_as(Role.REFRESHER) as reader:
            pipeline.some("one")
            wait_until(lambda: count_of(reader, pipeline) == 12, "loading")
            working = [each for each in loaders if has_connection(each)]
            assert len(working) == 1
            pipeline.some("two")
            working[0].kill()
            tally.count("kill")
            pipeline.some("three")
            wait_until(lambda: count_of(reader, pipeline) == 36, "loading by the other one")
    finally:
        for each in loaders:
            each.terminate()
            each.wait(PATIENCE_S)
    goes_on(pipeline)


def has_connection(process: subprocess.Popen[bytes]) -> bool:
    """True if a process talks to a server through a Unix socket."""
    return bool(psutil.Process(process.pid).net_connections(kind="unix"))


@pytest.mark.parametrize("text", [b"BEGIN", b"FOR UPDATE", b"COPY", b"COMMIT"])
def test_a_loader_woken_after_another_took_over_stores_nothing_twice(
    text: bytes, proxy: Proxy, pipeline: Pipeline
) -> None:
    """It is stopped before a message of its transaction, the other one loads everything, and it is woken."""
    pipeline.some()
    stopped, woken = threading.Event(), threading.Event()
    backend: list[int] = []

    def stop() -> None:
        backend.append(proxy.backend)
        stopped.set()
        woken.wait(PATIENCE_S)

    proxy.arm(text=text, action=stop)
    sleeper = pipeline.loader(proxy.dsn)
    failed: list[int] = []
    thread = threading.Thread(target=lambda: failed.append(pipeline.load(sleeper)))
    thread.start()
    try:
        assert stopped.wait(PATIENCE_S)
        with pipeline.database_as(None) as administrator:
            if text != b"BEGIN":
                # It holds the journal's row: nobody can take over until the server gives its session up.
                administrator.execute("SELECT pg_terminate_backend(%s, 10000)", [backend[0]])
        pipeline.load()
        assert pipeline.verdict() == KEPT
    finally:
        woken.set()
        thread.join()
    assert pipeline.fates() == (12, 0, 0, 0)
    goes_on(pipeline)


def test_a_stopped_process_is_woken_after_another_took_over(pipeline: Pipeline) -> None:
    """SIGSTOP keeps the spool's lock; the other loader does not ask for it, as one on a copied folder would not."""
    arguments = [pipeline.database.dsn(Role.WRITER), pipeline.spool, 2, "forever"]
    process = subprocess.Popen(child("loading", *arguments), env=environment())
    try:
        with pipeline.database_as(Role.REFRESHER) as reader:
            pipeline.some("before")
            wait_until(lambda: count_of(reader, pipeline) == 12, "loading")
            process.send_signal(signal.SIGSTOP)
            tally.count("stop")
            pipeline.some("meanwhile")
            with pipeline.database_as(None) as administrator:
                administrator.execute(
                    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND application_name = 'totalizer writer' "
                    "AND state = 'idle in transaction'"
                )
            pipeline.load()
            assert pipeline.verdict() == KEPT
            process.send_signal(signal.SIGCONT)
            pipeline.some("after")
            wait_until(lambda: count_of(reader, pipeline) == 36, "loading by the one that was woken")
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        assert process.wait(PATIENCE_S) == 0
    assert pipeline.fates() == (36, 0, 0, 0)
    goes_on(pipeline)
