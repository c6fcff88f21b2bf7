"""Web-server access logs in the common and the combined format, as Apache httpd and nginx write them.

Format: https://httpd.apache.org/docs/2.4/logs.html#accesslog. Further fields after the user agent are
ignored, and a leading `host:port` of the virtual host is skipped.
"""

from __future__ import annotations

import re
from datetime import datetime
from functools import lru_cache
from typing import Any

from totalizer.ops.importers.limits import text_limits
from totalizer.ops.importers.reading import Input, Lines, LineSplitter, source_name, split
from totalizer.ops.importers.source import Broken, Event, Line, Progress, derived_id

EVENT_TYPE = "http_requests"

_QUOTED = r'"([^"\\]*(?:\\.[^"\\]*)*)"'
_LINE = re.compile(
    r"(?:[^\s:]+:\d{1,5} (?=\S+ \S+ \S+ \[))?"  # virtual host
    r"(\S+) \S+ (.*?) \[([^\]]*)\] " + _QUOTED + r" (\S+) (\S+)"  # host, identity, user, time, request, status, bytes
    rf"(?: {_QUOTED} {_QUOTED})?(?: .*)?",  # referer, user agent, anything a server was told to add
    re.DOTALL,
)
_TIME = re.compile(r"(\d\d)/([A-Z][a-z]{2})/(\d{4}):(\d\d:\d\d:\d\d) ([+-]\d\d)(\d\d)", re.ASCII)
_REQUEST = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}) (.+?)(?: (HTTP/\d(?:\.\d)?))?", re.DOTALL | re.ASCII)
_ESCAPE = re.compile(r'\\(?:x([0-9A-Fa-f]{2})|(["\\]))')
#: Months as logs write them, whatever the locale.
_MONTHS = {
    "Jan": 1, "Feb": 2, "Mar": 3, "Apr": 4, "May": 5, "Jun": 6,
    "Jul": 7, "Aug": 8, "Sep": 9, "Oct": 10, "Nov": 11, "Dec": 12,
}  # fmt: skip
#: What stands for a value that is not there.
_NONE = "-"


class AccessLogSource:
    """An access log. Contract: `source.Source`.

    A request line that is none (a TLS hello sent to a plain port, an empty connection) is kept as a request with the
    method `-`, since the server did answer it.

    Args:
        path: of the log, gzip or plain; `-` for standard input.
        source: identity of the log; by default its name without rotation suffix.
    """

    kind = "access-log"
    noun = "line"

    def __init__(self, path: str, source: str | None = None) -> None:
        self._input = Input(path)
        self._limits = text_limits(EVENT_TYPE)
        self.name = source_name(path) if source is None else source
        self.scope: tuple[str, ...] = (self._input.location,)
        self.resumable = self._input.seekable
        self.notes: list[str] = []

    def lines(self) -> Lines:
        return split(self._input.chunks(), LineSplitter())

    def progress(self) -> Progress:
        return self._input.progress()

    def read(self, line: Line) -> Event | Broken:
        try:
            fields = _fields(line.raw)
        except ValueError as error:
            return Broken(str(error))
        event = self._limits.cut(fields)
        event["id"] = derived_id(self.name, line.number, line.raw)
        if self.name:
            event["source"] = self.name
        return Event(EVENT_TYPE, event)


def _fields(raw: bytes) -> dict[str, Any]:
    """The fields of one line.

    Raises:
        ValueError: it is no line of an access log, with the reason.
    """
    if b"\0" in raw:
        raise ValueError("it contains NUL bytes, as a file has after a crash")
    match = _LINE.fullmatch(raw.decode("utf-8", "replace"))
    if match is None:
        raise ValueError("it is neither in the common nor in the combined log format")
    host, user, moment, request, status, size, referer, agent = match.groups()
    method, path, protocol = _request(_unescaped(request))
    fields: dict[str, Any] = {
        "requested_at": _rfc3339(moment), "remote_host": host, "method": method, "path": path,
        "protocol": protocol, "status": _number("status", status),
        "response_bytes": 0 if size == _NONE else _number("size", size),
    }  # fmt: skip
    optional = {"remote_user": user, "referer": referer, "user_agent": agent}
    fields |= {name: _unescaped(value) for name, value in optional.items() if value and value != _NONE}
    return fields


def _request(request: str) -> tuple[str, str, str]:
    """Method, path and protocol of a request line."""
    match = _REQUEST.fullmatch(request)
    if match is None or (match[3] is None and not match[2].startswith("/")):
        return _NONE, request or _NONE, _NONE
    # A request line without a protocol is HTTP/0.9 (RFC 1945 §4.1).
    return match[1], match[2], match[3] or "HTTP/0.9"


def _number(name: str, digits: str) -> int:
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
        raise ValueError(f"its {name} {digits[:40]!r} is not a number")
    return int(digits)


@lru_cache(maxsize=1024)  # neighbouring lines share their second
def _rfc3339(moment: str) -> str:
    """`10/Oct/2000:13:55:36 -0700` as RFC 3339.

    Raises:
        ValueError: it is no such time.
    """
    match = _TIME.fullmatch(moment)
    if match is None or match[2] not in _MONTHS:
        raise ValueError(f"its time {moment[:40]!r} is not like 10/Oct/2000:13:55:36 -0700")
    day, month, year, clock, hours, minutes = match.groups()
    text = f"{year}-{_MONTHS[month]:02d}-{day}T{clock}{hours}:{minutes}"
    try:
        datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"its time {moment!r} does not exist: {error}") from error
    return text


def _unescaped(text: str) -> str:
    r"""Text with `\"`, `\\` and printable `\xhh` written out; control characters stay escaped."""
    if "\\" not in text:
        return text
    return _printable_bytes(text).decode("utf-8", "replace")


def _printable_bytes(text: str) -> bytes:
    def plain(match: re.Match[str]) -> str:
        if match[2]:
            return match[2]
        code = int(match[1], 16)
        return match[0] if code < 0x20 or code == 0x7F else chr(0xDC00 + code) if code > 0x7F else chr(code)

    # Escaped bytes above ASCII travel as surrogates, so that those of one character meet again as UTF-8.
    return _ESCAPE.sub(plain, text).encode("utf-8", "surrogateescape")
