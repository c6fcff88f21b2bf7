"""Rows as data frames of libraries that may be installed or not."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from importlib import import_module
from typing import Any

from totalizer.errors import ConfigurationError

Rows = Sequence[dict[str, Any]]


def pandas_frame(rows: Rows) -> Any:
    """A pandas data frame; `window_start` is its time.

    Raises:
        ConfigurationError: pandas is not installed.
    """
    pandas = _library("pandas")
    frame = pandas.DataFrame(flat_rows(rows))
    if "window_start" in frame:
        # Windows of one zone may have two offsets: such a column has one type in UTC only.
        frame["window_start"] = pandas.to_datetime(frame["window_start"], utc=True)
    return frame


def polars_frame(rows: Rows) -> Any:
    """A polars data frame; `window_start` is its time.

    Raises:
        ConfigurationError: polars is not installed.
    """
    polars = _library("polars")
    frame = polars.DataFrame(flat_rows(rows), infer_schema_length=None)
    if "window_start" in frame.columns:
        time = polars.col("window_start").str.to_datetime(time_zone="UTC")
        frame = frame.with_columns(time)
    return frame


def flat_rows(rows: Rows) -> list[dict[str, Any]]:
    """Rows without objects in them, `previous.executions`, and with floats for decimals."""
    return [dict(_flat("", row)) for row in rows]


def _flat(prefix: str, row: dict[str, Any]) -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for name, value in row.items():
        if isinstance(value, dict):
            flat += _flat(f"{prefix}{name}.", value)
        else:
            flat.append((prefix + name, float(value) if isinstance(value, Decimal) else value))
    return flat


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"{name} is not installed: pip install {name}") from error
