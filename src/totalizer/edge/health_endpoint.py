"""`GET /health/aggregation` for any web application: 200 while batches get where they should, else 503.

    app.mount("/health/aggregation", asgi(".totalizer/aggregated"))      # Starlette, FastAPI, Litestar …
    DispatcherMiddleware(app, {"/health/aggregation": wsgi(daemon)})     # Flask, Django …

The body has `status`, `severity`, `timestamp`, `uptime` and `issues`. It names no folder, and needs no log-in.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.edge.daemon.health import Waiting, health_files
from totalizer.edge.folder import Folders
from totalizer.prepared import prepared

if TYPE_CHECKING:
    from totalizer.edge.daemon import CronRecoveryDaemon

#: A health check is stale after so many of the daemon's intervals, and never sooner than this many milliseconds.
STALE_INTERVALS, STALE_MS_MIN = 3, 180_000
#: Interval of a daemon that does not say, milliseconds.
INTERVAL_MS = 60_000
#: A daemon in this process is not asked for a check more often than this, seconds.
CHECK_S_MIN = 1.0

Answer = tuple[int, dict[str, Any]]

_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Asgi = Callable[[MutableMapping[str, Any], _Receive, _Send], Awaitable[None]]
_Wsgi = Callable[[Mapping[str, Any], Callable[..., Any]], Iterable[bytes]]


class _DaemonHealth(msgspec.Struct, rename="camel"):
    uptime: float = 0
    health_check_interval: float = INTERVAL_MS


@prepared
class _Health(msgspec.Struct, rename="camel"):
    timestamp: int
    status: str
    severity: str = "normal"
    issues: list[str] = []
    daemon_health: _DaemonHealth = msgspec.field(default_factory=_DaemonHealth)


def folder_health(folders: Folders, clock: Clock = SYSTEM_CLOCK) -> Answer:
    """How the aggregation in a folder is, by the last health check of the daemon that looks after it.

    200: the last check found nothing wrong; or no daemon has ever run there and no failed batch waits (`unknown`: a
    folder without a daemon is no fault). 503: the check found something, is stale, or cannot be read; or failed batches
    wait and no daemon has ever run.

    Returns:
        HTTP status and body.
    """
    now_ms = clock.now_ns() // 1_000_000
    try:
        newest = _newest(health_files(folders.health), now_ms)
        if newest is None:
            return _without_daemon(Waiting.in_folders(folders).failed, now_ms)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        return _answer("unhealthy", "critical", now_ms, 0, [f"the last health check cannot be read: {reason}"])
    interval_ms, age_ms = newest.daemon_health.health_check_interval, now_ms - newest.timestamp
    issues = list(newest.issues)
    if age_ms > max(STALE_INTERVALS * interval_ms, STALE_MS_MIN):
        issues.insert(0, f"the last health check was {age_ms // 1000} s ago: the recovery daemon does not run")
        return _answer("unhealthy", "critical", newest.timestamp, 0, issues)
    return _answer(newest.status, newest.severity, newest.timestamp, newest.daemon_health.uptime, issues)


def asgi(source: CronRecoveryDaemon | Folders | str | os.PathLike[str], *, clock: Clock = SYSTEM_CLOCK) -> _Asgi:
    """An ASGI application that answers GET and HEAD, at whatever path it is mounted.

    Args:
        source: a recovery daemon of this process, which is asked to check at most once a second; or the data path whose
            last check is told.
        clock: for the age of that.
    """
    health = _Responder(source, clock)

    async def application(scope: MutableMapping[str, Any], receive: _Receive, send: _Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            status, body = await asyncio.to_thread(health.respond, scope["method"])
            headers = [(name.encode(), value.encode()) for name, value in _headers(body)]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    return application


def wsgi(source: CronRecoveryDaemon | Folders | str | os.PathLike[str], *, clock: Clock = SYSTEM_CLOCK) -> _Wsgi:
    """The same as a WSGI application. Args: as `asgi`."""
    health = _Responder(source, clock)

    def application(environ: Mapping[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        status, body = health.respond(environ["REQUEST_METHOD"])
        start_response(_STATUS_LINES[status], _headers(body))
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]

    return application


_STATUS_LINES = {200: "200 OK", 405: "405 Method Not Allowed", 503: "503 Service Unavailable"}


class _Responder:
    """Answers requests from one source."""

    def __init__(self, source: CronRecoveryDaemon | Folders | str | os.PathLike[str], clock: Clock) -> None:
        self._source = Folders(source) if isinstance(source, str | os.PathLike) else source
        self._clock = clock
        self._lock = threading.Lock()
        self._last: tuple[float, Answer] | None = None

    def respond(self, method: str) -> tuple[int, bytes]:
        """Status and body for a request."""
        if method not in ("GET", "HEAD"):
            return 405, b'{"detail":"ask with GET"}'
        if isinstance(self._source, Folders):
            status, body = folder_health(self._source, self._clock)
        else:
            status, body = self._checked(self._source)
        return status, msgspec.json.encode(body)

    def _checked(self, daemon: CronRecoveryDaemon) -> Answer:
        with self._lock:
            now = self._clock.monotonic()
            if self._last is None or now - self._last[0] >= CHECK_S_MIN:
                self._last = (now, daemon_health(daemon))
            return self._last[1]


def daemon_health(daemon: CronRecoveryDaemon) -> Answer:
    """HTTP status and body by a health check that is made now. OSError if the disk refuses its file."""
    status = daemon.perform_health_check()
    return _answer(
        status.status, status.severity, status.timestamp, daemon.get_metrics().uptime_ms, list(status.issues)
    )


def _newest(files: list[Path], now_ms: int) -> _Health | None:
    """The newest health check whose file is still there; not one of a clock that has been set back since."""
    for path in reversed(files):
        try:
            health = msgspec.json.decode(path.read_bytes(), type=_Health)
        except FileNotFoundError:  # cleaned up meanwhile
            continue
        if health.timestamp <= now_ms + STALE_MS_MIN:
            return health
    return None


def _without_daemon(failed: int, now_ms: int) -> Answer:
    if failed:
        return _answer(
            "unhealthy", "warning", now_ms, 0,
            [f"{failed} failed batches wait, and no recovery daemon has ever run: `totalizer aggregation start`"],
        )  # fmt: skip
    return _answer("unknown", "normal", now_ms, 0, [])


def _answer(status: str, severity: str, timestamp: int, uptime: float, issues: list[str]) -> Answer:
    body = {"status": status, "severity": severity, "timestamp": timestamp, "uptime": uptime, "issues": issues}
    return (200 if status in ("healthy", "unknown") else 503), body


def _headers(body: bytes) -> list[tuple[str, str]]:
    return [
        ("Content-Type", "application/json"), ("Content-Length", str(len(body))), ("Cache-Control", "no-store"),
    ]  # fmt: skip


async def _lifespan(receive: _Receive, send: _Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
