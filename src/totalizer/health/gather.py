"""Gathering the facts: every source at once, each in its own time, none able to hold up the others."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NoAnswer
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import redis as redis_library

from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.edge.daemon.machine import SystemHealth, disk_space, system_health
from totalizer.edge.folder import Folders
from totalizer.edge.health_endpoint import folder_health
from totalizer.errors import TotalizerError
from totalizer.health.check import Levels
from totalizer.health.database import DatabaseProbe
from totalizer.health.facts import ApiFigures, DatabaseAnswer, Facts, JournalFact
from totalizer.health.figures import api_figures
from totalizer.health.journals import Journals
from totalizer.health.report import Report, judge
from totalizer.metrics.slot import FOLDER as METRICS_FOLDER
from totalizer.telemetry import logger

#: Seconds that a source gets; then the checks go on without it.
SOURCE_S = 4.0
#: Seconds for which an answer is kept: however many ask, the sources are asked once.
KEPT_S = 1.0
REDIS_S = 1.0

T = TypeVar("T")


@dataclass(frozen=True)
class Places:
    """Where the facts are.

    Attributes:
        dsn: gives the connection string of the database.
        redis_url: None if there is none.
        home: data folder.
        spool: folder of the journals.
        batches: folders of the batching library.
        quota_bytes: what each journal may take.
    """

    dsn: Callable[[], str]
    redis_url: str | None
    home: Path
    spool: Path
    batches: Folders
    quota_bytes: int

    @property
    def folder(self) -> Path:
        """The folder of health files and alerts; that of the batching library is another."""
        return self.home / "monitor"

    @property
    def metrics(self) -> Path:
        """The folder in which the processes on the data folder keep what they measure."""
        return self.home / METRICS_FOLDER


class Gatherer:
    """Gathers facts and checks them. Any number of threads may ask; they share one answer a second.

    Args:
        places: where the facts are.
        levels: of checks, where they are not as shipped.
        clock: time source.
    """

    def __init__(self, places: Places, levels: dict[str, Levels] | None = None, clock: Clock = SYSTEM_CLOCK) -> None:
        self._places, self._levels, self._clock = places, levels or {}, clock
        self._probe = DatabaseProbe(places.dsn, clock)
        self._journals = Journals(places.spool)
        self._threads = ThreadPoolExecutor(6, thread_name_prefix="health")
        self._lock = Lock()
        self._under_way: dict[str, Future[Any]] = {}
        self._last: tuple[float, Report] | None = None

    def __call__(self) -> Report:
        """What all checks find now, or found within the last second."""
        with self._lock:
            now = self._clock.monotonic()
            if self._last is None or now - self._last[0] >= KEPT_S:
                self._last = (self._clock.monotonic(), judge(self._facts(), self._levels))
            return self._last[1]

    @property
    def folder(self) -> Path:
        """The folder of health files."""
        return self._places.folder

    def close(self) -> None:
        """Close the connection; threads that still wait for a source end with it."""
        self._probe.close()
        self._threads.shutdown(wait=False)

    def _facts(self) -> Facts:
        now_ms = self._clock.now_ns() // 1_000_000
        asked = self._ask("database", self._probe)
        redis = self._ask("redis", self._redis)
        machine: Future[SystemHealth | None] = self._ask("machine", self._machine)
        api = self._ask("api", lambda: api_figures(self._places.metrics))
        batches = self._ask("batches", self._batches)
        database = self._take("database", asked, DatabaseAnswer(None, f"did not answer within {SOURCE_S:g} s"))
        offsets = None if database.facts is None else database.facts.offsets
        journals = self._ask("journals", lambda: self._journals.look(offsets, now_ms))
        nothing: tuple[JournalFact, ...] | None = None
        no_machine: SystemHealth | None = None
        return Facts(
            now_ms, database, self._take("redis", redis, "does not answer"), self._take("machine", machine, no_machine),
            self._take("journals", journals, nothing), self._places.quota_bytes, self._take("api", api, ApiFigures()),
            self._take("batches", batches, ("critical", ("the folder of the batches does not answer",))),
        )  # fmt: skip

    def _ask(self, name: str, source: Callable[[], T]) -> Future[T]:
        """Ask a source on a thread of its own; one that has not answered the last time is waited for again."""
        waiting = self._under_way.get(name)
        if waiting is None or waiting.done():
            waiting = self._under_way[name] = self._threads.submit(source)
        return waiting

    def _take(self, name: str, future: Future[T], otherwise: T) -> T:
        try:
            return future.result(SOURCE_S)
        except NoAnswer:
            return otherwise
        except (TotalizerError, OSError, ValueError) as error:
            # What is wrong with one source must not take the other checks with it.
            logger().error("a source of health facts failed", source=name, reason=str(error))
            return otherwise

    def _redis(self) -> str:
        url = self._places.redis_url
        if url is None:
            return "not configured"
        client = redis_library.Redis.from_url(url, socket_connect_timeout=REDIS_S, socket_timeout=REDIS_S)
        try:
            client.ping()
        except (redis_library.RedisError, OSError):
            return "cannot be reached"
        finally:
            client.close()
        return "ok"

    def _machine(self) -> SystemHealth | None:
        found = system_health(self._places.home)
        # The journals may be on a disk of their own.
        return SystemHealth(found.memory_usage, disk_space(self._places.spool) or found.disk_space)

    def _batches(self) -> tuple[str, tuple[str, ...]]:
        _, answer = folder_health(self._places.batches, self._clock)
        return str(answer["severity"]), tuple(answer["issues"])
