"""A report as one HTML file: no script, nothing from elsewhere; light and dark as the reader's screen has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from totalizer.ops.chart import Palette, course_chart, svg_of
from totalizer.ops.report.course import course, share
from totalizer.ops.report.gather import Figures
from totalizer.ops.report.words import Total, about, label, named, number, totals, trust, windows
from totalizer.web.operator.markup import Child, Markup, document, h

#: Of a chart, in pixels; the page makes it as wide as it is itself.
_WIDTH, _HEIGHT, _TEXT_PX = 920, 190, 12
_PALETTE = Palette("var(--bar)", "var(--ink)", "var(--soft)", "var(--line)")
#: Letters of a number from which it is written smaller.
_LONG = 14

Section = Mapping[str, Any]


def page(figures: Figures) -> bytes:
    """The report, UTF-8."""
    answer = figures.answer
    title = f"{figures.organization}: {figures.period.title}"
    told = [section for section in answer["data"].values() if "series" in section]
    head = [
        h("title", title), h("meta", name="viewport", content="width=device-width, initial-scale=1"),
        h("meta", name="color-scheme", content="light dark"), h("link", rel="icon", href="data:,"),
        h("style", Markup(files(__package__).joinpath("page.css").read_text("utf-8"))),
    ]  # fmt: skip
    main = [h("p", "There are no events in this period.", class_="period")] if not told else []
    return document(
        head,
        [
            _header(figures), h("main", main, [_section(figures, section) for section in told], _quiet(answer)),
        ],
    )  # fmt: skip


def _header(figures: Figures) -> Markup:
    trusted = h(
        "ul", [h("li", sentence) for sentence in trust(figures)],
        class_="trust" if figures.answer["exact"] else "trust inexact",
    )  # fmt: skip
    return h(
        "header", h("h1", figures.organization), h("p", figures.period.title, class_="period"), trusted,
        h("p", " ".join(about(figures)), class_="soft"),
    )  # fmt: skip


def _section(figures: Figures, section: Section) -> Markup:
    return h(
        "section", h("h2", section["title"]),
        h("dl", [_card(total) for total in totals(section)], class_="cards"),
        [_course(figures, section, name) for name in section["shown"]],
        _numbers(figures, section) if section["shown"] else None,
        h("div", [_most(section, each) for each in section["top"]], class_="lists"),
    )  # fmt: skip


def _card(total: Total) -> Markup:
    size = "number long" if len(total.number) > _LONG else "number"
    return h(
        "div", h("dt", total.label),
        h("dd", h("div", total.number, class_=size), h("div", total.beside, class_="soft")),
    )  # fmt: skip


def _course(figures: Figures, section: Section, name: str) -> Markup:
    specification = course_chart(course(figures, section, name), _PALETTE, _WIDTH, _HEIGHT, _TEXT_PX)
    keys = h(
        "span", h("span", class_="key"), "this period", h("span", class_="key before"), " the one before", class_="soft"
    )  # fmt: skip
    drawn = h("div", Markup(svg_of(specification)), aria_hidden="true")
    return h("figure", h("figcaption", h("strong", label(name)), " · ", keys), drawn)


def _numbers(figures: Figures, section: Section) -> Markup:
    """What the charts show, for who does not see them."""
    kinds, shown, series = section["kinds"], section["shown"], section["series"]
    heads = [h("td", "")]
    for name in shown:
        heads += [h("th", label(name), scope="col"), h("th", "before", scope="col")]
    rows = []
    for window, row in zip(windows(series, figures.period.kind), series, strict=True):
        cells: list[Child] = []
        for name in shown:
            cells += [h("td", number(each[name], kinds[name])) for each in (row, row["previous"])]
        rows.append(h("tr", h("th", window, scope="row"), cells))
    table = h("table", h("thead", h("tr", heads)), h("tbody", rows))
    return h("details", h("summary", "The numbers of the charts"), h("div", table, class_="scroll", tabindex="0"))


def _most(section: Section, most: Mapping[str, Any]) -> Markup:
    shown, dimension = section["shown"], most["dimension"]
    heads = [h("td", ""), *(h("th", label(name), scope="col") for name in shown)]
    rows = [_row(section, row[dimension], [row[name] for name in shown]) for row in most["rows"]]
    table = h("table", h("caption", label(dimension)), h("thead", h("tr", heads)), h("tbody", rows), class_="most")
    return h("div", table, class_="scroll")  # fmt: skip


def _row(section: Section, value: Any, numbers: Sequence[Any]) -> Markup:
    cells = [
        h("td", number(each, section["kinds"][name])) for name, each in zip(section["shown"], numbers, strict=True)
    ]
    name = h("span", named(value), title=named(value))
    return h("tr", h("th", name, scope="row", style=f"--share: {share(section, numbers[0]):.1%}"), cells)


def _quiet(answer: Mapping[str, Any]) -> Markup | None:
    quiet = [section["title"] for section in answer["data"].values() if "series" not in section]
    return h("p", f"No events in this period: {', '.join(quiet)}.", class_="soft") if quiet else None
