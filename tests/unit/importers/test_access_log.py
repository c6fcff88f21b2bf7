"""Access logs: both formats, what servers escape, and what scanners send."""

from __future__ import annotations

import locale
from pathlib import Path
from typing import Any

import pytest

from totalizer.ops.importers.access_log import AccessLogSource
from totalizer.ops.importers.source import Broken, Line

COMMON = '192.0.2.1 - ada [10/Oct/2000:13:55:36 -0700] "GET /a?b=c HTTP/1.0" 200 2326'


@pytest.fixture
def source(tmp_path: Path) -> Any:
    file = tmp_path / "access.log"
    file.touch()
    return AccessLogSource(str(file))


def fields(source: Any, line: str | bytes) -> Any:
    event = source.read(Line(1, line if isinstance(line, bytes) else line.encode()))
    if isinstance(event, Broken):
        return event
    assert event.event_type == "http_requests"
    assert event.fields.pop("source") == "access.log"
    assert len(event.fields.pop("id")) == 32
    return event.fields


def test_the_common_format(source: Any) -> None:
    assert fields(source, COMMON) == {
        "requested_at": "2000-10-10T13:55:36-07:00", "remote_host": "192.0.2.1", "remote_user": "ada", "method": "GET",
        "path": "/a?b=c", "protocol": "HTTP/1.0", "status": 200, "response_bytes": 2326,
    }  # fmt: skip


def test_the_combined_format(source: Any) -> None:
    found = fields(source, COMMON + ' "http://example.org/?q=\\"x\\"" "Mozilla/5.0 (\\x22quoted\\x22)"')

    assert found["referer"] == 'http://example.org/?q="x"'
    assert found["user_agent"] == 'Mozilla/5.0 ("quoted")'


def test_dashes_are_nothing(source: Any) -> None:
    found = fields(source, '2001:db8::1 - - [10/Oct/2000:13:55:36 +0530] "HEAD / HTTP/1.1" 304 - "-" "-"')

    assert found == {
        "requested_at": "2000-10-10T13:55:36+05:30", "remote_host": "2001:db8::1", "method": "HEAD", "path": "/",
        "protocol": "HTTP/1.1", "status": 304, "response_bytes": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("request_line", "expected"),
    [
        (r"\x16\x03\x01\x02", ("-", r"\x16\x03\x01\x02", "-")),
        ("-", ("-", "-", "-")),
        ("", ("-", "-", "-")),
        ("GET /", ("GET", "/", "HTTP/0.9")),
        ("GET /with space HTTP/1.1", ("GET", "/with space", "HTTP/1.1")),
        ("CONNECT example.org:443 HTTP/1.1", ("CONNECT", "example.org:443", "HTTP/1.1")),
        (r"GET /\xc3\xa9 HTTP/2", ("GET", "/é", "HTTP/2")),
        (r"GET /\xff\\ HTTP/2.0", ("GET", "/\N{REPLACEMENT CHARACTER}\\", "HTTP/2.0")),
        ("nonsense words here", ("-", "nonsense words here", "-")),
    ],
)
def test_every_request_line_is_kept(source: Any, request_line: Any, expected: Any) -> None:
    found = fields(source, f'h - - [10/Oct/2000:13:55:36 +0000] "{request_line}" 400 0')

    assert (found["method"], found["path"], found["protocol"]) == expected


def test_a_user_may_contain_spaces_and_a_virtual_host_may_come_first(source: Any) -> None:
    assert fields(source, COMMON.replace("ada", "Ada King [x]"))["remote_user"] == "Ada King [x]"
    assert fields(source, "www.example.org:80 " + COMMON) == fields(source, COMMON)


def test_further_fields_are_ignored(source: Any) -> None:
    assert fields(source, COMMON + ' "-" "agent" 0.002 "10.0.0.1"')["user_agent"] == "agent"


def test_months_do_not_depend_on_the_locale(source: Any) -> None:
    known = [name for name in ("de_DE.UTF-8", "fr_FR.UTF-8", "C") if _settable(name)]
    before = locale.setlocale(locale.LC_TIME)
    try:
        for name in known:
            locale.setlocale(locale.LC_TIME, name)
            assert fields(source, COMMON.replace("Oct", "May"))["requested_at"].startswith("2000-05-10")
    finally:
        locale.setlocale(locale.LC_TIME, before)


def _settable(name: Any) -> Any:
    before = locale.setlocale(locale.LC_TIME)
    try:
        locale.setlocale(locale.LC_TIME, name)
    except locale.Error:
        return False
    locale.setlocale(locale.LC_TIME, before)
    return True


def test_long_texts_are_cut_to_what_the_catalog_allows(source: Any) -> None:
    found = fields(source, COMMON.replace("/a?b=c", "/" + "p" * 5000) + f' "{"r" * 5000}" "{"u" * 5000}"')

    assert (len(found["path"]), len(found["referer"]), len(found["user_agent"])) == (2048, 2048, 1024)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("nothing like it", "neither"),
        (COMMON[:-6], "neither"),
        (COMMON.replace("Oct", "Okt"), "its time"),
        (COMMON.replace("10/Oct", "31/Feb"), "does not exist"),
        (COMMON.replace("13:55:36", "13:55:60"), "does not exist"),
        (COMMON.replace("200 2326", "OK 2326"), "its status"),
        (COMMON.replace("200 2326", "200 -5"), "its size"),
        (b"\0\0\0" + COMMON.encode(), "NUL"),
    ],
)
def test_what_is_no_line_of_a_log_is_told_why(source: Any, line: str | bytes, reason: str) -> None:
    assert reason in fields(source, line).reason


def test_quotes_without_end_do_not_take_forever(source: Any) -> None:
    assert isinstance(fields(source, COMMON + ' "' + "\\a" * 200_000), dict)
    assert isinstance(fields(source, "h - - " + "[" * 300_000), Broken)
