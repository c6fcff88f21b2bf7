"""The aggregation: every figure in the table, whatever is wrong with single counters or with the servers."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import date, timedelta
from typing import Any

import psycopg
import pytest
from redis import Redis

from scheduled import runs_of, settings_of
from support import free_port, wait_until
from totalizer.errors import JobStopped, OperationError
from totalizer.jobs.run import Runner
from totalizer.jobs.table import job_named
from totalizer.jobs.usage import document
from totalizer.ops.embedded.binaries import find_valkey
from totalizer.store import usage_runs
from totalizer.store.roles import Role
from totalizer.usage.job import UsageAggregationJob
from totalizer.usage.result import DURATION_ALERT_MS, alerts_of

DAY = date(2025, 11, 1)


def put(shop: Any, day: date = DAY, **values: Any) -> None:
    """Counters as they may lie there: `merchant__metric=value`."""
    for name, value in values.items():
        shop.redis.set("usage:{}:{}:{}".format(name.split("__")[0], day, name.split("__")[1]), value)


def test_counters_become_rows(shop: Any) -> None:
    put(shop, m1__queries=1523, m1__tokens=2**60, m2__queries=0)
    put(shop, DAY + timedelta(days=1), m1__queries=9)
    result = shop.job().run(DAY)
    assert (result.success, result.records_aggregated, result.keys_scanned, result.error_count) == (True, 3, 3, 0)
    assert (result.redis, result.alerts, result.errors, result.skipped) == ("ok", (), (), None)
    assert shop.table() == {
        ("m1", "2025-11-01", "queries"): 1523, ("m1", "2025-11-01", "tokens"): 2**60,
        ("m2", "2025-11-01", "queries"): 0,
    }  # fmt: skip


def test_the_documented_log_lines(shop: Any, capsys: Any) -> None:
    put(shop, m1__queries=1)
    shop.redis.set(f"usage:m2:{DAY}:queries", "x")
    shop.job().run(DAY)
    log = capsys.readouterr().out
    for text in ("starting aggregation", "found usage keys to process", "keys=2", "completed", "records_aggregated=1",
                 "errors=1", "date=2025-11-01", "UsageAggregationJob"):  # fmt: skip
        assert text in log, text


def test_yesterday_is_what_is_meant(shop: Any) -> None:
    yesterday = shop.today - timedelta(days=1)
    put(shop, yesterday, m__q=4)
    assert shop.job().run().date == yesterday
    assert shop.job().aggregate_merchant("m").date == yesterday
    assert shop.job().get_aggregation_status().date == yesterday
    assert shop.table() == {("m", str(yesterday), "q"): 4}


def test_the_table_is_never_lowered(shop: Any) -> None:
    put(shop, m__q=10)
    shop.job().run(DAY)
    put(shop, m__q=3)
    shop.job().run(DAY)
    shop.redis.flushall()
    shop.job().run(DAY)
    assert shop.table() == {("m", "2025-11-01", "q"): 10}


def test_one_wrong_counter_does_no_harm_to_others_and_is_kept_until_it_is_mended(shop: Any) -> None:
    put(shop, good__q=1, text__q="many", negative__q="-5", huge__q=str(2**63), float__q="1.5", empty__q="")
    shop.redis.lpush(f"usage:list:{DAY}:q", "x")
    for key in (f"usage::{DAY}:q", f"usage@nobody:m:{DAY}:q", f"usage:a:b:{DAY}:q", f"usage:nul\0:{DAY}:q",
                f"usage:{'m' * 256}:{DAY}:q", b"usage:\xff:%b:q" % str(DAY).encode(),
                f"usage@{'0' * 8}-0000-0000-0000-{'0' * 12}:m:{DAY}:q"):  # fmt: skip
        shop.redis.set(key, 1)
    result = shop.job().run(DAY)
    assert shop.table() == {("good", "2025-11-01", "q"): 1}
    assert (result.success, result.records_aggregated, result.keys_scanned, result.error_count) == (False, 1, 14, 13)
    assert {error.key: error.reason for error in result.errors}[f"usage:text:{DAY}:q"] == "it holds 'many', not a count"
    assert result.alerts == ("errors",)
    status = shop.job().get_aggregation_status(DAY)
    assert {failure.key for failure in status.failed_keys} == {
        error.key.replace("\0", "\\0") for error in result.errors
    }
    assert (status.error_count, status.failures_in_a_row, status.aggregated) == (13, 1, True)
    shop.redis.delete(*(key for key in shop.redis.scan_iter("usage*") if key != f"usage:good:{DAY}:q".encode()))
    put(shop, text__q=7)
    result = shop.job().run(DAY)
    assert (result.success, result.records_aggregated, result.failures_in_a_row) == (True, 2, 0)
    assert shop.job().get_aggregation_status(DAY).failed_keys == ()


def test_a_row_that_the_database_refuses_is_found_among_its_page(shop: Any) -> None:
    put(shop, **{f"m{number}__q": number + 1 for number in range(50)})
    shop.feed.administrator.execute("ALTER TABLE totalizer.merchant_usage ADD CHECK (merchant_id NOT IN ('m7', 'm31'))")
    result = shop.job().run(DAY)
    assert {error.key for error in result.errors} == {f"usage:m7:{DAY}:q", f"usage:m31:{DAY}:q"}
    assert (result.records_aggregated, len(shop.table())) == (48, 48)


def test_repeated_failures_are_told(shop: Any) -> None:
    put(shop, m__q="x")
    alerts = [shop.job().run(DAY).alerts for _ in range(4)]
    expected = ("errors", "nothing_aggregated")
    assert alerts == [expected, expected, (*expected, "repeated_failures"), (*expected, "repeated_failures")]
    assert "repeated_failures" in shop.job().get_aggregation_status(DAY).alerts
    attempts = shop.feed.one("SELECT attempts FROM totalizer.usage_failures")
    assert attempts == 4
    put(shop, m__q="1")
    assert shop.job().run(DAY).alerts == ()


def test_alerts_of_a_slow_run_and_of_one_that_found_nothing(shop: Any) -> None:
    assert shop.job().run(DAY).alerts == ("nothing_aggregated",)
    assert alerts_of(0, DURATION_ALERT_MS + 1, 0, nothing=False) == ("slow",)
    assert alerts_of(0, DURATION_ALERT_MS, 2, nothing=False) == ()


def test_one_merchant(shop: Any) -> None:
    other = shop.feed.organization("other")
    put(shop, a__q=1, ab__q=2)
    for key in (f"usage:a*:{DAY}:q", f"usage@{other}:a:{DAY}:q"):
        shop.redis.set(key, 5)
    result = shop.job().aggregate_merchant("a", DAY)
    assert (result.success, result.records_aggregated, result.keys_scanned) == (True, 2, 2)
    assert {key[0::1][:2]: value for key, value in shop.tables().items()} == {
        (shop.organization_id, "a"): 1, (other, "a"): 5,
    }  # fmt: skip
    shop.job().aggregate_merchant("a*", DAY)
    assert len(shop.tables()) == 3


def test_a_range_day_by_day_with_progress(shop: Any) -> None:
    for number in range(4):
        put(shop, DAY + timedelta(days=number), m__q=number + 1)
    told: list[Any] = []
    result = shop.job().aggregate_date_range(
        DAY, DAY + timedelta(days=2), lambda done, days, each: told.append((done, days, each.date, each.success))
    )
    assert told == [(number + 1, 3, DAY + timedelta(days=number), True) for number in range(3)]
    assert (result.success, result.records_aggregated, result.keys_scanned, result.error_count) == (True, 3, 3, 0)
    assert sorted(shop.table().values()) == [1, 2, 3]
    for first, last in ((DAY, DAY - timedelta(days=1)), (DAY, DAY + timedelta(days=4000))):
        with pytest.raises(OperationError, match="days"):
            shop.job().aggregate_date_range(first, last)


def test_status_tells_what_is_missing(shop: Any) -> None:
    tracker, job = shop.tracker(), shop.job()
    status = job.get_aggregation_status(DAY)
    assert (status.aggregated, status.records, status.finished_at, status.alerts) == (False, 0, None, ())
    tracker.track("m", "q", 3, at="2025-11-01T12:00:00Z")
    shop.feed.load()
    assert job.get_aggregation_status(DAY).behind == 1
    job.run(DAY)
    status = job.get_aggregation_status(DAY)
    assert (status.aggregated, status.behind, status.records, status.merchants) == (True, 0, 1, 1)
    assert status.started_at <= status.finished_at
    tracker.track("m", "q", 1, at="2025-11-01T12:00:00Z")
    shop.feed.load()
    status = job.get_aggregation_status(DAY)
    assert (status.aggregated, status.behind) == (False, 1)


@pytest.mark.parametrize("refreshed", [True, False])
def test_without_redis_the_events_are_aggregated(shop: Any, refreshed: bool, capsys: Any) -> None:
    tracker = shop.tracker(url="unix:///nowhere/valkey.sock")
    for amount in (1, 2, 3):
        tracker.track("m", "q", amount, at="2025-11-01T23:59:59.999999Z")
    tracker.track("m", "q", 50, at="2025-11-02T00:00:00Z")
    shop.feed.load()
    if refreshed:
        shop.feed.refresh()
        tracker.track("m", "q", 4, at="2025-11-01T00:00:00Z")
        shop.feed.load()
    result = shop.job(url="unix:///nowhere/valkey.sock").run(DAY)
    assert (result.success, result.redis, result.records_settled, result.alerts) == (True, "away", 1, ())
    assert shop.table() == {("m", "2025-11-01", "q"): 10 if refreshed else 6}
    assert "counters cannot be read" in capsys.readouterr().out
    job = UsageAggregationJob(shop.feed.database.dsn(Role.REFRESHER), None)
    assert job.run(DAY + timedelta(days=1)).redis == "not configured"
    assert shop.table()[("m", "2025-11-02", "q")] == 50


def test_a_counter_store_that_lost_its_memory_is_rebuilt(shop: Any, capsys: Any) -> None:
    tracker = shop.tracker()
    for _ in range(5):
        tracker.track("m", "q", 2)
    shop.feed.load()
    shop.job().run(shop.today)
    shop.redis.flushall()
    assert tracker.track("m", "q") == 1, "it cannot know better yet"
    shop.feed.load()
    result = shop.job().run(shop.today)
    assert "lost their memory" in capsys.readouterr().out
    assert result.counters_rebuilt == 1
    assert shop.counter(f"usage:m:{shop.today}:q") == 11
    assert shop.table() == {("m", str(shop.today), "q"): 11}
    tracker.track("m", "q")
    assert tracker.track("m", "q") in (12, 13)


def test_one_evicted_counter_is_noticed_by_the_next_run(shop: Any) -> None:
    tracker = shop.tracker()
    tracker.track("m", "q", 5)
    tracker.track("n", "q", 6)
    shop.feed.load()
    shop.job().run(shop.today)
    shop.redis.delete(f"usage:m:{shop.today}:q")
    assert shop.job().run(shop.today).counters_rebuilt == 1
    assert (shop.counter(f"usage:m:{shop.today}:q"), shop.counter(f"usage:n:{shop.today}:q")) == (5, 6)


def test_events_with_ids_are_billed_once_and_reach_the_counter_by_the_job(shop: Any) -> None:
    tracker = shop.tracker()
    tracker.track("m", "q", 1)
    record = {"id": "order-1", "merchant_id": "m", "metric_type": "q", "amount": 10}
    for _ in range(3):
        shop.feed.send(shop.organization_id, usage_records=[record])
    shop.feed.load()
    shop.job().run(shop.today)
    assert shop.table() == {("m", str(shop.today), "q"): 11}
    assert shop.counter(f"usage:m:{shop.today}:q") == 11


def test_a_day_of_more_than_the_table_holds_is_told(shop: Any) -> None:
    records = [{"merchant_id": "m", "metric_type": "q", "amount": 2**53, "at": "2025-11-01T00:00:00Z"}] * 1024
    records.append({"merchant_id": "n", "metric_type": "q", "amount": 1, "at": "2025-11-01T00:00:00Z"})
    shop.feed.send(shop.organization_id, usage_records=records)
    shop.feed.load()
    result = shop.job().run(DAY)
    assert [error.reason for error in result.errors] == [f"{2**63} is more than the table can hold"]
    assert shop.table() == {("n", "2025-11-01", "q"): 1}


def test_the_same_as_the_loop_of_one_key_at_a_time(shop: Any) -> None:
    put(shop, **{f"m{number % 37}__metric{number % 11}": number for number in range(400)})
    rows = {}
    for key in shop.redis.scan_iter(f"usage:*:{DAY}:*"):
        _, merchant, day, metric = key.decode().split(":")
        rows[merchant, day, metric] = int(shop.redis.get(key))
    shop.job(page_keys=7, parallel=3).run(DAY)
    assert shop.table() == rows


def test_two_jobs_at_once_do_the_work_once(shop: Any) -> None:
    put(shop, **{f"m{number}__q": 1 for number in range(3000)})
    results: list[Any] = []
    barrier = threading.Barrier(3)

    def run() -> None:
        job = shop.job(page_keys=20)
        barrier.wait()
        results.append(job.run(DAY))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    worked = [result for result in results if result.skipped is None]
    assert sum(result.records_aggregated for result in results) == 3000 * len(worked)
    assert len(shop.table()) == 3000
    assert [result.success for result in results] == [True] * 3
    epochs = shop.feed.one("SELECT epoch FROM totalizer.usage_aggregations")
    assert epochs == len(worked) < 3
    with shop.feed.database.connect(Role.REFRESHER) as other, usage_runs.claimed(other, DAY, "elsewhere") as epoch:
        assert epoch == epochs + 1
        skipped = shop.job().run(DAY)
        assert (skipped.success, skipped.skipped, skipped.alerts) == (
            True,
            "another process is aggregating this day",
            (),
        )
        assert shop.job().get_aggregation_status(DAY).running
        assert shop.job().run(DAY + timedelta(days=1)).skipped is None, "another day is free"
    assert not shop.job().get_aggregation_status(DAY).running


def test_a_run_that_lost_its_lock_writes_no_more(shop: Any) -> None:
    """Its connection breaks while it scans; another run begins and ends; then it wakes up."""
    put(shop, m__q=5)
    job = shop.job()
    scan = job._counters.scan

    def scan_and_lose_the_lock(*arguments: Any) -> Any:
        shop.feed.administrator.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2"
        )
        assert shop.job().run(DAY).success
        put(shop, m__q=6)
        return scan(*arguments)

    job._counters.scan = scan_and_lose_the_lock
    result = job.run(DAY)
    assert not result.success
    assert "A later run for the same day has begun" in result.errors[0].reason
    assert shop.table() == {("m", "2025-11-01", "q"): 5}
    assert shop.job().run(DAY).success
    assert shop.table() == {("m", "2025-11-01", "q"): 6}


CHILD = """
import sys
from datetime import date
from totalizer.store.usage_counters import connect
from totalizer.usage.job import UsageAggregationJob
job = UsageAggregationJob(sys.argv[1], connect(sys.argv[2]), page_keys=10, parallel=1)
print(job.run(date(2025, 11, 1)).success, flush=True)
"""


def child(shop: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, shop.feed.database.dsn(Role.REFRESHER), shop.valkey.url],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_a_run_that_is_killed_is_finished_by_the_next(shop: Any) -> None:
    put(shop, **{f"m{number}__q": number for number in range(5000)})
    process = child(shop)
    wait_until(lambda: shop.feed.one("SELECT count(*) FROM totalizer.merchant_usage") > 200, "some rows")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    status = shop.job().get_aggregation_status(DAY)
    assert (status.aggregated, status.finished_at) == (False, None)
    assert 200 < status.records < 5000, "it was killed at work"
    wait_until(lambda: not shop.job().get_aggregation_status(DAY).running, "the end of its lock")
    result = shop.job().run(DAY)
    assert (result.success, result.records_aggregated, result.skipped) == (True, 5000, None)
    assert sum(shop.table().values()) == sum(range(5000))


def test_the_database_away_for_a_while(shop: Any) -> None:
    put(shop, **{f"m{number}__q": 1 for number in range(500)})
    name = psycopg.conninfo.conninfo_to_dict(shop.feed.database.url)["dbname"]
    elsewhere = psycopg.connect(shop.feed.database.url, dbname="postgres", autocommit=True)
    elsewhere.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    away = shop.job().run(DAY)
    assert (away.success, away.records_aggregated, away.error_count) == (False, 0, 1)
    assert "not currently accepting connections" in away.errors[0].reason

    def bring_back() -> None:
        time.sleep(0.5)
        elsewhere.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")

    thread = threading.Thread(target=bring_back)
    thread.start()
    result = shop.job(attempts=10).run(DAY)
    thread.join()
    elsewhere.close()
    assert (result.success, result.records_aggregated) == (True, 500)


def test_connections_that_break_at_work_are_opened_again(shop: Any) -> None:
    put(shop, **{f"m{number}__q": 1 for number in range(3000)})
    done = threading.Event()

    def break_some() -> None:
        while not done.wait(0.05):
            shop.feed.administrator.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'totalizer_refresher' "
                "AND query LIKE %s",
                ["%INSERT INTO totalizer.merchant_usage%"],
            )

    thread = threading.Thread(target=break_some)
    thread.start()
    time.sleep(0.1)
    result = shop.job(page_keys=50, attempts=8).run(DAY)
    done.set()
    thread.join()
    assert (result.success, result.records_aggregated, len(shop.table())) == (True, 3000, 3000)


def test_a_cluster_serves_counters_of_any_name(shop: Any, tmp_path: Any) -> None:
    """One node that is told that it has all slots: what would touch two slots at once is refused as in any cluster."""
    process, client = cluster_node(tmp_path)
    try:
        url = f"unix://{tmp_path}/c.sock"
        tracker = shop.tracker(url=url)
        assert [tracker.track(f"{{m{n}}}", "q", n) for n in range(1, 30)] == list(range(1, 30))
        assert tracker.track("{m1}", "q") == 2
        shop.feed.load()
        assert shop.job(url=url).run(shop.today).records_aggregated == 29
        client.delete(f"usage:%7Bm5%7D:{shop.today}:q")
        assert shop.job(url=url).run(shop.today).counters_rebuilt == 1
        assert client.get(f"usage:%7Bm5%7D:{shop.today}:q") == b"5"
        with pytest.raises(Exception, match="same slot"):
            client.mget(f"usage:a:{shop.today}:q", f"usage:b:{shop.today}:q")
    finally:
        client.close()
        process.terminate()
        process.wait()


def cluster_node(folder: Any) -> tuple[subprocess.Popen[bytes], Redis]:
    process = subprocess.Popen(
        [find_valkey(), "--port", str(_port()), "--unixsocket", f"{folder}/c.sock", "--cluster-enabled", "yes",
         "--dir", str(folder), "--save", ""],
        stdout=subprocess.DEVNULL, cwd=folder,
    )  # fmt: skip
    wait_until(lambda: os.path.exists(f"{folder}/c.sock"), "the node's socket")
    client = Redis(unix_socket_path=f"{folder}/c.sock")
    client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    wait_until(lambda: b"cluster_state:ok" in client.execute_command("CLUSTER", "INFO"), "the cluster")
    return process, client


def _port() -> int:
    while (port := free_port()) > 50_000:  # the bus listens 10000 above
        pass
    return port


def test_a_run_that_is_told_to_stop_keeps_what_it_did_and_blames_no_counter(shop: Any) -> None:
    put(shop, **{f"m{number}__q": 1 for number in range(1000)})
    asked = itertools.count(1)

    def check() -> None:
        if next(asked) > 20:
            raise JobStopped("enough")

    with pytest.raises(JobStopped, match="enough"):
        shop.job(page_keys=10, parallel=2, check=check).run(DAY)
    status = shop.job().get_aggregation_status(DAY)
    assert (status.error, status.failed_keys, status.aggregated, status.running) == ("enough", (), False, False)
    assert 0 < status.records < 1000
    assert shop.job().run(DAY).records_aggregated == 1000


def test_a_scheduled_run_with_a_wrong_counter_failed_and_says_what_it_did(shop: Any) -> None:
    put(shop, shop.today, m1__q=7, m2__q="x")
    database = shop.feed.database
    settings = settings_of(database, REDIS_URL=shop.valkey.url)
    outcome = Runner(settings, "test").run_now(job_named(settings, "usage_aggregation"))
    assert outcome.state == "failed"
    assert outcome.error == (
        f"1 failed, first of {shop.today}: usage:m2:{shop.today}:q: it holds 'x', not a count; "
        f"`totalizer job status {shop.today}` has more"
    )
    assert outcome.result["records_aggregated"] == 1
    assert runs_of(database, "usage_aggregation", "rows, result->'alerts'") == [(1, ["errors", "nothing_aggregated"])]
    shop.redis.delete(f"usage:m2:{shop.today}:q")
    assert Runner(settings, "test").run_now(job_named(settings, "usage_aggregation")).state == "done"


def test_results_are_json(shop: Any) -> None:
    put(shop, m__q=1)
    found = json.loads(json.dumps(document(shop.job().aggregate_date_range(DAY, DAY))))
    assert (found["success"], found["days"][0]["date"], found["alerts"]) == (True, "2025-11-01", [])
