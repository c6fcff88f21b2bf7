"""Alerts by rules: what stands, what is told to whom, and what is not because it is silenced."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from totalizer.alerts.channels import Grouped, LoggedAlerts
from totalizer.clock import Clock
from totalizer.edge.daemon.alerts import AlertRules, Alerts, Remembered
from totalizer.edge.daemon.channels import Alert, Channel
from totalizer.edge.daemon.log import Log
from totalizer.health.config import AlertDefaults, Rule
from totalizer.telemetry import logger

#: Entries of the history that wait for the database; beyond that the oldest are forgotten.
WAITING_MAX = 1000
#: Checks after which nothing ever escalates.
_NEVER = 1 << 62


class Entry(msgspec.Struct, frozen=True):
    """What became of an alert.

    Attributes:
        id: its own, so that it is recorded once.
        at_ms: when, milliseconds since 1970 UTC.
        key, rule: of which alert.
        kind: fired, escalated, repeated, resolved or test.
        severity, message: as told.
        silenced: True if nobody was told.
    """

    id: str
    at_ms: int
    key: str
    rule: str
    kind: str
    severity: str
    message: str
    silenced: bool


def rule_of(key: str) -> str:
    """The rule of an alert; what follows in its key is the machine."""
    return key.partition("@")[0]


class RuledAlerts(Alerts):
    """Passes alerts on as the rules have it.

    Args:
        rules: by name.
        defaults: for rules that say nothing else.
        channels: that the rules name.
        path: of the file that remembers what was told to whom.
        interval_s: from one look to the next, seconds.
        clock: for the times.
        silenced: tells whether a rule is.
    """

    def __init__(
        self, rules: Mapping[str, Rule], defaults: AlertDefaults, channels: Sequence[Grouped], path: Path,
        interval_s: float, clock: Clock, silenced: Callable[[str], bool],
    ) -> None:  # fmt: skip
        super().__init__(LoggedAlerts(), channels, path, AlertRules(0, _NEVER), clock, MonitorLog())
        self._by_name, self._defaults, self._interval_s = rules, defaults, interval_s
        self._silenced, self._clock_ns = silenced, clock.now_ns
        #: What became of alerts since it was last taken away.
        self.waiting: list[Entry] = []

    def stands(self, key: str) -> bool:
        """True if an alert was told, or would have been, and is not over."""
        return key in self._book

    def standing(self) -> dict[str, Remembered]:
        """The alerts that stand, by key."""
        return dict(self._book)

    def forget(self, keys: Iterable[str]) -> None:
        """Leave alerts to another monitor, without a word that they are over."""
        with self._lock:
            for key in keys:
                self._book.pop(key, None)
            self._store()

    def _rules_for(self, alert: Alert) -> AlertRules:
        rule = self._by_name.get(rule_of(alert.key), Rule(""))
        repeat_s = self._defaults.repeat_s if rule.repeat_s is None else rule.repeat_s
        escalate_s = self._defaults.escalate_s if rule.escalate_s is None else rule.escalate_s
        checks = math.ceil(escalate_s / self._interval_s) if escalate_s else _NEVER
        return AlertRules(int(repeat_s * 1000), max(checks, 1))

    def _wants(self, channel: Channel, alert: Alert) -> bool:
        rule = self._by_name.get(rule_of(alert.key))
        if rule is None or self._silenced(rule_of(alert.key)):
            return False
        named = isinstance(channel, Grouped) and channel.group in rule.channels
        return named and super()._wants(channel, alert)

    def _note(self, kind: str, alert: Alert) -> None:
        super()._note(kind, alert)
        rule = rule_of(alert.key)
        self.waiting.append(
            Entry(
                str(uuid.uuid4()), self._clock_ns() // 1_000_000, alert.key, rule, kind, alert.severity, alert.message,
                self._silenced(rule),
            )
        )  # fmt: skip
        del self.waiting[:-WAITING_MAX]


class MonitorLog(Log):
    """What the channels cannot do, in the structured log."""

    def __init__(self) -> None:
        super().__init__(None, "info")

    def failed(self, operation: str, error: BaseException) -> None:
        """Note an error nobody expected."""
        logger().error(f"{operation} failed", error=f"{type(error).__name__}: {error}")

    def _tell(self, level: int, operation: str, members: dict[str, Any]) -> None:
        logger().warning(operation.replace("_", " "), **members)
