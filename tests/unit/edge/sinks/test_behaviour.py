"""What every sink must do. A new one joins by a line in SINKS."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from support import new_organization
from totalizer.edge import Batch, FileSink, HttpSink, Sink
from totalizer.edge.batch import decode_batch_file, new_batch_id
from unit.edge.parts import MemorySink, entry


@dataclass
class Case:
    """One sink with its target.

    Attributes:
        sink: to try.
        found: what has arrived, entry by entry.
        another: a further sink for the same target, as another process would have.
    """

    sink: Sink
    found: Callable[[], list[dict[str, Any]]]
    another: Callable[[], Sink]


def file_case(tmp_path: Path, request: pytest.FixtureRequest, *, atomic: bool = True) -> Case:
    folder = tmp_path / "aggregated"

    def found() -> list[dict[str, Any]]:
        files = sorted(folder.glob("batch_*.json"))
        return [each for path in files for each in decode_batch_file(path.read_bytes(), path.name).entries]

    def make() -> FileSink:
        return FileSink(folder, atomic=atomic)

    return Case(make(), found, make)


def file_in_place_case(tmp_path: Path, request: pytest.FixtureRequest) -> Case:
    return file_case(tmp_path, request, atomic=False)


def memory_case(tmp_path: Path, request: pytest.FixtureRequest) -> Case:
    """The other tests' stand-in must itself be one."""
    sink = MemorySink()
    return Case(sink, lambda: list(sink.entries.values()), lambda: sink)


def http_case(tmp_path: Path, request: pytest.FixtureRequest) -> Case:
    """The running server; what it stores has no order of its own."""
    stack = new_organization(request.getfixturevalue("running_stack"))

    def found() -> list[dict[str, Any]]:
        stack.drain()
        rows = stack.sql("SELECT metadata FROM events.time_entries WHERE organization_id = %s", stack.organization_id)
        return sorted(({"metadata": row[0]} for row in rows), key=lambda each: int(each["metadata"]["of"]))

    def make() -> HttpSink:
        return HttpSink(stack.url, stack.key)

    return Case(make(), found, make)


SINKS: dict[str, Callable[[Path, pytest.FixtureRequest], Case]] = {
    "file": file_case, "file in place": file_in_place_case, "memory": memory_case,
    "http": http_case,
}  # fmt: skip


@pytest.fixture(params=SINKS)
def case(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Case]:
    case = SINKS[request.param](tmp_path, request)
    yield case
    case.sink.close()


def batch(*numbers: int, name: str = "") -> Batch:
    entries = tuple(entry(number, id=f"{name}{number}") for number in numbers)
    return Batch(new_batch_id(1_757_000_000_000_000_000), 1_757_000_000_000, entries)


def ids(case: Case) -> Counter[str]:
    return Counter(each["metadata"]["of"] for each in case.found())


def test_it_is_a_sink(case: Case) -> None:
    assert isinstance(case.sink, Sink)
    assert case.sink.name


def test_what_is_delivered_arrives_whole(case: Case) -> None:
    sent = batch(1, 2, 3)
    delivery = case.sink.deliver(sent)
    assert (delivery.accepted, delivery.refused) == (3, ())
    assert [each["metadata"] for each in case.found()] == [each["metadata"] for each in sent.entries]


@pytest.mark.parametrize(
    "metadata", [{"text": 'ü 漢 😀 \\ " \n \x7f </script>'}, {"n": -(2**62), "f": 1e-300}, {"e": {}}]
)
def test_every_value_arrives_as_it_was(case: Case, metadata: dict[str, Any]) -> None:
    sent = Batch(new_batch_id(0), 0, (entry(1, id="a", metadata={"of": "1", **metadata}),))
    case.sink.deliver(sent)
    assert [each["metadata"] for each in case.found()] == [{"of": "1", **metadata}]


def test_a_batch_that_is_delivered_again_counts_once(case: Case) -> None:
    sent = batch(1, 2)
    for _ in range(3):
        assert case.sink.deliver(sent).accepted == 2
    assert case.another().deliver(sent).accepted == 2
    assert case.another().deliver(replace(sent, recovered=True)).accepted == 2
    assert ids(case) == {"1": 1, "2": 1}


def test_another_batch_of_the_same_name_is_not_lost(case: Case) -> None:
    one, two = batch(1, 2), batch(3)
    case.sink.deliver(one)
    case.sink.deliver(replace(two, batch_id=one.batch_id))
    case.another().deliver(replace(two, batch_id=one.batch_id))
    assert ids(case) == {"1": 1, "2": 1, "3": 1}


def test_a_large_batch_arrives(case: Case) -> None:
    case.sink.deliver(batch(*range(1500)))
    assert ids(case) == {str(number): 1 for number in range(1500)}


def test_two_at_once_get_in_nobodys_way(case: Case) -> None:
    batches = [batch(number) for number in range(20)]
    batches += [replace(batch(number), batch_id=batches[0].batch_id) for number in range(20, 30)]
    sinks = [case.another() for _ in range(3)]

    def work(sink: Sink, start: int) -> None:
        for number in range(len(batches)):
            sink.deliver(batches[(start + number) % len(batches)])

    threads = [threading.Thread(target=work, args=(sink, 10 * index)) for index, sink in enumerate(sinks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ids(case) == {str(number): 1 for number in range(30)}


def test_closing_twice_does_nothing(case: Case) -> None:
    case.sink.deliver(batch(1))
    case.sink.close()
    case.sink.close()


def test_nothing_of_an_entry_is_logged(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        case.sink.deliver(Batch(new_batch_id(0), 0, (entry(1, id="a", userId="Ann Secretive"),)))
    assert "Secretive" not in caplog.text
