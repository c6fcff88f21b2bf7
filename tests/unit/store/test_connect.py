"""Telling the row's faults from the database's, names of partitions, passwords, keys, connection strings."""

from __future__ import annotations

import hashlib

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from totalizer.errors import StoreUnavailable
from totalizer.store.connect import connect, is_gone, is_rows_fault
from totalizer.store.fates import Fate
from totalizer.store.keys import hash_key
from totalizer.store.partitions import partition_name
from totalizer.store.password import password_for
from totalizer.store.roles import Role, role_dsn


@pytest.mark.parametrize(
    ("state", "fault"),
    [
        ("22P02", True), ("22021", True), ("22003", True), ("23505", True), ("23502", True), ("54000", True),
        ("54001", True), ("08006", False), ("40001", False), ("40P01", False), ("53100", False), ("57P01", False),
        ("42P01", False), ("XX000", False), ("55P03", False),
    ],
)  # fmt: skip
def test_only_the_rows_own_faults_are_the_rows(state: str, fault: bool) -> None:
    assert is_rows_fault(psycopg.errors.lookup(state)("message")) is fault


def test_a_missing_partition_is_not_the_rows_fault() -> None:
    assert not is_rows_fault(psycopg.errors.CheckViolation("no partition of relation found for row"))


def test_a_broken_connection_is_gone_and_a_wrong_row_is_not() -> None:
    assert is_gone(psycopg.OperationalError("server closed the connection"))
    assert is_gone(psycopg.InterfaceError("the connection is closed"))
    assert not is_gone(psycopg.errors.NotNullViolation("null"))
    assert not is_rows_fault(psycopg.OperationalError("no sqlstate"))


def test_a_database_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(StoreUnavailable, match="PostgreSQL cannot be reached: "):
        connect("host=127.0.0.1 port=1 dbname=x password=hunter2")


def test_partitions_are_named_by_their_day_or_month() -> None:
    assert partition_name("commits", "2025-09-05", "month") == "commits_p202509"
    assert partition_name("entries", "2025-09-05", "day") == "entries_p20250905"
    assert len(partition_name("x" * 48, "2025-09-05", "day")) <= 63


def test_passwords_follow_from_secret_and_role() -> None:
    passwords = {password_for(secret, role.value) for secret in ("one", "two") for role in Role}
    assert len(passwords) == 8
    assert password_for("one", "totalizer_app") == password_for("one", "totalizer_app")


def test_a_roles_connection_string_keeps_the_place_and_replaces_the_user() -> None:
    parts = conninfo_to_dict(role_dsn("postgresql://admin:admins@db:1234/metering?sslmode=require", Role.APP, "secret"))
    assert parts == {
        "host": "db", "port": "1234", "dbname": "metering", "sslmode": "require", "user": "totalizer_app",
        "password": password_for("secret", "totalizer_app"), "application_name": "totalizer app",
    }  # fmt: skip


def test_a_key_is_known_by_its_hash() -> None:
    assert hash_key("tz_x") == hashlib.sha256(b"tz_x").digest()


def test_fates_add_up_by_kind() -> None:
    assert Fate(1, 2, 3, 4) + Fate(10, 20, 30, 40) == Fate(11, 22, 33, 44)
