"""Answers of the server, typed. Decimals are `Decimal`, to their last digit."""

from __future__ import annotations

from typing import Any

import msgspec

from totalizer.client.frames import pandas_frame, polars_frame
from totalizer.prepared import prepared


class Framed(msgspec.Struct, frozen=True, kw_only=True):
    """An answer with rows.

    Attributes:
        data: the rows.
    """

    data: list[dict[str, Any]]

    def to_pandas(self) -> Any:
        """The rows as a pandas data frame, with floats for decimals.

        Raises:
            ConfigurationError: pandas is not installed.
        """
        return pandas_frame(self.data)

    def to_polars(self) -> Any:
        """The rows as a polars data frame, with floats for decimals.

        Raises:
            ConfigurationError: polars is not installed.
        """
        return polars_frame(self.data)


@prepared
class Answer(Framed, frozen=True, kw_only=True):
    """An answer to a query; docs/reference/query.md says what it means.

    Attributes:
        as_of: when the snapshot was taken, RFC 3339.
        exact: False if a part is told from rollups that are behind.
        complete: True if everything acknowledged before the request is in it.
        source: what was read.
        next_cursor: of the next page; None on the last.
        query: the question as it was understood.
        dirty_buckets: quarters of an hour that were behind.
        estimates: names of the numbers of which some are estimates.
        stale, missing: spans that are behind, or removed.
    """

    as_of: str
    exact: bool
    complete: bool
    source: str
    query: dict[str, Any]
    next_cursor: str | None = None
    dirty_buckets: int = 0
    estimates: list[str] = []
    stale: list[dict[str, str]] = []
    missing: list[dict[str, str]] = []


@prepared
class RealTime(Framed, frozen=True, kw_only=True):
    """A live window; docs/reference/live.md says what it means.

    Attributes:
        start, end: the window; `from` and `to` in JSON.
        as_of: when it was looked at.
        complete, exact: whether something may be missing, or lumped together.
        pending: events that are counted and not in the database yet.
        query: the question as it was understood.
    """

    start: str = msgspec.field(name="from")
    end: str = msgspec.field(name="to")
    as_of: str
    complete: bool
    exact: bool
    pending: int
    query: dict[str, Any]


@prepared
class Usage(Framed, frozen=True, kw_only=True):
    """What was used; docs/reference/usage.md says what it means.

    Attributes:
        source: `counters`, `events`, or what else it was read from.
        next_cursor: of the next page; None on the last.
    """

    source: str = ""
    next_cursor: str | None = None
