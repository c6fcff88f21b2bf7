"""All checks of a deployment, one after the other; one that cannot be made is a finding itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
from psycopg import Connection

from totalizer.app import administrator_dsn, catalog_for, dsn_of
from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.errors import TotalizerError
from totalizer.ops.doctor import database, machine
from totalizer.ops.doctor.finding import Finding, ok
from totalizer.settings import Settings
from totalizer.store.connect import connect
from totalizer.store.roles import LOGIN_ROLES, Role

Check = Callable[[Connection[Any]], Finding]
CHECKS: tuple[tuple[str, Check], ...] = (
    ("PostgreSQL", database.version),
    ("roles", database.roles),
    ("grants", database.grants),
    ("row security", database.row_security),
    ("partitions", database.partitions),
    ("rollups", database.marks),
)


def examine(settings: Settings, clock: Clock = SYSTEM_CLOCK) -> Iterator[Finding]:
    """Look at everything; each finding as soon as it is known."""
    home = settings.home.expanduser().resolve()
    yield _settings(settings)
    yield machine.disk(home, settings.journal_quota_bytes)
    yield machine.time_zones()
    yield machine.redis_server(settings.redis_url)
    yield machine.processes(home)
    unreachable = False
    for role in LOGIN_ROLES:
        finding = connection_as(settings, role)
        unreachable |= finding.severity == "error"
        yield finding
    if not unreachable:
        yield schema(settings)
        with connect(dsn_of(settings, Role.REFRESHER), autocommit=True) as connection:
            yield from examine_database(connection, clock)


def examine_database(connection: Connection[Any], clock: Clock = SYSTEM_CLOCK) -> Iterator[Finding]:
    """Look at the database.

    Args:
        connection: as the refresher, autocommit.
        clock: of this machine.
    """
    for subject, check in (*CHECKS, ("clock", lambda each: database.clocks(each, clock))):
        try:
            yield check(connection)
        except psycopg.Error as error:
            yield Finding(subject, "error", f"cannot be looked at: {_said(error)}", "run `totalizer migrate`")


def connection_as(settings: Settings, role: Role) -> Finding:
    """Can the service log in as one of its roles?"""
    subject = f"connection as {role.value}"
    try:
        with connect(dsn_of(settings, role), autocommit=True):
            return ok(subject, "it can log in")
    except (psycopg.Error, TotalizerError) as error:
        remedy = (
            "see that the server runs and DATABASE_URL leads to it; `totalizer migrate` makes the roles, and "
            "gives them the passwords that follow from TOTALIZER_SECRET"
        )
        return Finding(subject, "error", _said(error), remedy)


def schema(settings: Settings) -> Finding:
    """Is the schema that of this version? The service's own roles may not see which it is."""
    try:
        with connect(administrator_dsn(settings), autocommit=True) as connection:
            return database.schema(connection)
    except (psycopg.Error, TotalizerError) as error:
        remedy = "let DATABASE_URL name the user that `totalizer migrate` is run as, at least for this look"
        return Finding("schema", "warning", f"cannot be looked at: {_said(error)}", remedy)


def _settings(settings: Settings) -> Finding:
    try:
        catalog = catalog_for(settings)
    except TotalizerError as error:
        return Finding("catalog", "error", str(error), "correct the file, or TOTALIZER_CATALOG")
    return ok("catalog", f"{len(catalog.event_types)} event types, {len(catalog.rollups)} rollups")


def _said(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
