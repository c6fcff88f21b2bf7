"""What reports are put together from: periods, words, letters on paper, pages joined."""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pypdf import PdfReader

from totalizer.errors import OperationError
from totalizer.ops.chart import Palette, Window, course_chart, svg_of
from totalizer.ops.report.course import course, share
from totalizer.ops.report.drawing import fitting, length, sheet, text, wrapped
from totalizer.ops.report.files import write
from totalizer.ops.report.gather import Figures
from totalizer.ops.report.page import page
from totalizer.ops.report.paper import _joined
from totalizer.ops.report.period import PERIODS, chosen, period_of, question
from totalizer.ops.report.words import about, change, label, named, number, totals, trust, windows

BERLIN = ZoneInfo("Europe/Berlin")
COLOURS = Palette("a", "b", "c", "d")


@pytest.mark.parametrize(
    ("kind", "title", "before"),
    [
        ("day", "Sunday, 30 March 2025", "Saturday, 29 March 2025"),
        ("week", "Week 13: 24 March 2025 to 30 March 2025", "Week 12: 17 March 2025 to 23 March 2025"),
        ("month", "March 2025", "February 2025"),
    ],
)
def test_a_period_that_is_over_is_compared_with_the_whole_one_before(kind: str, title: str, before: str) -> None:
    period = period_of(kind, date(2025, 3, 30))
    assert (period.title, period.before.title) == (title, before)
    asked = question(period, datetime(2026, 1, 1, tzinfo=UTC), BERLIN, ())
    assert asked.before[1] == asked.start
    assert asked.end.astimezone(BERLIN).hour == asked.before[0].astimezone(BERLIN).hour == 0


def test_a_period_that_goes_on_is_compared_with_as_much_of_the_one_before() -> None:
    """
    March, told on the 30th at 12:00 by the clock:   1 ├───────────────────────────┤ 30th 12:00, summer time
    February, as far as that goes:                   1 ├────────────────────────┤ its end
    """
    march = period_of("month", date(2025, 3, 30))
    asked = question(march, datetime(2025, 3, 30, 10, tzinfo=UTC), BERLIN, ())
    assert asked.before == (datetime(2025, 1, 31, 23, tzinfo=UTC), datetime(2025, 2, 28, 23, tzinfo=UTC))
    asked = question(march, datetime(2025, 3, 10, 10, tzinfo=UTC), BERLIN, ())
    assert asked.before[1] == datetime(2025, 2, 10, 10, tzinfo=UTC)
    week = question(period_of("week", date(2025, 3, 30)), datetime(2025, 3, 30, 10, tzinfo=UTC), BERLIN, ())
    assert week.before[1] == datetime(2025, 3, 23, 11, tzinfo=UTC), "the same time by the clock, which was put on"


def test_the_last_period_that_is_over_is_told_unless_a_day_is_named() -> None:
    now = datetime(2025, 3, 31, 22, 30, tzinfo=UTC)  # it is April in Berlin
    assert [chosen(kind, None, now, BERLIN).first for kind in PERIODS] == [
        date(2025, 3, 31), date(2025, 3, 24), date(2025, 3, 1),
    ]  # fmt: skip
    assert chosen("month", None, now, ZoneInfo("UTC")).first == date(2025, 2, 1)
    assert chosen("month", date(2025, 4, 20), now, BERLIN).first == date(2025, 4, 1), "which has begun"
    with pytest.raises(OperationError, match="begins on 2025-05-01, which is yet to come"):
        chosen("month", date(2025, 5, 20), now, BERLIN)


@pytest.mark.parametrize(
    ("value", "kind", "shown"),
    [
        (1234567, "count", "1,234,567"), (None, "sum", "–"), (Decimal("0.100000"), "sum", "0.1"),
        (Decimal("1234.567891"), "avg", "1,234.57"), (Decimal("1234.567891"), "sum", "1,234.567891"),
        (Decimal("9" * 60 + ".5"), "sum", ",".join(["999"] * 20) + ".5"), (Decimal("1E+3"), "sum", "1,000"),
        (Decimal("9" * 60 + ".555"), "avg", ",".join(["999"] * 20) + ".56"), ("done", "latest", "done"),
        (True, "latest", "True"), (-5, "sum", "-5"),
    ],
)  # fmt: skip
def test_numbers_in_words(value: Any, kind: str, shown: str) -> None:
    assert number(value, kind) == shown


@pytest.mark.parametrize(
    ("now", "before", "told"),
    [
        (110, 100, "+10 %"), (1, 3, "−67 %"), (1005, 1000, "+0.5 %"), (5, 5, "±0 %"), (5, 0, "new"), (0, 0, ""),
        (None, 5, ""), (5, None, ""), ("a", "b", ""), (10**40, 1, "+1" + ",000" * 14 + " %"),
        (Decimal("-2"), Decimal("-1"), "−100 %"), (-1, -2, "+50 %"),
    ],
)  # fmt: skip
def test_changes_in_words(now: Any, before: Any, told: str) -> None:
    assert change(now, before) == told


def test_names_of_dimensions() -> None:
    assert [named(each) for each in (None, "", True, False, 200, "a")] == ["(none)", "(empty)", "yes", "no", "200", "a"]
    assert label("execution_time_ms_sum") == "Execution time ms sum"


def test_an_hour_that_happens_twice_has_two_names() -> None:
    hours = ["2025-10-26T01:00:00+02:00", "2025-10-26T02:00:00+02:00", "2025-10-26T02:00:00+01:00"]
    rows = [{"window_start": hour} for hour in hours]
    assert windows(rows, "day") == ["01:00", "02:00 (+0200)", "02:00 (+0100)"]
    assert windows(rows[:1], "month") == ["26"]
    assert windows(rows[:1], "week") == ["Sun 26"]


def figures(**answer: Any) -> Figures:
    query = {
        "time_zone": "UTC", "start_date": "2025-09-01T00:00:00+00:00", "end_date": "2025-10-01T00:00:00+00:00",
    }  # fmt: skip
    whole = {
        "exact": True, "complete": True, "data": {}, "source": "none", "as_of": "2025-10-02T06:00:00+00:00",
        "query": query, **answer,
    }  # fmt: skip
    return Figures("acme", period_of("month", date(2025, 9, 1)), True, whole)


def test_how_far_numbers_can_be_trusted() -> None:
    assert trust(figures()) == ["These numbers are exact."]
    spans = [
        {"start_date": f"2025-09-0{day}T00:00:00+00:00", "end_date": "2025-09-09T00:00:00+00:00"} for day in range(1, 6)
    ]
    told = trust(figures(exact=False, complete=False, stale=spans[:1], missing=spans)._replace(over=False))
    assert told == [
        "These numbers are not exact.",
        "The rollups are behind: 2025-09-01 00:00 to 2025-09-09 00:00.",
        "What is old is removed, and could not be told here: 2025-09-01 00:00 to 2025-09-09 00:00; "
        "2025-09-02 00:00 to 2025-09-09 00:00; 2025-09-03 00:00 to 2025-09-09 00:00; and 2 more.",
        "Events that were accepted just now are not stored yet, and are not in them; make the report again.",
        "The period is not over: it is told up to now, and compared with as much of the one before.",
    ]
    assert about(figures(source="1mo+15m+events"))[1] == (
        "As of 2025-10-02 06:00, read from months, quarters of an hour and single events."
    )
    assert about(figures())[1] == "As of 2025-10-02 06:00."


def test_each_quantile_is_a_total_of_its_own() -> None:
    section = {
        "totals": {"t_quantiles": {"p50": 1, "p99": Decimal("2.345")}, "last": None},
        "previous": {"t_quantiles": None, "last": "x"},
        "kinds": {"t_quantiles": "quantiles", "last": "latest"}, "estimates": ["t_quantiles"],
    }  # fmt: skip
    assert totals(section) == [
        ("T p50", "≈ 1", "before: –"), ("T p99", "≈ 2.34", "before: –"), ("Last", "–", "before: x"),
    ]  # fmt: skip


def test_courses_hold_any_number() -> None:
    rows = [
        {"window_start": "2025-09-01T00:00:00+00:00", "n": 10**400, "previous": {"n": None}},
        {"window_start": "2025-09-02T00:00:00+00:00", "n": Decimal("-1e400"), "previous": {"n": 0}},
    ]
    section = {
        "series": rows,
        "shown": ["n"], "totals": {"n": 4}, "kinds": {"n": "sum"},
    }  # fmt: skip
    assert course(figures(), section, "n") == [Window("1", 1e300, None), Window("2", -1e300, None)]
    assert [share(section, value) for value in (1, 0, -1, None, 10**400)] == [0.25, 0, 0, 0, 1]


def test_charts_have_marks_at_whole_numbers_and_nothing_that_a_second_chart_would_repeat() -> None:
    drawn = svg_of(course_chart([Window("1", 2, None), Window("2", 1, 2)], COLOURS, 500, 120, 8))
    assert re.findall(r">([^<>]+)</text>", drawn) == ["1", "2", "0", "1", "2"]
    assert " id=" not in drawn
    assert (drawn.count('fill="a"'), drawn.count('fill="b"')) == (2, 1), "no line where nothing was before"
    halves = svg_of(course_chart([Window("1", 0.5, None)], COLOURS, 500, 120, 8))
    assert "0.5" in re.findall(r">([^<>]+)</text>", halves)
    assert svg_of(course_chart([], COLOURS, 500, 120, 8)).startswith("<svg")


def test_a_file_is_replaced_and_a_pipe_is_written_to(tmp_path: Path) -> None:
    kept = tmp_path / "r.html"
    kept.write_text("old")
    write(figures(), "html", kept)
    assert kept.read_bytes() == page(figures())
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_bytes)
        write(figures(), "html", pipe)
        assert read.result() == page(figures())
    assert sorted(tmp_path.iterdir()) == [pipe, kept]


def test_letters_on_paper() -> None:
    assert fitting("short", 10) == "short"
    cut = fitting("W" * 50 + "\x00\n", 10)
    assert cut.startswith("W")
    assert cut.endswith("…")
    assert length(cut) <= 10
    assert fitting("a\x00b\n\tc", 50) == "a\N{REPLACEMENT CHARACTER}b c"
    lines = list(wrapped("one two three four", 5))
    assert " ".join(lines) == "one two three four"
    assert len(lines) > 1
    assert "&lt;b&gt;&amp;" in text(0, 0, "<b>&", 8, width=100)


def test_pages_are_joined_in_order() -> None:
    import vl_convert

    ones = [vl_convert.svg_to_pdf(sheet(100 + at, 50, text(5, 20, f"page {at}", 10, width=90))) for at in range(3)]
    whole = PdfReader(BytesIO(_joined(ones, "Größe")))
    assert [(page.mediabox.width, page.extract_text().strip()) for page in whole.pages] == [
        (100, "page 0"), (101, "page 1"), (102, "page 2"),
    ]  # fmt: skip
    assert whole.metadata is not None
    assert whole.metadata.title == "Größe"
    assert whole.root_object["/Lang"] == "en"
