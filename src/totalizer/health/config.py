"""The file of thresholds and alert rules: the shipped one, and what a user's file changes in it."""

from __future__ import annotations

import re
import stat
import tomllib
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec

from totalizer.errors import ConfigurationError
from totalizer.health.check import Levels
from totalizer.health.table import BY_NAME
from totalizer.prepared import prepared

SHIPPED = "health.toml"
#: The channel of TOTALIZER_ALERT_URLS, and that of TOTALIZER_ALERT_URLS_CRITICAL.
DEFAULT_CHANNEL, CRITICAL_CHANNEL = "default", "critical"
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}").fullmatch


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When somebody is told.

    Attributes:
        check: of which check.
        status: from which status on: `warning` or `critical`.
        for_s: for how long it must be so first, seconds.
        severity: how urgent it is; that of the check if None.
        channels: who is told.
        escalate_s: a warning that stands so long becomes critical; as for all if None, never if 0.
        repeat_s: it is told again after so long; as for all if None.
        enabled: False to switch it off.
    """

    check: str
    status: str = "warning"
    for_s: float = 0.0
    severity: str | None = None
    channels: tuple[str, ...] = (DEFAULT_CHANNEL, CRITICAL_CHANNEL)
    escalate_s: float | None = None
    repeat_s: float | None = None
    enabled: bool = True


class ChannelConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A way to people.

    Attributes:
        urls: addresses as apprise reads them. Secret.
        least: the least severe of the alerts that go there: info, warning or critical.
    """

    urls: list[str]
    least: str = "info"

    def __repr__(self) -> str:
        return f"ChannelConfig(least={self.least})"


class AlertDefaults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What holds for every rule that says nothing else: seconds until it is told again, and until it gets urgent."""

    repeat_s: float = 14_400
    escalate_s: float = 1800


class _CheckLevels(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    warning: float | msgspec.UnsetType | None = msgspec.UNSET
    critical: float | msgspec.UnsetType | None = msgspec.UNSET


@prepared
class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    alerts: AlertDefaults = AlertDefaults()
    rules: dict[str, Rule] = {}
    channels: dict[str, ChannelConfig] = {}
    checks: dict[str, _CheckLevels] = {}


@dataclass(frozen=True)
class HealthConfig:
    """What is checked by which levels, and who is told of what.

    Attributes:
        levels: of the checks whose levels are changed.
        rules: by name.
        channels: those that the file declares, by name.
        alerts: for all rules.
    """

    levels: dict[str, Levels] = field(default_factory=dict)
    rules: dict[str, Rule] = field(default_factory=dict)
    channels: dict[str, ChannelConfig] = field(default_factory=dict)
    alerts: AlertDefaults = field(default_factory=AlertDefaults)


def load_config(path: Path | None) -> HealthConfig:
    """The shipped file, changed by a user's.

    Args:
        path: the user's; None if there is none.

    Raises:
        ConfigurationError: it cannot be read, or says something that is not known.
    """
    found = tomllib.loads(files(__package__).joinpath(SHIPPED).read_text("utf-8"))
    named = SHIPPED
    if path is not None:
        named = str(path)
        _overlay(found, _read(path))
    try:
        file = msgspec.convert(found, _File)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{named}: {error}") from None
    _check(named, file)
    if file.channels and path is not None:
        _require_private(path)
    levels = {name: _levels(name, changed) for name, changed in file.checks.items()}
    return HealthConfig(levels, {name: rule for name, rule in file.rules.items() if rule.enabled}, file.channels,
                        file.alerts)  # fmt: skip


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.expanduser().read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError(f"TOTALIZER_HEALTH_FILE={path} cannot be read: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: {error}") from None


def _overlay(below: dict[str, Any], above: dict[str, Any]) -> None:
    """Put the members of one table over those of another, table by table."""
    for name, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(name), dict):
            _overlay(below[name], value)
        else:
            below[name] = value


def _check(named: str, file: _File) -> None:
    channels = {DEFAULT_CHANNEL, CRITICAL_CHANNEL, *file.channels}
    for name, rule in file.rules.items():
        where = f"{named}: rules.{name}"
        if not _NAME(name):
            raise ConfigurationError(f"{where}: a name has lower-case letters, digits, _ and -, 63 at most")
        if rule.check not in BY_NAME:
            raise ConfigurationError(f"{where}: check = {rule.check!r}; there are {', '.join(BY_NAME)}")
        if rule.status not in ("warning", "critical"):
            raise ConfigurationError(f"{where}: status = {rule.status!r}; it is warning or critical")
        if rule.severity not in (None, "warning", "critical"):
            raise ConfigurationError(f"{where}: severity = {rule.severity!r}; it is warning or critical")
        for channel in rule.channels:
            if channel not in channels:
                raise ConfigurationError(f"{where}: channel {channel!r}; there are {', '.join(sorted(channels))}")
        for unit in ("for_s", "escalate_s", "repeat_s"):
            if (seconds := getattr(rule, unit)) is not None and seconds < 0:
                raise ConfigurationError(f"{where}: {unit} = {seconds:g}; it is 0 or more")
    for name, declared in file.channels.items():
        if declared.least not in ("info", "warning", "critical"):
            raise ConfigurationError(f"{named}: channels.{name}: least = {declared.least!r}; it is info, warning or "
                                     "critical")  # fmt: skip
    for name in file.checks:
        if name not in BY_NAME:
            raise ConfigurationError(f"{named}: checks.{name}: no such check; there are {', '.join(BY_NAME)}")


def _levels(name: str, changed: _CheckLevels) -> Levels:
    shipped = BY_NAME[name].levels
    return Levels(
        shipped.warning if changed.warning is msgspec.UNSET else changed.warning,
        shipped.critical if changed.critical is msgspec.UNSET else changed.critical,
    )


def _require_private(path: Path) -> None:
    """Addresses of channels are secrets, as keys are."""
    if stat.S_IMODE(path.expanduser().stat().st_mode) & 0o077:
        raise ConfigurationError(
            f"{path} holds addresses of channels, which are secrets, and others may read it: chmod 600 {path}"
        )
