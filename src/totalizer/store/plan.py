"""From what a database has to what the catalog declares: additive DDL, shown before it is applied.

What would destroy stored data is refused with the way out; what is merely no longer declared is left in place.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec
from psycopg import Connection

from totalizer.catalog import Catalog, EventType, Rollup
from totalizer.catalog.levels import MINUTE
from totalizer.errors import CatalogChangeRefused
from totalizer.store import ddl
from totalizer.store.roles import Role

#: Organisations are divided into so many shards, by the column totalizer.dirty_marks.shard.
SHARDS = 16
#: Waits for the refreshes under way, and keeps others out until the transaction ends. A refresh learns what rollups
#: there are when it has its lock, so no mark can be taken by one that does not know of a rollup or measure just added.
LOCK_ALL_SHARDS = f"""
    SELECT pg_advisory_xact_lock(hashtext('rollup ' || name), shard) FROM (
        SELECT name, shard FROM totalizer.event_types, generate_series(0, {SHARDS - 1}) AS shard ORDER BY 1, 2 OFFSET 0
    ) AS shards"""


class Step(NamedTuple):
    """One change: what it is for, and the statements, each with the role that runs it."""

    title: str
    statements: list[tuple[Role, str]]


class Plan(NamedTuple):
    """What applying a catalog would do.

    Attributes:
        steps: in order; all are applied in one transaction.
        refusals: changes that would destroy data; if there are any, nothing can be applied.
        notes: what is left alone, and why.
    """

    steps: list[Step]
    refusals: list[str]
    notes: list[str]

    def sql(self) -> str:
        """The statements as a script."""
        lines = []
        for step in self.steps:
            lines.append(f"-- {step.title}")
            lines += [f"{statement};" for _, statement in step.statements]
        return "\n".join(lines)


class Applied(NamedTuple):
    """The definitions that a database was last given."""

    event_types: dict[str, EventType]
    rollups: dict[str, Rollup]


def read_applied(connection: Connection[Any]) -> Applied:
    """The catalog this database has; empty before the first migration."""
    if connection.execute("SELECT to_regclass('totalizer.rollups')").fetchone() == (None,):
        return Applied({}, {})
    event_types = connection.execute("SELECT name, definition FROM totalizer.event_types").fetchall()
    rollups = connection.execute("SELECT name, definition FROM totalizer.rollups").fetchall()
    return Applied(
        {name: msgspec.convert(definition, EventType) for name, definition in event_types},
        {name: msgspec.convert(definition, Rollup) for name, definition in rollups},
    )


def read_rollups(connection: Connection[Any], event_type: str) -> tuple[EventType, list[Rollup]]:
    """One event type of this database, and its rollups."""
    definitions = connection.execute(
        "SELECT t.definition, r.definition FROM totalizer.event_types t "
        "LEFT JOIN totalizer.rollups r ON r.event_type = t.name WHERE t.name = %s ORDER BY r.name",
        [event_type],
    ).fetchall()
    rollups = [msgspec.convert(rollup, Rollup) for _, rollup in definitions if rollup is not None]
    return msgspec.convert(definitions[0][0], EventType), rollups


def plan_catalog(connection: Connection[Any], catalog: Catalog) -> Plan:
    """What applying `catalog` to this database would do; changes nothing."""
    return compare(read_applied(connection), catalog)


def compare(applied: Applied, catalog: Catalog) -> Plan:
    """The plan from one state to a catalog, without a database."""
    plan = Plan([], [], [])
    fill: list[Step] = []
    for event_type in catalog.event_types.values():
        _plan_event_type(plan, applied.event_types.get(event_type.name), event_type)
    for rollup in catalog.rollups.values():
        event_type = catalog.event_types[rollup.event_type]
        statement = _plan_rollup(plan, applied.rollups.get(rollup.name), rollup, event_type)
        if statement and event_type.name in applied.event_types:
            title = f"compute rollup {rollup.name} for the {event_type.name} stored so far"
            fill.append(Step(title, [(Role.REFRESHER, statement)]))
    plan.steps.extend(fill)
    _note_undeclared(plan, applied, catalog)
    return plan


def _plan_event_type(plan: Plan, old: EventType | None, new: EventType) -> None:
    if old is None:
        statements = ddl.create_event_type(new)
        plan.steps.append(_step(f"event type {new.name}", statements, _remember_event_type(new)))
        return
    if _unchanged(old, new):
        return
    refusals = list(_event_type_refusals(old, new))
    plan.refusals.extend(refusals)
    if refusals:
        return
    statements = []
    for field in new.fields:
        before = old.field(field.name)
        if before is None:
            statements += ddl.add_field(new, field)
        elif before.required and not field.required:
            statements.append(f'ALTER TABLE events."{new.name}" ALTER COLUMN "{field.name}" DROP NOT NULL')
    plan.steps.append(_step(f"event type {new.name}: new declaration", statements, _remember_event_type(new)))


def _event_type_refusals(old: EventType, new: EventType) -> Iterable[str]:
    where = f"event type {new.name}"
    for field in old.fields:
        now = new.field(field.name)
        if now is None:
            yield f"{where}: field {field.name} is gone, but stored events have it; keep it, with required = false"
        elif now.type is not field.type:
            yield (
                f"{where}: field {field.name} is stored as {field.type.value} and cannot become {now.type.value}; "
                "declare a new field under another name"
            )
    for key in ("time_field", "partition"):
        was, now_is = getattr(old, key), getattr(new, key)
        if was != now_is:
            yield f"{where}: {key} is {was!r} in the database and cannot become {now_is!r}; declare a new event type"


def _plan_rollup(plan: Plan, old: Rollup | None, new: Rollup, event_type: EventType) -> str | None:
    """Plan one rollup; the statement that marks what must be computed for events stored so far, if anything must."""
    if old is None:
        plan.steps.append(_step(f"rollup {new.name}", ddl.create_rollup(new, event_type), _remember_rollup(new)))
        return ddl.mark_rollup(new, event_type)
    if _unchanged(old, new):
        return None
    refusals = list(_rollup_refusals(old, new))
    plan.refusals.extend(refusals)
    if refusals:
        return None
    measures = [measure for measure in new.measures if old.measure(measure.name) is None]
    levels = [level for level in new.kept if not old.keeps(level)]
    both = [level for level in new.kept if old.keeps(level)]
    statements = [s for level in old.kept if not new.keeps(level) for s in ddl.drop_level(old, level)]
    statements += [s for measure in measures for s in ddl.add_measure(new, measure, event_type, both)]
    statements += [s for level in levels for s in ddl.create_level(new, level, event_type)]
    plan.steps.append(_step(f"rollup {new.name}: new declaration", statements, _remember_rollup(new)))
    if measures or any(level is not MINUTE for level in levels):
        return ddl.mark_rollup(new, event_type)
    longer = (new.minutes_s or 0) > (old.minutes_s or 0)
    return ddl.mark_rollup(new, event_type, new.minutes_s) if longer else None


def _rollup_refusals(old: Rollup, new: Rollup) -> Iterable[str]:
    where = f"rollup {new.name}"
    if old.event_type != new.event_type:
        yield f"{where}: it counts {old.event_type} and cannot count {new.event_type}; declare a new rollup"
    if old.dimensions != new.dimensions:
        yield (
            f"{where}: its dimensions are {', '.join(old.dimensions) or 'none'} and cannot become "
            f"{', '.join(new.dimensions) or 'none'}; "
            "declare a new rollup under another name, it is filled from the stored events"
        )
    for measure in old.measures:
        now = new.measure(measure.name)
        if now is None:
            yield f"{where}: measure {measure.name} is gone, but is stored; keep it, or declare a new rollup"
        elif now != measure:
            yield f"{where}: measure {measure.name} cannot change its meaning; add a measure under another name"


def _note_undeclared(plan: Plan, applied: Applied, catalog: Catalog) -> None:
    for name in sorted(applied.event_types.keys() - catalog.event_types.keys()):
        plan.notes.append(f"event type {name} is no longer declared; its table events.{name} is left in place")
    for name in sorted(applied.rollups.keys() - catalog.rollups.keys()):
        plan.notes.append(f"rollup {name} is no longer declared; its tables are left in place and kept up to date")


def apply_plan(connection: Connection[Any], plan: Plan) -> list[str]:
    """Apply all steps in one transaction; returns their titles.

    Raises:
        CatalogChangeRefused: the plan has refusals; nothing was applied.
    """
    if plan.refusals:
        raise CatalogChangeRefused("\n".join(plan.refusals))
    with connection.transaction():
        if plan.steps:
            # Before any table's lock, which a refresh may wait for with its shard's lock in hand.
            connection.execute(LOCK_ALL_SHARDS)
        for step in plan.steps:
            for role, statement in step.statements:
                connection.execute(f"SET LOCAL ROLE {role.value}")
                connection.execute(statement)
        connection.execute("RESET ROLE")
    return [step.title for step in plan.steps]


def _step(title: str, statements: list[str], remember: str) -> Step:
    return Step(title, [(Role.OWNER, statement) for statement in (*statements, remember)])


def _unchanged(old: msgspec.Struct, new: msgspec.Struct) -> bool:
    return msgspec.structs.replace(old, file="") == msgspec.structs.replace(new, file="")


def _remember_event_type(event_type: EventType) -> str:
    return (
        "INSERT INTO totalizer.event_types (name, time_field, partition, definition) "
        f"VALUES ('{event_type.name}', '{event_type.time_field}', '{event_type.partition}', {_definition(event_type)}) "
        "ON CONFLICT (name) DO UPDATE SET definition = excluded.definition, applied_at = now()"
    )


def _remember_rollup(rollup: Rollup) -> str:
    return (
        "INSERT INTO totalizer.rollups AS r (name, event_type, definition) "
        f"VALUES ('{rollup.name}', '{rollup.event_type}', {_definition(rollup)}) "
        "ON CONFLICT (name) DO UPDATE SET definition = excluded.definition, applied_at = now(), version = r.version + 1"
    )


def _definition(item: EventType | Rollup) -> str:
    text = msgspec.json.encode(msgspec.structs.replace(item, file="")).decode()
    return "'" + text.replace("'", "''") + "'::jsonb"
