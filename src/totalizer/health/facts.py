"""What health checks look at: plain facts, gathered before any of them is judged."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from totalizer.edge.daemon.machine import SystemHealth
from totalizer.prepared import prepared


class JobFact(msgspec.Struct, frozen=True):
    """How one scheduled job is.

    Attributes:
        name: of the job.
        late_s: seconds since it should have begun, less than 0 if that is still to come; None if it runs all the time.
        over_s: seconds by which a run that is under way is over its limit; None if none is under way.
        failures: runs in a row that did not end well.
        state: how the last run that ended did; None if none has.
        ended_s: seconds since that run ended.
        took_s: seconds that it took.
        alerts: what it says itself that people should be told of.
    """

    name: str
    late_s: float | None = None
    over_s: float | None = None
    failures: int = 0
    state: str | None = None
    ended_s: float | None = None
    took_s: float | None = None
    alerts: list[str] = []


@prepared
class DatabaseFacts(msgspec.Struct, frozen=True):
    """Figures of the whole installation, from one statement.

    Attributes:
        now_s: the database's clock, seconds since 1970 UTC.
        marks: buckets that wait to be rolled up, counted up to 10 000.
        oldest_mark_s: seconds for which the oldest of them waits; None if none does.
        accepted_minute, accepted_hour: events loaded in the last minute and hour, whatever became of them.
        dead_lettered_hour: those among them that the database refused.
        without_fate: acknowledged events of the last two days that the ledger cannot account for.
        letters: dead letters that wait, counted up to 10 000.
        letters_hour: those that came in the last hour.
        gaps_day: stretches of journals that were found unreadable in the last day.
        partition_days: days from today on for which every event type has its partition, 8 at most.
        connections, connections_max: sessions of the database, and how many the server allows.
        offsets: how far each journal is loaded: segment and position.
        jobs: those whose schedule is not switched off.
        mismatches: differences that the last comparison of books and rollups found.
        compared_s: seconds since it ended; None if there was none.
        usage_seen: True if usage counters were aggregated lately, so that none at all is worth a word.
    """

    now_s: float
    marks: int
    oldest_mark_s: float | None
    accepted_minute: int
    accepted_hour: int
    dead_lettered_hour: int
    without_fate: int
    letters: int
    letters_hour: int
    gaps_day: int
    partition_days: int
    connections: int
    connections_max: int
    offsets: dict[str, tuple[int, int]]
    jobs: list[JobFact]
    mismatches: int
    compared_s: float | None
    usage_seen: bool = False


@dataclass(frozen=True)
class DatabaseAnswer:
    """What asking the database came to.

    Attributes:
        facts: None if there was no answer.
        problem: why there was none, without addresses, names and passwords; "" if there was.
        took_ms: milliseconds until the answer.
        skew_s: seconds by which this machine's clock is ahead of the database's; None without an answer.
    """

    facts: DatabaseFacts | None
    problem: str = ""
    took_ms: float = 0.0
    skew_s: float | None = None


@dataclass(frozen=True)
class JournalFact:
    """How one journal of this machine is.

    Attributes:
        name: of its folder.
        bytes_on_disk: taken by its segments.
        behind_s: seconds since the oldest record that is not loaded was received; 0 if all are; None if that is not
            known, because the database is away.
    """

    name: str
    bytes_on_disk: int
    behind_s: float | None


@dataclass(frozen=True)
class ApiFigures:
    """What the API processes of this machine did in the last minute.

    Attributes:
        processes: how many there are.
        ingest_requests, ingest_ms: requests that sent events, and the milliseconds until their answers, in sum.
        query_requests, query_ms: the same of requests that asked.
        cache_hits, cache_misses: answers that were kept, and those that were worked out.
        memory_bytes: resident memory, in sum.
    """

    processes: int = 0
    ingest_requests: int = 0
    ingest_ms: float = 0.0
    query_requests: int = 0
    query_ms: float = 0.0
    cache_hits: int = 0
    cache_misses: int = 0
    memory_bytes: int = 0

    @property
    def processing_ms(self) -> float | None:
        """Mean milliseconds until events were on disk and acknowledged; None if none were sent."""
        return self.ingest_ms / self.ingest_requests if self.ingest_requests else None

    @property
    def answering_ms(self) -> float | None:
        """Mean milliseconds of an answer; None if nobody asked."""
        return self.query_ms / self.query_requests if self.query_requests else None

    @property
    def cache_hit_rate(self) -> float:
        """Part of the answers that were kept, 0 to 1."""
        looked = self.cache_hits + self.cache_misses
        return self.cache_hits / looked if looked else 0.0


@dataclass(frozen=True)
class Facts:
    """Everything that checks look at.

    Attributes:
        at_ms: when it was gathered, milliseconds since 1970 UTC.
        database: what asking the database came to.
        redis: `ok`, `not configured`, or what is wrong.
        machine: memory and disk of this machine; None if they cannot be told.
        journals: of this machine; None if they cannot be looked at.
        quota_bytes: what each journal may take.
        api: figures of the API processes.
        batches: severity and issues of the last check of the recovery daemon on this machine.
    """

    at_ms: int
    database: DatabaseAnswer
    redis: str = "not configured"
    machine: SystemHealth | None = None
    journals: tuple[JournalFact, ...] | None = ()
    quota_bytes: int = 1 << 32
    api: ApiFigures = field(default_factory=ApiFigures)
    batches: tuple[str, tuple[str, ...]] = ("normal", ())
