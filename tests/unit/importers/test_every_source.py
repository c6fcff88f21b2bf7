"""What every input must do: one suite, run over all of them."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from totalizer.errors import OperationError
from totalizer.ops.importers.ndjson import NdjsonSource
from totalizer.ops.importers.report import Outcome

from .conftest import Case, Importer, Receiver, commit

COUNT = 60


def test_all_events_arrive_once(case: Case, importer: Importer, receiver: Receiver) -> None:
    report = importer.run(case.make(COUNT))

    assert len(receiver.events(case.event_type)) == COUNT
    assert receiver.received == COUNT
    assert (report.tally.read, report.tally.accepted, report.tally.rejected) == (COUNT, COUNT, 0)
    assert report.outcome is Outcome.ALL_ACCEPTED
    assert not (importer.home / "quarantine").exists()


def test_the_second_time_nothing_is_sent(case: Case, importer: Importer, receiver: Receiver) -> None:
    importer.run(case.make(COUNT))
    requests = receiver.requests

    report = importer.run(case.make(COUNT))

    # A file that does not end in a newline, as an array, may yet grow: its end is looked at again.
    assert report.tally.skipped == COUNT
    assert receiver.requests == requests
    assert report.outcome is Outcome.ALL_ACCEPTED


def test_sending_all_again_changes_nothing(case: Case, importer: Importer, receiver: Receiver) -> None:
    importer.run(case.make(COUNT))
    stored = dict(receiver.stored)

    report = importer.run(case.make(COUNT), restart=True)

    assert report.tally.accepted == COUNT
    assert receiver.received == 2 * COUNT
    assert receiver.stored == stored


def test_new_lines_alone_are_sent(case: Case, importer: Importer, receiver: Receiver) -> None:
    importer.run(case.make(COUNT))

    report = importer.run(case.make(COUNT + 5))

    assert (report.tally.skipped, report.tally.accepted) == (COUNT, 5)
    assert len(receiver.stored) == COUNT + 5


def test_a_changed_input_starts_over(case: Case, importer: Importer, receiver: Receiver) -> None:
    importer.run(case.make(COUNT))

    report = importer.run(case.make(COUNT, salt="other"))

    assert (report.tally.skipped, report.tally.accepted) == (0, COUNT)
    assert any("starting over" in sentence for sentence in importer.said)
    assert len(receiver.stored) == 2 * COUNT


def test_a_shorter_input_starts_over(case: Case, importer: Importer, receiver: Receiver) -> None:
    importer.run(case.make(COUNT))

    report = importer.run(case.make(COUNT // 2))

    assert (report.tally.skipped, report.tally.accepted) == (0, COUNT // 2)
    assert len(receiver.stored) == COUNT


def test_a_line_cut_off_by_the_end_may_yet_grow(importer: Importer, receiver: Receiver, tmp_path: Path) -> None:
    file = tmp_path / "events.ndjson"
    whole = [commit(n, event_type="commits") for n in range(1, 21)]
    file.write_text("\n".join(whole)[:-30])
    first = importer.run(NdjsonSource(str(file)))

    file.write_text("\n".join(whole) + "\n")
    second = importer.run(NdjsonSource(str(file)))

    assert (first.tally.accepted, first.tally.broken) == (19, 1)
    assert (second.tally.skipped, second.tally.accepted) == (19, 1)


def test_a_failed_import_is_resumed(case: Case, importer: Importer, receiver: Receiver) -> None:
    def fail_late(stored: int) -> None:
        if stored >= COUNT // 2:
            receiver.script = [401] * 100

    receiver.on_stored = fail_late
    with pytest.raises(OperationError, match="API key"):
        importer.run(case.make(COUNT))
    assert COUNT // 2 <= len(receiver.stored) < COUNT

    receiver.script, receiver.on_stored = [], lambda stored: None
    report = importer.run(case.make(COUNT))

    assert report.tally.skipped > 0
    assert report.tally.skipped + report.tally.accepted == COUNT
    assert len(receiver.stored) == COUNT


def test_an_interrupted_import_saves_its_place_and_is_resumed(
    case: Case, importer: Importer, receiver: Receiver
) -> None:
    def interrupt(stored: int) -> None:
        if stored >= 14:
            importer.stop.signalled = True
            importer.stop.ask()

    receiver.on_stored = interrupt
    first = importer.run(case.make(COUNT))
    assert first.outcome is Outcome.INTERRUPTED
    assert first.tally.accepted < COUNT

    receiver.on_stored = lambda stored: None
    second = importer.run(case.make(COUNT))

    assert second.tally.skipped == first.tally.accepted
    assert second.tally.accepted == COUNT - first.tally.accepted
    assert receiver.received == COUNT, "what was acknowledged was sent again"


def test_a_broken_line_is_quarantined_and_the_rest_goes_on(case: Case, importer: Importer, receiver: Receiver) -> None:
    report = importer.run(case.make(COUNT, broken=17))

    assert len(receiver.stored) == COUNT - 1
    assert (report.tally.accepted, report.tally.broken, report.tally.refused) == (COUNT - 1, 1, 0)
    assert report.outcome is Outcome.SOME_REJECTED
    assert [line["line"] for line in importer.quarantined()] == [17]
    assert importer.quarantined()[0]["reason"]
    assert any(" 17: " in sentence for sentence in importer.said)
    assert stat.S_IMODE(report.quarantine.file.stat().st_mode) == 0o600
    assert stat.S_IMODE(report.quarantine.file.parent.stat().st_mode) == 0o700


def test_a_broken_line_is_quarantined_once_over_two_runs(case: Case, importer: Importer) -> None:
    importer.run(case.make(COUNT, broken=17))
    second = importer.run(case.make(COUNT, broken=17))

    assert second.outcome is Outcome.ALL_ACCEPTED
    assert len(importer.quarantined()) == 1


def test_an_event_the_server_refuses_is_quarantined_under_its_line(
    case: Case, importer: Importer, receiver: Receiver
) -> None:
    refused_id: list[str] = []

    def refuse(event_type: Any, event: Any) -> Any:
        if not refused_id and len(receiver.stored) == 20:
            refused_id.append(event["id"])
        return "cannot be so" if event["id"] in refused_id else None

    receiver.refuse = refuse
    report = importer.run(case.make(COUNT))

    assert len(receiver.stored) == COUNT - 1
    assert (report.tally.accepted, report.tally.refused) == (COUNT - 1, 1)
    [line] = importer.quarantined()
    assert line["reason"] == "invalid_event: cannot be so"
    assert 1 <= line["line"] <= COUNT


def test_lost_answers_and_busy_servers_double_and_lose_nothing(
    case: Case, importer: Importer, receiver: Receiver
) -> None:
    receiver.script = ["lose", 503, "store", "drop", 429, "lose", "store", 500, 502, "lose"]

    report = importer.run(case.make(COUNT))

    assert receiver.script == []
    assert report.tally.accepted == COUNT
    assert len(receiver.stored) == COUNT
    assert receiver.received > COUNT, "no answer was lost, so the test proves nothing"


def test_an_empty_input_says_so(case: Case, importer: Importer, receiver: Receiver) -> None:
    report = importer.run(case.make(0))

    assert "nothing to import" in importer.said
    assert (report.outcome, receiver.requests) == (Outcome.ALL_ACCEPTED, 0)
