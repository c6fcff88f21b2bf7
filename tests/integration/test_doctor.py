"""`totalizer doctor`: each finding, by breaking what it is about."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from support import SECRET, Database, Stack, free_port
from totalizer.clock import SYSTEM_CLOCK
from totalizer.journal import claim
from totalizer.metrics import Measures
from totalizer.ops.doctor import database as checks
from totalizer.ops.doctor import machine
from totalizer.ops.doctor.examination import connection_as, examine_database, schema
from totalizer.ops.doctor.finding import Finding
from totalizer.settings import load_settings
from totalizer.store.partitions import make_ahead
from totalizer.store.roles import Role


@pytest.fixture
def reader(database: Database) -> Any:
    """A connection as the doctor has it, to a database with partitions ahead."""
    connection = database.connect(Role.REFRESHER)
    make_ahead(connection)
    return connection


def found(reader: Any, clock: Any = SYSTEM_CLOCK) -> dict[str, Finding]:
    return {finding.subject: finding for finding in examine_database(reader, clock)}


def ill(reader: Any, clock: Any = SYSTEM_CLOCK) -> dict[str, str]:
    """What is wrong: subject → severity. Each comes with something to do."""
    wrong = {name: finding for name, finding in found(reader, clock).items() if finding.severity != "ok"}
    assert all(finding.remedy for finding in wrong.values())
    return {name: finding.severity for name, finding in wrong.items()}


def test_a_migrated_database_with_partitions_is_well(reader: Any) -> None:
    assert ill(reader) == {}
    assert len(found(reader)) == 7


BREAKS = {
    "ALTER TABLE totalizer.retention DISABLE ROW LEVEL SECURITY": {"row security": "error"},
    "ALTER TABLE events.command_executions DISABLE ROW LEVEL SECURITY": {"row security": "error"},
    "REVOKE INSERT ON events.command_executions FROM totalizer_writer": {"grants": "error"},
    "REVOKE SELECT ON events.user_sessions FROM totalizer_app": {"grants": "error"},
    "GRANT DELETE ON events.command_executions TO totalizer_app": {"grants": "error"},
}


@pytest.mark.parametrize("statement", BREAKS)
def test_what_is_broken_is_found_and_nothing_else(database: Database, reader: Any, statement: str) -> None:
    database.connect().execute(statement.encode())
    assert ill(reader) == BREAKS[statement]


def test_a_table_without_a_policy_is_found(database: Database, reader: Any) -> None:
    administrator = database.connect()
    rows = administrator.execute("SELECT polname FROM pg_policy WHERE polrelid = 'totalizer.retention'::regclass")
    for (name,) in rows.fetchall():
        administrator.execute(f'DROP POLICY "{name}" ON totalizer.retention'.encode())
    assert ill(reader) == {"row security": "error"}


@pytest.fixture
def altered(database: Database) -> Iterator[Any]:
    """Alters roles, which all databases of the cluster share, and puts them back."""
    undo: list[str] = []
    administrator = database.connect()

    def alter(statement: str, back: str) -> None:
        undo.append(back)
        administrator.execute(statement.encode())

    yield alter
    for statement in undo:
        administrator.execute(statement.encode())


@pytest.mark.parametrize(
    ("statement", "back"),
    [
        ("ALTER ROLE totalizer_app BYPASSRLS", "ALTER ROLE totalizer_app NOBYPASSRLS"),
        ("ALTER ROLE totalizer_owner LOGIN", "ALTER ROLE totalizer_owner NOLOGIN"),
        ("GRANT totalizer_owner TO totalizer_writer", "REVOKE totalizer_owner FROM totalizer_writer"),
    ],
)
def test_a_role_that_can_do_too_much_is_found(reader: Any, altered: Any, statement: str, back: str) -> None:
    altered(statement, back)
    assert ill(reader)["roles"] == "error"
    assert back in found(reader)["roles"].remedy


def test_a_role_that_cannot_log_in_is_found_without_its_password(database: Database, tmp_path: Path) -> None:
    settings = load_settings(DATABASE_URL=database.url, TOTALIZER_SECRET=SECRET, TOTALIZER_HOME=tmp_path)
    assert connection_as(settings, Role.APP).severity == "ok"
    nobody = f"postgresql://someone:SeCrEtPw@127.0.0.1:{free_port()}/x"
    settings = load_settings(DATABASE_URL=nobody, TOTALIZER_SECRET=SECRET, TOTALIZER_HOME=tmp_path)
    finding = connection_as(settings, Role.APP)
    assert finding.severity == "error"
    assert "SeCrEt" not in finding.detail + finding.remedy


def test_missing_partitions_are_found_before_they_are_needed(database: Database, reader: Any) -> None:
    owner = database.connect()
    rows = owner.execute(
        "SELECT c.oid::regclass::text FROM totalizer.partitions JOIN pg_class c ON relname = name "
        "WHERE event_type = 'command_executions' ORDER BY starts DESC"
    ).fetchall()
    for (name,) in rows[:6]:
        owner.execute(f"DROP TABLE {name}".encode())
    assert ill(reader) == {"partitions": "warning"}
    for (name,) in rows[6:]:
        owner.execute(f"DROP TABLE {name}".encode())
    assert ill(reader) == {"partitions": "error"}
    make_ahead(reader)
    assert ill(reader) == {}


def test_marks_that_nobody_takes_are_found(database: Database, reader: Any) -> None:
    administrator = database.connect()
    row = administrator.execute(
        "INSERT INTO totalizer.organizations (name) VALUES ('acme') RETURNING id::text"
    ).fetchone()
    assert row is not None
    administrator.execute(
        "INSERT INTO totalizer.dirty_marks (organization_id, event_type, bucket, marked_at) "
        "VALUES (%s, 'command_executions', '2025-01-01T00:00Z', now() - interval '11 minutes')",
        row,
    )
    assert ill(reader) == {"rollups": "warning"}


class _Off:
    """A clock that is wrong by so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._ns = int(seconds * 1e9)

    def now_ns(self) -> int:
        return int(datetime.now(UTC).timestamp() * 1e9) + self._ns


def test_clocks_apart_are_found(reader: Any) -> None:
    assert ill(reader, _Off(30)) == {"clock": "warning"}
    assert ill(reader, _Off(-3600)) == {"clock": "error"}


def test_a_database_that_was_never_migrated_is_told_so(empty_database: Database) -> None:
    assert checks.schema(empty_database.connect()).detail == "there is none"


def test_a_schema_of_another_version_is_found(database: Database, tmp_path: Path) -> None:
    settings = load_settings(DATABASE_URL=database.url, TOTALIZER_SECRET=SECRET, TOTALIZER_HOME=tmp_path)
    assert schema(settings).severity == "ok"
    database.connect().execute("UPDATE totalizer.schema_version SET version_num = '0001'")
    assert schema(settings).severity == "error"
    named = load_settings(DATABASE_URL=database.dsn(Role.APP), TOTALIZER_SECRET=SECRET, TOTALIZER_HOME=tmp_path)
    assert schema(named).severity == "warning"


def test_disk_redis_and_processes(tmp_path: Path) -> None:
    gib = 1 << 30
    sizes = {10 * gib: "ok", 3 * gib: "warning", gib: "warning", gib // 8: "error"}
    assert {free: machine.disk(tmp_path / "new", 4 * gib, free).severity for free in sizes} == sizes
    assert machine.time_zones().severity == "ok"
    assert machine.redis_server(None).severity == "warning"
    away = machine.redis_server(f"redis://:SeCrEtPw@127.0.0.1:{free_port()}/0")
    assert away.severity == "error"
    assert "SeCrEt" not in away.detail + away.remedy
    assert machine.processes(tmp_path).severity == "ok"
    claim(tmp_path / "journal", "api", segment_bytes=1 << 20, quota_bytes=1 << 30).close()
    assert machine.processes(tmp_path).severity == "error"
    measures = Measures()
    measures.open(tmp_path / "metrics", "loader")
    assert machine.processes(tmp_path).severity == "ok"
    measures.close()
    assert machine.processes(tmp_path).severity == "error"


def doctor(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL")}
    return subprocess.run(
        [sys.executable, "-m", "totalizer", "doctor", *arguments],
        env={**clean, **environment}, capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip


def test_a_running_stack_is_well_and_what_does_not_run_is_said(stack: Stack, tmp_path: Path) -> None:
    done = doctor("--home", str(stack.home), "--format", "json")
    told = {finding["subject"]: finding for finding in json.loads(done.stdout)}
    errors = [finding for finding in told.values() if finding["severity"] == "error"]
    assert (errors, done.returncode) == ([], 0)
    assert {"api", "loader", "scheduler"} <= set(told["processes"]["detail"].split(", "))
    assert len(told) == 16
    shown = doctor("--home", str(stack.home))
    assert shown.returncode == 0
    assert "row security" in shown.stdout
    nothing = doctor("--home", str(tmp_path))
    assert nothing.returncode == 1
    assert "totalizer up" in nothing.stdout
    wrong = doctor("--home", str(tmp_path), PORT="none")
    assert wrong.returncode == 1
    assert "PORT" in wrong.stdout
    assert doctor("--format", "xml").returncode == 2
