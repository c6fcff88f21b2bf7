"""Who changed what: each change has its entry, in its transaction, with who made it; and no entry is ever changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from integration.rollup_model import catalog_with
from integration.test_dead_letters import Refused
from scheduled import job, settings_of
from support import SECRET
from totalizer.alerts.shown import END_SILENCE, SILENCE
from totalizer.catalog.retention import complete
from totalizer.jobs.run import Runner
from totalizer.load.drop import drop_letters
from totalizer.load.late_drop import drop_late
from totalizer.load.retry import DeadLetterLoader
from totalizer.rollup.parts import Portion, mark_part
from totalizer.rollup.repair import Wrong, repair
from totalizer.rollup.retention import cleanup_old_data
from totalizer.rollup.zones import set_zone
from totalizer.store import keys, late, limits, retention
from totalizer.store.audit import Actor, Wanted, entries, os_user
from totalizer.store.connect import connect
from totalizer.store.late import Selection
from totalizer.store.plan import apply_plan, plan_catalog
from totalizer.store.roles import Role

ME = Actor("command_line", r"DOMAIN\a person")


class Trail:
    """The entries that were made since it was made."""

    def __init__(self, database: Any) -> None:
        self.database = database
        self.reader = database.connect(Role.REFRESHER)
        self._seen = max((each["id"] for each in self.all()), default=0)

    def all(self, **conditions: Any) -> list[dict[str, Any]]:
        return entries(self.reader, Wanted(1000, **conditions))

    def new(self) -> list[dict[str, Any]]:
        """Oldest first, each once."""
        found = [each for each in reversed(self.all()) if each["id"] > self._seen]
        self._seen = max((each["id"] for each in found), default=self._seen)
        return found

    def one(self) -> dict[str, Any]:
        [entry] = self.new()
        return entry

    def as_me(self, role: Role | None = None) -> Connection[Any]:
        """A connection of somebody who is named."""
        return connect(self.database.url if role is None else self.database.dsn(role), autocommit=True, actor=ME)


@pytest.fixture
def refused(feed: Any, command: Any) -> Refused:
    return Refused(feed, command)


@pytest.fixture
def trail(database: Any) -> Trail:
    return Trail(database)


def test_what_is_set_is_told_with_who_before_and_after(trail: Trail) -> None:
    with trail.as_me() as me:
        owner = keys.create_organization(me, "acme", "UTC")
        made = trail.one()
        assert (made["actor"], made["action"], made["target"]) == (
            {"kind": "command_line", "id": ME.id},
            "organization.create",
            "acme",
        )
        assert (made["organization_id"], made["before"], made["after"]["time_zone"]) == (owner, None, "UTC")
        keys.create_organization(me, "acme", "UTC")
        assert trail.new() == [], "it was there, and nothing has changed"

        set_zone(me, "acme", "Asia/Kathmandu")
        moved = trail.one()
        assert (moved["action"], moved["organization"]) == ("organization.change", "acme")
        assert (moved["before"]["time_zone"], moved["after"]["time_zone"]) == ("UTC", "Asia/Kathmandu")

        limits.set_limits(me, "acme", {"requests": 5})
        limits.set_limits(me, "acme", {"requests": 5})
        limits.set_limits(me, "acme", {"requests": None})
        first, second = trail.new()
        assert (first["action"], first["before"], first["after"]["requests"]) == ("limits.change", None, 5)
        assert (second["before"]["requests"], second["after"]["requests"]) == (5, None)

        for figures in (complete(40), complete(50), None):
            retention.set_retention(me, "commits", "acme", figures)
        days = [[row and row["raw_days"] for row in (each["before"], each["after"])] for each in trail.new()]
        assert days == [[None, 40], [40, 50], [50, None]]

        me.execute(SILENCE.encode(), ["memory", 60, "why", "me"])
        me.execute(END_SILENCE.encode(), [None, "memory"])
        begun, ended = trail.new()
        assert (begun["action"], begun["target"], begun["after"]["reason"]) == ("alert.silence", "memory", "why")
        assert (ended["action"], ended["organization_id"]) == ("alert.unsilence", None)
        assert ended["before"]["until"] > ended["after"]["until"]


def test_what_is_declared_is_told_once(trail: Trail) -> None:
    with trail.as_me() as me:
        for measures in (("n",), ("n",), ("n", "amount_sum")):
            apply_plan(me, plan_catalog(me, catalog_with(measures)))
    event_type, rollup, more = trail.new()
    assert (event_type["action"], event_type["target"], event_type["before"]) == ("catalog.event_type", "things", None)
    assert (rollup["action"], rollup["target"], rollup["before"]) == ("catalog.rollup", "by_name", None)
    assert (more["action"], more["before"]) == ("catalog.rollup", rollup["after"])
    assert [each["name"] for each in more["after"]["definition"]["measures"]] == ["n", "amount_sum"]
    assert {each["actor"]["id"] for each in (event_type, rollup, more)} == {ME.id}


def test_a_key_s_life_is_told_without_the_key(trail: Trail, database: Any) -> None:
    with trail.as_me() as me:
        owner = keys.create_organization(me, "acme", "UTC")
        secret = keys.create_key(me, owner, "nightly", ("query",))
        [key] = [row for row in keys.list_keys(me) if row.name == "nightly"]
        replaced = keys.rotate_key(me, str(key.id))
        me.execute("UPDATE totalizer.api_keys SET last_used_at = now()")
        keys.revoke_key(me, replaced.id)
        me.execute("UPDATE totalizer.api_keys SET scopes = '{admin}' WHERE id = %s", [key.id])
        me.execute("DELETE FROM totalizer.api_keys WHERE id = %s", [key.id])
    found = trail.new()
    told = [(each["action"], each["target"]) for each in found if each["action"] != "organization.create"]
    old, new = str(key.id), replaced.id
    assert told == [
        ("key.create", old), ("key.create", new), ("key.rotate", old), ("key.revoke", new), ("key.change", old),
        ("key.delete", old),
    ]  # fmt: skip
    text = json.dumps(found, default=str)
    assert not any(each in text for each in (secret, replaced.key, "key_hash", keys.hash_key(secret).hex()))
    assert all(each["organization_id"] == owner for each in found)


def test_what_is_rolled_back_was_not_done(trail: Trail, database: Any) -> None:
    with trail.as_me() as me:
        with me.transaction(force_rollback=True):
            keys.create_organization(me, "acme", "UTC")
        assert trail.new() == []
        # And where the entry cannot be written, nothing is done.
        me.execute("ALTER TABLE totalizer.audit ADD CONSTRAINT never CHECK (action <> 'organization.create') NOT VALID")
        with pytest.raises(psycopg.errors.CheckViolation):
            keys.create_organization(me, "acme", "UTC")
        assert keys.list_organizations(me) == []


def test_no_entry_is_changed_by_anybody_or_written_but_by_the_database(database: Any) -> None:
    changes = ("UPDATE totalizer.audit SET action = 'x'", "DELETE FROM totalizer.audit", "TRUNCATE totalizer.audit")
    administrator = database.connect()
    for role in ("postgres", Role.OWNER.value):
        administrator.execute(f"SET ROLE {role}")
        for statement in changes:
            with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
                administrator.execute(statement)
    insert = "INSERT INTO totalizer.audit (actor, action, target) VALUES ('{}', 'key.create', 'x')"
    writing = "SELECT totalizer.write_audit(NULL, 'key.create', 'x', NULL, NULL)"
    noting = "SELECT totalizer.note_change(NULL, 'key.create', 'x', NULL, NULL)"
    for each, statements in {
        Role.APP: (*changes, insert, writing, noting), Role.WRITER: (*changes, insert, writing),
        Role.REFRESHER: (*changes, insert, writing),
    }.items():  # fmt: skip
        connection = database.connect(each)
        for statement in statements:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)


def test_an_organisation_sees_its_own_and_the_database_names_who_nobody_named(trail: Trail, database: Any) -> None:
    administrator = database.connect()
    first, second = (keys.create_organization(administrator, name, "UTC") for name in ("one", "two"))
    assert [each["actor"] for each in trail.new()] == [{"kind": "database", "id": "postgres"}] * 2
    app = database.connect(Role.APP, autocommit=False)
    assert app.execute("SELECT * FROM totalizer.audit").fetchall() == []
    app.execute("SELECT set_config('app.current_org_id', %s, true)", [first])
    assert [each["target"] for each in entries(app, Wanted(10))] == ["one"]
    assert entries(app, Wanted(10, second)) == []


def test_entries_are_found_by_who_what_and_when(trail: Trail, database: Any) -> None:
    with trail.as_me() as me:
        owner = keys.create_organization(me, "acme", "UTC")
        keys.create_key(me, owner, "nightly")
    others = database.connect()
    keys.create_key(others, owner, "daily")
    assert [each["actor"]["kind"] for each in trail.all(organization_id=owner)] == [
        "database",
        "command_line",
        "command_line",
    ]
    assert [each["after"]["name"] for each in trail.all(action="key")] == ["daily", "nightly"]
    assert [each["after"]["name"] for each in trail.all(action="key.create", actor=ME.id)] == ["nightly"]
    assert trail.all(action="ke") == []
    assert len(trail.all(actor="command_line")) == 2
    [newest, *_] = trail.all()
    assert trail.all(since=newest["at"] + timedelta(microseconds=1)) == []
    assert [each["id"] for each in trail.all(since=newest["at"])] == [newest["id"]]
    assert newest["id"] not in [each["id"] for each in trail.all(until=newest["at"])]
    assert [each["id"] for each in trail.all(before=newest["id"])] == [each["id"] for each in trail.all()][1:]


def test_what_jobs_do_too_is_told_only_of_people(refused: Refused, tmp_path: Path) -> None:
    trail = Trail(refused.feed.database)
    refused.send(1, 2, 3)
    one, two, three = refused.ids()
    DeadLetterLoader(refused.writer).retry(one)
    assert trail.new() == [], "the service's own work"
    with trail.as_me(Role.WRITER) as me:
        DeadLetterLoader(me).retry(one)
        assert sum(drop_letters(me, [two, three], tmp_path / "dropped")) == 2
        refused.lift()
        DeadLetterLoader(me).retry(one)
        DeadLetterLoader(me).retry(one)
    again, dropped, stored = trail.new()
    assert (again["action"], again["target"], again["after"]) == (
        "dead_letter.retry",
        "command_executions",
        {"id": one, "status": "quarantined"},
    )
    assert (dropped["action"], dropped["before"]) == ("dead_letter.drop", {"ids": [two, three]})
    assert (stored["after"], stored["organization_id"]) == ({"id": one, "status": "loaded"}, refused.organization)


def test_what_is_done_to_rollups_is_told_only_of_people(feed: Any, command: Any) -> None:
    trail = Trail(feed.database)
    owner = feed.organization()
    feed.send(owner, command_executions=[command(executed_at="2025-03-30T10:00:00Z")])
    feed.load()
    feed.refresh()
    trail.new()
    starts, ends = datetime(2025, 3, 30, tzinfo=UTC), datetime(2025, 3, 31, tzinfo=UTC)

    def work(connection: Connection[Any]) -> None:
        feed.administrator.execute("UPDATE analytics.command_usage_1h SET executions = 99")
        assert repair(connection, Wrong(owner, "command_executions", "command_usage")) == 1
        mark_part(connection, Portion("acme", "command_usage", starts, ends))
        mark_part(connection, Portion("acme", "command_usage"), live=True)
        feed.refresh()

    work(feed.reader)
    assert trail.new() == [], "the service's own work"
    work(trail.as_me(Role.REFRESHER))
    mended, behind, before = trail.new()
    assert (mended["action"], mended["after"]) == ("rollup.repair", {"grain": "1h", "rows": 1, "found_by": "verify"})
    assert (behind["action"], behind["after"]) == (
        "rollup.backfill",
        {"event_type": "command_executions", "from": starts.isoformat(), "to": ends.isoformat(), "marks": 1},
    )
    assert (before["action"], before["target"], before["organization_id"]) == ("rollup.refresh", "command_usage", owner)


def test_what_is_removed_is_told_only_of_people(feed: Any, command: Any, tmp_path: Path) -> None:
    trail, now = Trail(feed.database), feed.one("SELECT now()")
    owner = feed.organization()

    def send(*days: int) -> None:
        times = [(now - timedelta(days=age)).isoformat() for age in days]
        feed.send(owner, command_executions=[command(id=time, executed_at=time) for time in times])
        feed.load()
        feed.refresh()

    send(200, 150)
    trail.new()
    assert cleanup_old_data(feed.reader, 180)["partitions_dropped"] == 1
    assert trail.new() == [], "the service's own work"
    assert cleanup_old_data(trail.as_me(Role.REFRESHER), 100)["partitions_dropped"] == 1
    gone = trail.one()
    assert (gone["action"], gone["before"]["events"], gone["organization_id"]) == ("partition.drop", 1, None)
    assert gone["target"].startswith("command_executions_p")

    send(201, 202)
    [first, second] = late.late_ids(feed.reader, Selection(("held",)))
    assert late.release(trail.as_me(Role.REFRESHER), [first]) == 1
    assert sum(drop_late(trail.as_me(Role.WRITER), [second], tmp_path / "late")) == 1
    released, dropped = trail.new()
    assert (released["action"], released["after"]) == ("late.release", {"ids": [first]})
    assert (dropped["action"], dropped["before"], dropped["organization_id"]) == ("late.drop", {"ids": [second]}, owner)


def test_a_run_is_told_if_somebody_has_it_run(database: Any, trail: Trail) -> None:
    runner, probe = Runner(settings_of(database), "command"), job(lambda context: {})
    assert runner.run_due(probe).state == "done"
    assert runner.run_now(probe).state == "done"
    assert trail.new() == []
    outcome = runner.run_now(probe, by=ME)
    told = trail.one()
    assert (told["action"], told["target"], told["after"]) == (
        "job.run", "probe", {"run": outcome.run_id, "arguments": None},
    )  # fmt: skip
    assert told["actor"]["id"] == ME.id


def test_the_commands(trail: Trail, tmp_path: Path) -> None:
    def totalizer(*arguments: str) -> tuple[int, str]:
        environment = {
            **os.environ, "DATABASE_URL": trail.database.url, "TOTALIZER_SECRET": SECRET, "LOGNAME": "somebody else",
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "totalizer", *arguments, "--home", str(tmp_path)],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    code, key = totalizer("keys", "create", "acme [b]", "--name", "nightly")
    assert code == 0, key
    code, output = totalizer("audit", "--organization", "acme [b]", "--action", "key", "--actor", "command_line")
    [line] = [line for line in output.splitlines() if "key.create" in line]
    assert code == 0
    assert all(word in line for word in (f"command line {os_user()}", "acme [b]", "name: nightly"))
    assert key.strip() not in output
    code, output = totalizer("audit", "--format", "json", "--limit", "1", "--until", f"{datetime.now(UTC):%Y-%m-%d}")
    [entry] = json.loads(output)["entries"]
    assert (code, entry["action"], entry["actor"]) == (0, "key.create", {"kind": "command_line", "id": os_user()})
