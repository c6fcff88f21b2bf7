"""The books by the hour, summed up and not; what receipts are told of records that are gone."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool
from typer.testing import CliRunner

from integration.test_receipts import Sender, command
from totalizer.event import BatchHeader, decode_batch, encode_batch
from totalizer.load.retry import DeadLetterLoader
from totalizer.ops.cli import app
from totalizer.query import fates
from totalizer.query.run import configure_reader
from totalizer.rollup.verify import verify
from totalizer.store import dead_letters
from totalizer.store.dead_letters import Selection
from totalizer.store.ledger import balance, compact, forget_fates
from totalizer.store.roles import Role

SUMS = (
    "SELECT sum(accepted)::int, sum(loaded)::int, sum(duplicate)::int, sum(conflict)::int, sum(dead_lettered)::int, "
    "sum(dropped)::int FROM totalizer."
)


def outcome(database: Any, organization_id: str, journal_id: str, sequence: int, accepted: int) -> fates.Outcome:
    """What a receipt for a record would be told."""

    async def ask() -> fates.Outcome:
        async with AsyncConnectionPool(
            database.dsn(Role.APP), min_size=1, max_size=1, open=False, configure=configure_reader
        ) as pool:
            return await fates.outcome(pool, organization_id, journal_id, sequence, accepted)

    return asyncio.run(ask())


def age(feed: Any, what: str = "load_ledger", column: str = "loaded_at", interval: str = "2 hours") -> None:
    feed.administrator.execute(f"UPDATE totalizer.{what} SET {column} = {column} - interval '{interval}'")


def test_summing_up_changes_no_sum_whatever_is_loaded_meanwhile(feed: Any, database: Any) -> None:
    organization = feed.organization()
    for number in range(6):
        feed.send(organization, command_executions=[command(id=str(number // 2)), command()])
        feed.load()
    before = feed.rows(f"{SUMS}ledger")
    assert before == [(12, 9, 3, 0, 0, 0)]
    age(feed)
    removed: list[int] = []
    start = threading.Barrier(3)

    def work() -> None:
        with psycopg.connect(database.dsn(Role.REFRESHER), autocommit=True) as connection:
            start.wait()
            removed.append(compact(connection))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    start.wait()
    feed.send(organization, command_executions=[command()])
    feed.load()
    for thread in threads:
        thread.join()
    assert sum(removed) == 6, "each row was taken by one of the two"
    assert feed.rows(f"{SUMS}ledger") == [(13, 10, 3, 0, 0, 0)]
    assert feed.rows(f"{SUMS}load_ledger") == [(1, 1, 0, 0, 0, 0)], "what is young stays"
    age(feed)
    assert compact(feed.reader) == 1
    assert feed.rows(f"{SUMS}load_ledger_hourly") == [(13, 10, 3, 0, 0, 0)]
    assert feed.one("SELECT count(*) FROM totalizer.load_ledger_hourly") == 1
    feed.refresh()
    assert all(each.exact for each in verify(feed.reader))


def test_a_compaction_that_is_killed_leaves_everything(feed: Any, database: Any) -> None:
    organization = feed.organization()
    feed.send(organization, command_executions=[command()])
    feed.load()
    age(feed)
    connection = database.connect(Role.REFRESHER, autocommit=False)
    assert compact(connection) == 1
    feed.administrator.execute("SELECT pg_terminate_backend(%s, 10000)", [connection.info.backend_pid])
    with pytest.raises(psycopg.OperationalError):
        connection.commit()
    assert feed.rows(f"{SUMS}load_ledger") == [(1, 1, 0, 0, 0, 0)]
    assert feed.one("SELECT count(*) FROM totalizer.load_ledger_hourly") == 0


def test_each_hour_of_receipt_has_its_own_books_also_when_a_dead_letter_is_settled_later(feed: Any) -> None:
    organization = feed.organization()
    feed.administrator.execute(
        "ALTER TABLE events.command_executions ADD CONSTRAINT quick CHECK (execution_time_ms < 1000) NOT VALID"
    )
    payloads = [
        feed.collector.admit_batch(organization, json.dumps({"command_executions": events}).encode()).payload
        for events in ([command(id="a"), command(id="b", execution_time_ms=5000)], [command(id="a"), command()])
    ]
    for payload, hour in zip(payloads, ("2025-09-05T10", "2025-09-05T11"), strict=True):
        header, blocks = decode_batch(payload)
        feed.append(encode_batch(BatchHeader(organization, f"{hour}:59:00.000000Z", header.sections), b"".join(blocks)))
    feed.load()

    def hours() -> list[tuple[Any, ...]]:
        found, letters = balance(feed.reader)
        assert letters == []
        assert [hour.difference for hour in found] == [0] * len(found)
        return [(f"{hour.hour:%H}", hour.accepted, hour.loaded, hour.duplicate, hour.dead_lettered) for hour in found]

    assert hours() == [("10", 2, 1, 0, 1), ("11", 2, 1, 1, 0)]
    age(feed)
    compact(feed.reader)
    feed.administrator.execute("ALTER TABLE events.command_executions DROP CONSTRAINT quick")
    [letter_id] = dead_letters.ids_of(feed.reader, Selection())
    DeadLetterLoader(feed.database.connect(Role.WRITER)).retry(letter_id)
    assert hours() == [("10", 2, 2, 0, 0), ("11", 2, 1, 1, 0)]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE totalizer.load_ledger SET accepted = accepted + 1",
        "UPDATE totalizer.load_ledger SET duplicate = duplicate + 1",
        "INSERT INTO totalizer.dead_letters (organization_id, event_type, columns, keyed, line, sqlstate, reason, "
        "journal_id) SELECT id, 'commits', '{a}', false, '', '', '', gen_random_uuid() FROM totalizer.organizations",
    ],
)
def test_an_open_difference_is_found(feed: Any, change: str) -> None:
    feed.send(feed.organization(), command_executions=[command()])
    feed.load()
    found, letters = balance(feed.reader)
    assert ([hour.difference for hour in found], letters) == ([0], [])
    feed.administrator.execute(change)
    found, letters = balance(feed.reader)
    assert [hour.difference for hour in found] != [0] or letters


def test_records_that_damage_took_or_nobody_can_read_are_lost_to_their_receipts(feed: Any, database: Any) -> None:
    organization = feed.organization()
    feed.send(organization, command_executions=[command()])
    feed.load()
    journal = feed.journal.id
    feed.append(b"no batch at all")
    feed.send(organization, command_executions=[command(), command()])
    feed.load()
    assert outcome(database, organization, journal, 1, 1).loaded == 1
    unreadable = outcome(database, organization, journal, 2, 5)
    assert (unreadable.status, unreadable.loaded, unreadable.lost) == ("done", 0, 5)
    assert outcome(database, organization, journal, 3, 2).loaded == 2
    assert outcome(database, organization, journal, 4, 1).status == "pending"
    # As if two records had been there between.
    feed.administrator.execute("UPDATE totalizer.journal_offsets SET sequence = sequence - 2")
    feed.loader.close()
    feed.send(organization, command_executions=[command()])
    feed.load()
    assert feed.rows("SELECT first, last, reason FROM totalizer.journal_gaps WHERE dead_letter_id IS NULL") == [
        (2, 3, "damaged on the disk")
    ]


def test_a_record_that_becomes_readable_is_told_by_its_receipt(feed: Any, database: Any) -> None:
    organization = feed.organization()
    feed.append(b"no batch at all")
    feed.load()
    body = json.dumps({"command_executions": [command(id="a"), command(id="a")]}).encode()
    payload = feed.collector.admit_batch(organization, body).payload
    feed.administrator.execute("UPDATE totalizer.dead_letters SET line = %s", [payload])
    [letter_id] = dead_letters.ids_of(feed.reader, Selection())
    DeadLetterLoader(feed.database.connect(Role.WRITER)).retry(letter_id)
    told = outcome(database, organization, feed.journal.id, 1, 2)
    assert (told.loaded, told.duplicate, told.lost, [item["index"] for item in told.items]) == (1, 1, 0, [1])


def test_a_journal_of_a_version_without_numbers_goes_on(feed: Any, database: Any) -> None:
    organization = feed.organization()
    feed.send(organization, command_executions=[command()])
    feed.load()
    feed.administrator.execute("UPDATE totalizer.journal_offsets SET sequence = 0")
    feed.loader.close()
    feed.send(organization, command_executions=[command()])
    feed.load()
    assert feed.one("SELECT count(*) FROM totalizer.journal_gaps") == 0
    assert outcome(database, organization, feed.journal.id, 2, 1).loaded == 1


def test_fates_are_forgotten_when_no_receipt_can_ask_but_not_those_of_dead_letters(feed: Any) -> None:
    organization = feed.organization()
    feed.send(organization, command_executions=[command(id="a"), command(id="a")])
    feed.load()
    assert forget_fates(feed.reader, 30) == 0
    age(feed, "event_fates", "recorded_at", "31 days")
    feed.administrator.execute("UPDATE totalizer.event_fates SET dead_letter_id = 1")
    assert forget_fates(feed.reader, 30) == 0
    feed.administrator.execute("UPDATE totalizer.event_fates SET dead_letter_id = NULL")
    assert forget_fates(feed.reader, 30) == 1


def test_the_command_shows_the_books_and_finds_a_difference(stack: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sender = Sender(stack)
    _, answer = sender.send(command(id="a"), command(id="a"), command(status="odd"))
    sender.fates(answer["receipt"])
    name = stack.sql("SELECT name FROM totalizer.organizations WHERE id = %s", stack.organization_id)[0][0]
    arguments = ["ledger", "--home", str(stack.home), "--organization", name, "--format", "json"]

    def run() -> tuple[int, dict[str, Any]]:
        result = CliRunner().invoke(app, arguments)
        return result.exit_code, json.loads(result.stdout)

    code, told = run()
    assert code == 0
    [hour] = told["hours"]
    assert (hour["accepted"], hour["loaded"], hour["duplicate"], hour["difference"]) == (2, 1, 1, 0)
    _spoilt(stack, 1, run)


def _spoilt(stack: Any, by: int, run: Callable[[], tuple[int, dict[str, Any]]]) -> None:
    """Change a figure, look, and change it back."""
    change = "UPDATE totalizer.load_ledger SET accepted = accepted + %s WHERE organization_id = %s"
    with stack.running.connect(None) as connection:
        connection.execute(change, [by, stack.organization_id])
        try:
            code, told = run()
        finally:
            connection.execute(change, [-by, stack.organization_id])
    assert (code, told["hours"][0]["difference"]) == (1, by)
