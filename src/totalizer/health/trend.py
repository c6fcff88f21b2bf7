"""The last hour of what waits: a ring of samples in a file, that the monitor writes and the operator's page draws."""

from __future__ import annotations

from pathlib import Path

import msgspec

from totalizer.edge.folder import write_file
from totalizer.health.report import Report
from totalizer.prepared import prepared
from totalizer.telemetry import logger

#: Samples kept, and seconds between two of them: an hour.
SAMPLES_MAX, EVERY_S = 360, 10.0
FILE = "lag.json"


@prepared
class Sample(msgspec.Struct, frozen=True):
    """What waited at one moment.

    Attributes:
        at: milliseconds since 1970 UTC.
        journal_bytes: taken by the journals of this machine; None if they could not be looked at.
        load_s: seconds since the oldest event that is not loaded was received; None if that was not known.
        rollup_s: seconds for which the oldest mark waited; None if the database was away.
    """

    at: int
    journal_bytes: int | None
    load_s: float | None
    rollup_s: float | None


class Trend:
    """Keeps the samples of an hour.

    Args:
        folder: of health files.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._samples = read_trend(folder)
        self._refused = False

    def note(self, report: Report) -> None:
        """Add what a report shows, unless the last sample is younger than EVERY_S."""
        if self._samples and report.facts.at_ms - self._samples[-1].at < EVERY_S * 1000 * 0.9:
            return
        self._samples = [*self._samples[1 - SAMPLES_MAX :], sample_of(report)]
        try:
            write_file(self._path, msgspec.json.encode(self._samples))
            self._refused = False
        except OSError as error:
            if not self._refused:  # said once: a full disk says so elsewhere, too
                logger().warning("the file of what waits cannot be written", reason=error.strerror or str(error))
            self._refused = True


def sample_of(report: Report) -> Sample:
    """What waits now."""
    facts, journals = report.facts.database.facts, report.facts.journals
    behind = [None] if journals is None else [one.behind_s for one in journals]
    known = [one for one in behind if one is not None]
    return Sample(
        report.facts.at_ms, None if journals is None else sum(one.bytes_on_disk for one in journals),
        max(known, default=0.0) if len(known) == len(behind) else None,
        None if facts is None else facts.oldest_mark_s or 0.0,
    )  # fmt: skip


def read_trend(folder: Path) -> list[Sample]:
    """The samples, oldest first; [] if no monitor has written any."""
    try:
        return msgspec.json.decode((folder / FILE).read_bytes(), type=list[Sample])
    except (OSError, msgspec.DecodeError):
        return []
