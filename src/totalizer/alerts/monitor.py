"""The monitor: looks at everything every few seconds, and tells people. It lives while the database does not."""

from __future__ import annotations

from collections import Counter
from math import nan
from pathlib import Path
from threading import Event

from totalizer.alerts.book import Book
from totalizer.alerts.channels import Grouped
from totalizer.alerts.ruled import RuledAlerts
from totalizer.alerts.watch import Watch
from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.edge.daemon.alerts import STATE_FILE
from totalizer.health.check import CRITICAL, STATUSES, WARNING
from totalizer.health.config import HealthConfig
from totalizer.health.files import write_report
from totalizer.health.gather import Gatherer
from totalizer.health.report import Report
from totalizer.health.table import BY_NAME
from totalizer.health.trend import Trend
from totalizer.metrics import MEASURES
from totalizer.metrics.table import ALERTS, HEALTH_STATUS, HEALTH_VALUE
from totalizer.telemetry import logger


class Monitor:
    """Looks, tells and records, over and over.

    Args:
        gatherer: makes the checks.
        config: the rules.
        channels: ways to people.
        book: the record in the database.
        interval_s: from one look to the next, seconds.
        file_s: from one health file to the next, seconds.
        clock: time source.
    """

    def __init__(
        self, gatherer: Gatherer, config: HealthConfig, channels: list[Grouped], book: Book, *, interval_s: float,
        file_s: float, clock: Clock = SYSTEM_CLOCK,
    ) -> None:  # fmt: skip
        self._gatherer, self._config, self._book, self._clock = gatherer, config, book, clock
        self._interval_s, self._file_s = interval_s, file_s
        self._folder: Path = gatherer.folder
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.alerts = RuledAlerts(
            config.rules, config.alerts, channels, self._folder / STATE_FILE, interval_s, clock, book.silenced
        )
        self._watch = Watch(config.rules, self.alerts, book.host, clock)
        self._trend = Trend(self._folder)
        self._file_at = float("-inf")

    def run(self, stop: Event) -> None:
        """Look until the event is set."""
        logger().info("monitor looks after everything", rules=len(self._config.rules))
        while not stop.is_set():
            began = self._clock.monotonic()
            self.look()
            stop.wait(max(0.0, self._interval_s - (self._clock.monotonic() - began)))
        self._book.close()
        self._gatherer.close()

    def look(self) -> Report:
        """Look once: check, tell, record."""
        report = self._gatherer()
        if report.facts.database.facts is not None:
            self._book.read()
        else:
            self._book.leads = None
        self._watch(report, leads=self._book.leads)
        self._book.write(self.alerts.standing(), self.alerts.waiting, self._remedy)
        self._trend.note(report)
        self._measure(report)
        self._write_file(report)
        return report

    def _measure(self, report: Report) -> None:
        """Tell it to who scrapes `/metrics`, too."""
        for result in report.results:
            MEASURES.set(HEALTH_STATUS, STATUSES.index(result.status), result.name)
            MEASURES.set(HEALTH_VALUE, nan if result.value is None else result.value, result.name)
        standing = Counter(alert.severity for alert in self.alerts.standing().values())
        for severity in (WARNING, CRITICAL):
            MEASURES.set(ALERTS, standing[severity], severity)

    def _remedy(self, rule: str) -> str:
        found = self._config.rules.get(rule)
        return BY_NAME[found.check].remedy if found else ""

    def _write_file(self, report: Report) -> None:
        now = self._clock.monotonic()
        if now - self._file_at < self._file_s:
            return
        try:
            write_report(report, self._folder)
            self._file_at = now
        except OSError as error:
            logger().warning("no health file can be written", reason=error.strerror or str(error))
