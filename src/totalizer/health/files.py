"""Health files: what the checks found, kept beside the journals for whoever comes later."""

from __future__ import annotations

from pathlib import Path

import msgspec

from totalizer.edge.daemon.health import health_files
from totalizer.edge.folder import write_file
from totalizer.health.report import Report

#: How many are kept; the oldest go first.
FILES_MAX = 288


def write_report(report: Report, folder: Path) -> Path:
    """Write `health-<ms>.json`, whole and durable, and remove the oldest beyond FILES_MAX.

    Raises:
        OSError: the disk refuses.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"health-{report.facts.at_ms}.json"
    write_file(path, msgspec.json.format(msgspec.json.encode(report.file_document()), indent=2) + b"\n")
    for surplus in health_files(folder)[:-FILES_MAX]:
        surplus.unlink(missing_ok=True)
    return path
