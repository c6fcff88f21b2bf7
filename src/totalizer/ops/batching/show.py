"""An overview for people: sections of lines, as text or as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

from rich.markup import escape
from rich.table import Table

from totalizer.clock import utc_text

Rows = list[tuple[str, str]]

_MIB = 1 << 20


def sections(document: dict[str, Any]) -> Iterator[tuple[str, Rows]]:
    """Titles with lines of (what, value) out of a document of `document_of`."""
    waiting, recovery, health = document["waiting"], document["recovery"], document["health"]
    yield "Aggregation", [("Folder", document["dataPath"]), ("Health", _health(health)), *_waiting(waiting)]
    yield "Flushes", list(_flushes(document["aggregator"], document["entries"]))
    yield "Recovery", list(_recovery(recovery))
    yield "System", list(_system(document["system"]))
    if "journals" in document:
        yield "Journals", [(journal["name"], _journal(journal)) for journal in document["journals"]]
        yield "Flush times", list(_buckets(document["aggregator"]["buckets"]))


def as_text(document: dict[str, Any]) -> Table:
    """The overview for a terminal."""
    return sections_table(sections(document))


def sections_table(found: Iterable[tuple[str, Rows]]) -> Table:
    """Sections for a terminal; one without lines is left out."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for title, rows in found:
        if rows:
            table.add_row(f"[bold]{title}[/]")
        for name, value in rows:
            table.add_row(f"  {escape(name)}", escape(value))
    return table


def as_markdown(document: dict[str, Any]) -> str:
    """The overview as a page with a table for each section."""
    lines = []
    for title, rows in sections(document):
        if rows:
            lines += [f"## {title}", "", "| what | value |", "|---|---|"]
            lines += [f"| {_cell(name)} | {_cell(value)} |" for name, value in rows] + [""]
    return "\n".join(lines).rstrip()


def duration(milliseconds: float) -> str:
    """A duration for people, such as `3.2 ms`, `45 s` or `1 day, 2:00:00`."""
    if milliseconds < 1000:
        return f"{milliseconds:.1f} ms"
    if milliseconds < 120_000:
        return f"{milliseconds / 1000:.0f} s"
    return str(timedelta(seconds=round(milliseconds / 1000)))


def size(count: float) -> str:
    """Bytes for people."""
    return f"{count / _MIB:,.0f} MiB" if count >= _MIB else f"{count / 1024:,.0f} KiB"


def _health(health: dict[str, Any]) -> str:
    issues = "; ".join(health["issues"])
    return f"{health['status']}{f': {issues}' if issues else ''}"


def _waiting(waiting: dict[str, Any]) -> Iterator[tuple[str, str]]:
    oldest = f", the oldest for {duration(waiting['oldestAge'])}" if waiting["oldestAge"] is not None else ""
    yield "Waiting", f"{waiting['entries']:,} entries{oldest}"
    yield "Processes", f"{waiting['processes']} living, {waiting['journals']} journals"
    if waiting["unreadable"]:
        yield "Unreadable", f"{waiting['unreadable']} journals; see `totalizer validate`"


def _flushes(figures: dict[str, Any], entries: dict[str, int]) -> Iterator[tuple[str, str]]:
    flushes = figures["totalOperations"]
    yield "Flushes", f"{flushes:,}, {figures['successRate']:.2%} of them delivered all" if flushes else "none yet"
    if flushes:
        times = ", ".join(f"{name} {duration(figures[f'{name}FlushTime'])}" for name in ("p50", "p95", "p99", "max"))
        yield "Flush time", f"{duration(figures['averageFlushTime'])} on average; {times}"
        yield "Begun by", ", ".join(f"{name} {count:,}" for name, count in figures["triggers"].items() if count)
    yield "Retries", f"{figures['retryCount']:,}"
    yield "Entries", ", ".join(f"{count:,} {name}" for name, count in entries.items())


def _recovery(recovery: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "Daemon", f"runs as process {recovery['pid'] or '?'}" if recovery["isRunning"] else "does not run"
    oldest = recovery["oldestFailedAt"]
    since = f", the oldest of {utc_text(oldest * 1_000_000)[:19]}Z" if oldest is not None else ""
    yield "Failed batches", f"{recovery['failedBatches']:,}{since}"
    yield "Abandoned", f"{recovery['abandonedBatches']:,}"
    if recovery["unreadableFiles"]:
        yield "Unreadable", f"{recovery['unreadableFiles']:,} files in recovery/errors"


def _system(system: dict[str, Any]) -> Iterator[tuple[str, str]]:
    memory, disk = system["memoryUsage"], system["diskSpace"]
    if memory is not None:
        yield "Memory", f"{size(memory['used'])} of {size(memory['total'])} in use"
    if disk is not None:
        yield "Disk", f"{size(disk['available'])} of {size(disk['total'])} free"


def _journal(journal: dict[str, Any]) -> str:
    if journal["error"]:
        return str(journal["error"])
    owner = f"process {journal['pid']}" if journal["pid"] is not None else "no process"
    sealed = f", {journal['sealed']} of them in batch {journal['sealedBatch']}" if journal["sealedBatch"] else ""
    return f"{owner}, {journal['waiting']:,} waiting{sealed}"


def _buckets(buckets: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    before = 0
    for bucket in buckets:
        count, before = bucket["count"] - before, bucket["count"]
        if count:
            yield f"up to {duration(bucket['upTo'])}" if bucket["upTo"] is not None else "longer", f"{count:,}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
