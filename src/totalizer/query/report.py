"""A report: for each event type a period's totals beside those before, their course, and what there was most of."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from totalizer.catalog import Catalog, EventType, Measure
from totalizer.query.asker import Asker
from totalizer.query.choose import choose_rollup
from totalizer.query.question import Fill, Metric, Order, Query
from totalizer.query.run import Made
from totalizer.query.windows import Windows
from totalizer.window import Grain

#: Dimensions of which the most frequent values are told, and how many of each.
DIMENSIONS_MAX, VALUES_MAX = 4, 5
#: Kinds of measure that are one number whatever they are of.
_SINGLE = ("avg", "max", "min", "unique")


class Report(msgspec.Struct, frozen=True):
    """A question for a report.

    Attributes:
        start, end: the period, end excluded, UTC.
        before: start and end of what it is compared with.
        zone: of days.
        grain: the windows of its course.
        event_types: what it is about.
    """

    start: datetime
    end: datetime
    before: tuple[datetime, datetime]
    zone: str
    grain: Grain
    event_types: tuple[str, ...]


async def make_report(catalog: Catalog, asker: Asker, report: Report) -> Made:
    """The figures of a report, all of one snapshot.

    `data` has, by event type: `title`, `rollup`, `totals`, `previous`, `change`, `kinds` of the measures, `estimates`
    among them, `shown`: at most two numbers that stand for the rest; and, if there are events in the period, `series`
    of these and `top`, lists of the most frequent values of dimensions. `stale` and `missing` are spans, if there are
    any.

    Raises:
        Refused: a query of it cannot be answered; the message says why.
    """
    data, spans = {}, _Spans([], [])
    for name in report.event_types:
        data[name] = await _section(catalog, asker, catalog.event_types[name], report, spans)
    zone = ZoneInfo(report.zone)
    (begins, ends), told = report.before, asker.told()
    content = {
        "data": data,
        **told,
        **{name: found for name, found in spans._asdict().items() if found},
        "query": {
            "start_date": report.start.astimezone(zone).isoformat(),
            "end_date": report.end.astimezone(zone).isoformat(),
            "compare": {
                "start_date": begins.astimezone(zone).isoformat(), "end_date": ends.astimezone(zone).isoformat(),
            },
            "aggregation_window": report.grain.value,
            "time_zone": report.zone,
        },
    }  # fmt: skip
    return Made(content, told["exact"])


class _Spans(NamedTuple):
    """Spans that some answer could not be told exactly for."""

    stale: list[dict[str, str]]
    missing: list[dict[str, str]]

    def note(self, told: dict[str, Any]) -> None:
        for name, spans in self._asdict().items():
            spans += [span for span in told.get(name, ()) if span not in spans]


async def _section(
    catalog: Catalog, asker: Asker, kind: EventType, report: Report, spans: _Spans
) -> dict[str, Any]:  # fmt: skip
    rollup, measures = choose_rollup(catalog, kind.name, set(), ())
    base = Query(
        kind.name, report.start, report.end, Windows(None), _metrics(kind, measures), time_zone=report.zone,
        fill=Fill.ZERO, compare=report.before,
    )  # fmt: skip
    [totals] = await asker.rows(base)
    spans.note(asker.last())
    main = _main(measures)
    section = {
        "title": kind.title,
        "rollup": rollup.name,
        "totals": {measure.name: totals[measure.name] for measure in measures},
        "previous": totals["previous"],
        "change": totals["change"],
        "kinds": {measure.name: measure.kind for measure in measures},
        "estimates": asker.last()["estimates"],
        "shown": [measure.name for measure in main],
    }
    if not any(totals[measure.name] for measure in measures):
        return section
    section |= {"series": [], "top": []}
    if main:
        narrow = msgspec.structs.replace(base, metrics=_metrics(kind, main))
        section["series"] = await asker.rows(msgspec.structs.replace(narrow, windows=Windows(report.grain)))
        spans.note(asker.last())
        for name in _dimensions(catalog, kind, main):
            section["top"].append({"dimension": name, "rows": await _most(asker, narrow, name)})
    return section


async def _most(asker: Asker, narrow: Query, dimension: str) -> list[dict[str, Any]]:
    question = msgspec.structs.replace(
        narrow, group_by=(dimension,), order=(Order(narrow.metrics[0].name, True),), limit=VALUES_MAX, fill=Fill.NONE,
        compare=None,
    )  # fmt: skip
    return await asker.rows(question)


def _metrics(kind: EventType, measures: tuple[Measure, ...]) -> tuple[Metric, ...]:
    return tuple(Metric(measure.name, kind.name, measure.name) for measure in measures)


def _main(measures: tuple[Measure, ...]) -> tuple[Measure, ...]:
    """The numbers that stand for the rest: how many events, and the first sum; else any that is one number."""
    counts, sums = ([measure for measure in measures if measure.kind == kind] for kind in ("count", "sum"))
    single = [measure for measure in measures if measure.kind in _SINGLE]
    return tuple((*counts[:1], *sums[:1]) or single[:1])


def _dimensions(catalog: Catalog, kind: EventType, main: tuple[Measure, ...]) -> list[str]:
    """What the events are divided by, in order of declaration."""
    rollups = [
        rollup for rollup in catalog.rollups_of(kind.name) if all(rollup.measure(measure.name) for measure in main)
    ]
    return list(dict.fromkeys(name for rollup in rollups for name in rollup.dimensions))[:DIMENSIONS_MAX]
