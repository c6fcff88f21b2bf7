"""Dead letters: seen, tried again, dropped; each event has one fate all the while."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from crash.proxy import Proxy
from support import SECRET, unavailable, wait_until
from totalizer.errors import OperationError
from totalizer.event import BatchHeader, Section, encode_batch
from totalizer.load.drop import BATCH_LETTERS, drop_letters
from totalizer.load.retry import DeadLetterLoader
from totalizer.rollup.verify import verify
from totalizer.store import dead_letters
from totalizer.store.dead_letters import Selection
from totalizer.store.fates import Fate
from totalizer.store.roles import Role

COUNT = "SELECT count(*) FROM events.command_executions"
LETTERS = "SELECT count(*) FROM totalizer.dead_letters"
FATES = (
    "SELECT sum(loaded)::int, sum(duplicate)::int, sum(conflict)::int, sum(dead_lettered)::int, sum(dropped)::int "
    "FROM totalizer.load_ledger"
)
#: Refuses commands that took this long or longer, until it is lifted.
STRICT = "ALTER TABLE events.command_executions ADD CONSTRAINT quick CHECK (execution_time_ms < 1000) NOT VALID"
LIFTED = "ALTER TABLE events.command_executions DROP CONSTRAINT quick"


class Refused:
    """A database that has refused some events of a feed."""

    def __init__(self, feed: Any, command: Any) -> None:
        self.feed, self.command = feed, command
        self.organization = feed.organization()
        feed.administrator.execute(STRICT)
        self.writer = feed.database.connect(Role.WRITER)

    def send(self, *numbers: int, slow: bool = True, **fields: Any) -> None:
        """Events of these numbers, in one batch; slow ones are refused."""
        duration = 5000 if slow else 5
        events = [self.command(id=f"e{number}", execution_time_ms=duration, **fields) for number in numbers]
        self.feed.send(self.organization, command_executions=events)
        self.feed.load()

    def lift(self) -> None:
        """Let slow ones pass."""
        self.feed.administrator.execute(LIFTED)

    def ids(self) -> list[int]:
        """Numbers of the letters."""
        return dead_letters.ids_of(self.feed.reader, Selection())

    def retry(self) -> list[Any]:
        """Try all of them."""
        loader = DeadLetterLoader(self.writer)
        return [loader.retry(letter_id) for letter_id in self.ids()]

    def state(self) -> tuple[int, int, tuple[int, ...]]:
        """Events, letters, sums of the ledger."""
        return self.feed.one(COUNT), self.feed.one(LETTERS), self.feed.rows(FATES)[0]

    def check_books(self) -> None:
        """Rollups and ledger agree with events, and every dead letter of the ledger is there."""
        while self.feed.refresh():
            pass
        assert all(balance.exact for balance in verify(self.feed.reader))
        assert self.state()[2][3] == self.feed.one(LETTERS + " WHERE sqlstate <> 'TZ002'")


@pytest.fixture
def refused(feed: Any, command: Any) -> Refused:
    return Refused(feed, command)


def test_what_the_database_takes_now_is_stored_and_counted_once(refused: Refused) -> None:
    refused.send(1, 2, 3)
    refused.send(4, slow=False)
    assert refused.state() == (1, 3, (1, 0, 0, 3, 0))
    refused.lift()
    assert [one.fate for one in refused.retry()] == [Fate(loaded=1)] * 3
    assert refused.state() == (4, 0, (4, 0, 0, 0, 0))
    refused.check_books()


def test_what_is_refused_again_stays_under_its_number_with_the_new_reason(refused: Refused) -> None:
    refused.send(1)
    administrator = refused.feed.administrator
    refused.lift()
    administrator.execute("ALTER TABLE events.command_executions ADD CONSTRAINT quicker CHECK (false) NOT VALID")
    before = refused.ids()
    [one] = refused.retry()
    assert one.fate == Fate(dead_lettered=1)
    assert "quicker" in one.reason
    assert refused.ids() == before
    letter = dead_letters.read_letter(refused.feed.reader, before[0])
    assert letter is not None
    assert (letter.retries, letter.sqlstate, letter.reason) == (1, "23514", one.reason)
    assert letter.retried_at is not None
    assert refused.state() == (0, 1, (0, 0, 0, 1, 0))
    refused.check_books()


@pytest.mark.parametrize(("altered", "fate"), [(False, Fate(duplicate=1)), (True, Fate(conflict=1))])
def test_what_is_stored_by_now_is_found_by_its_id(refused: Refused, altered: bool, fate: Fate) -> None:
    refused.send(1)
    refused.lift()
    refused.send(1, status="error" if altered else "success")
    assert [one.fate for one in refused.retry()] == [fate]
    assert refused.state()[:2] == (1, 0)
    assert sum(refused.state()[2]) == 2
    refused.check_books()


def test_two_at_once_do_the_work_once(refused: Refused) -> None:
    refused.send(*range(20))
    refused.lift()
    ids, fates = refused.ids(), []
    start = threading.Barrier(2)

    def work() -> None:
        with psycopg.connect(refused.feed.database.dsn(Role.WRITER), autocommit=True) as connection:
            loader = DeadLetterLoader(connection)
            start.wait()
            fates.extend([loader.retry(letter_id).fate for letter_id in ids])

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(fates, start=Fate()) == Fate(loaded=20)
    assert refused.state() == (20, 0, (20, 0, 0, 0, 0))
    refused.check_books()


def test_a_type_that_the_catalog_got_later_takes_its_letters(feed: Any) -> None:
    organization = feed.organization()
    definition = feed.administrator.execute("SELECT * FROM totalizer.event_types WHERE name = 'commits'").fetchone()
    feed.administrator.execute("DELETE FROM totalizer.rollups WHERE event_type = 'commits'")
    feed.administrator.execute("DELETE FROM totalizer.event_types WHERE name = 'commits'")
    numbers = {"files_changed": 1, "lines_added": 2, "lines_removed": 3}
    commit = {"commit_hash": "abcd", "repository": "r", "author": "a", "is_merge": False, **numbers}
    admission = feed.send(organization, commits=[commit])
    assert admission.accepted == 1
    feed.load()
    assert feed.rows("SELECT sqlstate FROM totalizer.dead_letters") == [("TZ001",)]
    loader = DeadLetterLoader(feed.database.connect(Role.WRITER))
    [letter_id] = dead_letters.ids_of(feed.reader, Selection())
    assert loader.retry(letter_id).fate == Fate(dead_lettered=1)
    feed.administrator.execute(
        "INSERT INTO totalizer.event_types VALUES (%s, %s, %s, %s, %s)",
        [*definition[:3], json.dumps(definition[3]), definition[4]],
    )
    assert loader.retry(letter_id).fate == Fate(loaded=1)
    assert feed.one("SELECT count(*) FROM events.commits") == 1


def test_a_record_that_is_no_batch_stays_and_one_that_became_readable_is_divided(refused: Refused) -> None:
    feed = refused.feed
    feed.append(b"no batch at all")
    feed.load()
    [one] = refused.retry()
    assert one.fate == Fate(dead_lettered=1)
    body = msgspec.json.encode({"command_executions": [refused.command(), refused.command(execution_time_ms=5000)]})
    payload = feed.collector.admit_batch(refused.organization, body).payload
    feed.administrator.execute("UPDATE totalizer.dead_letters SET line = %s", [payload])
    [one] = refused.retry()
    assert one.fate == Fate(loaded=1, dead_lettered=1)
    assert feed.rows("SELECT sqlstate FROM totalizer.dead_letters") == [("23514",)]
    refused.check_books()


def test_a_spoilt_line_never_passes_and_nothing_else_changes(refused: Refused) -> None:
    feed = refused.feed
    event_type = feed.collector._types["command_executions"].event_type
    section = Section("command_executions", event_type.columns, False, 1, 9)
    feed.append(encode_batch(BatchHeader(refused.organization, "2025", (section,)), b"nonsense\n"))
    feed.load()
    [one] = refused.retry()
    assert one.fate == Fate(dead_lettered=1)
    assert refused.state() == (0, 1, (0, 0, 0, 1, 0))


def test_the_database_going_away_changes_nothing(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    refused.send(1)
    refused.lift()
    real = dead_letters.delete_letters

    def dies(connection: Any, ids: Any) -> None:
        real(connection, ids)
        connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    monkeypatch.setattr(dead_letters, "delete_letters", dies)
    with pytest.raises(psycopg.OperationalError):
        refused.retry()
    assert refused.state() == (0, 1, (0, 0, 0, 1, 0))


def test_dropped_letters_are_whole_in_the_file_and_counted(refused: Refused, tmp_path: Path) -> None:
    refused.send(*range(BATCH_LETTERS + 5))
    lines = {bytes(row[0]) for row in refused.feed.rows("SELECT line FROM totalizer.dead_letters")}
    file = tmp_path / "dropped.ndjson"
    assert list(drop_letters(refused.writer, [*refused.ids(), 10**9], file)) == [BATCH_LETTERS, 5]
    records = [json.loads(line) for line in file.read_text().splitlines()]
    assert {base64.b64decode(record["line"]) for record in records} == lines
    assert {record["values"]["external_id"] for record in records} == {f"e{n}" for n in range(BATCH_LETTERS + 5)}
    assert file.stat().st_mode & 0o777 == 0o600
    assert refused.state() == (0, 0, (0, 0, 0, 0, BATCH_LETTERS + 5))
    refused.check_books()


def test_nothing_is_dropped_without_a_file(refused: Refused, tmp_path: Path) -> None:
    refused.send(1)
    (tmp_path / "there").write_text("mine")
    for file in (tmp_path / "there", tmp_path / "no" / "folder"):
        with pytest.raises(OperationError, match=str(file)):
            list(drop_letters(refused.writer, refused.ids(), file))
    assert (tmp_path / "there").read_text() == "mine"
    assert refused.state()[1] == 1


def test_a_full_disk_drops_nothing(refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/dev/full").exists():
        unavailable("no /dev/full on this system")
    refused.send(1)
    monkeypatch.setattr("totalizer.load.drop_file._create", lambda file: os.open("/dev/full", os.O_WRONLY))
    with pytest.raises(OperationError, match="No space left"):
        list(drop_letters(refused.writer, refused.ids(), tmp_path / "x"))
    assert refused.state() == (0, 1, (0, 0, 0, 1, 0))


def totalizer(feed: Any, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    """The command, on the feed's database."""
    kept = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL")}
    environment = {**kept, "DATABASE_URL": feed.database.url, "TOTALIZER_SECRET": SECRET}
    command = [sys.executable, "-m", "totalizer", *arguments, "--home", str(feed.spool.parent)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
        **options,
    )  # fmt: skip


def ran(feed: Any, *arguments: str) -> tuple[int, str, str]:
    """Exit code, output and errors of a command."""
    with totalizer(feed, "dead-letters", *arguments) as process:
        output, errors = process.communicate()
        return process.returncode, output, errors


def test_the_commands(refused: Refused) -> None:
    feed = refused.feed
    assert ran(feed, "list") == (0, "no dead letters\n", "")
    refused.send(1, 2, 3, error_message="tab\tand \x1b[31mred")
    first, second, third = refused.ids()

    code, output, errors = ran(feed, "list", "--limit", "2")
    assert (code, errors) == (0, "")
    assert "acme" in output
    assert "23514" in output
    assert "quick" in output
    assert "3 in all; the newest 2 are listed" in output
    code, output, _ = ran(feed, "list", "--organization", "acme", "--since", "2025-01-01", "--format", "json")
    listed = json.loads(output)
    assert [letter["id"] for letter in listed["dead_letters"]] == [third, second, first]
    assert (listed["total"], listed["reasons"][0]["letters"]) == (3, 3)
    assert ran(feed, "list", "--type", "commits") == (0, "no dead letters\n", "")
    assert ran(feed, "list", "--since", "2099-01-01T00:00:00+02:00") == (0, "no dead letters\n", "")

    code, output, _ = ran(feed, "show", str(first))
    assert code == 0
    assert r"tab\tand \x1b[31mred" in output
    assert "\x1b" not in output
    code, output, _ = ran(feed, "show", str(first), "--format", "json")
    shown = json.loads(output)
    assert shown["values"]["error_message"] == "tab\tand \x1b[31mred"
    assert shown["values"]["execution_time_ms"] == "5000"
    assert base64.b64decode(shown["line"]).endswith(b"\n")

    code, output, errors = ran(feed, "retry", str(first))
    assert (code, output) == (
        1,
        "0 loaded, 0 were stored already, 0 were stored with other contents, 1 refused again\n",
    )
    assert errors.startswith(f"{first}: ")
    assert "quick" in errors
    refused.lift()
    code, output, _ = ran(feed, "retry", "--organization", "acme", "--type", "command_executions")
    assert (code, output.split(",")[0]) == (0, "3 loaded")
    assert ran(feed, "retry", "--all")[:2] == (0, "0 loaded, 0 were stored already, 0 were stored with other contents, "
                                               "0 refused again\n")  # fmt: skip
    refused.check_books()


def test_dropping_asks_first_and_keeps_a_file(refused: Refused, tmp_path: Path) -> None:
    feed = refused.feed
    refused.send(1, 2)
    code, _, errors = ran(feed, "drop", "--all")
    assert code == 1
    assert "Move 2 dead letters" in errors
    assert not (feed.spool.parent / "dead-letters").exists()
    assert refused.state()[1] == 2
    file = tmp_path / "kept.ndjson"
    code, output, errors = ran(feed, "drop", str(refused.ids()[0]), "--yes", "--to", str(file))
    assert (code, output, errors) == (0, f"dropped 1; they are in {file}\n", "")
    assert ran(feed, "drop", "--all", "--yes")[0] == 0
    [dropped] = (feed.spool.parent / "dead-letters").iterdir()
    assert len(dropped.read_text().splitlines()) == len(file.read_text().splitlines()) == 1
    assert refused.state() == (0, 0, (0, 0, 0, 0, 2))


@pytest.mark.parametrize(
    ("arguments", "expected", "message"),
    [
        (("retry",), 2, "--all"),
        (("retry", "1", "--all"), 2, "--all"),
        (("drop", "--all", "--type", "x"), 2, "--all"),
        (("list", "--since", "yesterday"), 2, "must be an ISO 8601 date or time"),
        (("list", "--limit", "0"), 2, "limit"),
        (("list", "--organization", "nobody"), 1, "no organisation 'nobody'"),
        (("show", "77"), 1, "no dead letter 77"),
        (("retry", "77"), 1, "no dead letter 77"),
        (("drop", "77", "--yes"), 1, "no dead letter 77"),
    ],
)
def test_what_cannot_be_done_is_said(feed: Any, arguments: tuple[str, ...], expected: int, message: str) -> None:
    code, output, errors = ran(feed, *arguments)
    assert (code, output) == (expected, "")
    assert message in errors


@pytest.mark.parametrize(("action", "fate"), [(("retry", "--all"), 0), (("drop", "--all", "--yes"), 4)])
def test_killed_in_the_middle_and_run_again_each_letter_has_one_fate(
    refused: Refused, action: tuple[str, ...], fate: int
) -> None:
    """Another session holds one letter, so that the command waits half-way, in a transaction; there it is killed."""
    feed, count = refused.feed, BATCH_LETTERS + 20
    refused.send(*range(count))
    refused.lift()
    held = refused.ids()[BATCH_LETTERS + 10]
    holder = feed.database.connect(Role.WRITER, autocommit=False)
    dead_letters.lock_letters(holder, [held])
    with totalizer(feed, "dead-letters", *action, start_new_session=True) as process:
        wait_until(
            lambda: feed.administrator.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            ).fetchone() == (1,),
            "the command waiting for the letter",
        )  # fmt: skip
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    holder.rollback()
    stored, left, fates = refused.state()
    assert 10 <= left <= 20
    assert (fates[fate], fates[3]) == (count - left, left)
    assert ran(feed, *action)[0] == 0
    stored, left, fates = refused.state()
    assert left == 0
    assert sum(fates) == fates[fate] == count
    assert stored == (count if fate == 0 else 0)
    if fate == 4:
        files = (feed.spool.parent / "dead-letters").iterdir()
        kept = {json.loads(line)["id"] for file in files for line in file.read_text().splitlines()}
        assert len(kept) == count
    refused.check_books()


@pytest.mark.parametrize("how", ["message lost", "reply lost"])
@pytest.mark.parametrize("action", ["retry", "drop"])
def test_broken_off_at_each_message_and_done_again_each_letter_has_one_fate(
    refused: Refused, tmp_path: Path, action: str, how: str
) -> None:
    """From logging in to the reply to COMMIT; a new letter for every message."""
    moment, fates = 0, []

    def act(dsn: str, name: str) -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            if action == "retry":
                fates.extend(DeadLetterLoader(connection).retry(letter_id).fate for letter_id in refused.ids())
            else:
                assert list(drop_letters(connection, refused.ids(), tmp_path / name)) in ([1], [])

    with Proxy(refused.feed.database.dsn(Role.WRITER)) as proxy:
        while True:
            refused.feed.send(
                refused.organization, command_executions=[refused.command(id=f"m{moment}", execution_time_ms=5000)]
            )
            refused.feed.load()
            refused.lift()
            proxy.arm(moment, lose_reply=how == "reply lost")
            with contextlib.suppress(psycopg.OperationalError):
                act(proxy.dsn, f"{moment}-broken")
            fired = proxy.fired
            proxy.disarm()
            act(refused.feed.database.dsn(Role.WRITER), f"{moment}-whole")
            moment += 1
            stored = moment if action == "retry" else 0
            assert refused.state() == (stored, 0, (stored, 0, 0, 0, moment - stored))
            refused.feed.administrator.execute(STRICT)
            if not fired:
                break
    assert moment > 5, "an action has more messages than that"
    kept = [json.loads(line)["id"] for file in tmp_path.glob("*-*") for line in file.read_text().splitlines()]
    assert len(set(kept)) == moment - stored
    refused.lift()
    refused.check_books()
