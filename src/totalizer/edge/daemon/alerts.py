"""Which alerts go out, and when: no repeats, more urgent if nothing is done, a word when it is over."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

import msgspec

from totalizer.clock import Clock
from totalizer.edge.daemon.channels import SEVERITIES, Alert, Channel, LogChannel, channels_for
from totalizer.edge.daemon.log import Log
from totalizer.edge.daemon.options import DaemonOptions
from totalizer.edge.folder import Folders, write_file
from totalizer.prepared import prepared

LOGGER = logging.getLogger("totalizer.edge.daemon")
#: In the health folder: which alerts were told to whom.
STATE_FILE = "alerts.json"
#: Alerts that are remembered; beyond that the oldest that nobody watches are forgotten.
REMEMBERED_MAX = 1000
_STATE_BYTES_MAX = 4 << 20


@prepared
class Remembered(msgspec.Struct, rename="camel"):
    """What is remembered of an alert.

    Attributes:
        severity, message: as last told.
        first_at: when it was first told, milliseconds since 1970 UTC.
        last_at: when it was last told.
        checks: health checks in a row that found it.
        taken_by: names of the channels that took it since `last_at`.
        told: names of the channels that ever took it: they hear when it is over.
        watched: True if health checks find it, so that they notice its end.
    """

    severity: str
    message: str
    first_at: int
    last_at: int
    checks: int = 0
    taken_by: list[str] = []
    told: list[str] = []
    watched: bool = False


@dataclass(frozen=True)
class AlertRules:
    """How often, and how urgently.

    Attributes:
        repeat_ms: an alert that stands is told again after this long.
        escalation_checks: a warning that so many health checks in a row found becomes critical.
    """

    repeat_ms: int
    escalation_checks: int


class Alerts:
    """Passes alerts on to channels, and remembers across restarts what was told to whom.

    Args:
        log_channel: gets every alert.
        channels: get those that are severe enough for them.
        path: of the file that remembers.
        rules: how often and how urgently.
        clock: for the times.
        log: is told which channel failed.
    """

    def __init__(
        self, log_channel: Channel, channels: Sequence[Channel], path: Path, rules: AlertRules, clock: Clock, log: Log
    ) -> None:
        self._log_channel, self._channels = log_channel, channels
        self._path, self._rules, self._clock, self._log = path, rules, clock, log
        self._lock = Lock()
        self._known: dict[str, Remembered] | None = None
        self._stored = b""

    @property
    def _book(self) -> dict[str, Remembered]:
        """By key; read when it is needed first."""
        if self._known is None:
            self._known = self._load()
        return self._known

    def send(self, alert: Alert) -> bool:
        """Pass an alert on, unless the same was within the repeat time.

        Returns:
            True if at least one channel beside the log took it, now or within the repeat time; without such channels,
            True once it is logged.
        """
        with self._lock:
            taken = self._tell(alert, watched=False)
            self._store()
            return taken

    def observe(self, found: Iterable[Alert]) -> None:
        """Take in what a health check found; what it found before and does not find now is over."""
        with self._lock:
            keys = set()
            for alert in found:
                keys.add(alert.key)
                self._tell(self._escalated(alert), watched=True)
            for key, known in list(self._book.items()):
                if known.watched and key not in keys:
                    self._over(key, known)
            self._store()

    def _escalated(self, alert: Alert) -> Alert:
        known = self._book.get(alert.key)
        checks = 1 + (known.checks if known else 0)
        if alert.severity != "warning" or checks < self._rules_for(alert).escalation_checks:
            return alert
        details = {**alert.details, "escalated": f"found by {checks} health checks in a row"}
        return replace(alert, severity="critical", details=details)

    def _tell(self, alert: Alert, *, watched: bool) -> bool:
        now_ms = self._clock.now_ns() // 1_000_000
        known = self._book.get(alert.key)
        if known is None:
            known = self._book[alert.key] = Remembered(alert.severity, alert.message, now_ms, now_ms)
            self._note("fired", alert)
        elif self._due(known, alert, now_ms):
            known.last_at, known.taken_by = now_ms, []
            self._note("escalated" if _rank(alert.severity) > _rank(known.severity) else "repeated", alert)
        known.severity, known.message, known.watched = alert.severity, alert.message, watched or known.watched
        known.checks += watched
        wanted = [one for one in self._channels if self._wants(one, alert)]
        for channel in wanted:
            if channel.name not in known.taken_by and self._sent(channel, alert):
                known.taken_by.append(channel.name)
        known.told = sorted({*known.told, *known.taken_by})
        return bool(known.taken_by) or not wanted

    def _due(self, known: Remembered, alert: Alert, now_ms: int) -> bool:
        """More severe than before, or long ago; a time to come is of a clock that was wrong."""
        worse = _rank(alert.severity) > _rank(known.severity)
        return worse or known.last_at > now_ms or now_ms - known.last_at >= self._rules_for(alert).repeat_ms

    def _rules_for(self, alert: Alert) -> AlertRules:
        """How often and how urgently this one is told."""
        return self._rules

    def _wants(self, channel: Channel, alert: Alert) -> bool:
        """Whether a channel is to hear of an alert now; asked again at each health check until it has."""
        return _rank(channel.least) <= _rank(alert.severity)

    def _note(self, kind: str, alert: Alert) -> None:
        """Take down what becomes of an alert: it was `fired`, `escalated`, `repeated` or `resolved`."""
        self._log_channel.send(alert)

    def _over(self, key: str, known: Remembered) -> None:
        resolved = Alert("info", f"resolved: {known.message}", {"first_told_at": known.first_at}, key)
        self._note("resolved", resolved)
        for channel in self._channels:
            if channel.name in known.told:
                self._sent(channel, resolved)
        del self._book[key]

    def _sent(self, channel: Channel, alert: Alert) -> bool:
        try:
            if channel.send(alert):
                return True
        except Exception as error:  # a channel may be anybody's, and must not stop the others
            LOGGER.exception("the alert channel %s failed", channel.name)
            self._log.failed("alert", error)
            return False
        self._log.warning("alert_not_sent", channel=channel.name, message=alert.message)
        return False

    def _load(self) -> dict[str, Remembered]:
        """A file that cannot be read means that alerts are told once more, not that there are none."""
        try:
            with self._path.open("rb") as file:
                return msgspec.json.decode(file.read(_STATE_BYTES_MAX), type=dict[str, Remembered])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            self._log.warning("alerts_forgotten", file=str(self._path), reason=str(error))
            return {}

    def _store(self) -> None:
        unwatched = sorted((known.last_at, key) for key, known in self._book.items() if not known.watched)
        for _, key in unwatched[: max(0, len(self._book) - REMEMBERED_MAX)]:
            del self._book[key]
        data = msgspec.json.encode(self._book)
        if data == self._stored:  # every health check comes by here, and most find nothing new
            return
        try:
            write_file(self._path, data)
            self._stored = data
        except OSError as error:
            self._log.warning("alerts_not_remembered", file=str(self._path), reason=str(error))


def alerts_for(
    options: DaemonOptions, folders: Folders, further: Sequence[Channel], clock: Clock, log: Log
) -> Alerts:  # fmt: skip
    """The alerts of a daemon: to the log, to the addresses in its options and to further channels.

    Raises:
        ConfigurationError: an address is none that apprise knows, or apprise is not installed.
    """
    addressed = channels_for(options.alert_urls, options.alert_urls_critical, str(folders.data))
    rules = AlertRules(options.alert_repeat_ms, options.alert_escalation_checks)
    return Alerts(LogChannel(log), [*addressed, *further], folders.health / STATE_FILE, rules, clock, log)


def _rank(severity: str) -> int:
    return SEVERITIES.index(severity)
