"""From what the checks find to the alerts of the rules: those whose condition has held for long enough."""

from __future__ import annotations

from collections.abc import Mapping

from totalizer.alerts.ruled import RuledAlerts
from totalizer.clock import Clock
from totalizer.edge.daemon.channels import Alert
from totalizer.health.check import CRITICAL, UNKNOWN, WARNING, CheckResult
from totalizer.health.config import Rule
from totalizer.health.report import Report

_RANK = {WARNING: 1, CRITICAL: 2}


class Watch:
    """Holds the rules against reports, one after the other.

    Args:
        rules: by name.
        alerts: are told what stands.
        host: of this machine: what is checked of it is told as its own.
        clock: time source.
    """

    def __init__(self, rules: Mapping[str, Rule], alerts: RuledAlerts, host: str, clock: Clock) -> None:
        self._rules, self._alerts, self._host, self._clock = rules, alerts, host, clock
        #: Since when a rule's condition has held, monotonic seconds; and what was last told by key.
        self._since: dict[str, float] = {}
        self._last: dict[str, Alert] = {}

    def __call__(self, report: Report, *, leads: bool | None) -> None:
        """Tell what the report shows to be wrong, and what is over.

        Args:
            report: of this moment.
            leads: True if this monitor tells of the whole installation, False if another does, None if that is not
                known, because the database is away.
        """
        results = {each.name: each for each in report.results}
        found = []
        others = []
        for name, rule in self._rules.items():
            result = results[rule.check]
            key = f"{name}@{self._host}" if result.local else name
            if not result.local and leads is False:
                others.append(key)
            elif (alert := self._alert(name, rule, key, result)) is not None:
                found.append(alert)
        if others:
            self._alerts.forget(others)
        self._last = {alert.key: alert for alert in found}
        self._alerts.observe(found)

    def _alert(self, name: str, rule: Rule, key: str, result: CheckResult) -> Alert | None:
        """The alert of a rule; None if there is none now."""
        if result.status == UNKNOWN:  # nobody can tell whether it is over
            return self._kept(key, result)
        if _RANK.get(result.status, 0) < _RANK[rule.status]:
            self._since.pop(name, None)
            return None
        now = self._clock.monotonic()
        since = self._since.setdefault(name, now)
        if not self._alerts.stands(key) and now - since < rule.for_s:
            return None
        return Alert(rule.severity or result.status, f"{name}: {result.message}", self._details(rule, result), key)

    def _kept(self, key: str, result: CheckResult) -> Alert | None:
        if not self._alerts.stands(key):
            return None
        if (last := self._last.get(key)) is not None:
            return last
        known = self._alerts.standing()[key]
        return Alert(known.severity, known.message, {"check": result.name, "host": self._host}, key)

    def _details(self, rule: Rule, result: CheckResult) -> dict[str, object]:
        limit = rule.status if result.status == WARNING else result.status
        details: dict[str, object] = {"check": rule.check, "host": self._host}
        if result.value is not None:
            details["value"] = f"{result.value:.4g} {result.unit}"
            if (level := result.critical if limit == CRITICAL else result.warning) is not None:
                details["limit"] = f"{level:g} {result.unit}"
        details["what to do"] = result.remedy
        return details
