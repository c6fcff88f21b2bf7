"""Every metric there is: its name, what it counts, its labels. docs/reference/observability.md lists the same.

Labels are bounded: routes as they are declared, classes of statuses, names of jobs. None names an organisation, a user
or a key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

PREFIX: Final = "totalizer_"
#: Upper bounds in seconds: of a request, of what a database does, of a job.
_REQUEST: Final = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_WORK: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_LAG: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)
_JOB: Final = (0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0)


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: full name.
        kind: what Prometheus calls its type.
        help: a sentence on what it is.
        labels: names of its labels.
        bounds: of a histogram, seconds, rising; the infinite one is not among them.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()

    @property
    def size(self) -> int:
        """How many numbers one set of labels takes: of a histogram one for each bucket, and the sum."""
        return len(self.bounds) + 2 if self.kind == "histogram" else 1


def _counter(name: str, help_: str, *labels: str) -> Metric:
    return Metric(f"{PREFIX}{name}_total", "counter", help_, labels)


def _gauge(name: str, help_: str, *labels: str) -> Metric:
    return Metric(f"{PREFIX}{name}", "gauge", help_, labels)


def _histogram(name: str, bounds: tuple[float, ...], help_: str, *labels: str) -> Metric:
    return Metric(f"{PREFIX}{name}_seconds", "histogram", help_, labels, bounds)


REQUESTS: Final = _histogram(
    "http_request_duration", _REQUEST, "How long requests took to be answered.", "kind", "method", "route", "status"
)
MINUTE_REQUESTS: Final = _gauge("minute_requests", "Requests of the last minute, streams and exports left out.", "kind")
MINUTE_SECONDS: Final = _gauge(
    "minute_request_seconds", "Their time in sum, that of events from the last byte of the request.", "kind"
)
MEMORY: Final = _gauge("memory_bytes", "Resident memory of API processes.")
ACCEPTED: Final = _counter("ingest_events_accepted", "Events that were acknowledged.")
REJECTED: Final = _counter("ingest_events_rejected", "Events that were not accepted, by the reason.", "code")
JOURNAL_BYTES: Final = _gauge("journal_bytes", "Disk that journals take.")
JOURNAL_REFUSING: Final = _gauge("journal_refusing", "Journals that take nothing at present.")
LOADED: Final = _counter("load_events", "Events taken from journals into the database, repeats included.")
LOAD: Final = _histogram("load_transaction", _WORK, "How long transactions of the loader took.")
LOAD_LAG: Final = _histogram("load_lag", _LAG, "From a batch's acknowledgement to its commit; one for each batch.")
LOAD_FAILURES: Final = _counter("load_failures", "Times that loading stopped for want of the database.")
REFRESH: Final = _histogram("refresh", _WORK, "How long looks for marked buckets took that found some.")
BUCKETS: Final = _counter("refresh_buckets", "Base buckets recomputed.")
# Not `job`: Prometheus gives every metric one of its own, and would call this one `exported_job`.
JOBS: Final = _histogram("job_duration", _JOB, "How long runs of jobs took, continuous ones left out.", "name", "state")
ANSWERS: Final = _counter("query_answers", "Answers of queries, by where they were found.", "found")
LIVE_CONNECTIONS: Final = _gauge("live_connections", "Live connections that are open.")
LIVE_BYTES: Final = _gauge("live_memory_bytes", "Memory that live windows take.")
POOL_WAITING: Final = _gauge("database_pool_waiting", "Requests that wait for a database connection.")
LOST: Final = _counter("metrics_lost", "Measurements with labels for which there was no room.")
HEALTH_STATUS: Final = _gauge(
    "health_status", "What a check found: 0 for ok, 1 for unknown, 2 for warning, 3 for critical.", "check"
)
HEALTH_VALUE: Final = _gauge("health_value", "The figure that a check looked at, in its unit; NaN for none.", "check")
ALERTS: Final = _gauge("alerts_standing", "Alerts that stand, as this machine's monitor knows them.", "severity")
#: Told by who reads, not measured.
PROCESSES: Final = _gauge("processes", "Processes that run on the data folder.", "component")

METRICS: Final = {
    metric.name: metric
    for metric in (
        LOST, REQUESTS, MINUTE_REQUESTS, MINUTE_SECONDS, MEMORY, ACCEPTED, REJECTED,
        JOURNAL_BYTES, JOURNAL_REFUSING, LOADED, LOAD, LOAD_LAG, LOAD_FAILURES, REFRESH, BUCKETS, JOBS, ANSWERS,
        LIVE_CONNECTIONS, LIVE_BYTES, POOL_WAITING,
        HEALTH_STATUS, HEALTH_VALUE, ALERTS,
    )
}  # fmt: skip
#: The processes of a whole service.
COMPONENTS: Final = ("api", "loader", "monitor", "scheduler")
