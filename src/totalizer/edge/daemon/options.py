"""The recovery daemon's options: what they may be, and what existing configuration files call them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any

from totalizer.edge.options import OPTION_NAMES
from totalizer.errors import ConfigurationError

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
_MIB = 1 << 20

LOG_LEVELS = ("debug", "info", "warning", "error")
#: What may become of batch files that are older than `cleanup_age_ms`.
CLEANUP_BATCHES = ("imported", "never", "aged")

#: Lowest and highest value of each number.
RANGES: dict[str, tuple[int, int]] = {
    "schedule_interval_ms": (100, 7 * DAY_MS),
    "batch_retry_limit": (1, 1000),
    "health_check_interval_ms": (100, DAY_MS),
    "cleanup_age_ms": (MINUTE_MS, 3650 * DAY_MS),
    "cleanup_interval_ms": (100, 30 * DAY_MS),
    "adopt_interval_ms": (100, DAY_MS),
    "backoff_ms": (1, 7 * DAY_MS),
    "backoff_ms_max": (1, 30 * DAY_MS),
    "health_files_max": (1, 100_000),
    "alert_repeat_ms": (0, 30 * DAY_MS),
    "alert_escalation_checks": (1, 10_000),
    "file_bytes_max": (64 << 10, 16384 * _MIB),
}

#: Below these a configuration file may have the daemon's options.
_OWN_GROUPS = ("daemon", "recovery")
#: Options of the aggregator: one configuration file may serve both, so these are passed over in a mapping.
_OF_THE_AGGREGATOR = {*OPTION_NAMES, "aggregation", "aggregator", "performance", "target_time", "max_time", "max_age"}


@dataclass(frozen=True)
class DaemonOptions:
    """Options of a `CronRecoveryDaemon`; `RANGES` has the limits of the numbers.

    Attributes:
        schedule_interval_ms: from one look for failed batches to the next.
        batch_retry_limit: attempts of the daemon after which a batch is abandoned.
        health_check_interval_ms: from one health check to the next.
        cleanup_age_ms: what is older may be cleaned up.
        data_path: of the batches.
        recovery_path: of what failed; None for `data_path/recovery`.
        health_path: of health files; None for `health` beside `data_path`.
        log_level: least severe level that is logged: debug, info, warning or error.
        cleanup_interval_ms: from one cleanup to the next.
        cleanup_batches: which old batch files go: those in `data_path/imported` ("imported"), none ("never"), or
            all, taken over or not ("aged").
        adopt_interval_ms: from one look for journals of dead processes to the next.
        backoff_ms: wait after a batch's first failed attempt; four times as long after each further one.
        backoff_ms_max: longest wait between two attempts, whatever the target asks for.
        health_files_max: the newest so many health files are kept.
        alert_urls: addresses, as apprise reads them, that get every alert. Secret: shown and logged nowhere.
        alert_urls_critical: addresses that get only what is critical. Secret, too.
        alert_repeat_ms: an alert that stands is told again after this long.
        alert_escalation_checks: a warning that stands for so many health checks becomes critical.
        file_bytes_max: a failed-batch file that is larger is not read, and is reported.
    """

    schedule_interval_ms: int = 5 * MINUTE_MS
    batch_retry_limit: int = 5
    health_check_interval_ms: int = MINUTE_MS
    cleanup_age_ms: int = 7 * DAY_MS
    data_path: str | os.PathLike[str] = ".totalizer/aggregated"
    recovery_path: str | os.PathLike[str] | None = None
    health_path: str | os.PathLike[str] | None = None
    log_level: str = "info"
    cleanup_interval_ms: int = DAY_MS
    cleanup_batches: str = "imported"
    adopt_interval_ms: int = MINUTE_MS
    backoff_ms: int = 5 * MINUTE_MS
    backoff_ms_max: int = 6 * HOUR_MS
    health_files_max: int = 1440
    alert_urls: tuple[str, ...] = field(default=(), repr=False)
    alert_urls_critical: tuple[str, ...] = field(default=(), repr=False)
    alert_repeat_ms: int = HOUR_MS
    alert_escalation_checks: int = 15
    file_bytes_max: int = 256 * _MIB

    def __post_init__(self) -> None:
        for name, (lowest, highest) in RANGES.items():
            _check_number(name, getattr(self, name), lowest, highest)
        _check_choice("log_level", self.log_level, LOG_LEVELS)
        _check_choice("cleanup_batches", self.cleanup_batches, CLEANUP_BATCHES)
        for name in ("data_path", "recovery_path", "health_path"):
            _check_path(name, getattr(self, name), optional=name != "data_path")
        for name in ("alert_urls", "alert_urls_critical"):
            object.__setattr__(self, name, _addresses(name, getattr(self, name)))
        if self.backoff_ms > self.backoff_ms_max:
            raise ConfigurationError(
                f"backoff_ms is {self.backoff_ms}: it must not be more than backoff_ms_max, {self.backoff_ms_max}"
            )

    @classmethod
    def make(cls, config: Mapping[str, Any] | DaemonOptions | None, **options: Any) -> DaemonOptions:
        """Options from a configuration and keywords; keywords are stronger.

        Args:
            config: by the names here, or in camel case as `scheduleInterval`; they may stand below `daemon` or
                `recovery`. The aggregator's options in it are passed over, since one file may serve both.
            options: by the names here.

        Raises:
            ConfigurationError: an option that does not exist, or a value that cannot be used.
        """
        known = {one.name for one in fields(cls)}
        given: dict[str, Any] = {}
        if isinstance(config, DaemonOptions):
            given = {name: getattr(config, name) for name in known}
        elif isinstance(config, Mapping):
            given = _by_our_names(config, known)
        elif config is not None:
            raise ConfigurationError(f"config is {config!r}: it must be a mapping of options, or DaemonOptions")
        for name in options.keys() - known:
            raise _unknown(name, known)
        return cls(**given | options)


def _by_our_names(config: Mapping[str, Any], known: set[str]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for name, value in config.items():
        if name in _OWN_GROUPS and isinstance(value, Mapping):
            given |= _by_our_names(value, known)
            continue
        snake = re.sub(r"(?<!^)(?=[A-Z])", "_", str(name)).lower()
        for candidate in (snake, f"{snake}_ms"):
            if candidate in known:
                given[candidate] = value
                break
        else:
            if snake not in _OF_THE_AGGREGATOR:
                raise _unknown(str(name), known)
    return given


def _unknown(name: str, known: set[str]) -> ConfigurationError:
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}"
    return ConfigurationError(f"the recovery daemon has no option {name[:80]!r}; {hint}")


def _check_number(name: str, value: object, lowest: int, highest: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
        raise ConfigurationError(f"{name} is {value!r}: it must be a whole number from {lowest} to {highest}")


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigurationError(f"{name} is {value!r}: it must be one of {', '.join(choices)}")


def _check_path(name: str, value: object, *, optional: bool) -> None:
    if (value is None and optional) or (isinstance(value, str | os.PathLike) and os.fspath(value)):
        return
    raise ConfigurationError(f"{name} is {value!r}: it must be a folder's path")


def _addresses(name: str, value: object) -> tuple[str, ...]:
    """An address holds a secret, so that no message shows its value."""
    addresses = (value,) if isinstance(value, str) else value
    if not isinstance(addresses, list | tuple) or not all(isinstance(one, str) and "://" in one for one in addresses):
        raise ConfigurationError(f"{name} must be addresses such as `mailtos://…` or `slack://…`, as a list")
    return tuple(addresses)
