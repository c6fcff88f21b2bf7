"""What a bug report should tell: versions, folders, how fast the disk syncs, the last errors; and no secret."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections import deque
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

import totalizer
from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.edge.folder import DRAFT_SUFFIX, Folders
from totalizer.edge.metrics import percentile_of
from totalizer.journal.disk import DISK
from totalizer.ops.batching.place import Place
from totalizer.ops.importers.environment import environment

#: How long syncing is tried, seconds, and how often at most.
PROBE_S_MAX, PROBE_SYNCS_MAX = 1.0, 50
#: Bytes of one of the probe's writes: about one entry.
_PROBE_BYTES = 512
#: Errors of the logs that are told, and bytes from the end of a log that are looked through.
ERRORS_MAX, LOG_BYTES_MAX = 10, 1 << 20
#: Packages whose versions matter.
PACKAGES = ("msgspec", "rich", "typer", "urllib3", "apscheduler", "apprise", "psutil", "prometheus-client", "psycopg")
#: Words in the name of a variable whose value is never told.
_SECRET_WORDS = ("KEY", "SECRET", "PASSWORD", "TOKEN", "URL")


def diagnosis(place: Place, clock: Clock = SYSTEM_CLOCK) -> dict[str, Any]:
    """Everything but the overview. Writes, and removes, one small file in the data folder.

    Raises:
        OSError: a folder is there and cannot be listed.
    """
    return {
        "versions": _versions(), "machine": _machine(), "environment": _environment(), "options": _options(place),
        "folders": _folders(place.folders), "sync": sync_times(place.folders.data, clock),
        "lastErrors": last_errors(place.folders.logs),
    }  # fmt: skip


def sync_times(folder: Path, clock: Clock = SYSTEM_CLOCK) -> dict[str, Any]:
    """How long fdatasync takes in a folder: `count`, and `p50`, `p99`, `max` in milliseconds; or `error`.

    Bounded by PROBE_S_MAX and PROBE_SYNCS_MAX.
    """
    path = folder / f".probe.{os.getpid()}.{os.urandom(4).hex()}{DRAFT_SUFFIX}"
    times: list[float] = []
    try:
        descriptor = DISK.create(path)
        try:
            deadline = clock.monotonic() + PROBE_S_MAX
            while len(times) < PROBE_SYNCS_MAX and clock.monotonic() < deadline:
                begun = clock.monotonic()
                DISK.write_all(descriptor, os.urandom(_PROBE_BYTES), len(times) * _PROBE_BYTES)
                DISK.fdatasync(descriptor)
                times.append((clock.monotonic() - begun) * 1000)
        finally:
            DISK.close(descriptor)
            DISK.unlink(path)
    except OSError as error:
        return {"error": str(error)}
    figures = {"p50": percentile_of(times, 50), "p99": percentile_of(times, 99), "max": max(times)}
    return {"count": len(times), **{name: round(value, 3) for name, value in figures.items()}}


def last_errors(logs: Path) -> list[dict[str, Any]]:
    """The newest errors and warnings of the log files, oldest first; [] if there are none."""
    found: list[dict[str, Any]] = []
    for name in ("aggregation.log", "recovery.log"):
        errors: deque[dict[str, Any]] = deque(maxlen=ERRORS_MAX)
        for line in _last_lines(logs / name):
            with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):  # cut where reading began
                record = msgspec.json.decode(line, type=dict[str, Any])
                if record.get("level") in ("WARNING", "ERROR", "CRITICAL"):
                    errors.append({"log": name, **record})
        found.extend(errors)
    return sorted(found, key=lambda record: str(record.get("time")))[-ERRORS_MAX:]


def _last_lines(path: Path) -> list[bytes]:
    try:
        with path.open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - LOG_BYTES_MAX, 0))
            return file.read(LOG_BYTES_MAX).splitlines()
    except FileNotFoundError:
        return []


def _versions() -> dict[str, Any]:
    versions: dict[str, Any] = {"totalizer": totalizer.__version__, "python": sys.version.split()[0]}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return versions


def _machine() -> dict[str, Any]:
    return {
        "system": platform.platform(), "implementation": platform.python_implementation(), "cpus": os.cpu_count(),
        "user": os.geteuid(),
    }  # fmt: skip


def _environment() -> dict[str, str]:
    """Variables of this program that are set; of those that may hold a secret, only that they are."""
    own = {name: value for name, value in environment().items() if name.startswith("TOTALIZER_")}
    return {
        name: "(set)" if any(word in name for word in _SECRET_WORDS) else value for name, value in sorted(own.items())
    }


def _options(place: Place) -> dict[str, Any]:
    shown = {
        name: value for name, value in vars(place.aggregator).items() if isinstance(value, int | float | str | bool)
    }
    shown |= {name: value for name, value in vars(place.daemon).items() if isinstance(value, int | str | bool)}
    return {**shown, "data_path": str(place.folders.data), "sink": "server" if place.url else "batch files"}


def _folders(folders: Folders) -> list[dict[str, Any]]:
    found = []
    for name in ("data", "journal", "recovery", "abandoned", "errors", "health", "logs"):
        path: Path = getattr(folders, name)
        member: dict[str, Any] = {"name": name, "path": str(path), "exists": path.is_dir()}
        if member["exists"]:
            status, sizes = path.stat(), _sizes(path)
            member |= {"mode": f"{status.st_mode & 0o7777:04o}", "owner": status.st_uid, "files": len(sizes)}
            member["bytes"] = sum(sizes)
        found.append(member)
    return found


def _sizes(folder: Path) -> list[int]:
    sizes = []
    for entry in os.scandir(folder):
        with contextlib.suppress(FileNotFoundError):
            if entry.is_file(follow_symlinks=False):
                sizes.append(entry.stat(follow_symlinks=False).st_size)
    return sizes
