"""A report on paper: A4 pages as PDF, and the same as one picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from typing import Any, TypeVar

from totalizer.ops.chart import Palette, course_chart, svg_of
from totalizer.ops.report.course import course, share
from totalizer.ops.report.drawing import (
    BAR,
    BOLD,
    INK,
    LINE,
    PART,
    SOFT,
    Block,
    box,
    fitting,
    length,
    moved,
    sheet,
    text,
    wrapped,
)
from totalizer.ops.report.gather import Figures
from totalizer.ops.report.words import Total, about, label, named, number, totals, trust

#: A4, in points, and what is left free around.
_WIDTH, _HEIGHT, _MARGIN, _FOOT = 595.0, 842.0, 42.0, 30.0
_LINE = _WIDTH - 2 * _MARGIN
_GAP = 10.0
#: Numbers and lists side by side.
_CARDS, _LISTS = 4, 2
_CARD, _CHART, _ROW = 52.0, 112.0, 15.0
_COLUMN_MIN, _COLUMN_MAX = 42.0, 84.0
_PALETTE = Palette(BAR, INK, SOFT, LINE)
#: Points of a picture are so many pixels, fewer where it would be higher than the most: memory holds all of it.
_PIXELS, _PIXELS_HIGH_MAX = 2, 32_000

Section = Mapping[str, Any]
Item = TypeVar("Item")


def pdf_of(figures: Figures) -> bytes:
    """The report as a PDF document of A4 pages."""
    import vl_convert

    pages = list(_pages(_blocks(figures), _HEIGHT - 2 * _MARGIN - _FOOT))
    title = f"{figures.organization}: {figures.period.title}"
    sheets = []
    for place, blocks in enumerate(pages, 1):
        foot = text(0, _HEIGHT - _MARGIN, title, 8, width=_LINE - 60, color=SOFT)
        foot += text(_LINE, _HEIGHT - _MARGIN, f"{place} of {len(pages)}", 8, width=60, color=SOFT, end=True)
        sheets.append(sheet(_WIDTH, _HEIGHT, moved(foot, _MARGIN, 0) + moved(_stacked(blocks), _MARGIN, _MARGIN)))
    return _joined([vl_convert.svg_to_pdf(each) for each in sheets], title)


def png_of(figures: Figures) -> bytes:
    """The report as one picture."""
    import vl_convert

    blocks = list(_blocks(figures))
    height = 2 * _MARGIN + sum(block.height for block in blocks)
    drawn = sheet(_WIDTH, height, moved(_stacked(blocks), _MARGIN, _MARGIN))
    png: bytes = vl_convert.svg_to_png(drawn, scale=min(_PIXELS, _PIXELS_HIGH_MAX / height))
    return png


def _joined(documents: Sequence[bytes], title: str) -> bytes:
    """One document with the pages of all."""
    from pypdf import PdfWriter
    from pypdf.generic import NameObject, TextStringObject

    whole, content = PdfWriter(), BytesIO()
    for each in documents:
        whole.append(BytesIO(each))
    whole.add_metadata({"/Title": title, "/Producer": "Totalizer"})
    whole.root_object[NameObject("/Lang")] = TextStringObject("en")
    whole.write(content)
    return content.getvalue()


def _pages(blocks: Iterator[Block], height: float) -> Iterator[list[Block]]:
    """Blocks as pages, none higher than that: no block is."""
    page: list[Block] = []
    for block in blocks:
        if page and sum(each.height for each in page) + block.height > height:
            yield page
            page = []
        page.append(block)
    yield page


def _stacked(blocks: Sequence[Block]) -> str:
    shown, y = [], 0.0
    for block in blocks:
        shown.append(moved(block.svg, 0, y))
        y += block.height
    return "".join(shown)


def _blocks(figures: Figures) -> Iterator[Block]:
    yield _head(figures)
    sections = figures.answer["data"].values()
    told = [section for section in sections if "series" in section]
    if not told:
        yield _line("There are no events in this period.", 12)
    for section in told:
        yield from _section(figures, section)
    quiet = [section["title"] for section in sections if "series" not in section]
    if quiet:
        for line in wrapped(f"No events in this period: {', '.join(quiet)}.", _LINE / 9):
            yield _line(line, 9, SOFT)


def _line(words: str, size: float, color: str = INK) -> Block:
    return Block(1.5 * size, text(0, 1.1 * size, words, size, width=_LINE, color=color))


def _head(figures: Figures) -> Block:
    shown = [
        text(0, 18, figures.organization, 20, width=_LINE, bold=True),
        text(0, 38, figures.period.title, 13, width=_LINE),
    ]
    y = 58.0
    for sentence in (*trust(figures), *about(figures)):
        for line in wrapped(sentence, (_LINE - 8) / 9):
            shown.append(text(8, y, line, 9, width=_LINE - 8, color=SOFT))
            y += 13
    shown.append(box(0, 50, 2.5, y - 61, fill=BAR if figures.answer["exact"] else "#8a5200"))
    return Block(y, "".join(shown))


def _section(figures: Figures, section: Section) -> Iterator[Block]:
    cards = [_cards(some) for some in _some(totals(section), _CARDS)]
    title = box(0, 2, _LINE, 0.7, fill=LINE) + text(0, 24, section["title"], 14, width=_LINE, bold=True)
    yield Block(34 + cards[0].height, title + moved(cards[0].svg, 0, 34))
    yield from cards[1:]
    for name in section["shown"]:
        yield _chart(figures, section, name)
    for lists in _some(section["top"], _LISTS):
        yield _lists(section, lists)


def _cards(shown: Sequence[Total]) -> Block:
    width = (_LINE - (_CARDS - 1) * _GAP) / _CARDS
    drawn = "".join(moved(_card(total, width), at * (width + _GAP), 0) for at, total in enumerate(shown))
    return Block(_CARD + _GAP, drawn)


def _card(total: Total, width: float) -> str:
    inner = width - 14
    fits = (size for size in (14.0, 11.0, 8.5) if fitting(total.number, inner / size / BOLD) == total.number)
    return (
        box(0, 0, width, _CARD, stroke=LINE)
        + text(7, 14, total.label, 8, width=inner, color=SOFT)
        + text(7, 31, total.number, next(fits, 7.5), width=inner, bold=True)
        + text(7, 45, total.beside, 7.5, width=inner, color=SOFT)
    )


def _chart(figures: Figures, section: Section, name: str) -> Block:
    drawn = svg_of(course_chart(course(figures, section, name), _PALETTE, round(_LINE), round(_CHART), 8))
    keys = box(0, -6, 9, 6, fill=BAR) + text(13, 0, "this period", 8, width=60, color=SOFT)
    keys += box(66, -3.5, 11, 1.5, fill=INK) + text(81, 0, "the one before", 8, width=80, color=SOFT)
    head = text(0, 10, label(name), 9, width=_LINE - 160, bold=True) + moved(keys, _LINE - 140, 10)
    return Block(_CHART + 18 + _GAP, head + moved(drawn, 0, 18))


def _lists(section: Section, lists: Sequence[Mapping[str, Any]]) -> Block:
    width = (_LINE - (_LISTS - 1) * 2 * _GAP) / _LISTS
    drawn = [moved(_list(section, each, width), at * (width + 2 * _GAP), 0) for at, each in enumerate(lists)]
    return Block((2 + max(len(each["rows"]) for each in lists)) * _ROW + _GAP, "".join(drawn))


def _list(section: Section, most: Mapping[str, Any], width: float) -> str:
    names, kinds, dimension = section["shown"], section["kinds"], most["dimension"]
    rows = [[number(row[name], kinds[name]) for name in names] for row in most["rows"]]
    columns = [_column(label(name), [row[at] for row in rows]) for at, name in enumerate(names)]
    ends = [width - sum(columns[at + 1 :]) for at in range(len(names))]
    left = width - sum(columns)
    shown = [text(0, 10, label(dimension), 8.5, width=left, bold=True)]
    for end, column, name in zip(ends, columns, names, strict=True):
        for at, line in enumerate(list(wrapped(label(name), (column - 4) / 7))[:2]):
            shown.append(text(end, 10 + 8 * at, line, 7, width=column - 4, color=SOFT, end=True))
    for place, (row, numbers) in enumerate(zip(most["rows"], rows, strict=True)):
        y = (place + 1.4) * _ROW
        part = max(left * share(section, row[names[0]]), 0.5)
        shown += [box(0, y, part, _ROW - 2, fill=PART), text(3, y + 9.5, named(row[dimension]), 7.5, width=left - 4)]
        for end, column, each in zip(ends, columns, numbers, strict=True):
            shown.append(text(end, y + 9.5, each, 8, width=column - 4, end=True))
    return "".join(shown)


def _column(heading: str, numbers: Sequence[str]) -> float:
    """How wide a column of numbers is whose heading has two lines."""
    wanted = max([_COLUMN_MIN, 3.5 * length(heading) + 12, *(8 * length(each) + 8 for each in numbers)])
    return min(wanted, _COLUMN_MAX)


def _some(items: Sequence[Item], most: int) -> Iterator[Sequence[Item]]:
    """Items in runs of so many."""
    return (items[at : at + most] for at in range(0, len(items), most))
