"""How this machine is set up: disk, time zones, Redis, and who runs on the data folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import redis

from totalizer.errors import JournalFailed
from totalizer.journal import journals_in
from totalizer.metrics.slot import slots
from totalizer.ops.doctor.finding import Finding, ok

#: Free bytes on the data folder's disk below which it is time, and below which it is late.
FREE_WARNING, FREE_ERROR = 2 << 30, 256 << 20
#: A Redis that has all the commands that are used.
REDIS_MIN = (6, 2)


def disk(home: Path, quota_bytes: int, free_bytes: int | None = None) -> Finding:
    """Is there room for the journals?

    Args:
        home: data folder; need not exist.
        quota_bytes: of one journal.
        free_bytes: what is free; looked up if not given.
    """
    there = next(path for path in (home, *home.parents) if path.exists())
    free = shutil.disk_usage(there).free if free_bytes is None else free_bytes
    detail = f"{free / (1 << 30):.1f} GiB free for {home}"
    if free < FREE_ERROR:
        return Finding("disk", "error", detail, "make room: without it events are refused with 503")
    if free < FREE_WARNING:
        return Finding("disk", "warning", detail, "make room, or put TOTALIZER_HOME on a larger disk")
    if free < quota_bytes:
        return Finding(
            "disk", "warning", f"{detail}, a journal may take {quota_bytes / (1 << 30):.1f} GiB",
            "lower TOTALIZER_JOURNAL_QUOTA_BYTES, or make room",
        )  # fmt: skip
    return ok("disk", detail)


def time_zones() -> Finding:
    """Are time zones known here?"""
    try:
        ZoneInfo("Asia/Kathmandu")
    except ZoneInfoNotFoundError:
        return Finding("time zones", "error", "none are known", "install the package tzdata")
    return ok("time zones", "known")


def redis_server(url: str | None) -> Finding:
    """Does Redis answer, and is it new enough?"""
    if url is None:
        return Finding(
            "Redis", "warning", "none is set: limits and kept answers are each process' own", "set REDIS_URL"
        )
    try:
        with redis.Redis.from_url(url, socket_connect_timeout=2, socket_timeout=2) as client:
            found = str(client.info("server")["redis_version"])
    except (redis.RedisError, OSError, ValueError) as error:
        # Its words may hold the address, and that the password.
        return Finding("Redis", "error", f"cannot be asked: {type(error).__name__}", "start it, or correct REDIS_URL")
    if tuple(map(int, found.split(".")[:2])) < REDIS_MIN:
        return Finding("Redis", "error", f"version {found}", f"upgrade it to {'.'.join(map(str, REDIS_MIN))} or newer")
    return ok("Redis", f"version {found}")


def processes(home: Path) -> Finding:
    """Does somebody load what is in the journals here?"""
    try:
        journals = len(journals_in(home / "journal"))
        running = [found.component for found in slots(home / "metrics") if found.alive]
    except (JournalFailed, OSError) as error:
        return Finding("processes", "error", str(error), "give the user of the service the data folder")
    if journals and "loader" not in running:
        return Finding(
            "processes", "error", f"{journals} journals and nobody who loads them",
            "start `totalizer up`, or `totalizer load` on this data folder",
        )  # fmt: skip
    return ok("processes", ", ".join(sorted(running)) or "none run here")
