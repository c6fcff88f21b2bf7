"""The judge itself: it sees every way to break the promise, and nothing where it was kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crash import tally
from crash.oracle import KEPT, Known, Ledger, Verdict, event_of, judge, payload_of
from crash.pipeline import Pipeline
from totalizer.journal import Position


@pytest.fixture(autouse=True)
def _deliberate() -> Iterator[None]:
    """What is lost here is lost on purpose."""
    with tally.deliberate():
        yield


KNOWN = Known(sent=["a", "b", "c"], acknowledged=["a", "b"])
A, B, C = (("a", payload_of("a")), ("b", payload_of("b")), ("c", payload_of("c")))


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        ([A, B], KEPT),
        ([A, B, C], KEPT),  # not acknowledged, and there all the same: its sender sends it again
        ([A, C], Verdict(lost=("b",))),
        ([A, B, B], Verdict(doubled=("b",))),
        ([A, B, C, C], Verdict(doubled=("c",))),
        ([A, ("b", payload_of("b")[:-1] + b"\0")], Verdict(altered=("b",))),
        ([A, B, ("d", payload_of("d"))], Verdict(invented=("d",))),
    ],
)
def test_every_difference_is_seen(found: list[tuple[str, Any]], verdict: Verdict) -> None:
    assert judge(KNOWN, found, payload_of) == verdict


def test_contents_follow_from_the_name_alone() -> None:
    assert payload_of("x") == payload_of("x") != payload_of("y")
    assert event_of("x") == event_of("x") != event_of("x", altered=True)
    assert "id" not in event_of("x", keyed=False)


def test_a_ledger_keeps_what_was_said_whole(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    ledger = Ledger(path)
    ledger.sent("a", "b")
    ledger.acknowledged("a")
    ledger.read_to(Position(3, 4), "a")
    with path.open("a") as file:
        file.write("acknowledged b")  # killed while saying it
    assert Ledger(path).known() == Known(["a", "b"], ["a"], ["a"], Position(3, 4))


def test_a_database_is_judged_by_its_rows_and_books(pipeline: Pipeline) -> None:
    pipeline.some()
    assert len(pipeline.verdict().lost) == 12
    assert pipeline.load() == 0
    assert pipeline.verdict() == KEPT
    with pipeline.database_as(None) as connection:
        connection.execute("UPDATE events.command_executions SET command_name = 'x' WHERE context->>'of' = '0-0'")
    verdict = pipeline.verdict()
    assert verdict.altered == ("0-0",)
    assert replace(verdict, altered=(), books=()) == KEPT
    with pipeline.database_as(None) as connection:
        connection.execute("UPDATE analytics.command_usage_15m SET executions = executions + 1")
    assert any("differ" in book for book in pipeline.verdict().books), "rollups that do not equal the events"
    pipeline.lines += 1
    assert any("13 lines were journalled and 12 have a fate" in book for book in pipeline.verdict().books)
