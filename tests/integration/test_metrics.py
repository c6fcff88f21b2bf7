"""What a real service tells of itself: all its processes in one `/metrics`, a batch's way through them in one trace."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from prometheus_client.parser import text_string_to_metric_families

from collector import Collector, Span, collector
from serving import COMMAND, SINGLE, served
from support import RunningStack, Stack, free_port, new_organization, wait_until
from totalizer.health.table import BY_NAME
from totalizer.store.keys import create_key

#: Sends a batch and asks a question, as a program does that has set OpenTelemetry up.
TRACING_CLIENT = """
import sys
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from totalizer.client import Client
from totalizer.edge.batch import Batch
from totalizer.edge.sinks.http import HttpSink

trace.set_tracer_provider(TracerProvider())
trace.get_tracer_provider().add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
url, key = sys.argv[1:]
entries = tuple({"userId": str(n), "action": "edit", "timestamp": 1757000000000, "metadata": {}} for n in range(3))
assert HttpSink(url, key).deliver(Batch("traced", 1757000000000, entries)).accepted == 3
Client(url, key).query(aggregation_window="total")
trace.get_tracer_provider().shutdown()
"""


def ask(url: str, path: str, key: str | None = None, body: object = None, **headers: str) -> tuple[int, dict, bytes]:
    """Status, headers in lower case and body of an answer."""
    told = {"authorization": f"Bearer {key}"} if key else {}
    data = None if body is None else json.dumps(body).encode()
    if data is not None:
        told["content-type"] = "application/json"
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url + path, data, {**told, **names})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, {name.lower(): value for name, value in answer.headers.items()}, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, {name.lower(): value for name, value in error.headers.items()}, error.read()


def samples(url: str) -> dict[tuple[str, ...], float]:
    """(name, label values …) → value, read by Prometheus' own parser."""
    status, headers, text = ask(url, "/metrics")
    assert status == 200
    assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


@pytest.fixture(scope="module")
def traces() -> Iterator[Collector]:
    with collector() as made:
        yield made


@pytest.fixture(scope="module")
def own_stack(tmp_path_factory: pytest.TempPathFactory, traces: Collector) -> Iterator[Stack]:
    """A stack whose numbers nobody else moves, with two API processes; it traces what its senders trace."""
    running = RunningStack(
        tmp_path_factory.mktemp("metrics") / "home", TOTALIZER_WORKERS="2", OTEL_EXPORTER_OTLP_ENDPOINT=traces.url,
        OTEL_TRACES_SAMPLER="parentbased_always_off", OTEL_BSP_SCHEDULE_DELAY="100",
    )  # fmt: skip
    yield new_organization(running)
    assert running.stop() == 0


def test_every_process_counts_into_one_answer(own_stack: Stack) -> None:
    url, key = own_stack.url, own_stack.key
    before = samples(url)
    assert {before["totalizer_processes", name] for name in ("api",)} == {2}
    assert before["totalizer_processes", "loader"] == before["totalizer_processes", "scheduler"] == 1
    for number in range(40):  # each over a connection of its own: both processes get some
        assert ask(url, SINGLE, key, {"id": str(uuid4()), **COMMAND})[0] == 202
        assert ask(url, "/api/metrics/batch", key, {"command_executions": [COMMAND] * 3})[0] == 202, number
    assert ask(url, SINGLE, key, {"command_name": 3})[0] == 422
    own_stack.drain()
    after = samples(url)

    def grew(*name: str) -> float:
        return after.get(name, 0.0) - before.get(name, 0.0)

    assert grew("totalizer_ingest_events_accepted_total") == 160
    assert grew("totalizer_http_request_duration_seconds_count", "ingest", "POST", SINGLE, "2xx") == 40
    assert grew("totalizer_http_request_duration_seconds_count", "ingest", "POST", SINGLE, "4xx") == 1
    assert grew("totalizer_load_events_total") == 160
    assert grew("totalizer_load_lag_seconds_count") == 80
    assert grew("totalizer_load_transaction_seconds_count") >= 1
    assert grew("totalizer_refresh_seconds_count") >= 1
    assert grew("totalizer_refresh_buckets_total") >= 1
    rejected = [name[1] for name in after if name[0] == "totalizer_ingest_events_rejected_total" and grew(*name)]
    assert rejected == ["invalid_event"]
    written = {path.stem for path in (own_stack.home / "metrics").glob("*.values")}
    assert {"api-0", "api-1", "loader-0", "scheduler-0"} <= written


def test_nothing_goes_back_when_a_process_is_killed(own_stack: Stack) -> None:
    state = json.loads((own_stack.home / "run" / "state.json").read_text())
    ask(own_stack.url, SINGLE, own_stack.key, {"id": str(uuid4()), **COMMAND})
    own_stack.drain()
    before = samples(own_stack.url)
    os.kill(state["pids"]["loader"], signal.SIGKILL)
    wait_until(lambda: samples(own_stack.url)["totalizer_processes", "loader"] == 0, "the loader is missed")
    assert samples(own_stack.url)["totalizer_load_events_total",] == before["totalizer_load_events_total",]
    ask(own_stack.url, SINGLE, own_stack.key, {"id": str(uuid4()), **COMMAND})
    own_stack.drain()
    after = samples(own_stack.url)
    assert after["totalizer_processes", "loader"] == 1
    assert after["totalizer_load_events_total",] == before["totalizer_load_events_total",] + 1


def test_labels_are_what_is_declared_whatever_is_asked_for(own_stack: Stack) -> None:
    url, key = own_stack.url, own_stack.key
    for path in (f"/nothing/{uuid4()}", f"/api/keys/{uuid4()}/no", "/api/jobs/hourly_rollup/runs", f"/{own_stack.key}"):
        ask(url, path, key)
    text = ask(url, "/metrics")[2].decode()
    routes = {name[3] for name in samples(url) if name[0] == "totalizer_http_request_duration_seconds_count"}
    assert "/api/jobs/{name}/runs" in routes
    assert "other" in routes
    assert own_stack.key not in text
    assert own_stack.organization_id not in text
    assert not [route for route in routes if "nothing" in route]


def test_kept_answers_and_jobs_are_counted(own_stack: Stack) -> None:
    path = "/api/metrics/aggregated?aggregation_window=total"
    before = samples(own_stack.url)
    assert {ask(own_stack.url, path, own_stack.key)[0] for _ in range(6)} == {200}
    after = samples(own_stack.url)
    found = {name[1]: after[name] - before.get(name, 0) for name in after if name[0] == "totalizer_query_answers_total"}
    assert sum(found.values()) == 6
    assert found["missed"] == 1, "five of six were kept, by this process or in Redis by the other"
    with own_stack.running.connect(None) as connection:
        admin = create_key(connection, own_stack.organization_id, "admin", scopes=("admin",))
    assert ask(own_stack.url, "/api/jobs/verify/run", admin, {})[0] == 202
    name = "totalizer_job_duration_seconds_count", "verify", "done"
    wait_until(lambda: samples(own_stack.url).get(name, 0) >= 1, "a run is counted")


def test_a_batch_is_traced_from_the_program_that_sends_it_to_the_rollups(
    own_stack: Stack, traces: Collector, tmp_path: Path
) -> None:
    """The sink of a program that traces itself, the API, the loader and the scheduler, each a process of its own."""
    ask(own_stack.url, SINGLE, own_stack.key, COMMAND)
    (tmp_path / "client.py").write_text(TRACING_CLIENT)
    subprocess.run(
        [sys.executable, str(tmp_path / "client.py"), own_stack.url, own_stack.key], check=True, timeout=60,
        env={**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": traces.url},
    )  # fmt: skip
    own_stack.drain()
    last = {"refresh", "POST /api/metrics/query"}
    wait_until(lambda: last <= {span.name for span in list(traces.spans)}, "the last spans of both traces")

    def below(parent: Span, name: str) -> Span:
        [found] = [span for span in traces.children(parent) if span.name == name]
        assert found.trace_id == parent.trace_id
        return found

    [sent] = [span for span in traces.spans if span.name == "POST /api/metrics/batch" and not span.parent_id]
    assert sent.attributes["http.response.status_code"] == 202
    taken = below(sent, "POST /api/metrics/batch")
    assert (taken.component, taken.attributes["http.response.status_code"]) == ("api", 202)
    loaded = below(taken, "load")
    assert (loaded.component, loaded.attributes["totalizer.rows"]) == ("loader", 3)
    assert below(loaded, "refresh").component == "scheduler"
    [asked] = [span for span in traces.spans if span.name == "POST"]
    assert below(asked, "POST /api/metrics/query").attributes["http.response.status_code"] == 200
    assert not [span for span in traces.spans if span.name == f"POST {SINGLE}"], "a request that nobody traces"
    assert not [body for body in traces.bodies if own_stack.key.encode() in body]


def test_what_the_monitor_finds_is_told(own_stack: Stack) -> None:
    def told(name: str) -> set[str]:
        return {sample[1] for sample in samples(own_stack.url) if sample[0] == f"totalizer_{name}"}

    wait_until(lambda: told("alerts_standing") == {"warning", "critical"}, "the monitor has looked")
    assert told("health_status") == told("health_value") == set(BY_NAME)
    assert samples(own_stack.url)["totalizer_processes", "monitor"] == 1


def test_with_a_token_only_who_has_it_gets_them_and_switched_off_nobody(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    home = str(tmp_path / "home")
    with served(stack.running, tmp_path / "one", TOTALIZER_METRICS_TOKEN="sesame", TOTALIZER_HOME=home) as api:
        url = f"http://{api.host}:{api.port}"
        assert ask(url, "/metrics")[0] == 401
        assert ask(url, "/metrics", "sesam")[0] == 401
        assert ask(url, "/metrics", stack.key)[0] == 401
        assert ask(url, "/metrics", "sesame")[0] == 200
    (tmp_path / "two").mkdir()
    home = str(tmp_path / "off")
    with served(stack.running, tmp_path / "two", TOTALIZER_METRICS="false", TOTALIZER_HOME=home) as api:
        url = f"http://{api.host}:{api.port}"
        assert ask(url, SINGLE, stack.key, COMMAND)[0] == 202
        assert ask(url, "/metrics")[0] == 404

        def latency_ms() -> float:
            answer: dict[str, float] = json.loads(ask(url, "/api/metrics/performance")[2])
            return answer["processing_latency_ms"]

        wait_until(lambda: latency_ms() > 0, "health knows it all the same")


def test_a_real_prometheus_scrapes_it(own_stack: Stack, tmp_path: Path) -> None:
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("no prometheus on this machine")
    port = free_port()
    target = own_stack.url.removeprefix("http://")
    (tmp_path / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s}\n"
        f"scrape_configs: [{{job_name: totalizer, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    process = subprocess.Popen(
        [program, f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data",
         f"--web.listen-address=127.0.0.1:{port}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:

        def scraped() -> bool:
            try:
                query = "/api/v1/query?query=totalizer_ingest_events_accepted_total"
                status, _, text = ask(f"http://127.0.0.1:{port}", query)
            except OSError:
                return False
            result = json.loads(text)["data"]["result"] if status == 200 else []
            return bool(result) and float(result[0]["value"][1]) > 0

        wait_until(scraped, "a scrape")
    finally:
        process.terminate()
        process.wait(30)


def test_asking_while_all_count_never_shows_less(own_stack: Stack) -> None:
    """Counters of one answer are never below those of an answer before it, with senders all the while."""
    end = threading.Event()

    def send() -> None:
        while not end.is_set():
            ask(own_stack.url, SINGLE, own_stack.key, {"id": str(uuid4()), **COMMAND})

    sender = threading.Thread(target=send)
    sender.start()
    try:
        last: dict[tuple[str, ...], float] = {}
        for _ in range(20):
            now = samples(own_stack.url)
            fell = [name for name, value in last.items() if "_total" in name[0] and now[name] < value]
            assert fell == []
            last = now
            time.sleep(0.02)
    finally:
        end.set()
        sender.join()
