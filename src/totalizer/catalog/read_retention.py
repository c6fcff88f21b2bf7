"""Reading how long an event type's events and rollups are kept."""

from __future__ import annotations

from typing import Any

from totalizer.catalog.place import At
from totalizer.catalog.retention import UNSAID, Given, Retention, complete, parse_days

_RETENTION_KEYS = {"raw", "base", "hour", "day"}


def read_retention(at: At, value: Any) -> Retention:
    """The retention that `value` declares: `raw`, and `base`, `hour` and `day` where they are not to follow from it.

    Raises:
        CatalogError: it cannot be used.
    """
    table = at.table(value, _RETENTION_KEYS)
    if "raw" not in table:
        raise at.below("raw").wrong("is missing")
    retention = complete(
        _days(at, table, "raw"), base=_given(at, table, "base"), hour=_given(at, table, "hour"),
        day=_given(at, table, "day"),
    )  # fmt: skip
    if problem := retention.problem():
        raise at.wrong(problem)
    return retention


def _given(at: At, table: dict[str, Any], key: str) -> Given:
    return _days(at, table, key) if key in table else UNSAID


def _days(at: At, table: dict[str, Any], key: str) -> int | None:
    try:
        return parse_days(at.get(table, key, str))
    except ValueError as error:
        raise at.below(key).wrong(str(error)) from None
