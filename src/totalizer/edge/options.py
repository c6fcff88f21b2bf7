"""What an aggregator may be told, checked when it is made; and what existing configuration files call it."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.edge.sinks.sink import Sink
from totalizer.errors import ConfigurationError
from totalizer.journal.disk import DISK, Disk

MIB = 1 << 20
Durability = Literal["entry", "interval"]
OnFull = Literal["block", "raise", "drop_oldest"]

#: Keys of metadata whose values are secrets. A key matches if its last words are these: `db_password`, `X-Api-Key`,
#: `accessToken`; but not `token_count`.
REDACT_KEYS = (
    "password", "passwd", "passphrase", "secret", "token", "authorization", "api_key", "apikey", "private_key",
    "credentials", "cookie",
)  # fmt: skip
#: Characters of a wrong value shown in a message.
SHOWN_MAX = 80

#: Least and greatest value of each whole number.
_RANGES = {
    "batch_size": (1, 100_000),
    "max_age_ms": (1, 7 * 86_400_000),
    "target_time_ms": (1, 3_600_000),
    "max_time_ms": (1, 3_600_000),
    "full_timeout_ms": (0, 3_600_000),
    "quota_bytes": (MIB, 1 << 44),
    "entry_bytes_max": (256, 4 * MIB),
    "exit_timeout_ms": (0, 600_000),
}
_CHOICES = {"durability": get_args(Durability), "on_full": get_args(OnFull)}
_SWITCHES = ("atomic_operations", "flush_on_sigterm")
#: What configuration files call an option, beside its own name.
_OLD_NAMES = {
    "batchSize": "batch_size", "maxAge": "max_age_ms", "flushThreshold": "flush_threshold", "dataPath": "data_path",
    "atomicOperations": "atomic_operations", "maxAgeMs": "max_age_ms", "targetTime": "target_time_ms",
    "maxTime": "max_time_ms",
}  # fmt: skip
#: Keys of such files below which the others may stand.
_GROUPS = ("aggregation", "aggregator", "performance")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `SmartBatchAggregator`, checked.

    Attributes:
        batch_size: entries that make a full batch, and the most in one; 1 to 100 000.
        max_age_ms: how old the oldest waiting entry may grow before a flush, milliseconds; 1 to 604 800 000 (a week).
        flush_threshold: part of `batch_size` at which a flush begins, rounded up; above 0, up to 1.
        data_path: folder of batch files, journals and failed batches.
        atomic_operations: False lets `FileSink` write batch files in place, which a crash can leave in part.
        target_time_ms: flushes that take longer are counted; 1 to 3 600 000.
        max_time_ms: flushes that take longer are counted and logged; not below `target_time_ms`.
        sink: where batches go; None for batch files in `data_path`.
        durability: "entry": `add` returns when the entry would survive a power loss. "interval": it returns at once,
            and a power loss or a kill takes what was not yet synced, milliseconds as a rule.
        on_full: what `add` does when `quota_bytes` wait: "block" up to `full_timeout_ms`, "raise" JournalFull, or
            "drop_oldest", which is counted and logged.
        full_timeout_ms: longest wait of "block" and "drop_oldest" before JournalFull; 0 to 3 600 000.
        quota_bytes: what waiting entries of one process may take of the disk; at least 1 MiB.
        entry_bytes_max: longest entry as JSON; 256 to 4 MiB.
        exit_timeout_ms: how long the end of the process may be held up to deliver what waits; 0 to 600 000.
        rate_limit_per_s: entries a second, on average over a second; above it `add` raises RateLimited. None for any.
        redact_keys: keys of metadata whose values are replaced by "[redacted]"; () for none.
        flush_on_sigterm: deliver what waits before SIGTERM ends a process that does nothing about it itself.
        clock: for times and intervals.
        disk: the system calls; tests pass one that fails.
    """

    batch_size: int = 50
    max_age_ms: int = 30_000
    flush_threshold: float = 0.9
    data_path: str | os.PathLike[str] = ".totalizer/aggregated"
    atomic_operations: bool = True
    target_time_ms: int = 500
    max_time_ms: int = 1000
    sink: Sink | None = None
    durability: Durability = "entry"
    on_full: OnFull = "block"
    full_timeout_ms: int = 30_000
    quota_bytes: int = 256 * MIB
    entry_bytes_max: int = 64 << 10
    exit_timeout_ms: int = 5000
    rate_limit_per_s: float | None = None
    redact_keys: Collection[str] = REDACT_KEYS
    flush_on_sigterm: bool = True
    clock: Clock = SYSTEM_CLOCK
    disk: Disk = DISK

    def __post_init__(self) -> None:
        for check in (self._check_numbers, self._check_choices, self._check_parts):
            check()

    @property
    def threshold(self) -> int:
        """Waiting entries at which a flush begins."""
        # A product such as 50 * 0.58 lies a hair above the whole number it stands for.
        return max(1, math.ceil(round(self.batch_size * self.flush_threshold, 9)))

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Options:
        """Options from keyword arguments.

        Raises:
            ConfigurationError: one is unknown, or its value is wrong.
        """
        unknown = sorted(options.keys() - OPTION_NAMES)
        if unknown:
            raise ConfigurationError(f"{unknown[0]}: unknown option; known are {', '.join(sorted(OPTION_NAMES))}")
        return cls(**options)

    def _check_numbers(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not _is_whole(value) or not low <= value <= high:
                raise _wrong(name, value, f"a whole number from {low} to {high}")
        if self.max_time_ms < self.target_time_ms:
            raise _wrong("max_time_ms", self.max_time_ms, f"not below target_time_ms, {self.target_time_ms}")
        if not _is_number(self.flush_threshold) or not 0 < self.flush_threshold <= 1:
            raise _wrong("flush_threshold", self.flush_threshold, "a number above 0, up to 1")
        rate = self.rate_limit_per_s
        if rate is not None and (not _is_number(rate) or not 0 < rate <= 1e9):
            raise _wrong("rate_limit_per_s", rate, "a number above 0, up to 1e9, or None")

    def _check_choices(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise _wrong(name, getattr(self, name), f"one of {', '.join(map(repr, choices))}")
        for name in _SWITCHES:
            if not isinstance(getattr(self, name), bool):
                raise _wrong(name, getattr(self, name), "True or False")

    def _check_parts(self) -> None:
        path: Any = self.data_path
        if not isinstance(path, str | os.PathLike) or not str(path) or "\0" in str(path):
            raise _wrong("data_path", path, "the path of a folder")
        if self.sink is not None and not isinstance(self.sink, Sink):
            raise _wrong("sink", self.sink, "a sink: an object with name, deliver and close")
        keys: Any = self.redact_keys
        if isinstance(keys, str) or not isinstance(keys, Collection) or not all(isinstance(key, str) for key in keys):
            raise _wrong("redact_keys", keys, "a list of texts")


OPTION_NAMES = frozenset(field.name for field in fields(Options))


def from_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword options out of a configuration file's mapping.

    Args:
        config: options by their names here or as in older files (`batchSize`, `maxAge`, `performance.targetTime` …);
            they may stand below `aggregation` or `aggregator`. The recovery daemon's options in it are passed over,
            since one file may serve both.

    Raises:
        ConfigurationError: it is no mapping, or says the same option twice.
    """
    if not isinstance(config, Mapping):
        raise _wrong("configuration", config, "an object with the options as members")
    options: dict[str, Any] = {}
    for key, value in config.items():
        name = _OLD_NAMES.get(key, key)
        if name not in OPTION_NAMES and key not in _GROUPS and _is_daemons(key):
            continue
        found = from_config(value) if key in _GROUPS and isinstance(value, Mapping) else {name: value}
        for each, setting in found.items():
            if each in options:
                raise ConfigurationError(f"{each}: said twice in the configuration, also as {key!r}; say it once")
            options[each] = setting
    return options


def _is_daemons(key: str) -> bool:
    """True for an option of the recovery daemon, and for what may stand around its options."""
    from totalizer.edge.daemon.options import DaemonOptions

    snake = re.sub(r"(?<!^)(?=[A-Z])", "_", key).lower()
    known = {field.name for field in fields(DaemonOptions)}
    return snake in known or f"{snake}_ms" in known or snake in ("daemon", "recovery")


def _wrong(name: str, value: Any, allowed: str) -> ConfigurationError:
    return ConfigurationError(f"{name}={shown(value)} must be {allowed}")


def shown(value: Any) -> str:
    """A wrong value for a message, cut to SHOWN_MAX characters."""
    if isinstance(value, int) and value.bit_length() > 256:  # Python refuses to write the longest ones out
        return "a number without end"
    text = repr(value)
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}…"


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))
