"""The loader: each acknowledged event exactly once, whatever comes twice, late or broken."""

from __future__ import annotations

from typing import Any

import msgspec
import psycopg
import pytest

from totalizer.event import BatchHeader, Section, encode_batch
from totalizer.load import Loader
from totalizer.rollup.verify import verify
from totalizer.store import loading
from totalizer.store.roles import Role

LEDGER = (
    "SELECT sum(loaded)::int, sum(duplicate)::int, sum(conflict)::int, sum(dead_lettered)::int "
    "FROM totalizer.load_ledger"
)
COUNT = "SELECT count(*) FROM events.command_executions"


def test_events_arrive_with_their_fields(feed: Any, command: Any) -> None:
    organization = feed.organization()
    text = 'tab\tnewline\nquote"back\\slash é 😀 \\N \\.'
    feed.send(
        organization,
        command_executions=[
            command(
                id="mine", source="laptop", executed_at="2025-09-05T12:00:00.5+02:00", error_message=text,
                context={"k": [1, 2.5, None, True, text], "__proto__": {"x": 1}},
            )
        ],
    )  # fmt: skip
    assert feed.load() == 1
    row = feed.rows(
        "SELECT executed_at::text, source, external_id, error_message, context, team_id, execution_time_ms "
        "FROM events.command_executions"
    )[0]
    assert row == (
        "2025-09-05 10:00:00.5+00", "laptop", "mine", text, {"k": [1, 2.5, None, True, text]}, None, 100,
    )  # fmt: skip


def test_a_resend_is_a_duplicate_whatever_its_time(feed: Any, command: Any) -> None:
    organization = feed.organization()
    events = [command(id=f"e{number}") for number in range(100)]  # no time: each send is stamped anew
    for _ in range(3):
        feed.send(organization, command_executions=events)
    feed.load()
    feed.send(organization, command_executions=events[:10])
    feed.load()
    assert feed.one(COUNT) == 100
    assert feed.rows(LEDGER) == [(100, 210, 0, 0)]


def test_the_same_id_with_other_contents_keeps_the_first_and_counts_a_conflict(feed: Any, command: Any) -> None:
    organization = feed.organization()
    feed.send(organization, command_executions=[command(id="a", execution_time_ms=1)])
    feed.send(
        organization, command_executions=[command(id="a", execution_time_ms=2), command(id="a", execution_time_ms=1)]
    )
    feed.load()
    assert feed.rows("SELECT execution_time_ms FROM events.command_executions") == [(1,)]
    assert feed.rows(LEDGER) == [(1, 1, 1, 0)]


def test_ids_belong_to_their_organisation_and_source(feed: Any, command: Any) -> None:
    one, two = feed.organization("one"), feed.organization("two")
    for organization in (one, two):
        feed.send(
            organization, command_executions=[command(id="a"), command(id="a", source="s"), command(id="a", source="t")]
        )
    feed.load()
    assert feed.one(COUNT) == 6


def test_events_without_an_id_are_never_duplicates_of_each_other(feed: Any, command: Any) -> None:
    organization = feed.organization()
    feed.send(organization, command_executions=[command()] * 50)
    feed.send(organization, command_executions=[command()] * 50)
    feed.load()
    assert feed.one(COUNT) == 100


def test_a_journal_read_again_from_the_start_doubles_nothing(feed: Any, command: Any) -> None:
    organization = feed.organization()
    feed.send(organization, command_executions=[command(id=str(n)) for n in range(50)] + [command()] * 50)
    feed.load()
    feed.administrator.execute("UPDATE totalizer.journal_offsets SET segment = 0, position = 0")
    feed.loader.close()
    feed.load()
    assert feed.one(COUNT) == 100
    assert feed.rows(LEDGER) == [(100, 100, 0, 0)]


def test_events_of_many_days_find_or_make_their_partitions(feed: Any, command: Any) -> None:
    organization = feed.organization()
    few = [command(executed_at=f"2024-02-{day:02d}T23:59:59.999999Z") for day in range(1, 6)]
    many = [command(executed_at=f"20{year:02d}-12-31T00:00:00Z") for year in range(25)]
    feed.send(organization, command_executions=few)
    feed.load()
    feed.send(organization, command_executions=many)
    feed.load()
    assert feed.one(COUNT) == 30
    assert feed.rows(LEDGER) == [(30, 0, 0, 0)]


def test_a_partition_dropped_meanwhile_is_made_again(feed: Any, command: Any) -> None:
    organization = feed.organization()
    feed.send(organization, command_executions=[command(executed_at="2024-02-01T00:00:00Z")])
    feed.load()
    feed.administrator.execute("DROP TABLE partitions.command_executions_p20240201")
    feed.send(organization, command_executions=[command(executed_at="2024-02-01T01:00:00Z")])
    with pytest.raises(psycopg.errors.UndefinedTable):
        feed.load()
    feed.loader.close()  # what the loop does before it tries again
    feed.load()
    assert feed.one(COUNT) == 1


def bad_batch(feed: Any, organization: str, lines: list[bytes], columns: tuple[str, ...] | None = None) -> None:
    """Journal lines as if the collector had let them pass."""
    event_type = feed.collector._types["command_executions"].event_type
    section = Section("command_executions", columns or event_type.columns, False, len(lines), sum(map(len, lines)))
    header = BatchHeader(organization, "2025-01-01T00:00:00.000000Z", (section,))
    feed.append(encode_batch(header, b"".join(lines)))


def line_of(feed: Any, organization: str, command: Any, **fields: Any) -> bytes:
    admission = feed.collector.admit_batch(
        organization, msgspec.json.encode({"command_executions": [command(**fields)]})
    )
    return admission.payload.split(b"\n", 1)[1]


@pytest.mark.parametrize("bad_at", [[0], [49], [10, 11, 30], list(range(50))])
def test_rows_postgresql_refuses_are_dead_lettered_once_and_the_others_loaded(
    feed: Any, command: Any, bad_at: list[int]
) -> None:
    organization = feed.organization()
    lines = [line_of(feed, organization, command, context={"n": number}) for number in range(50)]
    for index in bad_at:
        lines[index] = lines[index].replace(b'{"n"', b'{"\\\\u0000"')
    bad_batch(feed, organization, lines)
    assert feed.load() == 50
    assert feed.one(COUNT) == 50 - len(bad_at)
    letters = feed.rows("SELECT organization_id::text, sqlstate, line FROM totalizer.dead_letters")
    assert {row[:2] for row in letters} == {(organization, "22P05")}
    assert sorted(row[2] for row in letters) == sorted(lines[index] for index in bad_at)
    assert feed.rows(LEDGER) == [(50 - len(bad_at), 0, 0, len(bad_at))]
    feed.refresh()
    assert all(balance.exact for balance in verify(feed.reader))


@pytest.mark.parametrize(
    ("spoil", "sqlstate"),
    [
        (lambda line: line.replace(b"Z", b"X", 1), "22007"),
        (lambda line: line[:37] + b"2024-13-45" + line[47:], "TZ003"),
        (lambda line: line[:36], "TZ003"),
        (lambda line: line.replace(b"\tplan\t", b"\tplan\t\t"), "22P04"),
        (lambda line: b"nonsense\n", "TZ003"),
    ],
)
def test_spoilt_lines_stop_nothing(feed: Any, command: Any, spoil: Any, sqlstate: str) -> None:
    organization = feed.organization()
    lines = [line_of(feed, organization, command) for _ in range(5)]
    lines[2] = spoil(lines[2]).rstrip(b"\n") + b"\n"
    bad_batch(feed, organization, lines)
    feed.load()
    assert feed.one(COUNT) == 4
    assert feed.rows("SELECT sqlstate FROM totalizer.dead_letters") == [(sqlstate,)]


def test_unknown_types_and_unreadable_records_are_kept_as_dead_letters(feed: Any, command: Any) -> None:
    organization = feed.organization()
    section = Section("gone", ("organization_id", "at", "id"), False, 1, 3)
    feed.append(encode_batch(BatchHeader(organization, "2025", (section,)), b"x\t\n"))
    feed.append(b"no batch at all")
    feed.send(organization, command_executions=[command()])
    feed.load()
    assert feed.one(COUNT) == 1
    assert feed.rows("SELECT sqlstate FROM totalizer.dead_letters ORDER BY 1") == [("TZ001",), ("TZ002",)]


def test_columns_from_before_a_field_was_added_still_load(feed: Any, command: Any) -> None:
    organization = feed.organization()
    columns = feed.collector._types["command_executions"].event_type.columns[:-1]
    line = line_of(feed, organization, command).rsplit(b"\t", 1)[0] + b"\n"
    bad_batch(feed, organization, [line, line_of(feed, organization, command).rsplit(b"\t", 1)[0] + b"\n"], columns)
    feed.load()
    assert feed.one(COUNT) == 2


def test_a_loader_that_was_taken_over_is_fenced_off(feed: Any, database: Any, command: Any) -> None:
    organization = feed.organization()
    feed.send(organization, command_executions=[command()])
    feed.load()
    other = Loader(database.dsn(Role.WRITER), feed.spool, rows_max=10)
    other.drain()  # takes the journal over
    feed.send(organization, command_executions=[command()])
    source = next(iter(feed.loader._sources.values()))
    assert feed.loader._load_piece(source) == 0, "the first loader may not store any more"
    assert other.drain() == 1
    other.close()
    assert feed.one(COUNT) == 2


def test_a_transaction_that_fails_late_leaves_nothing_and_is_repeated_whole(
    feed: Any, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    organization = feed.organization()
    feed.send(organization, command_executions=[command(id=str(n)) for n in range(10)])
    real = loading.advance

    def dies(connection: Any, *arguments: Any) -> None:
        real(connection, *arguments)
        connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    monkeypatch.setattr(loading, "advance", dies)
    with pytest.raises(psycopg.OperationalError):
        feed.load()
    assert feed.one(COUNT) == 0
    monkeypatch.setattr(loading, "advance", real)
    feed.loader.close()
    assert feed.load() == 10
    assert (feed.one(COUNT), feed.rows(LEDGER)) == (10, [(10, 0, 0, 0)])


def test_loaded_segments_are_deleted(feed: Any, command: Any) -> None:
    organization = feed.organization()
    for _ in range(30):
        feed.send(organization, command_executions=[command(error_message="x" * 2000) for _ in range(50)])
    before = len(list(feed.spool.glob("**/*.segment")))
    assert before > 2
    feed.load()
    assert len(list(feed.spool.glob("**/*.segment"))) < before
    assert feed.one(COUNT) == 1500


def test_a_transaction_holds_no_more_rows_than_it_may(feed: Any, database: Any, command: Any) -> None:
    organization = feed.organization()
    for _ in range(5):
        feed.send(organization, command_executions=[command()] * 100)
    loader = Loader(database.dsn(Role.WRITER), feed.spool, rows_max=150)
    assert loader.drain() == 500
    loader.close()
    # A batch is not divided, so a transaction ends with the batch that reaches the bound.
    assert feed.rows("SELECT loaded FROM totalizer.load_ledger ORDER BY loaded_at") == [(200,), (200,), (100,)]


def test_a_journal_that_cannot_be_read_does_not_keep_the_others_waiting(feed: Any, command: Any) -> None:
    organization = feed.organization()
    broken = feed.spool / "aaa"  # sorted before the good one
    broken.mkdir(mode=0o700)
    (broken / "journal.json").write_text("no journal")
    feed.send(organization, command_executions=[command()])
    assert feed.load() == 1
    assert feed.one(COUNT) == 1
