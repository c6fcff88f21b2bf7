"""`CronRecoveryDaemon`: brings failed batches to their target, watches over the whole, and tidies up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import totalizer
from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.edge.adopt import Adopted, adopt
from totalizer.edge.audit import audit
from totalizer.edge.daemon.abandoned import put_all_back
from totalizer.edge.daemon.alerts import alerts_for
from totalizer.edge.daemon.channels import Alert, Channel
from totalizer.edge.daemon.checker import Checker
from totalizer.edge.daemon.cleanup import Cleanup, CleanupResult
from totalizer.edge.daemon.health import HealthStatus, write_health
from totalizer.edge.daemon.lock import DAEMON_LOCK
from totalizer.edge.daemon.log import Log
from totalizer.edge.daemon.metrics import Counters, DaemonMetrics, ExportedMetrics, RecoveryMetrics
from totalizer.edge.daemon.needs import need
from totalizer.edge.daemon.options import DaemonOptions
from totalizer.edge.daemon.recovery import AnyBatch, B, Recovery, RecoveryResult, Reprocessed, prioritize
from totalizer.edge.daemon.scan import ScannedBatch, scan
from totalizer.edge.daemon.schedule import Job
from totalizer.edge.daemon.service import Service
from totalizer.edge.daemon.target import TargetSink, target_for
from totalizer.edge.folder import Folders
from totalizer.edge.sinks.file import FileSink
from totalizer.edge.sinks.sink import Sink
from totalizer.errors import DaemonError

#: Milliseconds from the start to the first health check: what waited for the daemon is no alarm.
FIRST_CHECK_MS = 2000


class CronRecoveryDaemon:
    """Tries failed batches again until they are delivered or given up, checks health, sends alerts, cleans up.

    It runs in threads of this process, between `start` and `stop`; every step can also be asked for by hand, with or
    without `start`, and in several processes at once. One daemon runs for a recovery folder.

    Args:
        config: options as a mapping, also by the camel-case names of existing configuration files, or `DaemonOptions`.
        aggregator: a `SmartBatchAggregator` to deliver through. Its folders are used unless `data_path` says others.
        sink: where to deliver to without an aggregator; None for batch files in `data_path`. The caller closes it.
        alert_channels: further ways to people, beside the log and the addresses in the options.
        clock: for times and durations; the schedule keeps the system's time.
        options: as `DaemonOptions`, stronger than `config`.

    Attributes:
        options: the `DaemonOptions`.
        folders: where everything lies.

    Raises:
        ConfigurationError: an option is unknown or wrong, or needs a package that is not installed.
    """

    def __init__(
        self, config: Mapping[str, Any] | DaemonOptions | None = None, aggregator: Any = None, *,
        sink: Sink | None = None, alert_channels: Sequence[Channel] = (), clock: Clock = SYSTEM_CLOCK, **options: Any,
    ) -> None:  # fmt: skip
        self.options = given = DaemonOptions.make(config, **options)
        self.folders = _folders(given, aggregator)
        self._clock = clock
        self._log = Log(audit(self.folders, "recovery", clock), given.log_level)
        self._counters = Counters()
        self._service = Service(self.folders.recovery / DAEMON_LOCK, self._counters, clock, self._log)
        self._target = target_for(aggregator, sink or FileSink(self.folders.data), self._log)
        self._recovery = Recovery(
            self.folders, self._target, given, self._counters, clock, self._log, self._service.stopping
        )
        self._checker = Checker(self.folders, given, aggregator, clock)
        self._alerts = alerts_for(given, self.folders, alert_channels, clock, self._log)
        self._left = 0
        self._last_status: HealthStatus | None = None

    def initialize(self) -> None:
        """Make the folders that are missing, and make sure that everything a running daemon needs is installed.

        Raises:
            DaemonError: the disk refuses.
            ConfigurationError: a package is missing.
        """
        need("apscheduler")
        need("psutil")
        try:
            self.folders.make()
        except OSError as error:
            raise DaemonError(f"the folders below {self.folders.data} cannot be made: {error}") from error

    def start(self) -> None:
        """Begin to work in threads of this process.

        Raises:
            DaemonError: it is running already, another daemon has the recovery folder, or the disk refuses.
            ConfigurationError: a package is missing.
        """
        self._service.start(self.initialize, self._jobs())

    def stop(self) -> None:
        """End: a batch that is on its way is brought to its end, no further one is begun. Harmless the second time."""
        self._service.stop()

    def is_running(self) -> bool:
        """True between `start` and `stop`, in the process that started it."""
        return self._service.running

    def __enter__(self) -> CronRecoveryDaemon:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def scan_for_failed_batches(self) -> list[ScannedBatch]:
        """The failed batches in the recovery folder, by file name.

        What cannot be read is moved to `recovery/errors`, with the reason beside it; files of a later version, and
        those that the disk does not give, are left and logged.

        Raises:
            OSError: the folder cannot be listed.
        """
        found = scan(self.folders, self.options.file_bytes_max, self._clock, self._log)
        self._left = len(found.left)
        return found.batches

    def prioritize_batches(self, batches: Iterable[B]) -> list[B]:
        """The batches in the order in which they are tried: the oldest first, then those with the fewest attempts."""
        return prioritize(batches)

    def reprocess_batch(self, batch: AnyBatch) -> Reprocessed:
        """Try a failed batch now, whether its time has come or not.

        Args:
            batch: as `scan_for_failed_batches` gave it, or a `FailedBatch`; one that lies in no file is kept first.

        Raises:
            OSError: it lies in no file, and the disk refuses to keep it.
        """
        return self._recovery.one(batch)

    def reprocess_failed_batches(
        self, batches: Iterable[AnyBatch] | None = None, *, force: bool = False
    ) -> RecoveryResult:
        """Try failed batches whose time has come, in order.

        Args:
            batches: which; None for all.
            force: also those whose time has not come, and though the target seems to be away.

        Raises:
            OSError: the recovery folder cannot be listed.
        """
        chosen: list[Any] = self.scan_for_failed_batches() if batches is None else list(batches)
        result = self._recovery.many(prioritize(chosen), force=force)
        if result.processed:
            self._log.info("recovery", **vars(result))
        return result

    def requeue(self, batch_ids: Iterable[str] | None = None) -> list[str]:
        """Put abandoned batches back, with all their attempts before them.

        Args:
            batch_ids: which; None for all.

        Returns:
            The ids of those that were put back. What cannot be read, or is not there, is logged and left.

        Raises:
            OSError: the disk refuses.
            DaemonError: another process is busy with failed batches, and does not end.
        """
        return put_all_back(self.folders, batch_ids, self.options.file_bytes_max, self._clock, self._log)

    def adopt_idle_journals(self) -> Adopted:
        """Deliver what waits in the journals of processes that are gone.

        Raises:
            JournalFailed: the folder of the journals cannot be listed.
        """
        stopping = self._service.stopping
        sink = TargetSink(self._target, str(self.folders.data))
        done = adopt(self.folders, sink, clock=self._clock, pause=lambda seconds: not stopping.wait(seconds))
        if done.journals or done.errors:
            self._log.info("adopted", **vars(done))
        return done

    def perform_health_check(self) -> HealthStatus:
        """Measure, hold the thresholds against it, and write `health/health-<ms>.json`. Sends no alerts.

        Raises:
            ConfigurationError: psutil is not installed.
            OSError: a folder is there and cannot be listed.
        """
        self._counters.health_checked()
        self._last_status = status = self._checker.check(self.get_metrics(), self._left, self._lag_ms())
        try:
            write_health(status, self.folders.health, self.options.health_files_max)
        except OSError as error:
            self._log.error("health_not_written", folder=str(self.folders.health), reason=str(error))
        return status

    def send_alert(self, alert: Alert | Mapping[str, Any]) -> bool:
        """Send an alert to every channel that takes its severity, unless the same was sent within `alert_repeat_ms`.

        Args:
            alert: an `Alert`, or a mapping with `severity`, `message` and `details`.

        Returns:
            True if a channel beside the log took it, now or then; without such channels, once it is logged.

        Raises:
            ValueError, TypeError: it is no alert.
        """
        return self._alerts.send(Alert.of(alert))

    def identify_files_for_cleanup(self, age_ms: int | None = None) -> list[Path]:
        """Files that `perform_cleanup` would remove. Arguments and errors as there."""
        return self._cleanup(age_ms).identify()

    def perform_cleanup(self, age_ms: int | None = None) -> CleanupResult:
        """Remove what is old and not needed; see `totalizer.edge.daemon.cleanup` for what that is.

        Args:
            age_ms: only what is older, milliseconds; None for `cleanup_age_ms`.

        Raises:
            OSError: a folder is there and cannot be listed.
        """
        self._counters.cleaned_up()
        return self._cleanup(age_ms).perform()

    def get_metrics(self) -> DaemonMetrics:
        """What the daemon has done since it was made."""
        return self._counters.daemon(is_running=self.is_running(), uptime_ms=self._service.uptime_ms)

    def get_recovery_metrics(self) -> RecoveryMetrics:
        """What became of failed batches since the daemon was made."""
        return self._counters.recovery()

    def export_metrics(self) -> ExportedMetrics:
        """Everything for a monitoring system, with the last health check; makes one if there was none."""
        status = self._last_status or self._checker.check(self.get_metrics(), self._left, self._lag_ms())
        return ExportedMetrics(
            self._clock.now_ns() // 1_000_000, totalizer.__version__, self.get_metrics(), self.get_recovery_metrics(),
            status,
        )  # fmt: skip

    def _jobs(self) -> list[Job]:
        options, later_ms = self.options, min(FIRST_CHECK_MS, self.options.health_check_interval_ms)
        return [
            Job("recovery", options.schedule_interval_ms, self.reprocess_failed_batches),
            Job("adoption", options.adopt_interval_ms, self.adopt_idle_journals),
            Job("cleanup", options.cleanup_interval_ms, self.perform_cleanup),
            Job("health", options.health_check_interval_ms, self._check_and_alert, later_ms),
        ]

    def _check_and_alert(self) -> None:
        status = self.perform_health_check()
        self._alerts.observe(Alert(one.severity, one.message, key=one.key) for one in status.findings)

    def _cleanup(self, age_ms: int | None) -> Cleanup:
        age_ms = self.options.cleanup_age_ms if age_ms is None else age_ms
        return Cleanup(self.folders, age_ms, self.options.cleanup_batches, self._clock, self._log)

    def _lag_ms(self) -> float | None:
        """Milliseconds since anything was done about failed batches."""
        if not self._service.running:
            return None
        return 1000 * (self._clock.monotonic() - max(self._service.started_at, self._recovery.progressed_at))


def _folders(options: DaemonOptions, aggregator: Any) -> Folders:
    """The aggregator's, unless the options name others."""
    data_path = options.data_path
    if data_path == DaemonOptions.data_path and isinstance(getattr(aggregator, "folders", None), Folders):
        data_path = aggregator.folders.data
    return Folders(data_path, options.recovery_path, options.health_path)
